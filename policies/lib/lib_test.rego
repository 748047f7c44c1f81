package soma.lib_test

import data.soma.fixtures
import data.soma.lib

malformed := "the question lacks a field or has one of a wrong type"

test_question_of_the_fixtures_is_refused_by_nothing if {
	not lib.refusal with input as fixtures.question
}

test_a_missing_field_is_refused[field] if {
	some field in fixtures.fields
	refusal := lib.refusal with input as json.remove(fixtures.question, [field])
	refusal == {"id": "deny_malformed", "reason": malformed}
}

test_a_wrong_type_is_refused[note] if {
	some note, patch in {
		"tenant is a number": {"subject": {"tenant": 1}},
		"id is a number": {"subject": {"id": 7}},
		"id is empty": {"subject": {"id": ""}},
		"kind is unknown": {"subject": {"kind": "system"}},
		"roles are a text": {"subject": {"roles": "operator"}},
		"scopes are a text": {"subject": {"scopes": "session:turn"}},
		"service is a number": {"action": {"service": 1}},
		"capability is a number": {"action": {"capability": 1}},
		"audit is unknown": {"action": {"audit": "some"}},
		"resource's tenant is a number": {"resource": {"tenant": 1}},
		"resource's type is null": {"resource": {"type": null}},
		"relation is a number": {"relation": {"required": 1}},
		"relation is held a bit": {"relation": {"held": "yes"}},
		"halted is a text": {"control": {"halted": "false"}},
		"suspended is something else": {"control": {"suspended": "team"}},
		"revoked is a text": {"control": {"revoked": "false"}},
		"training is something else": {"control": {"training": "open"}},
	}
	lib.refusal.id == "deny_malformed" with input as fixtures.asked(patch)
}

test_an_odd_but_right_question_is_refused_by_nothing[note] if {
	some note, patch in {
		"no tenant": {"subject": {"tenant": null}},
		"resource of no tenant": {"resource": {"tenant": null}},
		"user": {"subject": {"kind": "user"}},
		"key with the scope": {"subject": {"kind": "api-key", "scopes": ["session:turn"]}},
		"person with the scope": {"subject": {"scopes": ["session:turn"]}},
		"audit none": {"action": {"audit": "none"}},
		"audit read": {"action": {"audit": "read"}},
		"audit admin": {"action": {"audit": "admin"}},
		"no relation": {"relation": {"required": null, "held": null}},
		"a relation that nobody asked for is not held": {"relation": {"required": null, "held": false}},
		"unlocked": {"control": {"training": "unlocked"}},
		"halted, and no agent work": {"action": {"capability": "session:read"}, "control": {"halted": true}},
		"locked, and no training": {"action": {"capability": "training:read"}},
		"unlocked training": {"action": {"capability": "training:run"}, "control": {"training": "unlocked"}},
	}
	count([refusal | refusal := lib.refusal with input as fixtures.asked(patch)]) == 0
}

test_refusals_that_no_role_outweighs[note] if {
	some note, [patch, id, reason] in {
		"revoked": [{"control": {"revoked": true}}, "deny_revoked", "the session, token or key is revoked"],
		"tenant": [{"control": {"suspended": "tenant"}}, "deny_suspended_tenant", "the tenant acme is suspended"],
		"tenant of nobody": [
			{"subject": {"tenant": null}, "control": {"suspended": "tenant"}},
			"deny_suspended_tenant",
			"the tenant platform is suspended",
		],
		"user": [{"control": {"suspended": "user"}}, "deny_suspended_user", "agent-7 is suspended"],
		"key without scopes": [
			{"subject": {"kind": "api-key"}},
			"deny_unscoped_key",
			"an API key without scopes may do nothing",
		],
		"key with other scopes": [
			{"subject": {"kind": "api-key", "scopes": ["session:read"]}},
			"deny_scope",
			"the key's scopes lack session:turn",
		],
		"scopes of a person": [{"subject": {"scopes": []}}, "deny_scope", "the key's scopes lack session:turn"],
		"halted": [{"control": {"halted": true}}, "deny_halted", "agent work is halted"],
		"locked": [
			{"action": {"capability": "training:export"}},
			"deny_training_locked",
			"training of the tenant acme is locked",
		],
		"not held": [{"relation": {"held": false}}, "deny_relation", "the relation can_use is not held"],
		"not known to be held": [{"relation": {"held": null}}, "deny_relation", "the relation can_use is not held"],
	}
	lib.refusal == {"id": id, "reason": reason} with input as fixtures.asked(patch)
}

