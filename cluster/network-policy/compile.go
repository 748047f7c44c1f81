package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// direction is seen from the pod that a policy selects.
type direction string

const (
	ingress direction = "ingress"
	egress  direction = "egress"
)

// ruleSet is what the kernel has to do, without its syntax. Equal states give equal, and equally ordered, rule sets.
type ruleSet struct {
	// known are the addresses of all pods. What else lies in the pod range belongs to a pod that is not known yet.
	known []netip.Addr
	// isolated pods, per direction, reach only what a chain of theirs allows.
	isolated map[direction][]podChain
}

// podChain lists what one isolated pod may do in one direction. The allowances are alternatives.
type podChain struct {
	name    string
	address netip.Addr
	comment string
	allowed []allowance
}

// allowance admits packets that meet both parts; an empty part admits everything.
type allowance struct {
	peers peers
	ports []portMatch
}

// peers are alternatives as well. Nothing in it and any set means everybody.
type peers struct {
	any       bool
	addresses []netip.Addr
	blocks    []block
}

// block is a CIDR with holes.
type block struct {
	cidr   netip.Prefix
	except []netip.Prefix
}

// portMatch is a range of ports of a protocol ("tcp", "udp", "sctp"); first 0 means every port.
type portMatch struct {
	protocol    string
	first, last uint16
	// only limits a named port on the far side to the pods that have it under this number.
	only []netip.Addr
}

// compile turns the policies into rules. A policy with a selector or block that can't be read allows nothing: it still
// isolates its pods, because an error must not open what was meant to be closed.
func compile(s state) ruleSet {
	c := compiler{
		namespaces: s.namespaces,
		pods:       s.addressedPods(),
		policies:   slices.SortedFunc(slices.Values(s.policies), comparePolicies),
	}
	result := ruleSet{isolated: map[direction][]podChain{}}
	for _, pod := range c.pods {
		result.known = append(result.known, pod.address)
		for _, way := range []direction{ingress, egress} {
			if chain, isolated := c.chain(pod, way); isolated {
				result.isolated[way] = append(result.isolated[way], chain)
			}
		}
	}
	return result
}

type addressed struct {
	*corev1.Pod
	address netip.Addr
}

type compiler struct {
	namespaces map[string]*corev1.Namespace
	pods       []addressed
	policies   []*networkingv1.NetworkPolicy
}

// addressedPods gives one pod per address, in order of address. An address is handed out again while the object of its
// last owner still lingers: then the pod that is not being deleted has it, and of two the younger.
func (s state) addressedPods() []addressed {
	owners := map[netip.Addr]*corev1.Pod{}
	for _, pod := range s.pods {
		address, ok := s.podAddress(pod)
		if ok && (owners[address] == nil || supersedes(pod, owners[address])) {
			owners[address] = pod
		}
	}
	var result []addressed
	for _, address := range slices.SortedFunc(maps.Keys(owners), netip.Addr.Compare) {
		result = append(result, addressed{owners[address], address})
	}
	return result
}

func supersedes(pod, other *corev1.Pod) bool {
	if (pod.DeletionTimestamp == nil) != (other.DeletionTimestamp == nil) {
		return pod.DeletionTimestamp == nil
	}
	return other.CreationTimestamp.Before(&pod.CreationTimestamp)
}

func comparePolicies(a, b *networkingv1.NetworkPolicy) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// chain gathers the rules of every policy that selects the pod for this direction.
func (c *compiler) chain(pod addressed, way direction) (podChain, bool) {
	chain := podChain{
		name:    chainName(way, pod.address),
		address: pod.address,
		comment: pod.Namespace + "/" + pod.Name,
	}
	isolated := false
	for _, policy := range c.policies {
		if policy.Namespace != pod.Namespace || !governs(policy, way) || !selects(&policy.Spec.PodSelector, pod.Labels) {
			continue
		}
		isolated = true
		if way == ingress {
			for _, rule := range policy.Spec.Ingress {
				chain.allow(c.peers(policy.Namespace, rule.From), c.ports(rule.Ports, []addressed{pod}, false))
			}
			continue
		}
		for _, rule := range policy.Spec.Egress {
			chain.allow(c.peers(policy.Namespace, rule.To), c.ports(rule.Ports, c.pods, true))
		}
	}
	return chain, isolated
}

// allow adds an allowance unless one of its parts can never be met, such as a selector without pods.
func (chain *podChain) allow(from peers, ports []portMatch) {
	if ports != nil && len(ports) == 0 {
		return
	}
	if from.any || len(from.addresses) > 0 || len(from.blocks) > 0 {
		chain.allowed = append(chain.allowed, allowance{from, ports})
	}
}

// chainName is readable in `nft list ruleset` and unique per pod address.
func chainName(way direction, address netip.Addr) string {
	return string(way) + "-" + strings.ReplaceAll(address.String(), ".", "-")
}

