# Training on a tenant's data: the lock, who may turn it, and what needs it open.
package soma.training

import data.soma.lib

policy := "soma.training"

default verdict := {
	"allow": false,
	"rule": "soma.training.deny_by_default",
	"reasons": ["no role of the subject has the capability"],
	"obligations": {},
}

# METADATA
# entrypoint: true
verdict := lib.deny(policy, lib.refusal.id, lib.refusal.reason) if {
	lib.refusal
} else := lib.deny(policy, "deny_not_training", concat("", [input.action.capability, " is not about training"])) if {
	not startswith(input.action.capability, "training:")
} else := lib.deny(policy, "deny_other_tenant", concat("", ["the training is not of the tenant ", lib.tenant])) if {
	not tenant_fits
} else := lib.deny(policy, "deny_not_a_person", "the lock is turned by people only") if {
	turns_the_lock
	input.subject.kind != "user"
} else := lib.deny(policy, "deny_same_person", "a second person has to approve what the first one proposed") if {
	input.action.capability == "training:approve"
	not second_person
} else := lib.allow(policy, "allow_by_role", concat("", ["a role of the subject has ", input.action.capability])) if {
	lib.granted
}

turns_the_lock if input.action.capability in ["training:approve", "training:propose"]

# An approval whose proposer is not known is nobody's second.
second_person if {
	is_string(input.resource.proposedBy)
	input.resource.proposedBy != input.subject.id
}

tenant_fits if lib.same_tenant

# Operators may turn a tenant's lock; they never train on its data.
tenant_fits if {
	lib.operator
	not input.action.capability in data.facts.needs_unlocked
}
