package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// keepAlive finds a vanished peer in about a minute; event streams are silent for long and must stay open.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}

// acceptPause is the wait after a failed accept, which is nearly always a lack of file descriptors.
const acceptPause = 50 * time.Millisecond

// forwarder carries the connections of one rule.
type forwarder struct {
	rule     rule
	dial     dialFunc
	listener *net.TCPListener
	cancel   context.CancelFunc
	open     sync.WaitGroup
	mutex    sync.Mutex
	conns    map[*net.TCPConn]struct{}
}

// listen starts a forwarder. The error names the port and what to do when it is taken.
func listen(ctx context.Context, rule rule, dial dialFunc) (*forwarder, error) {
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(rule.listen))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("port %s is taken by another process; stop it (find it with: ss -ltnp 'sport = :%d')",
			rule.listen, rule.listen.Port())
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", rule.listen, err)
	}
	// Open connections outlive the cancellation of ctx by the drain time, so they hang on a context of their own.
	dialing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	started := &forwarder{rule: rule, dial: dial, listener: listener, cancel: cancel, conns: map[*net.TCPConn]struct{}{}}
	go started.accept(dialing)
	return started, nil
}

func (f *forwarder) accept(ctx context.Context) {
	for {
		conn, err := f.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			slog.Warn("accept", "listen", f.rule.listen, "error", err)
			time.Sleep(acceptPause)
			continue
		}
		f.open.Go(func() { f.carry(ctx, conn) })
	}
}

func (f *forwarder) carry(ctx context.Context, client *net.TCPConn) {
	defer f.track(client)()
	_ = client.SetKeepAliveConfig(keepAlive)
	server, err := f.dial(ctx, f.rule.target)
	if err != nil {
		slog.Warn("dial", "target", f.rule.target, "error", err)
		// A reset tells the client at once that nobody is there; a clean close would look like an empty answer.
		_ = client.SetLinger(0)
		return
	}
	defer f.track(server)()
	var upstream sync.WaitGroup
	upstream.Go(func() { copyHalf(server, client) })
	copyHalf(client, server)
	upstream.Wait()
}

// copyHalf carries one direction and then closes only that half: the other may still have an answer to deliver.
func copyHalf(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		// Half a connection after an error is of no use to either side, so both end.
		_ = from.Close()
		_ = to.Close()
		return
	}
	_ = to.CloseWrite()
}

// track remembers an open connection; the function that it returns closes and forgets it.
func (f *forwarder) track(conn *net.TCPConn) func() {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.conns[conn] = struct{}{}
	return func() {
		f.mutex.Lock()
		defer f.mutex.Unlock()
		delete(f.conns, conn)
		_ = conn.Close()
	}
}

// stop closes the listener, gives open connections the drain time, then closes them.
func (f *forwarder) stop(drain time.Duration) {
	_ = f.listener.Close()
	done := make(chan struct{})
	go func() { f.open.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(drain):
	}
	f.cancel()
	f.mutex.Lock()
	for conn := range f.conns {
		_ = conn.Close()
	}
	f.mutex.Unlock()
	<-done
}
