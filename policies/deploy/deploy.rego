# Every Kubernetes object of the platform: in a preview, at apply and at admission.
package soma.deploy

policy := "soma.deploy"

default verdict := {
	"allow": false,
	"rule": "soma.deploy.deny_by_default",
	"reasons": ["the question holds no Kubernetes object"],
	"obligations": {},
}

# METADATA
# entrypoint: true
verdict := {
	"allow": false,
	"rule": concat(".", [policy, first]),
	"reasons": [violation.reason | some violation in sorted],
	"obligations": {},
} if {
	well_formed
	sorted := sort([violation | some violation in violations])
	first := sorted[0].id
} else := {
	"allow": true,
	"rule": "soma.deploy.allow_clean",
	"reasons": [concat(" ", [name, "keeps every rule"])],
	"obligations": {},
} if {
	well_formed
}

well_formed if {
	is_string(input.object.kind)
	is_string(input.object.apiVersion)
	is_string(input.object.metadata.name)
}

name := concat(" ", [input.object.kind, input.object.metadata.name])

# Kind → path of the pod template's spec.
pod := input.object.spec if input.object.kind == "Pod"

pod := input.object.spec.template.spec if {
	input.object.kind in ["DaemonSet", "Deployment", "Job", "ReplicaSet", "StatefulSet"]
}

pod := input.object.spec.jobTemplate.spec.template.spec if input.object.kind == "CronJob"

pod_labels := object.get(input.object.metadata, "labels", {}) if input.object.kind == "Pod"

pod_labels := object.get(input.object.spec.template, ["metadata", "labels"], {}) if {
	input.object.kind in ["DaemonSet", "Deployment", "Job", "ReplicaSet", "StatefulSet"]
}

pod_labels := object.get(input.object.spec.jobTemplate.spec.template, ["metadata", "labels"], {}) if {
	input.object.kind == "CronJob"
}

# A pod spec may also stand inside an operator's object; each of its templates is held to the same rules.
pods contains pod

pods contains input.object.spec.headGroupSpec.template.spec if input.object.kind == "RayCluster"

pods contains group.template.spec if {
	input.object.kind == "RayCluster"
	some group in input.object.spec.workerGroupSpecs
}

containers contains {"pod": spec, "container": container} if {
	some spec in pods
	some field in ["containers", "ephemeralContainers", "initContainers"]
	some container in spec[field]
}

violate(id, words) := {"id": id, "reason": concat(" ", array.concat([name], words))}

violations contains violate("deny_root", ["container", called(container), "may run as root: set runAsNonRoot"]) if {
	some {"pod": spec, "container": container} in containers
	not non_root(spec, container)
}

violations contains violate("deny_root_user", ["container", called(container), "runs as user 0"]) if {
	some {"pod": spec, "container": container} in containers
	effective(spec, container, "runAsUser") == 0
}

violations contains violate("deny_privileged", ["container", called(container), "is privileged"]) if {
	some {"container": container} in projected
	object.get(container, ["securityContext", "privileged"], false) != false
}

violations contains violate("deny_escalation", ["container", called(container), "lacks allowPrivilegeEscalation: false"]) if {
	some {"container": container} in projected
	object.get(container, ["securityContext", "allowPrivilegeEscalation"], true) != false
}

violations contains violate("deny_writable_root", ["container", called(container), "lacks readOnlyRootFilesystem: true"]) if {
	some {"container": container} in projected
	object.get(container, ["securityContext", "readOnlyRootFilesystem"], false) != true
}

violations contains violate("deny_capabilities", ["container", called(container), "does not drop ALL capabilities"]) if {
	some {"container": container} in projected
	not "ALL" in object.get(container, ["securityContext", "capabilities", "drop"], [])
}

violations contains violate("deny_added_capabilities", ["container", called(container), "adds capabilities"]) if {
	some {"container": container} in projected
	count(object.get(container, ["securityContext", "capabilities", "add"], [])) > 0
}

