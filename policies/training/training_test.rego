package soma.training_test

import data.soma.fixtures
import data.soma.training

said(question) := fixtures.said(verdict) if {
	verdict := training.verdict with input as question
}

unlocked := {"control": {"training": "unlocked"}}

approval(by) := object.union(
	fixtures.person(["tenant-admin"], "training:approve", "admin"),
	{"resource": {"proposedBy": by}},
)

test_allowed[note] if {
	some note, [question, capability] in {
		"a tenant-admin proposes": [fixtures.person(["tenant-admin"], "training:propose", "admin"), "training:propose"],
		"a second one approves": [approval("grace"), "training:approve"],
		"an operator approves for another tenant": [
			object.union(
				fixtures.person(["operator"], "training:approve", "admin"),
				{"resource": {"tenant": "globex", "proposedBy": "grace"}},
			),
			"training:approve",
		],
		"a member looks": [fixtures.person(["member"], "training:read", "read"), "training:read"],
		"training runs while unlocked": [
			object.union(fixtures.person(["tenant-admin"], "training:run", "write"), unlocked),
			"training:run",
		],
		"a machine exports while unlocked": [
			object.union(
				fixtures.person(["tenant-admin"], "training:export", "write"),
				object.union(unlocked, {"subject": {"kind": "service-account"}}),
			),
			"training:export",
		],
	}
	reason := concat("", ["a role of the subject has ", capability])
	said(question) == [true, "soma.training.allow_by_role", [reason]]
}

test_denied[note] if {
	some note, [question, rule, reason] in {
		"nothing asked": [{}, "deny_malformed", "the question lacks a field or has one of a wrong type"],
		"training runs while locked": [
			fixtures.person(["tenant-admin"], "training:run", "write"),
			"deny_training_locked",
			"training of the tenant acme is locked",
		],
		"something else": [
			fixtures.person(["tenant-admin"], "user:write", "write"),
			"deny_not_training",
			"user:write is not about training",
		],
		"another tenant's lock": [
			object.union(fixtures.person(["tenant-admin"], "training:propose", "admin"), {"resource": {"tenant": "globex"}}),
			"deny_other_tenant",
			"the training is not of the tenant acme",
		],
		"an operator trains on another tenant": [
			object.union(
				fixtures.person(["operator"], "training:run", "write"),
				object.union(unlocked, {"resource": {"tenant": "globex"}}),
			),
			"deny_other_tenant",
			"the training is not of the tenant acme",
		],
		"a machine proposes": [
			object.union(
				fixtures.person(["tenant-admin"], "training:propose", "admin"),
				{"subject": {"kind": "service-account"}},
			),
			"deny_not_a_person",
			"the lock is turned by people only",
		],
		"a machine approves": [
			object.union(approval("grace"), {"subject": {"kind": "service-account"}}),
			"deny_not_a_person",
			"the lock is turned by people only",
		],
		"the proposer approves": [
			approval("ada"),
			"deny_same_person",
			"a second person has to approve what the first one proposed",
		],
		"nobody knows who proposed": [
			fixtures.person(["tenant-admin"], "training:approve", "admin"),
			"deny_same_person",
			"a second person has to approve what the first one proposed",
		],
		"the proposer is no name": [
			approval(null),
			"deny_same_person",
			"a second person has to approve what the first one proposed",
		],
		"a member proposes": [
			fixtures.person(["member"], "training:propose", "admin"),
			"deny_by_default",
			"no role of the subject has the capability",
		],
	}
	said(question) == [false, concat(".", ["soma.training", rule]), [reason]]
}

test_a_verdict_obliges_to_nothing if {
	training.verdict.obligations == {} with input as fixtures.person(["member"], "training:propose", "admin")
}
