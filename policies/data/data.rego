# Who may read and write which class of data.
package soma.data

import data.soma.lib

policy := "soma.data"

default verdict := {
	"allow": false,
	"rule": "soma.data.deny_by_default",
	"reasons": ["no role of the subject has the capability for this class of data"],
	"obligations": {},
}

# METADATA
# entrypoint: true
verdict := lib.deny(policy, lib.refusal.id, lib.refusal.reason) if {
	lib.refusal
} else := lib.deny(policy, "deny_unknown_class", concat("", ["data of type ", input.resource.type, " has no class"])) if {
	not class
} else := lib.deny(policy, "deny_secret", "secret data is for listed workloads only") if {
	class == "secret"
	not lib.listed("data")
} else := lib.allow(policy, "allow_listed_workload", concat("", [lib.workload, " is listed for secret data"])) if {
	class == "secret"
} else := lib.deny(policy, "deny_other_tenant", concat("", ["the data is not of the tenant ", lib.tenant])) if {
	not tenant_fits
} else := lib.deny(policy, "deny_restricted_write", "restricted data is only appended by its own service") if {
	class == "restricted"
	lib.writes
} else := lib.deny(policy, "deny_personal_without_relation", "personal data needs a relation that is held") if {
	class == "personal"
	input.relation.required == null
} else := lib.allow(policy, "allow_on_behalf", concat("", [lib.workload, " asks for one whose relation is held"])) if {
	on_behalf
} else := lib.deny(policy, "deny_write_by_reader", "the roles of the subject only read") if {
	lib.writes
	lib.only_reads
} else := lib.allow(policy, "allow_by_role", concat("", ["a role of the subject has ", input.action.capability])) if {
	lib.granted
}

# A workload that the memory gateway serves acts for the person whose relation was asked for, in that person's tenant.
on_behalf if {
	class == "personal"
	is_string(input.resource.tenant)
	lib.listed("memory-gateway")
}

class := data.facts.classes[input.resource.type]

tenant_fits if lib.same_tenant

tenant_fits if on_behalf

# Operators look at what the platform records, never at what a tenant says.
tenant_fits if {
	lib.operator
	class == "restricted"
}
