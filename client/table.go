package client

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/singleflight"

	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/status"
)

// table is what the client knows of services: read from the registry when a service is first called, then kept by
// following it.
type table struct {
	registry registry.Registry
	peers    *peers
	log      *slog.Logger
	lookups  singleflight.Group

	mu       sync.RWMutex
	closed   bool
	services map[string]*service
	follower *registry.Follower // nil before the first lookup
}

// service is what is known of one name.
type service struct {
	name     string
	registry string // its name
	peers    *peers

	mu      sync.Mutex
	nodes   map[string]*Node // by ID; a Node is not changed, but replaced
	applied uint64           // changes that the watch brought
	view    atomic.Pointer[view]
}

// view is the nodes to pick from, made once for many calls.
type view struct {
	nodes   []*Node
	changed uint64 // peers.changed when it was made
}

func newTable(reg registry.Registry, ps *peers, log *slog.Logger) *table {
	return &table{registry: reg, peers: ps, log: log, services: make(map[string]*service)}
}

func (t *table) close() {
	t.mu.Lock()
	t.closed = true
	f := t.follower
	t.mu.Unlock()
	if f != nil {
		f.Stop()
	}
}

// usable returns the service if it has nodes to call.
func (t *table) usable(name string) *service {
	if s := t.known(name); s != nil && len(s.usable()) > 0 {
		return s
	}
	return nil
}

// lookUp asks the registry for a service of which no node is known.
func (t *table) lookUp(ctx context.Context, name string) (*service, error) {
	found := t.lookups.DoChan(name, func() (any, error) { return t.find(name) })
	select {
	case r := <-found:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*service), nil
	case <-ctx.Done():
		return nil, &Failure{Status: *status.From(ctx.Err())}
	}
}

func (t *table) find(name string) (*service, error) {
	f := t.follow()
	if f == nil {
		return nil, errClosed
	}
	<-f.Begun() // what changes after the reading must be seen
	s := t.enter(name)
	if err := t.read(s); err != nil {
		t.leave(s)
		if errors.Is(err, registry.ErrNotFound) {
			return nil, nobody(name, t.registry.String())
		}
		return nil, failf(status.Unavailable, "look up %s in registry %s: %w", name, t.registry, err)
	}
	return s, nil
}

// follow keeps up with the registry from the first call on; nil if the table is closed.
func (t *table) follow() *registry.Follower {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	if t.follower == nil {
		t.follower = registry.Follow(t.registry, t.log, t.apply, t.readAll)
	}
	return t.follower
}

func (t *table) apply(r *registry.Result) {
	if s := t.known(r.Service.Name); s != nil {
		s.apply(r)
	}
}

// enter makes the watch keep what it learns of name.
func (t *table) enter(name string) *service {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.services[name]
	if s == nil {
		s = &service{name: name, registry: t.registry.String(), peers: t.peers, nodes: make(map[string]*Node)}
		t.services[name] = s
	}
	return s
}

// leave forgets a service that has no nodes: names that somebody made up are not kept.
func (t *table) leave(s *service) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(s.usable()) == 0 {
		delete(t.services, s.name)
	}
}

// maxReads is how often a service is read while the watch brings changes of it at the same time.
const maxReads = 3

// read makes what the registry has all that is known of s.
func (t *table) read(s *service) error {
	for i := range maxReads {
		before := s.changes()
		versions, err := t.registry.GetService(s.name)
		if err == nil && len(versions) == 0 {
			err = registry.ErrNotFound
		}
		if err != nil && !errors.Is(err, registry.ErrNotFound) {
			return err
		}
		if s.replace(versions, before, i == maxReads-1) {
			return err
		}
	}
	return nil
}

func nobody(name, registry string) error {
	return failf(status.Unavailable, "no node of service %q is known to registry %s", name, registry)
}

func (s *service) nobody(filtered bool) error {
	if filtered {
		return failf(status.Unavailable, "no node of service %q that the call allows is known to registry %s", s.name, s.registry)
	}
	return nobody(s.name, s.registry)
}

