package main

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
)

// state is all that decides the rules: what the API server says, and nothing of what the kernel has.
type state struct {
	namespaces map[string]*corev1.Namespace
	pods       []*corev1.Pod
	policies   []*networkingv1.NetworkPolicy
	// announced are addresses of pods whose status has none yet.
	announced map[types.UID]netip.Addr
}

// podAddress gives the IPv4 address that a policy governs. Pods on the host's network and pods that have ended have
// none: the first share the node's address, the second's address may already be another pod's.
func (s state) podAddress(pod *corev1.Pod) (netip.Addr, bool) {
	if pod.Spec.HostNetwork || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return netip.Addr{}, false
	}
	for _, each := range pod.Status.PodIPs {
		if address, err := netip.ParseAddr(each.IP); err == nil && address.Is4() {
			return address, true
		}
	}
	if len(pod.Status.PodIPs) > 0 {
		return netip.Addr{}, false
	}
	address, ok := s.announced[pod.UID]
	return address, ok
}
