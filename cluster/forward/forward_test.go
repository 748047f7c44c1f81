package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParseRule(t *testing.T) {
	good, err := parseRule("127.0.0.1:8443=10.250.0.1:30443")
	if err != nil || good.listen.String() != "127.0.0.1:8443" || good.target.String() != "10.250.0.1:30443" {
		t.Fatalf("got %v, %v", good, err)
	}
	for text, want := range map[string]string{
		"127.0.0.1:8443":                  "want LISTEN=TARGET",
		"0.0.0.0:8443=10.250.0.1:30443":   "not loopback",
		"[::]:8443=10.250.0.1:30443":      "not loopback",
		"192.168.1.4:1=10.250.0.1:30443":  "not loopback",
		"localhost:8443=10.250.0.1:30443": "listen address \"localhost:8443\"",
		"127.0.0.1:8443=gateway:30443":    "target \"gateway:30443\"",
		"127.0.0.1:8443=10.250.0.1:0":     "target \"10.250.0.1:0\"",
	} {
		if _, err := parseRule(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want %q", text, err, want)
		}
	}
}

func plainDial(ctx context.Context, target netip.AddrPort) (*net.TCPConn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", target.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// start runs a forwarder to a server that answers with what it read after the client closed its half.
func start(t *testing.T, answer func(*net.TCPConn)) (*forwarder, *net.TCPConn) {
	t.Helper()
	server, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		for {
			conn, err := server.AcceptTCP()
			if err != nil {
				return
			}
			go answer(conn)
		}
	}()
	target := server.Addr().(*net.TCPAddr).AddrPort()
	f, err := listen(t.Context(), rule{netip.MustParseAddrPort("127.0.0.1:0"), target}, plainDial)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := plainDial(t.Context(), f.listener.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	return f, conn
}

func TestHalfClose(t *testing.T) {
	f, conn := start(t, func(c *net.TCPConn) {
		all, _ := io.ReadAll(c)
		_, _ = c.Write([]byte(strings.ToUpper(string(all))))
		c.Close()
	})
	_, _ = conn.Write([]byte("question"))
	_ = conn.CloseWrite()
	got, err := io.ReadAll(conn)
	if string(got) != "QUESTION" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	f.stop(time.Second)
}

func TestStopDrainsThenCloses(t *testing.T) {
	f, conn := start(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	_, _ = conn.Write([]byte("x"))
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	f.stop(100 * time.Millisecond)
	if took := time.Since(begin); took < 100*time.Millisecond || took > 2*time.Second {
		t.Errorf("stop took %s, want about the drain time of 100ms", took)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is open after stop")
	}
}

func TestNobodyThereResets(t *testing.T) {
	free, _ := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	target := free.Addr().(*net.TCPAddr).AddrPort()
	free.Close()
	f, err := listen(t.Context(), rule{netip.MustParseAddrPort("127.0.0.1:0"), target}, plainDial)
	if err != nil {
		t.Fatal(err)
	}
	defer f.stop(0)
	conn, err := plainDial(t.Context(), f.listener.Addr().(*net.TCPAddr).AddrPort())
	// The reset may come before the client has seen its connection open, or after.
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	taken, _ := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	defer taken.Close()
	address := taken.Addr().(*net.TCPAddr).AddrPort()
	_, err := listen(t.Context(), rule{listen: address, target: address}, plainDial)
	if err == nil || !strings.Contains(err.Error(), address.String()+" is taken") {
		t.Errorf("got %v", err)
	}
}

// The server listens on loopback of a fresh namespace; a dialler without the namespace can't reach it.
func TestDialsInsideTheNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	name := "forward-test-" + time.Now().Format("150405.000000")
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Skipf("no network namespaces here: %s", out)
	}
	defer func() { _ = exec.Command("ip", "netns", "del", name).Run() }()
	if out, err := exec.Command("ip", "-n", name, "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	path := "/run/netns/" + name
	address := listenInside(t, path)
	if _, err := plainDial(t.Context(), address); err == nil {
		t.Fatal("the server is reachable from outside its namespace: the test proves nothing")
	}
	dial, err := namespaceDialer(path)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(conn); string(got) != "inside" {
		t.Errorf("got %q", got)
	}
}
