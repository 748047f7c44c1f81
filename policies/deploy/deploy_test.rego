package soma.deploy_test

import data.soma.deploy

image := "registry.test/somagent/gateway:0123456789"

facts := {"registries": ["registry.test/", "mirror.test/"]}

container := {
	"name": "server",
	"image": image,
	"resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
	"securityContext": {
		"allowPrivilegeEscalation": false,
		"readOnlyRootFilesystem": true,
		"capabilities": {"drop": ["ALL"]},
	},
}

spec := {
	"securityContext": {"runAsNonRoot": true, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
	"containers": [container],
	"volumes": [{"name": "tmp", "emptyDir": {}}],
}

labels := {"app": "gateway"}

pod := {
	"apiVersion": "v1",
	"kind": "Pod",
	"metadata": {"name": "gateway", "namespace": "north-services", "labels": labels},
	"spec": spec,
}

workload(kind) := {
	"apiVersion": "apps/v1",
	"kind": kind,
	"metadata": {"name": "gateway", "namespace": "north-services"},
	"spec": {"template": {"metadata": {"labels": labels}, "spec": spec}},
}

cron_job := {
	"apiVersion": "batch/v1",
	"kind": "CronJob",
	"metadata": {"name": "gateway", "namespace": "north-services"},
	"spec": {"jobTemplate": {"spec": {"template": {"metadata": {"labels": labels}, "spec": spec}}}},
}

ray(head, worker) := {
	"apiVersion": "ray.io/v1",
	"kind": "RayCluster",
	"metadata": {"name": "gateway"},
	"spec": {
		"headGroupSpec": {"template": {"spec": head}},
		"workerGroupSpecs": [{"template": {"spec": worker}}],
	},
}

with_spec(patch) := object.union(pod, {"spec": patch})

with_container(patch) := with_spec({"containers": [object.union(container, patch)]})

with_security(patch) := with_container({"securityContext": patch})

without(path) := with_spec({"containers": [json.remove(container, [path])]})

said(manifest) := [verdict.allow, verdict.rule, verdict.reasons] if {
	verdict := deploy.verdict with input as {"object": manifest} with data.facts.deploy as facts
}

clean(kind) := [true, "soma.deploy.allow_clean", [concat(" ", [kind, "gateway keeps every rule"])]]

test_good_objects_pass[note] if {
	some note, manifest in {
		"pod": pod,
		"daemon set": workload("DaemonSet"),
		"deployment": workload("Deployment"),
		"job": workload("Job"),
		"replica set": workload("ReplicaSet"),
		"stateful set": workload("StatefulSet"),
		"cron job": cron_job,
		"ray cluster": ray(spec, spec),
		"config map": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "gateway"}, "data": {"a": "b"}},
		"secret without a value": {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gateway"}},
		"secret with an empty value": {
			"apiVersion": "v1",
			"kind": "Secret",
			"metadata": {"name": "gateway"},
			"data": {},
			"stringData": {},
		},
		"role": {
			"apiVersion": "rbac.authorization.k8s.io/v1",
			"kind": "Role",
			"metadata": {"name": "gateway"},
			"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}],
		},
		"binding": {
			"apiVersion": "rbac.authorization.k8s.io/v1",
			"kind": "RoleBinding",
			"metadata": {"name": "gateway"},
			"roleRef": {"kind": "Role", "name": "gateway"},
		},
		"namespace": {
			"apiVersion": "v1",
			"kind": "Namespace",
			"metadata": {"name": "gateway", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
		},
		"image of a mirror, by digest": object.union(pod, {"spec": {"containers": [object.union(
			container,
			{"image": "mirror.test/gateway@sha256:0000"},
		)]}}),
		"image by tag and digest": with_container({"image": "registry.test/gateway:1@sha256:0000"}),
		"image of a mirror on a port": with_container({"image": "registry.test/a:5000/b:1"}),
		"seccomp of the node's own": with_spec({"securityContext": {"seccompProfile": {"type": "Localhost"}}}),
		"a container that says it itself": with_spec({
			"securityContext": {"runAsNonRoot": false, "runAsUser": 0, "seccompProfile": {"type": "Unconfined"}},
			"containers": [object.union(container, {"securityContext": {
				"runAsNonRoot": true,
				"runAsUser": 1,
				"seccompProfile": {"type": "RuntimeDefault"},
			}})],
		}),
		"no privilege, said aloud": with_security({"privileged": false}),
		"no host, said aloud": with_spec({"hostIPC": false, "hostNetwork": false, "hostPID": false}),
		"no capability added, said aloud": with_security({"capabilities": {"drop": ["ALL"], "add": []}}),
	}
	said(manifest) == clean(manifest.kind)
}

test_bad_objects_are_refused[note] if {
	some note, [manifest, rule, words] in {
		"root by the pod": [
			with_spec({"securityContext": {"runAsNonRoot": false}}),
			"deny_root",
			"container server may run as root: set runAsNonRoot",
		],
		"root by the container": [
			with_security({"runAsNonRoot": false}),
			"deny_root",
			"container server may run as root: set runAsNonRoot",
		],
		"user 0 by the pod": [
			with_spec({"securityContext": {"runAsUser": 0}}),
			"deny_root_user",
			"container server runs as user 0",
		],
		"user 0 by the container": [
			with_security({"runAsUser": 0}),
			"deny_root_user",
			"container server runs as user 0",
		],
		"privileged": [with_security({"privileged": true}), "deny_privileged", "container server is privileged"],
		"privileges may grow": [
			with_security({"allowPrivilegeEscalation": true}),
			"deny_escalation",
			"container server lacks allowPrivilegeEscalation: false",
		],
		"privileges may grow by default": [
			without("/securityContext/allowPrivilegeEscalation"),
			"deny_escalation",
			"container server lacks allowPrivilegeEscalation: false",
		],
		"writable root": [
			with_security({"readOnlyRootFilesystem": false}),
			"deny_writable_root",
			"container server lacks readOnlyRootFilesystem: true",
		],
		"writable root by default": [
			without("/securityContext/readOnlyRootFilesystem"),
			"deny_writable_root",
			"container server lacks readOnlyRootFilesystem: true",
		],
		"capabilities kept": [
			with_security({"capabilities": {"drop": ["NET_RAW"]}}),
			"deny_capabilities",
			"container server does not drop ALL capabilities",
		],
		"capabilities kept by default": [
			without("/securityContext/capabilities"),
			"deny_capabilities",
			"container server does not drop ALL capabilities",
		],
		"capability added": [
			with_security({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}),
			"deny_added_capabilities",
			"container server adds capabilities",
		],
		"no seccomp": [
			with_spec({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
			"deny_seccomp",
			"container server runs without a seccomp profile",
		],
		"no seccomp by default": [
			json.remove(pod, ["/spec/securityContext/seccompProfile"]),
			"deny_seccomp",
			"container server runs without a seccomp profile",
		],
		"no tag": [
			with_container({"image": "registry.test/gateway"}),
			"deny_tag",
			"image registry.test/gateway of container server has no fixed tag",
		],
		"an empty tag": [
			with_container({"image": "registry.test/gateway:"}),
			"deny_tag",
			"image registry.test/gateway: of container server has no fixed tag",
		],
		"latest": [
			with_container({"image": "registry.test/gateway:latest"}),
			"deny_tag",
			"image registry.test/gateway:latest of container server has no fixed tag",
		],
		"a port is no tag": [
			with_container({"image": "registry.test/a:5000/gateway"}),
			"deny_tag",
			"image registry.test/a:5000/gateway of container server has no fixed tag",
		],
		"an unknown registry": [
			with_container({"image": "evil.test/gateway:1"}),
			"deny_registry",
			"image evil.test/gateway:1 of container server is from an unknown registry",
		],
		"a name that begins like a registry": [
			with_container({"image": "registry.test.evil/gateway:1"}),
			"deny_registry",
			"image registry.test.evil/gateway:1 of container server is from an unknown registry",
		],
		"no limit of memory": [
			without("/resources/limits"),
			"deny_unlimited",
			"container server lacks resources.limits.memory",
		],
		"no request of memory": [
			without("/resources/requests/memory"),
			"deny_unlimited",
			"container server lacks resources.requests.memory",
		],
		"no request of cpu": [
			without("/resources/requests/cpu"),
			"deny_unlimited",
			"container server lacks resources.requests.cpu",
		],
		"IPC of the node": [with_spec({"hostIPC": true}), "deny_host_namespace", "shares hostIPC with the node"],
		"network of the node": [
			with_spec({"hostNetwork": true}),
			"deny_host_namespace",
			"shares hostNetwork with the node",
		],
		"processes of the node": [with_spec({"hostPID": true}), "deny_host_namespace", "shares hostPID with the node"],
		"path of the node in a volume without a name": [
			with_spec({"volumes": [{"hostPath": {}}]}),
			"deny_host_path",
			"mounts a path of the node in volume ?",
		],
		"privileged container without a name": [
			with_spec({"containers": [json.remove(
				object.union(container, {"securityContext": {"privileged": true}}),
				["/name"],
			)]}),
			"deny_privileged",
			"container ? is privileged",
		],
		"path of the node": [
			with_spec({"volumes": [{"name": "host", "hostPath": {"path": "/etc"}}]}),
			"deny_host_path",
			"mounts a path of the node in volume host",
		],
		"privileged init container": [
			with_spec({"initContainers": [object.union(container, {"securityContext": {"privileged": true}})]}),
			"deny_privileged",
			"container server is privileged",
		],
		"privileged ephemeral container": [
			with_spec({"ephemeralContainers": [object.union(container, {"securityContext": {"privileged": true}})]}),
			"deny_privileged",
			"container server is privileged",
		],
		"secret with a value": [
			{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gateway"}, "data": {"a": "Yg=="}},
			"deny_secret_value",
			"carries a value: secrets are made inside the cluster",
		],
		"secret with a value in clear": [
			{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gateway"}, "stringData": {"a": "b"}},
			"deny_secret_value",
			"carries a value: secrets are made inside the cluster",
		],
		"namespace without a standard": [
			{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gateway"}},
			"deny_open_namespace",
			"does not enforce the restricted pod security standard",
		],
		"namespace with a lax standard": [
			{
				"apiVersion": "v1",
				"kind": "Namespace",
				"metadata": {"name": "gateway", "labels": {"pod-security.kubernetes.io/enforce": "baseline"}},
			},
			"deny_open_namespace",
			"does not enforce the restricted pod security standard",
		],
	}
	reason := concat(" ", [manifest.kind, "gateway", words])
	said(manifest) == [false, concat(".", ["soma.deploy", rule]), [reason]]
}

test_roles_that_grant_everything_are_refused[note] if {
	some note, [kind, field] in {
		"groups": ["Role", "apiGroups"],
		"resources": ["Role", "resources"],
		"verbs": ["ClusterRole", "verbs"],
	}
	rule := {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
	manifest := {
		"apiVersion": "rbac.authorization.k8s.io/v1",
		"kind": kind,
		"metadata": {"name": "gateway"},
		"rules": [object.union(rule, {field: ["*"]})],
	}
	reason := concat(" ", [kind, "gateway grants * in", field])
	said(manifest) == [false, "soma.deploy.deny_unlimited_rights", [reason]]
}

test_bindings_to_the_roles_of_administrators_are_refused[note] if {
	some note, [kind, role] in {
		"administrator of the cluster": ["ClusterRoleBinding", "cluster-admin"],
		"administrator": ["RoleBinding", "admin"],
		"editor": ["RoleBinding", "edit"],
	}
	manifest := {
		"apiVersion": "rbac.authorization.k8s.io/v1",
		"kind": kind,
		"metadata": {"name": "gateway"},
		"roleRef": {"kind": "ClusterRole", "name": role},
	}
	reason := concat(" ", [kind, "gateway binds to the role", role])
	said(manifest) == [false, "soma.deploy.deny_admin", [reason]]
}

test_rules_of_roles_and_bindings_are_for_them_only if {
	stray := {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "gateway"}}
	said(object.union(stray, {"rules": [{"verbs": ["*"]}]})) == clean("ConfigMap")
	said(object.union(stray, {"roleRef": {"name": "cluster-admin"}})) == clean("ConfigMap")
}

test_every_template_is_judged[note] if {
	root := object.union(spec, {"securityContext": {"runAsNonRoot": false}})
	some note, manifest in {
		"daemon set": object.union(workload("DaemonSet"), {"spec": {"template": {"spec": root}}}),
		"deployment": object.union(workload("Deployment"), {"spec": {"template": {"spec": root}}}),
		"job": object.union(workload("Job"), {"spec": {"template": {"spec": root}}}),
		"replica set": object.union(workload("ReplicaSet"), {"spec": {"template": {"spec": root}}}),
		"stateful set": object.union(workload("StatefulSet"), {"spec": {"template": {"spec": root}}}),
		"cron job": object.union(cron_job, {"spec": {"jobTemplate": {"spec": {"template": {"spec": root}}}}}),
		"head of a ray cluster": ray(root, spec),
		"worker of a ray cluster": ray(spec, root),
	}
	[false, "soma.deploy.deny_root", [_]] = said(manifest)
}

test_other_kinds_have_no_template if {
	said(object.union(pod, {"kind": "PodTemplate", "spec": {"hostPID": true}})) == clean("PodTemplate")
	said(object.union(workload("Other"), {"spec": {"template": {"spec": {"hostPID": true}}}})) == clean("Other")
	said(object.union(ray({"hostPID": true}, {"hostPID": true}), {"kind": "Other"})) == clean("Other")
	said(object.union(cron_job, {
		"kind": "Other",
		"spec": {"jobTemplate": {"spec": {"template": {"spec": {"hostPID": true}}}}},
	})) == clean("Other")
}

test_all_that_is_wrong_is_said_and_the_first_rule_is_named if {
	said(with_spec({"hostPID": true, "containers": [{"name": "bare", "image": "evil.test/x"}]})) == [
		false,
		"soma.deploy.deny_capabilities",
		[
			"Pod gateway container bare does not drop ALL capabilities",
			"Pod gateway container bare lacks allowPrivilegeEscalation: false",
			"Pod gateway shares hostPID with the node",
			"Pod gateway image evil.test/x of container bare is from an unknown registry",
			"Pod gateway image evil.test/x of container bare has no fixed tag",
			"Pod gateway container bare lacks resources.limits.memory",
			"Pod gateway container bare lacks resources.requests.cpu",
			"Pod gateway container bare lacks resources.requests.memory",
			"Pod gateway container bare lacks readOnlyRootFilesystem: true",
		],
	]
}

test_a_question_without_an_object_is_refused[note] if {
	some note, question in {
		"nothing": {},
		"no kind": {"object": json.remove(pod, ["/kind"])},
		"no version": {"object": json.remove(pod, ["/apiVersion"])},
		"no name": {"object": json.remove(pod, ["/metadata/name"])},
		"a number for a name": {"object": object.union(pod, {"metadata": {"name": 1}})},
	}
	verdict := deploy.verdict with input as question with data.facts.deploy as facts
	verdict == {
		"allow": false,
		"rule": "soma.deploy.deny_by_default",
		"reasons": ["the question holds no Kubernetes object"],
		"obligations": {},
	}
}

test_a_verdict_obliges_to_nothing if {
	deploy.verdict.obligations == {} with input as {"object": pod} with data.facts.deploy as facts
	deploy.verdict.obligations == {} with input as {"object": with_spec({"hostPID": true})} with data.facts.deploy as facts
}

in_environment(manifest, context) := [verdict.allow, verdict.rule] if {
	verdict := deploy.verdict with input as {"object": manifest, "context": context} with data.facts.deploy as facts
}

passes := [true, "soma.deploy.allow_clean"]

test_the_registry_of_the_environment_alone_will_do if {
	in_environment(pod, {"registries": ["registry.test"]}) == passes
	in_environment(pod, {"registries": null}) == passes
	in_environment(pod, {"registries": ["mirror.test", "registry.test/somagent"]}) == passes
	in_environment(pod, {"registries": ["mirror.test"]}) == [false, "soma.deploy.deny_registry"]
	in_environment(pod, {"registries": []}) == [false, "soma.deploy.deny_registry"]
	in_environment(pod, {"registries": ["registry.test/soma"]}) == [false, "soma.deploy.deny_registry"]
}

guard(namespace, selector) := {
	"kind": "NetworkPolicy",
	"metadata": {"name": "x", "namespace": namespace},
	"spec": {"podSelector": selector},
}

unguarded := [false, "soma.deploy.deny_unguarded"]

test_a_workload_needs_a_policy_of_its_own[note] if {
	some note, [policies, outcome] in {
		"its own": [[guard("north-services", {"matchLabels": labels})], passes],
		"its own among others": [
			[guard("north-services", {"matchLabels": {"app": "x"}}), guard("north-services", {"matchLabels": labels})],
			passes,
		],
		"not looked at": [null, passes],
		"none": [[], unguarded],
		"of another namespace": [[guard("north-data", {"matchLabels": labels})], unguarded],
		"of another workload": [[guard("north-services", {"matchLabels": {"app": "other"}})], unguarded],
		"of one label too many": [
			[guard("north-services", {"matchLabels": {"app": "gateway", "more": "x"}})],
			unguarded,
		],
		"of the whole namespace": [[guard("north-services", {})], unguarded],
		"of the whole namespace, said aloud": [[guard("north-services", {"matchLabels": {}})], unguarded],
	}
	some manifest in [pod, workload("DaemonSet"), workload("Deployment"), workload("Job"), workload("StatefulSet"), cron_job]
	in_environment(manifest, {"networkPolicies": policies}) == outcome
}

test_each_kind_needs_a_policy_of_its_own[manifest.kind] if {
	some manifest in [pod, workload("ReplicaSet"), workload("DaemonSet"), workload("Deployment"), workload("Job"), workload("StatefulSet"), cron_job]
	in_environment(manifest, {"networkPolicies": [guard("north-services", {"matchLabels": labels})]}) == passes
	in_environment(manifest, {"networkPolicies": []}) == unguarded
}

test_what_is_no_workload_needs_no_policy if {
	config := {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "gateway", "labels": labels}}
	in_environment(config, {"networkPolicies": []}) == passes
}

test_a_workload_without_labels_is_not_guarded if {
	bare := json.remove(workload("Deployment"), ["/spec/template/metadata"])
	in_environment(bare, {"networkPolicies": [guard("north-services", {"matchLabels": labels})]}) == unguarded
	unlabelled := json.remove(pod, ["/metadata/labels"])
	in_environment(unlabelled, {"networkPolicies": [guard("north-services", {"matchLabels": labels})]}) == unguarded
	nightly := json.remove(cron_job, ["/spec/jobTemplate/spec/template/metadata"])
	in_environment(nightly, {"networkPolicies": [guard("north-services", {"matchLabels": labels})]}) == unguarded
}