// governs applies the API's defaults: without policyTypes a policy is for ingress, and for egress if it has such rules.
func governs(policy *networkingv1.NetworkPolicy, way direction) bool {
	types := policy.Spec.PolicyTypes
	if len(types) == 0 {
		return way == ingress || len(policy.Spec.Egress) > 0
	}
	wanted := networkingv1.PolicyTypeIngress
	if way == egress {
		wanted = networkingv1.PolicyTypeEgress
	}
	return slices.Contains(types, wanted)
}

func selects(selector *metav1.LabelSelector, of map[string]string) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(labels.Set(of))
}

// peers resolves the far side. No peers at all means everybody; a list is a choice.
func (c *compiler) peers(namespace string, list []networkingv1.NetworkPolicyPeer) peers {
	if len(list) == 0 {
		return peers{any: true}
	}
	var result peers
	for _, peer := range list {
		if peer.IPBlock != nil {
			if parsed, ok := parseBlock(peer.IPBlock); ok {
				result.blocks = append(result.blocks, parsed)
			}
			continue
		}
		for _, pod := range c.pods {
			if c.isPeer(namespace, peer, pod) {
				result.addresses = append(result.addresses, pod.address)
			}
		}
	}
	slices.SortFunc(result.addresses, netip.Addr.Compare)
	result.addresses = slices.Compact(result.addresses)
	return result
}

func (c *compiler) isPeer(namespace string, peer networkingv1.NetworkPolicyPeer, pod addressed) bool {
	if peer.NamespaceSelector == nil {
		if pod.Namespace != namespace {
			return false
		}
	} else {
		known, ok := c.namespaces[pod.Namespace]
		if !ok || !selects(peer.NamespaceSelector, known.Labels) {
			return false
		}
	}
	return peer.PodSelector == nil || selects(peer.PodSelector, pod.Labels)
}

func parseBlock(text *networkingv1.IPBlock) (block, bool) {
	cidr, err := netip.ParsePrefix(text.CIDR)
	if err != nil || !cidr.Addr().Is4() {
		return block{}, false
	}
	parsed := block{cidr: cidr.Masked()}
	for _, each := range text.Except {
		except, err := netip.ParsePrefix(each)
		if err != nil {
			return block{}, false
		}
		if except.Addr().Is4() {
			parsed.except = append(parsed.except, except.Masked())
		}
	}
	return parsed, true
}

// ports resolves the destination ports: nil means every port of every protocol, an empty list none. A name stands for
// the number that each of the owners gives it; remote says that the owners are the far side and differ by address.
func (c *compiler) ports(list []networkingv1.NetworkPolicyPort, owners []addressed, remote bool) []portMatch {
	if len(list) == 0 {
		return nil
	}
	result := []portMatch{}
	for _, port := range list {
		protocol := strings.ToLower(string(protocolOf(port.Protocol)))
		switch {
		case port.Port == nil:
			result = append(result, portMatch{protocol: protocol})
		case port.Port.Type == intstr.String:
			result = append(result, namedPorts(protocol, port.Port.StrVal, owners, remote)...)
		default:
			match := portMatch{protocol: protocol, first: uint16(port.Port.IntVal), last: uint16(port.Port.IntVal)}
			if port.EndPort != nil {
				match.last = uint16(*port.EndPort)
			}
			result = append(result, match)
		}
	}
	return result
}

func protocolOf(protocol *corev1.Protocol) corev1.Protocol {
	if protocol == nil {
		return corev1.ProtocolTCP
	}
	return *protocol
}

func namedPorts(protocol, name string, owners []addressed, remote bool) []portMatch {
	byNumber := map[uint16][]netip.Addr{}
	for _, owner := range owners {
		for _, number := range numbersOf(owner.Pod, protocol, name) {
			byNumber[number] = append(byNumber[number], owner.address)
		}
	}
	var result []portMatch
	for _, number := range slices.Sorted(maps.Keys(byNumber)) {
		match := portMatch{protocol: protocol, first: number, last: number}
		if remote {
			match.only = byNumber[number]
		}
		result = append(result, match)
	}
	return result
}

func numbersOf(pod *corev1.Pod, protocol, name string) []uint16 {
	var numbers []uint16
	// A sidecar is an init container that keeps running, and its ports count as well.
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, port := range container.Ports {
			own := cmp.Or(port.Protocol, corev1.ProtocolTCP)
			if port.Name == name && strings.EqualFold(string(own), protocol) {
				numbers = append(numbers, uint16(port.ContainerPort))
			}
		}
	}
	return numbers
}

// digest tells whether a rule set is the one that the kernel has.
func (r ruleSet) digest() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%v", r))
	return hex.EncodeToString(sum[:8])
}
