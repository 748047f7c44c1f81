# What every policy of the platform shares: shape of a request, refusals that no role outweighs, who has a capability.
package soma.lib

# A verdict against the request. `policy` is the package, `id` the deciding rule in it.
deny(policy, id, reason) := {
	"allow": false,
	"rule": concat(".", [policy, id]),
	"reasons": [reason],
	"obligations": {},
}

# A verdict for the request.
allow(policy, id, reason) := {
	"allow": true,
	"rule": concat(".", [policy, id]),
	"reasons": [reason],
	"obligations": {},
}

# A request that lacks a field could slip past a rule that asks for it, so it is refused as a whole.
well_formed if {
	subject_well_formed
	action_well_formed
	text_or_null(input.resource.tenant)
	is_string(input.resource.type)
	text_or_null(input.relation.required)
	input.relation.held in [true, false, null]
	is_boolean(input.control.halted)
	input.control.suspended in ["tenant", "user", null]
	is_boolean(input.control.revoked)
	input.control.training in ["locked", "unlocked"]
}

subject_well_formed if {
	text_or_null(input.subject.tenant)
	is_string(input.subject.id)
	input.subject.id != ""
	input.subject.kind in data.facts.kinds
	is_array(input.subject.roles)
	array_or_null(input.subject.scopes)
}

action_well_formed if {
	is_string(input.action.service)
	is_string(input.action.capability)
	input.action.audit in ["none", "read", "write", "admin"]
}

text_or_null(value) if is_string(value)

text_or_null(null)

array_or_null(value) if is_array(value)

array_or_null(null)

# Holds for every policy, whoever asks and whatever may be allowed further down.
refusal := {"id": "deny_malformed", "reason": "the question lacks a field or has one of a wrong type"} if {
	not well_formed
} else := {"id": "deny_revoked", "reason": "the session, token or key is revoked"} if {
	input.control.revoked
} else := {"id": "deny_suspended_tenant", "reason": concat("", ["the tenant ", tenant, " is suspended"])} if {
	input.control.suspended == "tenant"
} else := {"id": "deny_suspended_user", "reason": concat("", [input.subject.id, " is suspended"])} if {
	input.control.suspended == "user"
} else := {"id": "deny_unscoped_key", "reason": "an API key without scopes may do nothing"} if {
	input.subject.kind == "api-key"
	input.subject.scopes == null
} else := {"id": "deny_scope", "reason": concat("", ["the key's scopes lack ", input.action.capability])} if {
	is_array(input.subject.scopes)
	not input.action.capability in input.subject.scopes
} else := {"id": "deny_halted", "reason": "agent work is halted"} if {
	input.control.halted
	input.action.capability in data.facts.agent_work
} else := {"id": "deny_training_locked", "reason": concat("", ["training of the tenant ", tenant, " is locked"])} if {
	input.action.capability in data.facts.needs_unlocked
	input.control.training != "unlocked"
} else := {"id": "deny_relation", "reason": concat("", ["the relation ", input.relation.required, " is not held"])} if {
	input.relation.required != null
	input.relation.held != true
}

tenant := input.subject.tenant if {
	is_string(input.subject.tenant)
} else := "platform"

# Keys are for programs of a tenant: none is ever an operator.
operator if {
	"operator" in input.subject.roles
	input.subject.kind in ["user", "service-account"]
}

same_tenant if {
	is_string(input.subject.tenant)
	input.subject.tenant == input.resource.tenant
}

# Some role of the subject has the capability. Workloads have no roles: they are on a list of callers.
granted if {
	input.subject.kind != "workload"
	some role in input.subject.roles
	input.action.capability in data.facts.roles[role]
}

# The subject has no role but such as only read.
only_reads if {
	every role in input.subject.roles {
		role in data.facts.read_only_roles
	}
}

# The request changes something. A route of class `admin` may also only show what is sensitive.
writes if input.action.audit == "write"

writes if {
	input.action.audit == "admin"
	not verb in data.facts.reading_verbs
}

verb := parts[count(parts) - 1] if {
	parts := split(input.action.capability, ":")
}

# Name of the workload: the ServiceAccount, provided that it stands in a namespace of the platform.
workload := name if {
	input.subject.kind == "workload"
	["system", "serviceaccount", namespace, name] = split(input.subject.id, ":")
	some plane in data.facts.planes
	endswith(namespace, concat("", ["-", plane]))
}

# The workload is on the list of callers of the service.
listed(service) if input.action.capability in data.facts.callers[service][workload]
