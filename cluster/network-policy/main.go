// Command network-policy enforces networking.k8s.io/v1 NetworkPolicy, for IPv4, on the node and in the network namespace
// it runs in. Every pod must be connected by a routed interface (the CNI plugin ptp): a bridge would switch pods past
// the rules. Rules stay when it stops, so it fails closed; they go with the network namespace.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/knftables"
)

func main() {
	// How the CNI specification tells a plugin from a program.
	if command := os.Getenv("CNI_COMMAND"); command != "" {
		if err := plugin(command, os.Getenv("CNI_ARGS"), os.Stdin, os.Stdout); err != nil {
			pluginFailure(os.Stdout, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("network-policy", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "path of the kubeconfig of the API server")
	podRange := flags.String("pod-range", "", "addresses of pods as IPv4 CIDR, such as 10.244.0.0/16")
	socket := flags.String("socket", "", "path of the socket on which the CNI plugin announces new pods; optional")
	if err := flags.Parse(args); err != nil {
		return err
	}
	parsed, err := netip.ParsePrefix(*podRange)
	if err != nil || !parsed.Addr().Is4() {
		return fmt.Errorf("network-policy: --pod-range %q is not an IPv4 CIDR; want one such as 10.244.0.0/16", *podRange)
	}
	if *kubeconfig == "" {
		return errors.New("network-policy: --kubeconfig is required")
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return fmt.Errorf("network-policy: --kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	nft, err := knftables.New(family, tableName)
	if err != nil {
		return fmt.Errorf("network-policy: %w; install nft (apt-get install nftables) and run as root", err)
	}
	started, err := start(ctx, nft, client, parsed.Masked())
	if err != nil {
		return err
	}
	if *socket != "" {
		if err := started.listen(ctx, *socket); err != nil {
			return err
		}
	}
	started.run(ctx)
	return nil
}
