# Questions that the tests of every policy begin with.
package soma.fixtures

# An agent of acme that takes a turn in its own session.
question := {
	"subject": {
		"tenant": "acme",
		"id": "agent-7",
		"kind": "service-account",
		"roles": ["agent"],
		"teams": ["blue"],
		"client": "acme-agent",
		"scopes": null,
	},
	"action": {
		"service": "gateway",
		"route": "createTurn",
		"method": "POST",
		"capability": "session:turn",
		"audit": "write",
	},
	"resource": {"tenant": "acme", "type": "session", "id": "s-1"},
	"relation": {"required": "can_use", "held": true},
	"control": {"halted": false, "suspended": null, "revoked": false, "training": "locked"},
	"context": {"time": "2026-01-01T00:00:00.000Z", "requestId": "r-1"},
}

asked(patch) := object.union(question, patch)

person(roles, capability, audit) := asked({
	"subject": {"id": "ada", "kind": "user", "client": "somagent-console", "roles": roles},
	"action": {"route": "any", "capability": capability, "audit": audit},
	"resource": {"type": "any", "id": null},
	"relation": {"required": null, "held": null},
})

workload(name, service, capability) := asked({
	"subject": {"tenant": null, "id": name, "kind": "workload", "roles": [], "client": null},
	"action": {"service": service, "route": "any", "capability": capability, "audit": "read"},
	"resource": {"tenant": "acme", "type": "any", "id": null},
	"relation": {"required": null, "held": null},
})

# What of a verdict the tests compare.
said(verdict) := [verdict.allow, verdict.rule, verdict.reasons]

# The same answer for each field that is missing.
fields := [
	"/subject",
	"/subject/tenant",
	"/subject/id",
	"/subject/kind",
	"/subject/roles",
	"/subject/scopes",
	"/action",
	"/action/service",
	"/action/capability",
	"/action/audit",
	"/resource",
	"/resource/tenant",
	"/resource/type",
	"/relation",
	"/relation/required",
	"/relation/held",
	"/control",
	"/control/halted",
	"/control/suspended",
	"/control/revoked",
	"/control/training",
]
