package soma.gateway_test

import data.soma.fixtures
import data.soma.gateway

said(question) := fixtures.said(verdict) if {
	verdict := gateway.verdict with input as question
}

caller := "system:serviceaccount:north-services:gateway"

test_allowed[note] if {
	some note, [question, rule, reason] in {
		"an agent takes a turn": [fixtures.question, "allow_by_role", "a role of the subject has session:turn"],
		"a tenant-admin writes a user": [
			fixtures.person(["tenant-admin"], "user:write", "admin"),
			"allow_by_role",
			"a role of the subject has user:write",
		],
		"an operator halts a tenant": [
			fixtures.person(["operator"], "control:halt", "admin"),
			"allow_by_role",
			"a role of the subject has control:halt",
		],
		"an operator suspends another tenant": [
			object.union(fixtures.person(["operator"], "tenant:suspend", "admin"), {"resource": {"tenant": "globex"}}),
			"allow_by_role",
			"a role of the subject has tenant:suspend",
		],
		"an operator asks about the whole platform": [
			object.union(fixtures.person(["operator"], "control:read", "read"), {"resource": {"tenant": null}}),
			"allow_by_role",
			"a role of the subject has control:read",
		],
		"an auditor reads": [
			fixtures.person(["auditor"], "audit:read", "read"),
			"allow_by_role",
			"a role of the subject has audit:read",
		],
		"a member describes the API, which is of no tenant": [
			object.union(fixtures.person(["member"], "api:describe", "none"), {"resource": {"tenant": null}}),
			"allow_by_role",
			"a role of the subject has api:describe",
		],
		"an auditor exports": [
			fixtures.person(["auditor"], "audit:export", "admin"),
			"allow_by_role",
			"a role of the subject has audit:export",
		],
		"a key with scope and role": [
			fixtures.asked({"subject": {"kind": "api-key", "scopes": ["session:turn"]}}),
			"allow_by_role",
			"a role of the subject has session:turn",
		],
		"the gateway verifies a key at identity": [
			fixtures.workload(caller, "identity", "key:verify"),
			"allow_workload",
			"gateway is a listed caller",
		],
		"a sensitive read under a capability that reads": [
			fixtures.person(["tenant-admin"], "key:read", "admin"),
			"allow_by_role",
			"a role of the subject has key:read",
		],
	}
	said(question) == [true, concat(".", ["soma.gateway", rule]), [reason]]
}

test_denied[note] if {
	some note, [question, rule, reason] in {
		"nothing asked": [{}, "deny_malformed", "the question lacks a field or has one of a wrong type"],
		"a refusal of the library": [
			fixtures.asked({"control": {"halted": true}}),
			"deny_halted",
			"agent work is halted",
		],
		"another tenant's session": [
			fixtures.asked({"resource": {"tenant": "globex"}}),
			"deny_other_tenant",
			"the resource is not of the tenant acme",
		],
		"a session of no tenant": [
			fixtures.asked({"resource": {"tenant": null}}),
			"deny_other_tenant",
			"the resource is not of the tenant acme",
		],
		"a person of no tenant describes another's": [
			object.union(fixtures.person(["member"], "tenant:read", "read"), {"subject": {"tenant": null}}),
			"deny_other_tenant",
			"the resource is not of the tenant platform",
		],
		"a member describes the API to another tenant": [
			object.union(fixtures.person(["member"], "api:describe", "none"), {"resource": {"tenant": "globex"}}),
			"deny_other_tenant",
			"the resource is not of the tenant acme",
		],
		"halted by a tenant-admin": [
			fixtures.person(["tenant-admin"], "control:halt", "admin"),
			"deny_not_operator",
			"control:halt is for operators",
		],
		"halted by the key of an operator": [
			object.union(
				fixtures.person(["operator"], "control:halt", "admin"),
				{"subject": {"kind": "api-key", "scopes": ["control:halt"]}},
			),
			"deny_not_operator",
			"control:halt is for operators",
		],
		"a route that writes under a reading capability": [
			fixtures.person(["tenant-admin"], "user:read", "write"),
			"deny_write_by_reading_capability",
			"the route writes under a capability that only reads",
		],
		"an auditor that closes a session": [
			fixtures.person(["auditor"], "session:close", "write"),
			"deny_write_by_reader",
			"the roles of the subject only read",
		],
		"an auditor that writes a user": [
			fixtures.person(["auditor"], "user:write", "admin"),
			"deny_write_by_reader",
			"the roles of the subject only read",
		],
		"a workload that is not listed": [
			fixtures.workload(caller, "identity", "user:write"),
			"deny_by_default",
			"no role of the subject has the capability",
		],
		"a workload of a strange namespace": [
			fixtures.workload("system:serviceaccount:default:gateway", "identity", "key:verify"),
			"deny_by_default",
			"no role of the subject has the capability",
		],
		"a role without the capability": [
			fixtures.person(["member"], "user:write", "write"),
			"deny_by_default",
			"no role of the subject has the capability",
		],
		"a capability without a verb": [
			fixtures.person(["member"], "nonsense", "write"),
			"deny_by_default",
			"no role of the subject has the capability",
		],
	}
	said(question) == [false, concat(".", ["soma.gateway", rule]), [reason]]
}

test_a_verdict_obliges_to_nothing if {
	gateway.verdict.obligations == {} with input as fixtures.question
	gateway.verdict.obligations == {} with input as fixtures.person([], "nonsense", "none")
}
