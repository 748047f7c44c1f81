package main

import (
	"net/netip"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/metadata.name": name}}}
}

func pod(namespace, name, address string, ports ...corev1.ContainerPort) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Ports: ports}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: address}}},
	}
}

func policy(t *testing.T, namespace, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	parsed := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "policy"}}
	if err := yaml.UnmarshalStrict([]byte(spec), &parsed.Spec); err != nil {
		t.Fatal(err)
	}
	return parsed
}

const (
	web   = "10.244.0.2"
	db    = "10.244.0.3"
	other = "10.244.0.4"
)

// cluster has two pods in namespace a and one in b.
func cluster(policies ...*networkingv1.NetworkPolicy) state {
	return state{
		namespaces: map[string]*corev1.Namespace{"a": namespace("a"), "b": namespace("b")},
		pods: []*corev1.Pod{
			pod("b", "other", other, corev1.ContainerPort{Name: "http", ContainerPort: 9090}),
			pod("a", "web", web, corev1.ContainerPort{Name: "http", ContainerPort: 8080}),
			pod("a", "db", db, corev1.ContainerPort{Name: "http", ContainerPort: 5432, Protocol: corev1.ProtocolUDP}),
		},
		policies: policies,
	}
}

// TestCompile states, for the pod web, what each policy lets through; nil means not isolated.
func TestCompile(t *testing.T) {
	self := "ip saddr " + web
	selfOut := "ip daddr " + web
	for name, test := range map[string]struct {
		spec            string
		ingress, egress []string
	}{
		"default deny both ways":          {`{podSelector: {}, policyTypes: [Ingress, Egress]}`, []string{self}, []string{selfOut}},
		"types default to ingress":        {`{podSelector: {}}`, []string{self}, nil},
		"egress rules add the type":       {`{podSelector: {}, egress: [{}]}`, []string{self}, []string{selfOut, ""}},
		"another pod's policy":            {`{podSelector: {matchLabels: {app: db}}}`, nil, nil},
		"an empty rule allows all":        {`{podSelector: {}, ingress: [{}]}`, []string{self, ""}, nil},
		"a selector stays in its own":     {`{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`, []string{self, "ip saddr { 10.244.0.2, 10.244.0.3 }"}, nil},
		"a namespace selector":            {`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}}]}]}`, []string{self, "ip saddr { 10.244.0.4 }"}, nil},
		"both selectors must match":       {`{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}]}]}`, []string{self, "ip saddr { 10.244.0.3 }"}, nil},
		"a list of peers is a choice":     {`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}}, {podSelector: {matchLabels: {app: db}}}]}]}`, []string{self, "ip saddr { 10.244.0.3, 10.244.0.4 }"}, nil},
		"a selector without pods":         {`{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: none}}}]}]}`, []string{self}, nil},
		"a block with holes":              {`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}}]}]}`, []string{self, "ip saddr 10.0.0.0/8 ip saddr != 10.1.0.0/16 ip saddr != 10.2.0.0/16"}, nil},
		"an IPv6 block allows nothing":    {`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: "fd00::/8"}}]}]}`, []string{self}, nil},
		"ports and a range":               {`{podSelector: {}, ingress: [{ports: [{port: 80}, {port: 8000, endPort: 8010, protocol: UDP}, {protocol: SCTP}]}]}`, []string{self, "tcp dport 80", "udp dport 8000-8010", "meta l4proto sctp"}, nil},
		"a named port of the pod":         {`{podSelector: {}, ingress: [{ports: [{port: http}]}]}`, []string{self, "tcp dport 8080"}, nil},
		"a name of another protocol":      {`{podSelector: {}, ingress: [{ports: [{port: http, protocol: SCTP}]}]}`, []string{self}, nil},
		"a named port of the far side":    {`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: http}]}]}`, nil, []string{selfOut, "ip daddr { 10.244.0.2, 10.244.0.3, 10.244.0.4 } ip daddr { 10.244.0.2 } tcp dport 8080", "ip daddr { 10.244.0.2, 10.244.0.3, 10.244.0.4 } ip daddr { 10.244.0.4 } tcp dport 9090"}},
		"an unreadable selector is shut":  {`{podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: Nonsense}]}}]}]}`, []string{self}, nil},
		"expressions select like labels":  {`{podSelector: {matchExpressions: [{key: app, operator: In, values: [web]}]}}`, []string{self}, nil},
		"expressions deselect like these": {`{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}`, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			rules := compile(cluster(policy(t, "a", test.spec)))
			for way, want := range map[direction][]string{ingress: test.ingress, egress: test.egress} {
				if got := matchesOf(rules, way, web); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: got %q, want %q", way, got, want)
				}
			}
			if got := matchesOf(rules, ingress, other); got != nil {
				t.Errorf("a policy of namespace a isolates a pod of b: %q", got)
			}
		})
	}
}

func matchesOf(rules ruleSet, way direction, address string) []string {
	for _, chain := range rules.isolated[way] {
		if chain.address.String() == address {
			return chainMatches(way, chain)
		}
	}
	return nil
}

func TestPoliciesAddUp(t *testing.T) {
	first := policy(t, "a", `{podSelector: {}, ingress: [{ports: [{port: 1}]}]}`)
	second := policy(t, "a", `{podSelector: {}, ingress: [{ports: [{port: 2}]}]}`)
	second.Name = "second"
	one, two := compile(cluster(first, second)), compile(cluster(second, first))
	want := []string{"ip saddr " + web, "tcp dport 1", "tcp dport 2"}
	if got := matchesOf(one, ingress, web); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if one.digest() != two.digest() {
		t.Error("the order in which policies are listed changes the rules")
	}
}

func TestPodsWithoutAnAddressOfTheirOwn(t *testing.T) {
	s := cluster(policy(t, "a", `{podSelector: {}}`))
	s.pods[1].Spec.HostNetwork = true
	s.pods[2].Status.Phase = corev1.PodSucceeded
	if got := compile(s).known; !reflect.DeepEqual(got, []netip.Addr{netip.MustParseAddr(other)}) {
		t.Errorf("got %v, want only %s", got, other)
	}
}

func TestAnAddressIsTheLivingPods(t *testing.T) {
	s := cluster(policy(t, "a", `{podSelector: {matchLabels: {app: web}}}`))
	dying := pod("b", "dying", web)
	dying.DeletionTimestamp = &metav1.Time{}
	s.pods = append([]*corev1.Pod{dying}, append(s.pods, dying)...)
	if got := matchesOf(compile(s), ingress, web); len(got) != 1 {
		t.Errorf("the policy of the pod that lives under %s is lost: %q", web, got)
	}
}
