package soma.deploy.admission_test

import data.soma.deploy.admission
import data.soma.deploy_test as fixtures

environment := {"registries": ["registry.test"]}

review(manifest) := answer if {
	answer := admission.review with input as {"request": {"uid": "u-1", "object": manifest}}
		with data.facts.deploy as fixtures.facts
		with data.environment as environment
}

test_a_good_pod_is_admitted if {
	review(fixtures.pod) == {
		"apiVersion": "admission.k8s.io/v1",
		"kind": "AdmissionReview",
		"response": {"uid": "u-1", "allowed": true},
	}
}

test_a_bad_pod_is_refused_in_the_words_of_the_rules if {
	review(fixtures.with_spec({"hostPID": true, "hostIPC": true})) == {
		"apiVersion": "admission.k8s.io/v1",
		"kind": "AdmissionReview",
		"response": {
			"uid": "u-1",
			"allowed": false,
			"status": {
				"code": 403,
				"reason": "Forbidden",
				"message": "soma.deploy.deny_host_namespace: Pod gateway shares hostIPC with the node; Pod gateway shares hostPID with the node",
			},
		},
	}
}

test_an_image_of_another_environment_is_refused if {
	answer := review(fixtures.with_container({"image": "mirror.test/gateway:1"}))
	answer.response.allowed == false
}

# At admission nobody knows which policies stand beside the manifest.
test_a_pod_is_not_asked_for_its_network_policy if {
	review(fixtures.pod).response.allowed
}
