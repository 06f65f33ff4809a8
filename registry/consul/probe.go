package consul

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"
	"github.com/plugmicro/micro/registry"
)

// probe is what an agent checks beside the TTL; the zero probe is nothing.
type probe struct {
	kind       string // tcp, http, https or grpc
	host, port string // empty: the node's
	path       string // with the slash before it
}

func parseProbe(text string) (probe, error) {
	kind, rest, _ := strings.Cut(text, "://")
	switch kind {
	case "ttl":
		if text == "ttl" {
			return probe{}, nil
		}
	case "tcp", "http", "https", "grpc":
		u, err := url.Parse(kind + "://" + rest)
		if err == nil && u.User == nil && (kind != "tcp" || u.Path == "") {
			return probe{kind: kind, host: u.Hostname(), port: u.Port(), path: u.RequestURI()}, nil
		}
	}
	return probe{}, fmt.Errorf("check %q is unknown: write ttl, tcp, http, https or grpc, or as in http://:8080/health", withoutSecrets(text))
}

// check is what the agent is told, nil if there is nothing to check. Services of Micro itself, whose names begin with
// an underscore, have nodes at which nobody listens.
func (p probe) check(name string, n *registry.Node) (*api.AgentServiceCheck, error) {
	if p.kind == "" || strings.HasPrefix(name, "_") {
		return nil, nil
	}
	host, number := hostPort(n.Address)
	host, port := cmp.Or(p.host, host), cmp.Or(p.port, strconv.Itoa(number))
	if host == "" || port == "0" {
		return nil, fmt.Errorf("%w: node %s is at %q, where no agent can check by %s: set registry-check to ttl, or to a URL with host and port",
			registry.ErrInvalid, n.ID, n.Address, p.kind)
	}
	target := net.JoinHostPort(host, port)
	switch p.kind {
	case "tcp":
		return &api.AgentServiceCheck{TCP: target}, nil
	case "grpc":
		return &api.AgentServiceCheck{GRPC: target + strings.TrimSuffix(p.path, "/")}, nil
	}
	return &api.AgentServiceCheck{HTTP: p.kind + "://" + target + p.path}, nil
}
