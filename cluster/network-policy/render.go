package main

import (
	"fmt"
	"net/netip"
	"strings"

	"sigs.k8s.io/knftables"
)

// tableName is our own table: kube-proxy and the machine's administrator keep theirs.
const tableName = "somagent_network_policy"

// family has IPv6 as well, to drop it: pods have no IPv6 address, so what comes that way would be under no policy.
const family = knftables.InetFamily

// render writes the whole table anew. The kernel takes a transaction as a whole or not at all, so at no moment is a
// packet judged by half a policy.
func render(tx *knftables.Transaction, rules ruleSet, podRange netip.Prefix) {
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("NetworkPolicy of the local cluster")})
	tx.Add(&knftables.Set{Name: "known", Type: "ipv4_addr"})
	for _, address := range rules.known {
		tx.Add(&knftables.Element{Set: "known", Key: []string{address.String()}})
	}
	for _, way := range []direction{ingress, egress} {
		renderDirection(tx, way, rules.isolated[way])
	}
	renderHooks(tx, podRange)
}

// renderHooks judges pods' packets where they are routed (to other pods) and where they arrive (at the node). There is no
// output hook: what the node itself sends, such as the kubelet's probes, always reaches its pods.
func renderHooks(tx *knftables.Transaction, podRange netip.Prefix) {
	established := "ct state established,related accept"
	unknown := func(field string) string {
		return fmt.Sprintf("ip %s %s ip %s != @known counter drop", field, podRange, field)
	}
	addHook(tx, knftables.ForwardHook,
		established, "meta nfproto ipv6 drop",
		unknown("saddr"), unknown("daddr"),
		"ip saddr vmap @egress", "ip daddr vmap @ingress")
	addHook(tx, knftables.InputHook, established, unknown("saddr"), "ip saddr vmap @egress")
}

func addHook(tx *knftables.Transaction, hook knftables.BaseChainHook, rules ...string) {
	tx.Add(&knftables.Chain{
		Name:     string(hook),
		Type:     knftables.PtrTo(knftables.FilterType),
		Hook:     knftables.PtrTo(hook),
		Priority: knftables.PtrTo(knftables.FilterPriority),
	})
	for _, rule := range rules {
		tx.Add(&knftables.Rule{Chain: string(hook), Rule: rule})
	}
}

// renderDirection makes one chain per isolated pod, found by its address. A chain returns what is allowed, so that the
// other end's chain is asked next, and drops the rest.
func renderDirection(tx *knftables.Transaction, way direction, chains []podChain) {
	tx.Add(&knftables.Map{Name: string(way), Type: "ipv4_addr : verdict"})
	for _, chain := range chains {
		tx.Add(&knftables.Chain{Name: chain.name, Comment: knftables.PtrTo(shorten(chain.comment))})
		for _, match := range chainMatches(way, chain) {
			tx.Add(&knftables.Rule{Chain: chain.name, Rule: strings.TrimSpace(match + " return")})
		}
		tx.Add(&knftables.Rule{Chain: chain.name, Rule: "counter drop"})
		tx.Add(&knftables.Element{
			Map:   string(way),
			Key:   []string{chain.address.String()},
			Value: []string{"jump " + chain.name},
		})
	}
}

func shorten(comment string) string {
	return comment[:min(len(comment), knftables.CommentLengthMax)]
}

// chainMatches lists what is let through, each line one alternative. A pod may always talk to itself, which it does when
// a Service sends it back.
func chainMatches(way direction, chain podChain) []string {
	far := "ip saddr"
	if way == egress {
		far = "ip daddr"
	}
	matches := []string{far + " " + chain.address.String()}
	for _, allowed := range chain.allowed {
		for _, peer := range peerMatches(far, allowed.peers) {
			for _, port := range portMatches(far, allowed.ports) {
				matches = append(matches, strings.TrimSpace(peer+" "+port))
			}
		}
	}
	return matches
}

func peerMatches(far string, from peers) []string {
	if from.any {
		return []string{""}
	}
	var matches []string
	if len(from.addresses) > 0 {
		matches = append(matches, far+" "+addressSet(from.addresses))
	}
	for _, each := range from.blocks {
		match := far + " " + each.cidr.String()
		for _, except := range each.except {
			match += " " + far + " != " + except.String()
		}
		matches = append(matches, match)
	}
	return matches
}

func portMatches(far string, ports []portMatch) []string {
	if ports == nil {
		return []string{""}
	}
	var matches []string
	for _, port := range ports {
		match := "meta l4proto " + port.protocol
		if port.first != 0 {
			match = fmt.Sprintf("%s dport %d", port.protocol, port.first)
		}
		if port.last > port.first {
			match += fmt.Sprintf("-%d", port.last)
		}
		if len(port.only) > 0 {
			match = far + " " + addressSet(port.only) + " " + match
		}
		matches = append(matches, match)
	}
	return matches
}

func addressSet(addresses []netip.Addr) string {
	texts := make([]string, len(addresses))
	for i, address := range addresses {
		texts[i] = address.String()
	}
	return "{ " + strings.Join(texts, ", ") + " }"
}
