package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// rule says that connections to listen (on the machine) go to target (in the namespace).
type rule struct {
	listen netip.AddrPort
	target netip.AddrPort
}

// parseRule reads LISTEN=TARGET. Both are address:port in numbers: names would be looked up in the wrong namespace.
// An address that is not loopback is refused, because the cluster must not be reachable from outside the machine.
func parseRule(text string) (rule, error) {
	listenText, targetText, found := strings.Cut(text, "=")
	if !found {
		return rule{}, fmt.Errorf("forward %q: want LISTEN=TARGET, such as 127.0.0.1:8443=10.250.0.1:30443", text)
	}
	listen, err := netip.ParseAddrPort(listenText)
	if err != nil {
		return rule{}, fmt.Errorf("forward %q: listen address %q is not address:port in numbers", text, listenText)
	}
	if !listen.Addr().IsLoopback() {
		return rule{}, fmt.Errorf(
			"forward %q: listen address %s is not loopback and would open the cluster to the network; use 127.0.0.1 or ::1",
			text, listen.Addr())
	}
	target, err := netip.ParseAddrPort(targetText)
	if err != nil || target.Port() == 0 {
		return rule{}, fmt.Errorf("forward %q: target %q is not address:port in numbers", text, targetText)
	}
	return rule{listen: listen, target: target}, nil
}
