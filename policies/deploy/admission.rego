# The same rules as the answer that the Kubernetes API server expects of a validating webhook.
# Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#response
package soma.deploy.admission

import data.soma.deploy

review := {
	"apiVersion": "admission.k8s.io/v1",
	"kind": "AdmissionReview",
	"response": object.union({"uid": input.request.uid, "allowed": verdict.allow}, status),
}

verdict := answer if {
	answer := deploy.verdict with input as {
		"object": input.request.object,
		"context": {"registries": data.environment.registries, "networkPolicies": null},
	}
}

status := {} if verdict.allow

status := {"status": {
	"code": 403,
	"reason": "Forbidden",
	"message": concat("", [verdict.rule, ": ", concat("; ", verdict.reasons)]),
}} if {
	not verdict.allow
}
