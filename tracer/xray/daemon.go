package xray

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// addressVariable is what X-Ray's SDKs read the daemon's address from.
const addressVariable = "AWS_XRAY_DAEMON_ADDRESS"

const defaultDaemon = "127.0.0.1:2000"

// addresses are where the daemon takes segments, and where it answers about sampling.
type addresses struct{ udp, tcp string }

// daemonAddresses are those of the setting, else of the environment, else the default.
func daemonAddresses(setting string) (addresses, error) {
	if setting != "" {
		a, err := parseAddresses(setting)
		if err != nil {
			return a, fmt.Errorf("daemon %q: %w", setting, err)
		}
		return a, nil
	}
	if text := os.Getenv(addressVariable); text != "" {
		a, err := parseAddresses(text)
		if err != nil {
			return a, fmt.Errorf("%s=%q: %w", addressVariable, text, err)
		}
		return a, nil
	}
	return addresses{defaultDaemon, defaultDaemon}, nil
}

var errAddress = errors.New("not the address of a daemon: write it like 127.0.0.1:2000, or tcp:127.0.0.1:2000 udp:127.0.0.1:2001")

// parseAddresses reads host:port, for both, or tcp:host:port and udp:host:port in any order.
func parseAddresses(text string) (a addresses, err error) {
	parts := strings.Fields(text)
	switch len(parts) {
	case 1:
		a = addresses{udp: parts[0], tcp: parts[0]}
	case 2:
		for _, part := range parts {
			switch network, address, _ := strings.Cut(part, ":"); network {
			case "udp":
				a.udp = address
			case "tcp":
				a.tcp = address
			}
		}
	}
	for _, address := range []string{a.udp, a.tcp} {
		_, port, err := net.SplitHostPort(address)
		n, portErr := strconv.ParseUint(port, 10, 16)
		if err != nil || portErr != nil || n == 0 {
			return addresses{}, errAddress
		}
	}
	return a, nil
}
