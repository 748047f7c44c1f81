package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// dialTime is how long a target may take to answer. It is a process on this machine: longer means it is not there.
const dialTime = 5 * time.Second

// dialFunc connects to a TCP address.
type dialFunc func(ctx context.Context, target netip.AddrPort) (*net.TCPConn, error)

// namespaceDialer gives a dialFunc whose sockets belong to the network namespace at path. The namespace is looked up
// at every dial: it is remade when the cluster restarts, and a handle kept open would keep the dead one alive.
func namespaceDialer(path string) (dialFunc, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("network namespace %s: %w; start the cluster first", path, err)
	}
	return func(ctx context.Context, target netip.AddrPort) (*net.TCPConn, error) {
		type result struct {
			conn *net.TCPConn
			err  error
		}
		results := make(chan result, 1)
		// The thread that enters the namespace is locked and never unlocked: the runtime ends it with its goroutine,
		// so no other goroutine can ever run in the wrong namespace.
		go func() {
			runtime.LockOSThread()
			conn, err := dialIn(ctx, path, target)
			results <- result{conn, err}
		}()
		got := <-results
		return got.conn, got.err
	}, nil
}

func dialIn(ctx context.Context, path string, target netip.AddrPort) (*net.TCPConn, error) {
	namespace, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer namespace.Close()
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter network namespace %s: %w (needs root)", path, err)
	}
	// A numeric address of one family is dialled on the calling thread: no resolver, no Happy Eyeballs goroutine.
	dialer := net.Dialer{Timeout: dialTime, FallbackDelay: -1, KeepAliveConfig: keepAlive}
	conn, err := dialer.DialContext(ctx, "tcp", target.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}
