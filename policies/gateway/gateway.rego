# Every request to an HTTP API of the platform.
package soma.gateway

import data.soma.lib

policy := "soma.gateway"

default verdict := {
	"allow": false,
	"rule": "soma.gateway.deny_by_default",
	"reasons": ["no role of the subject has the capability"],
	"obligations": {},
}

# METADATA
# entrypoint: true
verdict := lib.deny(policy, lib.refusal.id, lib.refusal.reason) if {
	lib.refusal
} else := lib.deny(policy, "deny_other_tenant", concat("", ["the resource is not of the tenant ", lib.tenant])) if {
	not tenant_fits
} else := lib.deny(policy, "deny_not_operator", concat("", [input.action.capability, " is for operators"])) if {
	input.action.capability in data.facts.operator_only
	not lib.operator
} else := lib.deny(policy, "deny_write_by_reading_capability", "the route writes under a capability that only reads") if {
	input.action.audit == "write"
	lib.verb in data.facts.reading_verbs
} else := lib.allow(policy, "allow_workload", concat("", [lib.workload, " is a listed caller"])) if {
	lib.listed(input.action.service)
} else := lib.deny(policy, "deny_write_by_reader", "the roles of the subject only read") if {
	lib.writes
	lib.only_reads
} else := lib.allow(policy, "allow_by_role", concat("", ["a role of the subject has ", input.action.capability])) if {
	lib.granted
}

tenant_fits if lib.same_tenant

tenant_fits if lib.operator

# Workloads serve every tenant; the list of callers holds them.
tenant_fits if input.subject.kind == "workload"

tenant_fits if {
	input.resource.tenant == null
	input.action.capability in data.facts.tenantless
}
