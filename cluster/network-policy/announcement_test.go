package main

import (
	"bytes"
	"context"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/knftables"
)

const result = `{"cniVersion":"1.0.0","ips":[{"address":"10.244.0.2/32","gateway":"10.244.0.1"}]}`

// TestPluginHoldsAPodUntilItsRulesHold speaks the CNI protocol with the agent, for a pod that has no address in the API.
// The kernel's answers are TestKernel's matter, so rules go into knftables' own table in memory.
func TestPluginHoldsAPodUntilItsRulesHold(t *testing.T) {
	fresh := pod("a", "web", "")
	fresh.UID = "uid-1"
	fresh.Status = corev1.PodStatus{Phase: corev1.PodPending}
	client := fake.NewClientset(namespace("a"), fresh, policy(t, "a", `{podSelector: {}}`))
	nft := knftables.NewFake(family, tableName)
	a, err := start(t.Context(), nft, client, netip.MustParsePrefix("10.244.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "agent.sock")
	if err := a.listen(t.Context(), socket); err != nil {
		t.Fatal(err)
	}
	add := func(uid string) (string, error) {
		var output bytes.Buffer
		config := `{"cniVersion":"1.0.0","socket":"` + socket + `","prevResult":` + result + `}`
		err := plugin("ADD", "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=web;K8S_POD_UID="+uid, strings.NewReader(config), &output)
		return output.String(), err
	}
	if got, err := add("uid-1"); err != nil || got != result {
		t.Fatalf("got %q, %v; want the previous result", got, err)
	}
	if elements, err := nft.ListElements(t.Context(), "map", "ingress"); err != nil || len(elements) != 1 {
		t.Errorf("the plugin answered before the pod was isolated: %v, %v", elements, err)
	}
}

func TestPluginFailsWithoutTheAgent(t *testing.T) {
	config := `{"socket":"` + filepath.Join(t.TempDir(), "none") + `","prevResult":` + result + `}`
	err := plugin("ADD", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=web;K8S_POD_UID=u", strings.NewReader(config), &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "the agent does not answer") {
		t.Errorf("got %v", err)
	}
}

func TestAdmitRefusesAPodNobodyKnows(t *testing.T) {
	a, err := start(t.Context(), knftables.NewFake(family, tableName), fake.NewClientset(), netip.MustParsePrefix("10.244.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = a.admit(ctx, announcement{Namespace: "a", Name: "ghost", UID: "u", Address: netip.MustParseAddr(web)})
	if err == nil || !strings.Contains(err.Error(), "a/ghost is not known") {
		t.Errorf("got %v", err)
	}
}

func TestAnAnnouncedAddressYieldsToTheStatus(t *testing.T) {
	var a agent
	a.announced.add("u", netip.MustParseAddr(web))
	waiting := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID("u")}}
	if got := a.announcedFor([]*corev1.Pod{waiting}); got["u"].String() != web {
		t.Fatalf("got %v", got)
	}
	waiting.Status.PodIPs = []corev1.PodIP{{IP: other}}
	if got := a.announcedFor([]*corev1.Pod{waiting}); len(got) != 0 {
		t.Errorf("got %v, want nothing", got)
	}
}
