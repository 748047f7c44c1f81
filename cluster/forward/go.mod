// Carries loopback ports of the machine into the cluster's network namespace.
module somagent.dev/cluster/forward

go 1.25.0

require golang.org/x/sys v0.31.0