// readAll reads everything again, because a watch may have missed something.
func (t *table) readAll(ctx context.Context) {
	t.mu.RLock()
	names := make([]string, 0, len(t.services))
	for name := range t.services {
		names = append(names, name)
	}
	t.mu.RUnlock()
	for _, name := range names {
		if s := t.known(name); s != nil && ctx.Err() == nil {
			if err := t.read(s); err != nil {
				t.log.Debug("reading the registry failed", "registry", t.registry.String(), "service", name, "error", err)
			}
		}
	}
}

func (t *table) known(name string) *service {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.services[name]
}

// usable returns the nodes to pick from: those that the registry has and that are not ejected; else those that it has
// lost while their connection lives; else all that it has.
func (s *service) usable() []*Node {
	v := s.view.Load()
	if v == nil || v.changed != s.peers.changed.Load() {
		v = s.makeView()
	}
	return v.nodes
}

func (s *service) makeView() *view {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &view{changed: s.peers.changed.Load()}
	var good, registered, stale []*Node
	for _, id := range slices.Sorted(maps.Keys(s.nodes)) {
		switch n := s.nodes[id]; {
		case n.lost != nil && !n.lost.Usable():
			s.forget(id)
		case n.lost != nil:
			stale = append(stale, n)
		default:
			registered = append(registered, n)
			if !n.peer.ejected.Load() && !n.resting.Load() {
				good = append(good, n)
			}
		}
	}
	switch {
	case len(good) > 0:
		v.nodes = good
	case len(stale) > 0:
		v.nodes = stale
	default:
		v.nodes = registered
	}
	s.view.Store(v)
	return v
}

func (s *service) changes() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied
}

// replace makes versions all that is known, unless the watch has brought changes since they were read, which must not be
// lost; then it is false.
func (s *service) replace(versions []*registry.Service, before uint64, force bool) bool {
	s.mu.Lock()
	if s.applied != before && !force {
		s.mu.Unlock()
		return false
	}
	there := make(map[string]bool)
	for _, version := range versions {
		for _, n := range version.Nodes {
			there[n.ID] = true
		}
		s.put(version)
	}
	for id := range s.nodes {
		if !there[id] {
			s.gone(id)
		}
	}
	s.mu.Unlock()
	s.makeView()
	return true
}

func (s *service) apply(r *registry.Result) {
	s.mu.Lock()
	s.applied++
	if r.Action == registry.Delete {
		for _, n := range r.Service.Nodes {
			if known := s.nodes[n.ID]; known != nil && known.Version == r.Service.Version { // it may have moved to another version
				s.gone(n.ID)
			}
		}
	} else {
		s.put(r.Service)
	}
	s.mu.Unlock()
	s.makeView()
}

func (s *service) put(version *registry.Service) {
	idempotent := make(map[string]bool)
	for _, e := range version.Endpoints {
		if e.Metadata[registry.MetadataIdempotent] == "true" {
			idempotent[e.Name] = true
		}
	}
	for _, n := range version.Nodes {
		node := &Node{ID: n.ID, Address: n.Address, Version: version.Version, Metadata: n.Metadata, idempotent: idempotent,
			resting: new(atomic.Bool), peer: s.peers.acquire(n.Address)}
		s.forget(n.ID)
		s.nodes[n.ID] = node
	}
}

// gone keeps a node that the registry has lost for as long as this connection lives: it may be the registry that is in
// trouble. A node that stops closes its connections itself.
func (s *service) gone(id string) {
	n := s.nodes[id]
	if n == nil || n.lost != nil {
		return
	}
	conn := n.peer.usable()
	if conn == nil {
		s.forget(id)
		return
	}
	kept := *n
	kept.lost = conn
	s.nodes[id] = &kept
}

func (s *service) forget(id string) {
	if n := s.nodes[id]; n != nil {
		delete(s.nodes, id)
		s.peers.release(n.peer)
	}
}
