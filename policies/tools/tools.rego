# Which persona of which tenant may call which tool.
package soma.tools

import data.soma.lib

policy := "soma.tools"

default verdict := {
	"allow": false,
	"rule": "soma.tools.deny_by_default",
	"reasons": ["no role of the subject may call tools"],
	"obligations": {},
}

# METADATA
# entrypoint: true
verdict := lib.deny(policy, lib.refusal.id, lib.refusal.reason) if {
	lib.refusal
} else := lib.deny(policy, "deny_other_tenant", concat("", ["the call is not of the tenant ", lib.tenant])) if {
	not lib.same_tenant
} else := lib.deny(policy, "deny_not_a_tool_call", "the question is not about a call of a tool") if {
	not tool_call
} else := lib.deny(policy, "deny_unknown_tool", concat("", ["no tool ", input.resource.id, " is known"])) if {
	not tool
} else := lib.deny(policy, "deny_tenant", concat("", ["the tool is not for the tenant ", lib.tenant])) if {
	not admits(tool.tenants, input.subject.tenant)
} else := lib.deny(policy, "deny_persona", "the tool is not for this persona") if {
	not admits(tool.personas, input.subject.client)
} else := lib.deny(policy, "deny_write_without_relation", "a tool that changes something needs a relation that is held") if {
	tool.effect != "read"
	input.relation.required == null
} else := lib.allow(policy, "allow_by_role", "the persona of the tenant may call the tool") if {
	lib.granted
}

tool_call if {
	input.resource.type == "tool"
	is_string(input.resource.id)
	input.action.capability == "tool:call"
}

tool := data.facts.tools[input.resource.id]

admits(names, _) if "*" in names

admits(names, name) if name in names
