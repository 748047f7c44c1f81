package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// cniConfig is the part of a chained plugin's configuration that is read here.
// Source: https://www.cni.dev/docs/spec/#section-1-network-configuration-format
type cniConfig struct {
	CNIVersion string          `json:"cniVersion"`
	Socket     string          `json:"socket"`
	PrevResult json.RawMessage `json:"prevResult"`
}

type cniResult struct {
	IPs []struct {
		Address netip.Prefix `json:"address"`
	} `json:"ips"`
}

// plugin is this program as the last CNI plugin of the chain: it holds a pod back until its rules are in the kernel, so
// that a new pod is neither open for a moment nor shut for longer than its start takes.
func plugin(command, arguments string, input io.Reader, output io.Writer) error {
	if command == "VERSION" {
		_, err := io.WriteString(output, `{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}`)
		return err
	}
	// The agent forgets a pod when the API server does.
	if command != "ADD" {
		return nil
	}
	var config cniConfig
	if err := json.NewDecoder(input).Decode(&config); err != nil {
		return fmt.Errorf("network-policy: configuration: %w", err)
	}
	pod, err := podOf(arguments, config.PrevResult)
	if err != nil {
		return err
	}
	if err := announce(config.Socket, pod); err != nil {
		return err
	}
	_, err = output.Write(config.PrevResult)
	return err
}

func podOf(arguments string, previous json.RawMessage) (announcement, error) {
	given := map[string]string{}
	for _, pair := range strings.Split(arguments, ";") {
		key, value, _ := strings.Cut(pair, "=")
		given[key] = value
	}
	pod := announcement{
		Namespace: given["K8S_POD_NAMESPACE"],
		Name:      given["K8S_POD_NAME"],
		UID:       types.UID(given["K8S_POD_UID"]),
	}
	if pod.Namespace == "" || pod.Name == "" || pod.UID == "" {
		return pod, fmt.Errorf("network-policy: CNI_ARGS %q has no K8S_POD_NAMESPACE, K8S_POD_NAME and K8S_POD_UID", arguments)
	}
	var result cniResult
	if err := json.Unmarshal(previous, &result); err != nil {
		return pod, fmt.Errorf("network-policy: prevResult: %w; the plugin must come after the one that gives the address", err)
	}
	for _, each := range result.IPs {
		if each.Address.Addr().Is4() {
			pod.Address = each.Address.Addr()
			return pod, nil
		}
	}
	return pod, errors.New("network-policy: prevResult has no IPv4 address")
}

func announce(socket string, pod announcement) error {
	conn, err := net.DialTimeout("unix", socket, announceTime)
	if err != nil {
		return fmt.Errorf("network-policy: the agent does not answer: %w", err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(announceTime + time.Second))
	if err := json.NewEncoder(conn).Encode(pod); err != nil {
		return fmt.Errorf("network-policy: %w", err)
	}
	var answer reply
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		return fmt.Errorf("network-policy: the agent broke off: %w", err)
	}
	if answer.Error != "" {
		return errors.New("network-policy: " + answer.Error)
	}
	return nil
}

// pluginFailure writes an error as the CNI specification wants it on standard output.
func pluginFailure(output io.Writer, err error) {
	_ = json.NewEncoder(output).Encode(map[string]any{"cniVersion": "1.0.0", "code": 100, "msg": err.Error()})
}
