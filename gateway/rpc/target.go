package rpc

import (
	"net/http"
	"slices"
	"strings"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/clip"
	"github.com/plugmicro/micro/internal/nearest"
	"github.com/plugmicro/micro/registry"
)

// The values of registry.MetadataStream.
const (
	noStream     = ""
	serverStream = "server"
	clientStream = "client"
	bothStreams  = "both"
)

// target is an endpoint, and what is known of it for all requests that are for it.
type target struct {
	service, endpoint string
	route             string // the two
	described         *registry.Endpoint
	stream            string
	options           []client.CallOption // of every call, but for the body's type
	byType            [numTypes][]client.CallOption
	limit             gateway.Target // what a route said
}

// found is what was looked up while the directory had one generation: it saves the hot path from doing it again.
type found struct {
	generation uint64
	byPath     map[string]*target
	byRoute    map[gateway.Target]*target
}

// Both bound how much of it is kept: clients think up paths.
const (
	maxFound     = 1000
	maxFoundPath = 256
)

// isPlain says whether a path is as people write it. Any number of dashes more mean the same endpoint: they could fill the table.
func isPlain(path string) bool {
	return len(path) <= maxFoundPath && !strings.Contains(path, "--") && !strings.Contains(path, "-/") && !strings.Contains(path, "/-") &&
		!strings.HasSuffix(path, "-")
}

// target is what r is for.
func (h *Handler) target(r *http.Request, info *gateway.Info) (*target, error) {
	generation := h.directory.Generation()
	f := h.found.Load()
	if f == nil || f.generation != generation {
		f = &found{generation: generation}
	}
	if info.Target != nil {
		if t := f.byRoute[*info.Target]; t != nil {
			return t, nil
		}
		t, err := h.lookUp(*info.Target)
		if err == nil {
			h.remember(generation, "", t)
		}
		return t, err
	}
	if t := f.byPath[r.URL.Path]; t != nil {
		return t, nil
	}
	t, err := h.targetOfPath(r.URL.Path)
	if err == nil && isPlain(r.URL.Path) {
		h.remember(generation, r.URL.Path, t)
	}
	return t, err
}

// remember puts t into a new table of what was found.
func (h *Handler) remember(generation uint64, path string, t *target) {
	h.finding.Lock()
	defer h.finding.Unlock()
	old := h.found.Load()
	if old == nil || old.generation != generation {
		old = &found{generation: generation}
	}
	if len(old.byPath)+len(old.byRoute) >= maxFound {
		return
	}
	now := &found{generation, make(map[string]*target, len(old.byPath)+1), make(map[gateway.Target]*target, len(old.byRoute)+1)}
	for k, v := range old.byPath {
		now.byPath[k] = v
	}
	for k, v := range old.byRoute {
		now.byRoute[k] = v
	}
	if path != "" {
		now.byPath[strings.Clone(path)] = t
	} else {
		now.byRoute[t.limit] = t
	}
	h.found.Store(now)
}

func (h *Handler) targetOfPath(path string) (*target, error) {
	targets := TargetsOf(path)
	for _, to := range targets {
		if h.IsPublic(to.Service) && h.directory.Endpoint(to.Service, to.Endpoint) != nil {
			return h.lookUp(to)
		}
	}
	if len(targets) > 0 {
		return nil, h.unknown(targets[0].Service, targets[0].Endpoint)
	}
	return nil, gateway.NewProblem(http.StatusNotFound, "the path names no service: it is /SERVICE/ENDPOINT")
}

// named is the target that a body names.
func (h *Handler) named(service, endpoint string) (*target, error) {
	if !h.IsPublic(service) || h.directory.Endpoint(service, endpoint) == nil {
		return nil, h.unknown(service, endpoint)
	}
	return h.lookUp(gateway.Target{Service: service, Endpoint: endpoint})
}

// IsPublic says whether paths and /v1/rpc reach a service, as Options.Services has it.
func (h *Handler) IsPublic(service string) bool {
	return slices.ContainsFunc(h.opts.Services, func(pattern string) bool {
		beginning, open := strings.CutSuffix(pattern, "*")
		return open && strings.HasPrefix(service, beginning) || pattern == service
	})
}

func (h *Handler) lookUp(to gateway.Target) (*target, error) {
	described := h.directory.Endpoint(to.Service, to.Endpoint)
	if described == nil {
		return nil, h.unknown(to.Service, to.Endpoint)
	}
	t := &target{service: to.Service, endpoint: to.Endpoint, route: to.Service + " " + to.Endpoint, described: described, limit: to,
		stream: described.Metadata[registry.MetadataStream]}
	timeout := h.opts.Timeout
	if to.Timeout > 0 {
		timeout = to.Timeout
	}
	t.options = append(h.nodesOf(to), client.Timeout(timeout))
	for i, name := range typeNames {
		t.byType[i] = append(slices.Clip(t.options), client.ContentType(name))
	}
	return t, nil
}

// nodesOf leaves out nodes that do not have the endpoint, or are not of the version that is asked for.
func (h *Handler) nodesOf(to gateway.Target) []client.CallOption {
	if to.Version != "" {
		return []client.CallOption{client.Where(client.Version(to.Version))}
	}
	versions := h.directory.Service(to.Service)
	having := make(map[string]bool)
	for _, v := range versions {
		if slices.ContainsFunc(v.Endpoints, func(e *registry.Endpoint) bool { return e.Name == to.Endpoint }) {
			having[v.Version] = true
		}
	}
	if len(having) == len(versions) {
		return nil
	}
	return []client.CallOption{client.Where(func(n *client.Node) bool { return having[n.Version] })}
}

// unknown says that there is no such endpoint, and which one may be meant. It tells of public services only.
func (h *Handler) unknown(service, endpoint string) error {
	if !h.directory.Ready() {
		return gateway.NewProblem(http.StatusServiceUnavailable, "it is not known yet which services there are: the registry could not be read")
	}
	versions := h.directory.Service(service)
	if len(versions) == 0 || !h.IsPublic(service) {
		var names []string
		for _, s := range h.directory.Services() {
			if h.IsPublic(s.Name) {
				names = append(names, s.Name)
			}
		}
		return gateway.NewProblem(http.StatusNotFound, "there is no service %s%s", shown(service), didYouMean(service, names))
	}
	var names []string
	for _, v := range versions {
		for _, e := range v.Endpoints {
			names = append(names, e.Name)
		}
	}
	return gateway.NewProblem(http.StatusNotFound, "service %s has no endpoint %s%s", service, shown(endpoint), didYouMean(endpoint, names))
}

const maxShown = 100

// shown keeps a name that a client made up short.
func shown(name string) string { return clip.Text(name, maxShown) }

// didYouMean asks whether one of names was meant.
func didYouMean(name string, names []string) string {
	near := nearest.Name(name, names)
	if near == "" {
		return ""
	}
	return ": did you mean " + near + "?"
}
