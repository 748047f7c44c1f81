# Every step of a session's work: generate, persist, remember, train.
package soma.orchestrator

import data.soma.lib

policy := "soma.orchestrator"

default verdict := {
	"allow": false,
	"rule": "soma.orchestrator.deny_by_default",
	"reasons": ["neither a role nor the list of callers has the capability"],
	"obligations": {},
}

# METADATA
# entrypoint: true
verdict := lib.deny(policy, lib.refusal.id, lib.refusal.reason) if {
	lib.refusal
} else := lib.deny(policy, "deny_other_tenant", concat("", ["the session is not of the tenant ", lib.tenant])) if {
	# Not even an operator works inside a session of another tenant.
	not lib.same_tenant
} else := lib.deny(policy, "deny_unknown_step", concat("", [input.action.capability, " is no step of a session"])) if {
	not input.action.capability in data.facts.steps
} else := lib.allow(policy, "allow_workload", concat("", [lib.workload, " works for the tenant ", lib.tenant])) if {
	lib.listed("orchestrator")
} else := lib.allow(policy, "allow_by_role", concat("", ["a role of the subject has ", input.action.capability])) if {
	lib.granted
}
