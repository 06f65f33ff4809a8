// Package directory knows which services there are, and what they can be asked, for those who decide by it request by
// request: the gateway and what it shows of itself.
//
//	d := directory.Follow(reg, log)
//	defer d.Close()
//	e := d.Endpoint("greeter", "Greeter.Hello") // nil: there is none
//
// It follows the registry by watching it, and outlives it: while the registry is away, what is known stays. Services
// whose names begin with an underscore are internal, and never in it.
package directory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/mod/semver"

	"github.com/plugmicro/micro/registry"
)

// Directory is the table. All methods are safe for concurrent use; the ones that read it neither lock nor allocate. What
// they return is shared and must not be changed.
type Directory struct {
	reg    registry.Registry
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	follow *registry.Follower
	work   sync.WaitGroup
	ready  chan struct{} // closed when everything was read once
	table  atomic.Pointer[table]

	reading sync.Mutex // held while everything is read
	mu      sync.Mutex
	known   map[string]*service
}

// table is what is known at one moment. It is replaced, not changed.
type table struct {
	generation uint64
	all        []*registry.Service
	byName     map[string]*entry
}

// entry is one service of a table.
type entry struct {
	versions  []*registry.Service
	endpoints map[string]*registry.Endpoint // of the newest version that has it
}

// service is what the registry said of one name.
type service struct {
	nodes   map[node]*registry.Service // each with that one node
	applied uint64                     // changes that the watch brought
	left    time.Time                  // when the last node went
}

// node is what changes are about.
type node struct{ id, version string }

// memory is how long the endpoints of a service are known after its last node has left: a call in the middle of a restart is
// then one that nobody can take now, not one of something that does not exist.
const memory = 5 * time.Minute

// maxLeft bounds how many such services are remembered.
const maxLeft = 1000

// Follow makes a Directory of what is in reg, and keeps it up to date until Close. It does not wait: see Await. A nil log
// means slog.Default.
func Follow(reg registry.Registry, log *slog.Logger) *Directory {
	if log == nil {
		log = slog.Default()
	}
	d := &Directory{reg: reg, log: log, known: make(map[string]*service), ready: make(chan struct{})}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.table.Store(&table{byName: map[string]*entry{}})
	d.follow = registry.Follow(reg, log, d.apply, func(ctx context.Context) { d.readAll(ctx) })
	d.work.Go(d.begin)
	return d
}

// Close ends it. What it knew can still be read.
func (d *Directory) Close() error {
	d.cancel()
	d.follow.Stop()
	d.work.Wait()
	return nil
}

// Service returns the versions of a service that has nodes, the oldest first; nil if there is none.
func (d *Directory) Service(name string) []*registry.Service {
	if e := d.table.Load().byName[name]; e != nil {
		return e.versions
	}
	return nil
}

// Endpoint returns an endpoint of a service, as the newest version that has it describes it; nil if there is none. It is
// still answered for some minutes after the last node of the service has left.
func (d *Directory) Endpoint(service, endpoint string) *registry.Endpoint {
	if e := d.table.Load().byName[service]; e != nil {
		return e.endpoints[endpoint]
	}
	return nil
}

// Services returns all services that have nodes, sorted by name and version.
func (d *Directory) Services() []*registry.Service { return d.table.Load().all }

// Ready says whether the registry was read once, so that what is not in the directory is not there.
func (d *Directory) Ready() bool {
	select {
	case <-d.ready:
		return true
	default:
		return false
	}
}

// Await waits until Ready. It returns the error of ctx if that ends first, and registry.ErrClosed after Close.
func (d *Directory) Await(ctx context.Context) error {
	if d.Ready() {
		return nil
	}
	select {
	case <-d.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the registry could not be read yet: %w", ctx.Err())
	case <-d.ctx.Done():
		return registry.ErrClosed
	}
}

// Generation changes when what the directory knows does.
func (d *Directory) Generation() uint64 { return d.table.Load().generation }

// begin reads everything for the first time, and tries until it could.
func (d *Directory) begin() {
	<-d.follow.Begun() // what changes after the reading is told
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval = 100 * time.Millisecond
	pauses.MaxInterval = 5 * time.Second
	for failures := 1; d.ctx.Err() == nil; failures++ {
		err := d.readAll(d.ctx)
		if err == nil || errors.Is(err, registry.ErrClosed) {
			return
		}
		if failures == 2 {
			d.log.Warn("the registry cannot be read, nothing is known of any service yet", "registry", d.reg.String(), "error", err)
		}
		select {
		case <-time.After(pauses.NextBackOff()):
		case <-d.ctx.Done():
		}
	}
}

// readAll reads every service that the registry has, or that is known.
func (d *Directory) readAll(ctx context.Context) error {
	d.reading.Lock()
	defer d.reading.Unlock()
	list, err := d.reg.ListServices()
	if err != nil {
		return err
	}
	names := d.names()
	for _, s := range list {
		if !internal(s.Name) {
			names[s.Name] = true
		}
	}
	for name := range names {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err = cmp.Or(err, d.read(name))
	}
	d.forget()
	if err == nil && !d.Ready() {
		close(d.ready)
	}
	return err
}

