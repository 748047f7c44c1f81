package soma.orchestrator_test

import data.soma.fixtures
import data.soma.orchestrator

said(question) := fixtures.said(verdict) if {
	verdict := orchestrator.verdict with input as question
}

worker(capability) := object.union(
	fixtures.workload("system:serviceaccount:north-services:orchestrator", "orchestrator", capability),
	{"subject": {"tenant": "acme"}, "action": {"audit": "write"}},
)

test_allowed[note] if {
	some note, [question, rule, reason] in {
		"the agent generates": [
			fixtures.asked({"action": {"capability": "model:generate"}}),
			"allow_by_role",
			"a role of the subject has model:generate",
		],
		"the worker generates for the tenant": [
			worker("model:generate"),
			"allow_workload",
			"orchestrator works for the tenant acme",
		],
		"the worker persists while work is halted": [
			object.union(worker("session:persist"), {"control": {"halted": true}}),
			"allow_workload",
			"orchestrator works for the tenant acme",
		],
		"a tenant-admin trains while it is unlocked": [
			object.union(fixtures.person(["tenant-admin"], "training:run", "write"), {"control": {"training": "unlocked"}}),
			"allow_by_role",
			"a role of the subject has training:run",
		],
	}
	said(question) == [true, concat(".", ["soma.orchestrator", rule]), [reason]]
}

test_denied[note] if {
	some note, [question, rule, reason] in {
		"nothing asked": [{}, "deny_malformed", "the question lacks a field or has one of a wrong type"],
		"generate while halted": [
			object.union(worker("model:generate"), {"control": {"halted": true}}),
			"deny_halted",
			"agent work is halted",
		],
		"train while locked": [
			fixtures.person(["tenant-admin"], "training:run", "write"),
			"deny_training_locked",
			"training of the tenant acme is locked",
		],
		"another tenant's session": [
			object.union(worker("model:generate"), {"resource": {"tenant": "globex"}}),
			"deny_other_tenant",
			"the session is not of the tenant acme",
		],
		"an operator inside another tenant": [
			object.union(fixtures.person(["operator"], "session:turn", "write"), {"resource": {"tenant": "globex"}}),
			"deny_other_tenant",
			"the session is not of the tenant acme",
		],
		"something that is no step": [
			worker("user:write"),
			"deny_unknown_step",
			"user:write is no step of a session",
		],
		"a worker that is not listed": [
			object.union(worker("model:generate"), {"subject": {"id": "system:serviceaccount:north-services:gateway"}}),
			"deny_by_default",
			"neither a role nor the list of callers has the capability",
		],
		"a role without the capability": [
			fixtures.person(["auditor"], "model:generate", "write"),
			"deny_by_default",
			"neither a role nor the list of callers has the capability",
		],
	}
	said(question) == [false, concat(".", ["soma.orchestrator", rule]), [reason]]
}

test_a_verdict_obliges_to_nothing if {
	orchestrator.verdict.obligations == {} with input as fixtures.person(["auditor"], "model:generate", "write")
}
