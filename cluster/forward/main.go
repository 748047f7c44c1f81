// Command forward listens on loopback ports of the machine and carries each connection into a named network
// namespace. It is the only door of the local cluster: nothing inside the namespace is reachable in another way, and
// nothing outside this machine reaches the door.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// drainTime is how long open connections may last after a stop was asked for.
const drainTime = 2 * time.Second

type rules []rule

func (r *rules) String() string { return fmt.Sprint(*r) }

func (r *rules) Set(text string) error {
	parsed, err := parseRule(text)
	if err != nil {
		return err
	}
	*r = append(*r, parsed)
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("forward", flag.ContinueOnError)
	namespace := flags.String("netns", "", "path of the network namespace to dial in, such as /run/netns/soma")
	var wanted rules
	flags.Var(&wanted, "forward", "LISTEN=TARGET, such as 127.0.0.1:8443=10.250.0.1:30443; repeatable")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *namespace == "" || len(wanted) == 0 {
		return errors.New("forward: --netns and at least one --forward are required; see --help")
	}
	dial, err := namespaceDialer(*namespace)
	if err != nil {
		return err
	}
	return serve(ctx, wanted, dial)
}

// serve listens on every address before it carries the first connection, so that a taken port fails the start.
func serve(ctx context.Context, wanted rules, dial dialFunc) error {
	forwarders := make([]*forwarder, 0, len(wanted))
	for _, rule := range wanted {
		started, err := listen(ctx, rule, dial)
		if err != nil {
			for _, other := range forwarders {
				other.stop(0)
			}
			return err
		}
		slog.Info("forwarding", "listen", rule.listen, "target", rule.target)
		forwarders = append(forwarders, started)
	}
	<-ctx.Done()
	var stopping sync.WaitGroup
	for _, each := range forwarders {
		stopping.Go(func() { each.stop(drainTime) })
	}
	stopping.Wait()
	return nil
}
