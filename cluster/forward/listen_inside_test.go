package main

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// listenInside starts a server in the namespace at path; it greets each connection with "inside" and closes it.
func listenInside(t *testing.T, path string) netip.AddrPort {
	t.Helper()
	type result struct {
		listener *net.TCPListener
		err      error
	}
	results := make(chan result)
	go func() {
		runtime.LockOSThread()
		namespace, err := os.Open(path)
		if err != nil {
			results <- result{err: err}
			return
		}
		defer namespace.Close()
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			results <- result{err: err}
			return
		}
		listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		results <- result{listener, err}
	}()
	got := <-results
	if got.err != nil {
		t.Fatal(got.err)
	}
	t.Cleanup(func() { got.listener.Close() })
	go func() {
		for {
			conn, err := got.listener.AcceptTCP()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("inside"))
			conn.Close()
		}
	}()
	return got.listener.Addr().(*net.TCPAddr).AddrPort()
}
