// Holds the namespaces of a pod.
module somagent.dev/images/pause

go 1.24.0