violations contains violate("deny_seccomp", ["container", called(container), "runs without a seccomp profile"]) if {
	some {"pod": spec, "container": container} in containers
	not confined(spec, container)
}

violations contains violate("deny_tag", ["image", image, "of container", called(container), "has no fixed tag"]) if {
	some {"container": container} in projected
	image := object.get(container, "image", "")
	not pinned(image)
}

violations contains violate("deny_registry", ["image", image, "of container", called(container), "is from an unknown registry"]) if {
	some {"container": container} in projected
	image := object.get(container, "image", "")
	not from_known_registry(image)
}

violations contains violate("deny_unlimited", ["container", called(container), "lacks", concat(".", ["resources", part, amount])]) if {
	some {"container": container} in projected
	some [part, amount] in [["limits", "memory"], ["requests", "cpu"], ["requests", "memory"]]
	object.get(container, ["resources", part, amount], null) == null
}

violations contains violate("deny_host_namespace", ["shares", field, "with the node"]) if {
	some spec in pods
	some field in ["hostIPC", "hostNetwork", "hostPID"]
	object.get(spec, field, false) != false
}

violations contains violate("deny_host_path", ["mounts a path of the node in volume", object.get(volume, "name", "?")]) if {
	some spec in pods
	some volume in spec.volumes
	object.get(volume, "hostPath", null) != null
}

violations contains violate("deny_unguarded", ["is selected by no NetworkPolicy of its own"]) if {
	pod
	is_array(input.context.networkPolicies)
	not guarded
}

violations contains violate("deny_secret_value", ["carries a value: secrets are made inside the cluster"]) if {
	input.object.kind == "Secret"
	some field in ["data", "stringData"]
	count(object.get(input.object, field, {})) > 0
}

violations contains violate("deny_unlimited_rights", ["grants * in", field]) if {
	input.object.kind in ["ClusterRole", "Role"]
	some rule in input.object.rules
	some field in ["apiGroups", "resources", "verbs"]
	"*" in rule[field]
}

violations contains violate("deny_admin", ["binds to the role", input.object.roleRef.name]) if {
	input.object.kind in ["ClusterRoleBinding", "RoleBinding"]
	input.object.roleRef.name in ["admin", "cluster-admin", "edit"]
}

violations contains violate("deny_open_namespace", ["does not enforce the restricted pod security standard"]) if {
	input.object.kind == "Namespace"
	object.get(input.object.metadata, ["labels", "pod-security.kubernetes.io/enforce"], "") != "restricted"
}

# A container that lacks even a name is judged like the others.
called(container) := object.get(container, "name", "?")

# The same container in two templates is one violation.
projected contains {"container": entry.container} if some entry in containers

# The container's setting, else the pod's.
effective(spec, container, field) := object.get(
	object.get(container, "securityContext", {}),
	field,
	object.get(object.get(spec, "securityContext", {}), field, null),
)

non_root(spec, container) if effective(spec, container, "runAsNonRoot") == true

confined(spec, container) if effective(spec, container, "seccompProfile").type in ["Localhost", "RuntimeDefault"]

pinned(image) if contains(image, "@sha256:")

pinned(image) if {
	parts := split(image, "/")
	[_, tag] = split(parts[count(parts) - 1], ":")
	not tag in ["", "latest"]
}

from_known_registry(image) if {
	some registry in data.facts.deploy.registries
	startswith(image, registry)
	of_environment(image)
}

# Where the environment is known, its registry alone will do.
of_environment(_) if object.get(input, ["context", "registries"], null) == null

of_environment(image) if {
	some registry in input.context.registries
	startswith(image, concat("", [registry, "/"]))
}

# A policy for the whole namespace denies by default; it says nothing about this workload.
guarded if {
	some candidate in input.context.networkPolicies
	candidate.metadata.namespace == input.object.metadata.namespace
	wanted := candidate.spec.podSelector.matchLabels
	count(wanted) > 0
	every key, value in wanted {
		pod_labels[key] == value
	}
}
