package soma.tools_test

import data.soma.fixtures
import data.soma.tools

said(question) := fixtures.said(verdict) if {
	verdict := tools.verdict with input as question
}

calls(tool, patch) := object.union(
	fixtures.asked({
		"action": {"service": "tools", "route": "call", "capability": "tool:call"},
		"resource": {"type": "tool", "id": tool},
	}),
	patch,
)

catalogue := {
	"open.read": {"effect": "read", "tenants": ["*"], "personas": ["*"]},
	"open.write": {"effect": "write", "tenants": ["*"], "personas": ["*"]},
	"held.read": {"effect": "read", "tenants": ["acme"], "personas": ["acme-agent"]},
}

no_relation := {"relation": {"required": null, "held": null}}

test_allowed[note] if {
	some note, question in {
		"anybody's tool": calls("open.read", no_relation),
		"a tool of this tenant and persona": calls("held.read", no_relation),
		"a tool that writes, with a relation": calls("open.write", {}),
	}
	said(question) == [true, "soma.tools.allow_by_role", ["the persona of the tenant may call the tool"]] with data.facts.tools as catalogue
}

test_denied[note] if {
	some note, [question, rule, reason] in {
		"nothing asked": [{}, "deny_malformed", "the question lacks a field or has one of a wrong type"],
		"halted": [calls("open.read", {"control": {"halted": true}}), "deny_halted", "agent work is halted"],
		"another tenant's call": [
			calls("open.read", {"resource": {"tenant": "globex"}}),
			"deny_other_tenant",
			"the call is not of the tenant acme",
		],
		"not a tool": [
			calls("open.read", {"resource": {"type": "session"}}),
			"deny_not_a_tool_call",
			"the question is not about a call of a tool",
		],
		"not a call": [
			calls("open.read", {"action": {"capability": "session:turn"}}),
			"deny_not_a_tool_call",
			"the question is not about a call of a tool",
		],
		"no tool named": [calls(null, {}), "deny_not_a_tool_call", "the question is not about a call of a tool"],
		"an unknown tool": [calls("gone", {}), "deny_unknown_tool", "no tool gone is known"],
		"a tool of another tenant": [
			calls("held.read", {"subject": {"tenant": "globex"}, "resource": {"tenant": "globex"}}),
			"deny_tenant",
			"the tool is not for the tenant globex",
		],
		"a tool of another persona": [
			calls("held.read", {"subject": {"client": "acme-other"}}),
			"deny_persona",
			"the tool is not for this persona",
		],
		"a tool that writes, without a relation": [
			calls("open.write", no_relation),
			"deny_write_without_relation",
			"a tool that changes something needs a relation that is held",
		],
		"a role that calls no tools": [
			calls("open.read", {"subject": {"roles": ["auditor"]}}),
			"deny_by_default",
			"no role of the subject may call tools",
		],
	}
	said(question) == [false, concat(".", ["soma.tools", rule]), [reason]] with data.facts.tools as catalogue
}

test_a_verdict_obliges_to_nothing if {
	question := calls("open.read", {"subject": {"roles": ["auditor"]}})
	tools.verdict.obligations == {} with input as question with data.facts.tools as catalogue
}

# Facts that the rule relies on.
test_every_tool_says_what_it_does[name] if {
	some name, tool in data.facts.tools
	tool.effect in ["read", "write"]
	count(tool.tenants) > 0
	count(tool.personas) > 0
}
