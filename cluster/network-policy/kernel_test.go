package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/knftables"
)

// kernel is a node and three pods as network namespaces, wired as the CNI plugin ptp does it.
type kernel struct {
	t    *testing.T
	node string
	pods map[string]string
}

// TestKernel sends real packets through the rules: what a policy forbids fails, what it allows works.
func TestKernel(t *testing.T) {
	if os.Geteuid() != 0 || exec.Command("nft", "--version").Run() != nil {
		t.Skip("needs root and nft")
	}
	k := newKernel(t)
	apply := func(policies ...*networkingv1.NetworkPolicy) { k.apply(cluster(policies...)) }
	for _, address := range []string{web, db, other} {
		k.serve(k.pods[address], address, 8080)
		k.serve(k.pods[address], address, 9090)
	}
	k.serve(k.node, "10.250.0.1", 6443)

	k.apply(state{})
	k.expect("a pod that is not known yet", false, web, other, 8080)
	k.expect("a node reached by a pod that is not known yet", false, web, "10.250.0.1", 6443)
	apply()
	k.expect("no policy", true, web, other, 8080)
	k.expect("no policy, to the node", true, web, "10.250.0.1", 6443)
	apply(policy(t, "a", `{podSelector: {}}`))
	k.expect("ingress denied", false, other, web, 8080)
	k.expect("egress of an ingress-isolated pod", true, web, other, 8080)
	k.expectFrom("the kubelet's probe", true, k.node, web, 8080)
	apply(policy(t, "a", `{podSelector: {}, policyTypes: [Egress]}`))
	k.expect("egress denied", false, web, other, 8080)
	k.expect("egress denied, to the node", false, web, "10.250.0.1", 6443)
	apply(policy(t, "a", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}}], ports: [{port: http}]}]}`))
	k.expect("the named port, from the namespace", true, other, web, 8080)
	k.expect("another port, from the namespace", false, other, web, 9090)
	k.expect("the named port, from elsewhere", false, db, web, 8080)
	apply(policy(t, "a", `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.244.0.4/32]}}]}]}`))
	k.expect("inside the block", true, web, "10.250.0.1", 6443)
	k.expect("inside the hole", false, web, other, 8080)
}

func newKernel(t *testing.T) *kernel {
	prefix := fmt.Sprintf("np%d-", os.Getpid())
	k := &kernel{t: t, node: prefix + "node", pods: map[string]string{}}
	k.addNamespace(k.node)
	k.ip("-n", k.node, "link", "add", "node0", "type", "bridge")
	k.ip("-n", k.node, "link", "set", "node0", "up")
	k.ip("-n", k.node, "address", "add", "10.250.0.1/24", "dev", "node0")
	k.run("nsenter", "--net=/run/netns/"+k.node, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	for i, address := range []string{web, db, other} {
		name, veth := fmt.Sprintf("%spod%d", prefix, i), fmt.Sprintf("veth%d", i)
		k.addNamespace(name)
		k.pods[address] = name
		k.ip("-n", k.node, "link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", name)
		k.ip("-n", k.node, "address", "add", "10.244.0.1/32", "dev", veth)
		k.ip("-n", k.node, "link", "set", veth, "up")
		k.ip("-n", k.node, "route", "add", address+"/32", "dev", veth)
		k.ip("-n", name, "address", "add", address+"/32", "dev", "eth0")
		k.ip("-n", name, "link", "set", "eth0", "up")
		k.ip("-n", name, "route", "add", "10.244.0.1/32", "dev", "eth0")
		k.ip("-n", name, "route", "add", "default", "via", "10.244.0.1")
	}
	return k
}

func (k *kernel) addNamespace(name string) {
	k.ip("netns", "add", name)
	k.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	k.ip("-n", name, "link", "set", "lo", "up")
}

func (k *kernel) ip(args ...string) { k.run("ip", args...) }

func (k *kernel) run(command string, args ...string) {
	k.t.Helper()
	if out, err := exec.Command(command, args...).CombinedOutput(); err != nil {
		k.t.Fatalf("%s %s: %s", command, strings.Join(args, " "), out)
	}
}

// inside runs work on a thread that belongs to the namespace; the thread ends with it.
func (k *kernel) inside(namespace string, work func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := enter("/run/netns/" + namespace); err != nil {
			done <- err
			return
		}
		done <- work()
	}()
	return <-done
}

func (k *kernel) apply(s state) {
	k.t.Helper()
	err := k.inside(k.node, func() error {
		nft, err := knftables.New(family, tableName)
		if err != nil {
			return err
		}
		tx := nft.NewTransaction()
		render(tx, compile(s), netip.MustParsePrefix("10.244.0.0/16"))
		return nft.Run(k.t.Context(), tx)
	})
	if err != nil {
		k.t.Fatal(err)
	}
}

func (k *kernel) serve(namespace, address string, port int) {
	k.t.Helper()
	if err := k.inside(namespace, func() error { return listenAt(k.t, address, port) }); err != nil {
		k.t.Fatal(err)
	}
}

func (k *kernel) expect(what string, open bool, from, to string, port int) {
	k.t.Helper()
	k.expectFrom(what, open, k.pods[from], to, port)
}

func (k *kernel) expectFrom(what string, open bool, namespace, to string, port int) {
	k.t.Helper()
	err := k.inside(namespace, func() error { return dialOnce(to, port, 250*time.Millisecond) })
	if open != (err == nil) {
		k.t.Errorf("%s: reached %t (%v), want %t", what, err == nil, err, open)
	}
}
