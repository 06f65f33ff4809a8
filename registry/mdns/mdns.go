// Package mdns is a registry without a server for the hosts of one local network: DNS-SD over multicast DNS (RFC 6762
// and 6763). It is opt-in:
//
//	MICRO_REGISTRY=mdns ./program
//
// Each node is an instance of the service type _micro._tcp, which tools such as avahi-browse and dns-sd show; what Micro
// reads is the TXT record, which holds everything about the node, compressed. Nodes are announced when they are registered,
// a goodbye is sent when they are deregistered, and what a process that crashed had announced goes when its TTL has passed.
// A node whose records need more than 8,000 bytes is refused.
//
// Whoever is on the network can see all of it and can announce anything, as always with multicast DNS: use it where
// everybody is trusted, or have the transport check certificates.
//
// Differences from the RFCs: instance names contain a hash of the service name and the node ID, which is unique, so they are
// not probed for; the node that was registered last wins, and whoever knows a node can say goodbye for it; queries
// from other ports than 5353 are not answered.
package mdns

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
)

// Config is what --registry-* and MICRO_REGISTRY_* set.
type Config struct {
	Interface []string      `help:"network interfaces to use; empty: all that are up and can multicast"`
	Domain    string        `default:"local" help:"domain of the names; processes with different ones do not see each other"`
	TTL       time.Duration `default:"1m" help:"how long a node that was registered without a TTL is believed to live when nothing is heard of it"`
	Timeout   time.Duration `default:"750ms" help:"how long the first look-up waits for answers"`
}

func init() {
	plugin.Register("mdns", New, plugin.Doc("hosts of one local network, by multicast DNS"))
}

// New opens the registry for a service.
func New(env *plugin.Env, c Config) (registry.Registry, error) { return Open(c, env.Logger()) }

// Registry is one process's view of the network.
type Registry struct {
	names    names
	ttl      time.Duration
	log      *slog.Logger
	changes  registry.Fanout
	net      *network
	patience *time.Timer
	ready    chan struct{} // closed when the first look-up is over

	mu     sync.Mutex
	closed bool
	table  table
	due    map[string]time.Time // when to announce which own instances
	asked  int                  // general queries so far
	ask    time.Time            // when to ask next
	full   bool                 // it was said that the table is full

	wake chan struct{}
	quit chan struct{}
	loop sync.WaitGroup
}

var _ registry.Registry = (*Registry)(nil)

// Open joins the multicast groups; zero fields of c get their defaults, and a nil log means slog.Default. It fails where
// the host has no multicast.
func Open(c Config, log *slog.Logger) (*Registry, error) {
	if log == nil {
		log = slog.Default()
	}
	r, err := newRegistry(c, log)
	if err != nil {
		return nil, err
	}
	if r.net, err = openNetwork(c.Interface, log, r.receive); err != nil {
		return nil, err
	}
	r.loop.Go(r.run)
	r.patience = time.AfterFunc(cmp.Or(c.Timeout, 750*time.Millisecond), func() { close(r.ready) })
	return r, nil
}

// newRegistry makes one that is not connected.
func newRegistry(c Config, log *slog.Logger) (*Registry, error) {
	names, err := newNames(cmp.Or(c.Domain, "local"))
	if err != nil {
		return nil, err
	}
	ttl := cmp.Or(c.TTL, time.Minute)
	if ttl < time.Second {
		return nil, fmt.Errorf("registry mdns: a TTL of %v is too short, the least is 1s: change --registry-ttl", ttl)
	}
	return &Registry{
		names: names, ttl: ttl, log: log, ready: make(chan struct{}),
		table: table{limits: defaultLimits, entries: make(map[string]*entry)}, due: make(map[string]time.Time), ask: time.Now(),
		wake: make(chan struct{}, 1), quit: make(chan struct{}),
	}, nil
}

func (r *Registry) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	if err := registry.Validate(s); err != nil {
		return err
	}
	ttl := registry.NewRegisterOptions(opts...).TTL
	var nodes []*entry
	for _, n := range s.Nodes { // all or nothing
		one := s.Clone()
		one.Nodes = []*registry.Node{n}
		e := &entry{label: label(s.Name, n.ID), service: one.Clone(), own: true}
		if err := r.seal(e, time.Now().UnixNano()); err != nil {
			return err
		}
		nodes = append(nodes, e)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return registry.ErrClosed
	}
	for _, e := range nodes {
		if err := r.register(e, ttl); err != nil {
			return err
		}
	}
	signal(r.wake)
	return nil
}

