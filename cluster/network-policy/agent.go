package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/knftables"
)

const (
	// gatherTime lets changes that come together, such as a rollout's, be answered by one transaction.
	gatherTime = 50 * time.Millisecond
	// resyncTime bounds how long a table that somebody damaged stays so.
	resyncTime = 30 * time.Second
	retryTime  = time.Second
)

// agent keeps the kernel's table equal to what the API server says.
type agent struct {
	nft        knftables.Interface
	podRange   netip.Prefix
	namespaces corelisters.NamespaceLister
	pods       corelisters.PodLister
	policies   networkinglisters.NetworkPolicyLister
	changed    chan struct{}
	announced  announced
	// mutex lets one transaction at a time be compared with, and become, what is applied.
	mutex   sync.Mutex
	applied string
}

// start closes the table if there is none, and returns when the agent knows the whole cluster.
func start(ctx context.Context, nft knftables.Interface, client kubernetes.Interface, podRange netip.Prefix) (*agent, error) {
	factory := informers.NewSharedInformerFactory(client, 0)
	core, networking := factory.Core().V1(), factory.Networking().V1()
	a := &agent{
		nft:        nft,
		podRange:   podRange,
		namespaces: core.Namespaces().Lister(),
		pods:       core.Pods().Lister(),
		policies:   networking.NetworkPolicies().Lister(),
		changed:    make(chan struct{}, 1),
	}
	if err := a.closeUntilKnown(ctx); err != nil {
		return nil, err
	}
	watched := []cache.SharedIndexInformer{
		core.Namespaces().Informer(), core.Pods().Informer(), networking.NetworkPolicies().Informer(),
	}
	for _, informer := range watched {
		if _, err := informer.AddEventHandler(a.onChange()); err != nil {
			return nil, err
		}
	}
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return nil, fmt.Errorf("network-policy: stopped before %v were read from the API server", kind)
		}
	}
	return a, nil
}

// closeUntilKnown makes a table that knows no pod, and so lets none through, unless the last run left one.
func (a *agent) closeUntilKnown(ctx context.Context) error {
	if chains, err := a.nft.List(ctx, "chains"); err == nil && len(chains) > 0 {
		return nil
	}
	return a.write(ctx, ruleSet{})
}

func (a *agent) onChange() cache.ResourceEventHandler {
	mark := func() {
		select {
		case a.changed <- struct{}{}:
		default:
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { mark() },
		UpdateFunc: func(any, any) { mark() },
		DeleteFunc: func(any) { mark() },
	}
}

// run answers changes until ctx ends. The table stays: a policy must not lapse because its agent restarts.
func (a *agent) run(ctx context.Context) {
	resync := time.NewTicker(resyncTime)
	defer resync.Stop()
	for {
		if err := a.sync(ctx); err != nil && ctx.Err() == nil {
			slog.Error("the rules could not be changed and stay as they were", "error", err)
			a.forget()
			time.AfterFunc(retryTime, func() { a.onChange().OnDelete(nil) })
		}
		select {
		case <-ctx.Done():
			return
		case <-resync.C:
			a.forget()
		case <-a.changed:
			time.Sleep(gatherTime)
		}
	}
}

// forget makes the next sync write the table, whatever the kernel is believed to have.
func (a *agent) forget() {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.applied = ""
}

func (a *agent) sync(ctx context.Context) error {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	current, err := a.read()
	if err != nil {
		return err
	}
	rules := compile(current)
	digest := rules.digest()
	if digest == a.applied {
		return nil
	}
	begin := time.Now()
	if err := a.write(ctx, rules); err != nil {
		return err
	}
	a.applied = digest
	slog.Info("rules written", "pods", len(rules.known), "ingress", len(rules.isolated[ingress]),
		"egress", len(rules.isolated[egress]), "took", time.Since(begin).Round(time.Millisecond))
	return nil
}

func (a *agent) write(ctx context.Context, rules ruleSet) error {
	tx := a.nft.NewTransaction()
	render(tx, rules, a.podRange)
	return a.nft.Run(ctx, tx)
}

func (a *agent) read() (state, error) {
	namespaces, err := a.namespaces.List(labels.Everything())
	if err != nil {
		return state{}, err
	}
	pods, err := a.pods.List(labels.Everything())
	if err != nil {
		return state{}, err
	}
	policies, err := a.policies.List(labels.Everything())
	if err != nil {
		return state{}, err
	}
	return state{byName(namespaces), pods, policies, a.announcedFor(pods)}, nil
}

func byName(namespaces []*corev1.Namespace) map[string]*corev1.Namespace {
	named := make(map[string]*corev1.Namespace, len(namespaces))
	for _, namespace := range namespaces {
		named[namespace.Name] = namespace
	}
	return named
}

// announcedFor gives the announced addresses that the pods' status does not have yet.
func (a *agent) announcedFor(pods []*corev1.Pod) map[types.UID]netip.Addr {
	waiting := map[types.UID]bool{}
	for _, pod := range pods {
		waiting[pod.UID] = len(pod.Status.PodIPs) == 0
	}
	return a.announced.copy(func(uid types.UID) bool { return !waiting[uid] })
}
