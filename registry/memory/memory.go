// Package memory is the registry of one process: for tests, and for programs that run all their services in themselves.
//
//	MICRO_REGISTRY=memory ./program
//
// Everything in the process that opens the plugin sees the same services. New instances for tests come from a Store:
//
//	reg := memory.NewStore().Open()
package memory

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
)

// Config has no settings.
type Config struct{}

func init() {
	plugin.Register("memory", New, plugin.Doc("services of one process, for tests and single binaries"))
}

var process = NewStore()

// New opens the registry that the process shares.
func New(*plugin.Env, Config) (registry.Registry, error) { return process.Open(), nil }

// Store is what several registries share, as processes share a server.
type Store struct {
	mu       sync.Mutex
	services map[string]map[string]*entry // by name and node ID
	open     map[*Registry]struct{}
}

// NewStore returns an empty one.
func NewStore() *Store {
	return &Store{services: make(map[string]map[string]*entry), open: make(map[*Registry]struct{})}
}

// Open returns a registry of its own on s. Closing it removes the nodes that were last registered through it.
func (s *Store) Open() *Registry {
	r := &Registry{store: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[r] = struct{}{}
	return r
}

// Wipe loses everything, as a server does that restarts without its data.
func (s *Store) Wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeIf(func(*entry) bool { return true })
}

// entry is one node; service has that node alone and is never changed.
type entry struct {
	service *registry.Service
	owner   *Registry
	expires time.Time   // zero: never
	timer   *time.Timer // nil: never
}

func (e *entry) id() string { return e.service.Nodes[0].ID }

func (e *entry) dead(now time.Time) bool { return !e.expires.IsZero() && !now.Before(e.expires) }

func (s *Store) register(owner *Registry, single *registry.Service, ttl time.Duration) {
	nodes := s.services[single.Name]
	if nodes == nil {
		nodes = make(map[string]*entry)
		s.services[single.Name] = nodes
	}
	e := &entry{service: single, owner: owner}
	var before []*registry.Service
	if old := nodes[e.id()]; old != nil {
		old.stopTimer()
		before = append(before, old.service)
	}
	nodes[e.id()] = e
	if ttl > 0 {
		e.expires = time.Now().Add(ttl)
		e.timer = time.AfterFunc(ttl, func() { s.expire(e) })
	}
	s.publish(registry.Diff(before, []*registry.Service{single}))
}

func (e *entry) stopTimer() {
	if e.timer != nil {
		e.timer.Stop()
	}
}

func (s *Store) expire(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(e)
}

// remove does nothing if e was replaced in the meantime.
func (s *Store) remove(e *entry) {
	nodes := s.services[e.service.Name]
	if nodes[e.id()] != e {
		return
	}
	e.stopTimer()
	delete(nodes, e.id())
	if len(nodes) == 0 {
		delete(s.services, e.service.Name)
	}
	s.publish(registry.Diff([]*registry.Service{e.service}, nil))
}

func (s *Store) removeIf(match func(*entry) bool) {
	for _, name := range slices.Sorted(maps.Keys(s.services)) {
		for _, id := range slices.Sorted(maps.Keys(s.services[name])) {
			if e := s.services[name][id]; match(e) {
				s.remove(e)
			}
		}
	}
}

// publish is called with the lock held, which keeps the order.
func (s *Store) publish(results []*registry.Result) {
	for r := range s.open {
		r.changes.Publish(results...)
	}
}

// Registry is one view of a Store.
type Registry struct {
	store   *Store
	changes registry.Fanout
	closed  bool // guarded by the store's lock
}

var _ registry.Registry = (*Registry)(nil)

// locked runs f with the store's lock held, unless the registry is closed.
func (r *Registry) locked(f func()) error {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	if r.closed {
		return registry.ErrClosed
	}
	f()
	return nil
}

func (r *Registry) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	if err := registry.Validate(s); err != nil {
		return err
	}
	ttl := registry.NewRegisterOptions(opts...).TTL
	copied := s.Clone()
	return r.locked(func() {
		for _, n := range copied.Nodes {
			single := *copied
			single.Nodes = []*registry.Node{n}
			r.store.register(r, &single, ttl)
		}
	})
}

func (r *Registry) Deregister(s *registry.Service) error {
	return r.locked(func() {
		for _, n := range s.Nodes {
			if e := r.store.services[s.Name][n.ID]; e != nil {
				r.store.remove(e)
			}
		}
	})
}

func (r *Registry) GetService(name string) ([]*registry.Service, error) {
	var found []*registry.Service
	err := r.locked(func() {
		now := time.Now()
		for _, e := range r.store.services[name] {
			if !e.dead(now) {
				found = append(found, e.service)
			}
		}
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%w: %s", registry.ErrNotFound, name)
	}
	if err != nil {
		return nil, err
	}
	return registry.Merge(found), nil
}

func (r *Registry) ListServices() ([]*registry.Service, error) {
	var list []*registry.Service
	err := r.locked(func() {
		now := time.Now()
		for _, name := range slices.Sorted(maps.Keys(r.store.services)) {
			for _, e := range r.store.services[name] {
				if !e.dead(now) {
					list = append(list, &registry.Service{Name: name})
					break
				}
			}
		}
	})
	return list, err
}

func (r *Registry) Watch() (registry.Watcher, error) { return r.changes.Watch() }

func (r *Registry) String() string { return "memory" }

// OneMachine is what registry.OneMachine asks.
func (r *Registry) OneMachine() bool { return true }

// Close removes what was registered through r. It may be called more than once.
func (r *Registry) Close() error {
	r.changes.Close()
	_ = r.locked(func() { // closed already: nothing is left to do
		r.closed = true
		delete(r.store.open, r)
		r.store.removeIf(func(e *entry) bool { return e.owner == r })
	})
	return nil
}
