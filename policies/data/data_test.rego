package soma.data_test

import data.soma.data as access
import data.soma.fixtures

said(question) := fixtures.said(verdict) if {
	verdict := access.verdict with input as question
}

about(type, roles, capability, audit) := object.union(
	fixtures.person(roles, capability, audit),
	{"action": {"service": "data"}, "resource": {"type": type, "id": "x-1"}},
)

worker := "system:serviceaccount:north-runtime:orchestrator"

remembers(resource, relation) := object.union_n([
	fixtures.workload(worker, "data", "memory:write"),
	{"resource": {"type": "memory"}},
	{"resource": resource},
	{"relation": relation},
])

held := {"relation": {"required": "can_use", "held": true}}

caller := "system:serviceaccount:north-identity:identity"

test_allowed[note] if {
	some note, [question, rule, reason] in {
		"a member reads a session of its tenant": [
			about("session", ["member"], "session:read", "read"),
			"allow_by_role",
			"a role of the subject has session:read",
		],
		"a member writes a memory that it holds": [
			object.union(about("memory", ["member"], "memory:write", "write"), held),
			"allow_by_role",
			"a role of the subject has memory:write",
		],
		"an auditor reads the audit": [
			about("audit", ["auditor"], "audit:read", "read"),
			"allow_by_role",
			"a role of the subject has audit:read",
		],
		"an operator reads the audit of another tenant": [
			object.union(about("audit", ["operator"], "audit:read", "read"), {"resource": {"tenant": "globex"}}),
			"allow_by_role",
			"a role of the subject has audit:read",
		],
		"the orchestrator remembers for one who holds the relation": [
			remembers({}, {"required": "owner", "held": true}),
			"allow_on_behalf",
			"orchestrator asks for one whose relation is held",
		],
		"a tenant's administrator forgets what it manages": [
			object.union(
				about("memory", ["tenant-admin"], "memory:forget", "write"),
				{"relation": {"required": "can_manage", "held": true}},
			),
			"allow_by_role",
			"a role of the subject has memory:forget",
		],
		"a listed workload uses a secret": [
			object.union(fixtures.workload(caller, "data", "key:verify"), {"resource": {"type": "api-key"}}),
			"allow_listed_workload",
			"identity is listed for secret data",
		],
	}
	said(question) == [true, concat(".", ["soma.data", rule]), [reason]]
}

test_denied[note] if {
	some note, [question, rule, reason] in {
		"nothing asked": [{}, "deny_malformed", "the question lacks a field or has one of a wrong type"],
		"a relation that is not held": [
			object.union(
				about("memory", ["member"], "memory:write", "write"),
				{"relation": {"required": "can_use", "held": false}},
			),
			"deny_relation",
			"the relation can_use is not held",
		],
		"data without a class": [
			about("rumour", ["member"], "session:read", "read"),
			"deny_unknown_class",
			"data of type rumour has no class",
		],
		"a secret, by an operator": [
			about("signing-key", ["operator"], "key:read", "read"),
			"deny_secret",
			"secret data is for listed workloads only",
		],
		"a secret, by a workload that is not listed": [
			object.union(fixtures.workload(caller, "data", "key:read"), {"resource": {"type": "api-key"}}),
			"deny_secret",
			"secret data is for listed workloads only",
		],
		"a session, by a workload that is listed for secrets": [
			object.union(fixtures.workload(caller, "data", "key:verify"), {"resource": {"type": "session"}}),
			"deny_other_tenant",
			"the data is not of the tenant platform",
		],
		"a session of another tenant": [
			object.union(about("session", ["member"], "session:read", "read"), {"resource": {"tenant": "globex"}}),
			"deny_other_tenant",
			"the data is not of the tenant acme",
		],
		"a session of another tenant, by an operator": [
			object.union(about("session", ["operator"], "session:read", "read"), {"resource": {"tenant": "globex"}}),
			"deny_other_tenant",
			"the data is not of the tenant acme",
		],
		"the audit of another tenant, by an auditor": [
			object.union(about("audit", ["auditor"], "audit:read", "read"), {"resource": {"tenant": "globex"}}),
			"deny_other_tenant",
			"the data is not of the tenant acme",
		],
		"writing into the audit": [
			about("audit", ["operator"], "audit:read", "write"),
			"deny_restricted_write",
			"restricted data is only appended by its own service",
		],
		"the orchestrator remembers without a relation": [
			remembers({}, {"required": null, "held": null}),
			"deny_personal_without_relation",
			"personal data needs a relation that is held",
		],
		"the orchestrator remembers for one who does not hold the relation": [
			remembers({}, {"required": "owner", "held": false}),
			"deny_relation",
			"the relation owner is not held",
		],
		"the orchestrator remembers for nobody's tenant": [
			remembers({"tenant": null}, {"required": "owner", "held": true}),
			"deny_other_tenant",
			"the data is not of the tenant platform",
		],
		"the orchestrator writes a session as data": [
			remembers({"type": "session"}, {"required": "owner", "held": true}),
			"deny_other_tenant",
			"the data is not of the tenant platform",
		],
		"the orchestrator reads an API key": [
			remembers({"type": "api-key"}, {"required": "owner", "held": true}),
			"deny_secret",
			"secret data is for listed workloads only",
		],
		"the orchestrator forgets": [
			object.union(
				remembers({}, {"required": "owner", "held": true}),
				{"action": {"capability": "memory:forget"}},
			),
			"deny_other_tenant",
			"the data is not of the tenant platform",
		],
		"a workload that the memory gateway does not serve": [
			object.union(remembers({}, {"required": "owner", "held": true}), {"subject": {"id": caller}}),
			"deny_other_tenant",
			"the data is not of the tenant platform",
		],
		"a memory without a relation": [
			about("memory", ["member"], "memory:read", "read"),
			"deny_personal_without_relation",
			"personal data needs a relation that is held",
		],
		"an auditor that writes a session": [
			about("session", ["auditor"], "session:read", "write"),
			"deny_write_by_reader",
			"the roles of the subject only read",
		],
		"a role without the capability": [
			about("session", ["operator"], "session:read", "read"),
			"deny_by_default",
			"no role of the subject has the capability for this class of data",
		],
	}
	said(question) == [false, concat(".", ["soma.data", rule]), [reason]]
}

test_a_verdict_obliges_to_nothing if {
	access.verdict.obligations == {} with input as about("session", ["operator"], "session:read", "read")
}

# Facts that the rule relies on.
test_every_class_is_one_of_four[type] if {
	some type, class in data.facts.classes
	class in ["personal", "restricted", "secret", "tenant"]
}
