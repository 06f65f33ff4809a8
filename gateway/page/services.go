package page

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/openapi"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/transport"
)

// pace is how often the directory is looked at, which costs the reading of a number, and so how often there is news.
const pace = 200 * time.Millisecond

// change is what the stream of services says: all there are, and then what became different.
type change struct {
	Ready    bool      `json:"ready"`         // the registry was read: what is not there does not exist
	All      bool      `json:"all,omitempty"` // forget what was before
	Services []service `json:"services,omitempty"`
	Gone     []string  `json:"gone,omitempty"`
}

// service is one name.
type service struct {
	Name     string              `json:"name"`
	Versions []*registry.Service `json:"versions"`
	Paths    map[string]string   `json:"paths,omitempty"` // short paths of the public address, by endpoint
}

// services streams the directory.
func (p *Page) services(w http.ResponseWriter, r *http.Request) {
	s := newStream(w)
	look, beat := time.NewTicker(pace), time.NewTicker(heartbeat)
	defer look.Stop()
	defer beat.Stop()
	generation, ready := p.Directory.Generation(), p.Directory.Ready()
	known := byName(p.Directory.Services())
	err := s.send("services", difference(nil, known, ready, true))
	for err == nil {
		select {
		case <-look.C:
			g, rd := p.Directory.Generation(), p.Directory.Ready()
			if g == generation && rd == ready {
				continue
			}
			now := byName(p.Directory.Services())
			err = s.send("services", difference(known, now, rd, false))
			generation, ready, known = g, rd, now
		case <-beat.C:
			err = s.beat()
		case <-p.closed:
			return
		case <-r.Context().Done():
			return
		}
	}
}

func byName(services []*registry.Service) map[string][]*registry.Service {
	m := make(map[string][]*registry.Service)
	for _, s := range services {
		m[s.Name] = append(m[s.Name], s)
	}
	return m
}

// difference goes by identity: the directory replaces what changes.
func difference(before, now map[string][]*registry.Service, ready, all bool) change {
	c := change{Ready: ready, All: all}
	for name, versions := range now {
		if !slices.Equal(before[name], versions) {
			c.Services = append(c.Services, service{Name: name, Versions: versions, Paths: paths(versions)})
		}
	}
	for name := range before {
		if now[name] == nil {
			c.Gone = append(c.Gone, name)
		}
	}
	slices.SortFunc(c.Services, func(a, b service) int { return cmp.Compare(a.Name, b.Name) })
	slices.Sort(c.Gone)
	return c
}

func paths(versions []*registry.Service) map[string]string {
	m := make(map[string]string)
	for _, v := range versions {
		for _, e := range v.Endpoints {
			if path := openapi.Path(v.Name, e.Name); path != "" {
				m[e.Name] = path
			}
		}
	}
	return m
}

// Probe says whether a node can be reached: nil, or why not.
type Probe func(ctx context.Context, node *registry.Node) error

// Dial is a Probe that connects to the node by the transport of the calls, as these do, and hangs up.
func Dial(tr transport.Transport) Probe {
	return func(ctx context.Context, node *registry.Node) error {
		conn, err := tr.Dial(ctx, node.Address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// Limits of probing: that of one node, and of one request.
const (
	probeTimeout = 2 * time.Second
	maxProbes    = 200
	probesAtOnce = 16
)

// reached is what a probe found out.
type reached struct {
	Reachable bool    `json:"reachable"`
	Millis    float64 `json:"ms"`
	Error     string  `json:"error,omitempty"`
}

// health probes the nodes of a service. Only what is registered is dialled.
func (p *Page) health(w http.ResponseWriter, r *http.Request) {
	if p.Probe == nil {
		gateway.Fail(w, r, gateway.NewProblem(http.StatusNotImplemented, "this page probes nothing"))
		return
	}
	var nodes []*registry.Node
	for _, v := range p.Directory.Service(r.URL.Query().Get("service")) {
		nodes = append(nodes, v.Nodes...)
	}
	nodes = nodes[:min(len(nodes), maxProbes)]
	var mu sync.Mutex
	found := make(map[string]reached, len(nodes))
	var group errgroup.Group
	group.SetLimit(probesAtOnce)
	for _, n := range nodes {
		group.Go(func() error {
			res := p.probe(r.Context(), n)
			mu.Lock()
			defer mu.Unlock()
			found[n.ID] = res
			return nil
		})
	}
	_ = group.Wait() // they return none
	writeJSON(w, map[string]any{"nodes": found})
}

func (p *Page) probe(ctx context.Context, n *registry.Node) reached {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	start := time.Now()
	err := p.Probe(ctx, n)
	res := reached{Reachable: err == nil, Millis: float64(time.Since(start).Microseconds()) / 1000}
	if err != nil {
		res.Error = err.Error()
	}
	return res
}
