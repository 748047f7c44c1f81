package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// announceTime is how long the wiring of a pod may wait for its rules; the kubelet tries again after an error.
const announceTime = 10 * time.Second

// announcement is what the CNI plugin tells the agent about a pod, one JSON object per connection, before any program of
// the pod runs. The API server learns the address only a second or two after that.
type announcement struct {
	Namespace string     `json:"namespace"`
	Name      string     `json:"name"`
	UID       types.UID  `json:"uid"`
	Address   netip.Addr `json:"address"`
}

// reply ends a connection: an empty Error means that the pod's rules are in the kernel.
type reply struct {
	Error string `json:"error,omitempty"`
}

// announced keeps addresses that the API server does not know yet.
type announced struct {
	mutex     sync.Mutex
	addresses map[types.UID]netip.Addr
}

func (a *announced) add(uid types.UID, address netip.Addr) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.addresses == nil {
		a.addresses = map[types.UID]netip.Addr{}
	}
	// An address has one pod: who had it before is gone.
	for other, taken := range a.addresses {
		if taken == address {
			delete(a.addresses, other)
		}
	}
	a.addresses[uid] = address
}

// copy gives what is announced and forgets the pods for which obsolete is true.
func (a *announced) copy(obsolete func(types.UID) bool) map[types.UID]netip.Addr {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	result := map[types.UID]netip.Addr{}
	for uid, address := range a.addresses {
		if obsolete(uid) {
			delete(a.addresses, uid)
			continue
		}
		result[uid] = address
	}
	return result
}

// listen answers the CNI plugin on a socket of root's until ctx ends.
func (a *agent) listen(ctx context.Context, path string) error {
	// A socket that a killed agent left behind has no listener.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("network-policy: --socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("network-policy: --socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go a.answer(ctx, conn)
		}
	}()
	return nil
}

func (a *agent) answer(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(announceTime))
	var pod announcement
	err := json.NewDecoder(conn).Decode(&pod)
	if err == nil {
		err = a.admit(ctx, pod)
	}
	var answer reply
	if err != nil {
		slog.Warn("pod not admitted", "namespace", pod.Namespace, "pod", pod.Name, "error", err)
		answer.Error = err.Error()
	}
	_ = json.NewEncoder(conn).Encode(answer)
}

// admit waits until the pod is known from the API server, with the labels that policies select by, and its rules hold.
func (a *agent) admit(ctx context.Context, pod announcement) error {
	ctx, cancel := context.WithTimeout(ctx, announceTime)
	defer cancel()
	for {
		known, err := a.pods.Pods(pod.Namespace).Get(pod.Name)
		if err == nil && known.UID == pod.UID {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("pod %s/%s is not known from the API server", pod.Namespace, pod.Name)
		case <-time.After(10 * time.Millisecond):
		}
	}
	a.announced.add(pod.UID, pod.Address)
	return a.sync(ctx)
}