func internal(name string) bool { return strings.HasPrefix(name, "_") }

func (d *Directory) names() map[string]bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := make(map[string]bool, len(d.known))
	for name := range d.known {
		names[name] = true
	}
	return names
}

// maxReads is how often a service is read while the watch brings changes of it at the same time.
const maxReads = 3

func (d *Directory) read(name string) error {
	for i := range maxReads {
		before := d.changes(name)
		versions, err := d.reg.GetService(name)
		if err != nil && !errors.Is(err, registry.ErrNotFound) {
			return err
		}
		if d.replace(name, versions, before, i == maxReads-1) {
			return nil
		}
	}
	return nil
}

func (d *Directory) changes(name string) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.known[name]; s != nil {
		return s.applied
	}
	return 0
}

// replace makes versions all that is known of name, unless the watch has brought changes since they were read; then it
// is false.
func (d *Directory) replace(name string, versions []*registry.Service, before uint64, force bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.known[name]
	if s == nil {
		if len(versions) == 0 {
			return true
		}
		s = d.enter(name)
	}
	if s.applied != before && !force {
		return false
	}
	s.nodes = make(map[node]*registry.Service)
	for _, v := range versions {
		s.put(v)
	}
	d.publish(name, s)
	return true
}

// apply takes in what the watch tells.
func (d *Directory) apply(r *registry.Result) {
	name := r.Service.Name
	if internal(name) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.known[name]
	if s == nil {
		s = d.enter(name)
	}
	s.applied++
	if r.Action != registry.Delete {
		s.put(r.Service)
	} else {
		for _, n := range r.Service.Nodes {
			delete(s.nodes, node{n.ID, r.Service.Version})
		}
	}
	d.publish(name, s)
}

func (d *Directory) enter(name string) *service {
	s := &service{nodes: make(map[node]*registry.Service)}
	d.known[name] = s
	return s
}

func (s *service) put(v *registry.Service) {
	for _, n := range v.Nodes {
		one := *v
		one.Nodes = []*registry.Node{n}
		s.nodes[node{n.ID, v.Version}] = &one
	}
}

// publish puts s into a new table, if it differs from what is in the present one. d.mu is held.
func (d *Directory) publish(name string, s *service) {
	old := d.table.Load()
	versions := s.versions()
	was := old.byName[name]
	if was != nil && slices.EqualFunc(was.versions, versions, (*registry.Service).Equal) || was == nil && len(versions) == 0 {
		return
	}
	now := &entry{versions: versions, endpoints: endpoints(versions)}
	s.left = time.Time{}
	if len(versions) == 0 {
		now.endpoints = was.endpoints
		s.left = time.Now()
	}
	byName := maps.Clone(old.byName)
	byName[name] = now
	d.table.Store(newTable(old.generation+1, byName))
}

func newTable(generation uint64, byName map[string]*entry) *table {
	t := &table{generation: generation, byName: byName}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		t.all = append(t.all, byName[name].versions...)
	}
	return t
}

// versions puts the nodes of one version together; its first node, by ID, says what the version is.
func (s *service) versions() []*registry.Service {
	byVersion := make(map[string]*registry.Service)
	byID := func(a, b node) int { return cmp.Compare(a.id, b.id) }
	for _, n := range slices.SortedFunc(maps.Keys(s.nodes), byID) {
		one := s.nodes[n]
		if v := byVersion[one.Version]; v != nil {
			v.Nodes = append(v.Nodes, one.Nodes[0])
			continue
		}
		first := *one
		first.Nodes = slices.Clone(one.Nodes)
		byVersion[one.Version] = &first
	}
	return slices.SortedFunc(maps.Values(byVersion), func(a, b *registry.Service) int { return compare(a.Version, b.Version) })
}

// compare goes by semantic versioning, with or without the v; what is none of it comes first.
func compare(a, b string) int {
	return cmp.Or(semver.Compare(canonical(a), canonical(b)), cmp.Compare(a, b))
}

func canonical(version string) string { return "v" + strings.TrimPrefix(version, "v") }

func endpoints(versions []*registry.Service) map[string]*registry.Endpoint {
	m := make(map[string]*registry.Endpoint)
	for _, v := range versions {
		for _, e := range v.Endpoints {
			m[e.Name] = e
		}
	}
	return m
}

// forget drops services that have left long ago, or too many of them.
func (d *Directory) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	var left []string
	for name, s := range d.known {
		if len(s.nodes) == 0 {
			left = append(left, name)
		}
	}
	slices.SortFunc(left, func(a, b string) int { return d.known[b].left.Compare(d.known[a].left) })
	old := d.table.Load()
	byName := maps.Clone(old.byName)
	for i, name := range left {
		if i >= maxLeft || time.Since(d.known[name].left) > memory {
			delete(d.known, name)
			delete(byName, name)
		}
	}
	if len(byName) != len(old.byName) {
		d.table.Store(newTable(old.generation+1, byName))
	}
}