// seal gives e a stamp and encodes it.
func (r *Registry) seal(e *entry, stamp int64) (err error) {
	e.stamp = stamp
	if e.text, err = encode(e.service, stamp); err != nil {
		return err
	}
	if e.size = len(e.text.raw); e.size <= maxNode {
		packet, err := r.names.response([]answer{{entry: e, ttl: r.ttl}})
		if err != nil {
			return err
		}
		e.size = len(packet)
	}
	if e.size > maxNode {
		return fmt.Errorf("%w: node %s of service %s needs a multicast packet of %d bytes, the limit is %d: give it less metadata, or use another registry",
			registry.ErrInvalid, e.service.Nodes[0].ID, e.service.Name, e.size, maxNode)
	}
	return nil
}

// register makes e, or what is there already and says the same, live and known.
func (r *Registry) register(e *entry, ttl time.Duration) error {
	old := r.table.entries[e.label]
	switch {
	case old.alive() && old.own && old.service.Equal(e.service):
		e = old // a refresh
	case old != nil && old.stamp >= e.stamp: // by a faster clock
		if err := r.seal(e, old.stamp+1); err != nil {
			return err
		}
		fallthrough
	default:
		e.repeats = 1
	}
	e.expires = time.Time{}
	if ttl > 0 {
		e.expires = time.Now().Add(ttl)
	}
	if e != old {
		r.changes.Publish(r.table.put(e)...)
	}
	r.announce(e, 0)
	return nil
}

// Deregister says goodbye for nodes of others, too.
func (r *Registry) Deregister(s *registry.Service) error {
	gone, err := r.remove(s)
	if err != nil {
		return err
	}
	if err := r.send(gone); err != nil {
		return fmt.Errorf("deregister %s: %w", s.Name, err)
	}
	return nil
}

func (r *Registry) remove(s *registry.Service) (gone []answer, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, registry.ErrClosed
	}
	for _, n := range s.Nodes {
		e := r.table.entries[label(s.Name, n.ID)]
		if e.alive() {
			gone = append(gone, answer{entry: e})
			r.changes.Publish(r.table.bury(e, r.ttl)...)
		}
	}
	return gone, nil
}

// GetService answers from what was heard. The first call waits until others had the time to answer.
func (r *Registry) GetService(name string) ([]*registry.Service, error) {
	found, err := r.find(func(s *registry.Service) bool { return s.Name == name })
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%w: %s", registry.ErrNotFound, name)
	}
	if err != nil {
		return nil, err
	}
	return registry.Merge(found), nil
}

func (r *Registry) ListServices() ([]*registry.Service, error) {
	found, err := r.find(func(*registry.Service) bool { return true })
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool)
	for _, s := range found {
		names[s.Name] = true
	}
	var list []*registry.Service
	for _, name := range slices.Sorted(maps.Keys(names)) {
		list = append(list, &registry.Service{Name: name})
	}
	return list, nil
}

func (r *Registry) find(match func(*registry.Service) bool) ([]*registry.Service, error) {
	select {
	case <-r.ready:
	case <-r.quit:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, registry.ErrClosed
	}
	now := time.Now()
	var found []*registry.Service
	for _, e := range r.table.entries {
		if e.alive() && !e.expired(now) && match(e.service) {
			found = append(found, e.service)
		}
	}
	return found, nil
}

func (r *Registry) Watch() (registry.Watcher, error) { return r.changes.Watch() }

func (r *Registry) String() string { return "mdns" }

// Close says goodbye for the nodes that were registered through r. It may be called more than once.
func (r *Registry) Close() error {
	r.mu.Lock()
	first := !r.closed
	r.closed = true
	var gone []answer
	for _, e := range r.table.entries {
		if e.own && e.alive() {
			gone = append(gone, answer{entry: e})
		}
	}
	r.mu.Unlock()
	if !first {
		return nil
	}
	r.changes.Close()
	if err := r.send(gone); err != nil {
		r.log.Debug("no goodbye could be sent", "error", err)
	}
	r.patience.Stop()
	close(r.quit)
	r.loop.Wait()
	r.net.close()
	return nil
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// newNames checks the domain.
func newNames(domain string) (names, error) {
	domain = strings.ToLower(strings.Trim(domain, "."))
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 {
			return names{}, errors.New("registry mdns: " + domain + " is no domain: change --registry-domain")
		}
	}
	if len(domain) > 100 {
		return names{}, errors.New("registry mdns: the domain has more than 100 bytes: change --registry-domain")
	}
	return names{domain: "." + domain + ".", service: "_micro._tcp." + domain + "."}, nil
}