test_the_first_refusal_decides if {
	everything := {
		"subject": {"kind": "api-key", "scopes": null},
		"control": {"revoked": true, "suspended": "tenant", "halted": true},
		"relation": {"held": false},
	}
	lib.refusal.id == "deny_revoked" with input as fixtures.asked(everything)
	lib.refusal.id == "deny_suspended_tenant" with input as fixtures.asked(object.union(
		everything,
		{"control": {"revoked": false}},
	))
	lib.refusal.id == "deny_unscoped_key" with input as fixtures.asked(object.union(
		everything,
		{"control": {"revoked": false, "suspended": null}},
	))
}

test_operators_are_people_and_accounts if {
	lib.operator with input as fixtures.person(["operator"], "control:halt", "admin")
	lib.operator with input as fixtures.asked({"subject": {"roles": ["member", "operator"]}})
	not lib.operator with input as fixtures.person(["tenant-admin"], "control:halt", "admin")
	not lib.operator with input as fixtures.asked({"subject": {"roles": ["operator"], "kind": "api-key"}})
	not lib.operator with input as fixtures.asked({"subject": {"roles": ["operator"], "kind": "workload"}})
}

test_two_that_have_no_tenant_are_not_of_the_same if {
	lib.same_tenant with input as fixtures.question
	not lib.same_tenant with input as fixtures.asked({"resource": {"tenant": "globex"}})
	not lib.same_tenant with input as fixtures.asked({"resource": {"tenant": null}, "subject": {"tenant": null}})
}

test_a_role_grants_what_it_lists if {
	lib.granted with input as fixtures.question
	lib.granted with input as fixtures.person(["auditor", "member"], "tenant:read", "read")
	not lib.granted with input as fixtures.person(["agent"], "tenant:read", "read")
	not lib.granted with input as fixtures.person(["unknown"], "tenant:read", "read")
	not lib.granted with input as fixtures.person([], "tenant:read", "read")
	not lib.granted with input as fixtures.asked({"subject": {"kind": "workload"}})
}

test_who_only_reads if {
	lib.only_reads with input as fixtures.person(["auditor"], "audit:read", "read")
	not lib.only_reads with input as fixtures.person(["auditor", "member"], "audit:read", "read")
}

test_what_writes if {
	lib.writes with input as fixtures.person([], "any", "write")
	lib.writes with input as fixtures.person([], "any", "admin")
	not lib.writes with input as fixtures.person([], "any", "read")
	lib.writes with input as fixtures.person([], "user:read", "write")
	lib.writes with input as fixtures.person([], "user:write", "admin")
	not lib.writes with input as fixtures.person([], "any", "none")
	not lib.writes with input as fixtures.person([], "audit:export", "admin")
}

test_workloads_are_known_by_account_and_plane[id] if {
	some id, name in {
		"system:serviceaccount:north-services:gateway": "gateway",
		"system:serviceaccount:eu-central-data:audit": "audit",
		"system:serviceaccount:north-identity:keycloak": "keycloak",
		"system:serviceaccount:north-runtime:slm": "slm",
		"system:serviceaccount:north-system:bootstrap": "bootstrap",
	}
	lib.workload == name with input as fixtures.workload(id, "identity", "control:read")
}

test_strange_accounts_are_no_workloads[id] if {
	some id in [
		"system:serviceaccount:default:gateway",
		"system:serviceaccount:northservices:gateway",
		"system:serviceaccount:north-services",
		"system:serviceaccount:north-services:gateway:more",
		"system:node:north-services:gateway",
		"user:serviceaccount:north-services:gateway",
		"gateway",
	]
	count([name | name := lib.workload with input as fixtures.workload(id, "identity", "control:read")]) == 0
}

test_only_a_workload_is_a_workload if {
	id := "system:serviceaccount:north-services:gateway"
	not lib.workload with input as fixtures.asked({"subject": {"id": id, "kind": "user"}})
}

test_listed_callers if {
	id := "system:serviceaccount:north-services:gateway"
	lib.listed("identity") with input as fixtures.workload(id, "identity", "key:verify")
	not lib.listed("identity") with input as fixtures.workload(id, "identity", "key:write")
	not lib.listed("audit") with input as fixtures.workload(id, "audit", "key:verify")
	not lib.listed("nowhere") with input as fixtures.workload(id, "nowhere", "key:verify")
}

test_verdicts_have_one_shape if {
	lib.deny("soma.x", "deny_y", "why") == {
		"allow": false,
		"rule": "soma.x.deny_y",
		"reasons": ["why"],
		"obligations": {},
	}
	lib.allow("soma.x", "allow_y", "why") == {
		"allow": true,
		"rule": "soma.x.allow_y",
		"reasons": ["why"],
		"obligations": {},
	}
}

# Facts that the rules rely on.
test_nobody_but_operators_has_what_is_for_operators if {
	holders := {role |
		some role, capabilities in data.facts.roles
		some capability in data.facts.operator_only
		capability in capabilities
	}
	holders == {"operator"}
}
