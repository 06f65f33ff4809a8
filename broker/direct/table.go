package direct

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/registry"
)

// table is what a publisher knows of subscriptions: read from the registry at the first Publish, then kept by following
// it. It has an outbox for each group of the topics
// that were published to.
type table struct {
	registry registry.Registry
	config   Config
	conns    *conns
	log      *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	id       string             // of this publisher
	follower *registry.Follower // changed by the first reading; nil before it
	reading  sync.Mutex         // held by the one reading that is under way
	keeper   *registry.Keeper   // of the publisher's own node; nil: not registered yet

	mu      sync.RWMutex
	closed  bool
	loaded  bool                 // it was read once
	sealed  bool                 // nothing more is published
	next    *reading             // the reading that has not begun yet
	touched map[string]bool      // subscriptions that changed since the reading under way began
	subs    map[string]remote    // by ID, of all topics
	own     map[string]bool      // those of this process
	topics  map[string]*topic    // that have outboxes
	took    time.Duration        // by the last reading
	quiet   map[string]time.Time // when a topic was found to have no subscribers
}

// remote is a subscription somewhere.
type remote struct {
	id, addr, topic, group string
	concurrency            int
}

// topic is the outboxes of a topic, by group, or by the ID of a subscription without one.
type topic struct {
	boxes map[string]*outbox
	list  []*outbox // the same; replaced, not changed
	links map[string]*link
}

// reading is one reading of the registry that any number of callers wait for.
type reading struct {
	done chan struct{}
	err  error
}

const (
	// quietTime bounds for how long a topic without subscribers is believed to have none, unless the watch tells: 20 times
	// as long as it took to ask the registry, so that asking takes a twentieth of the time.
	quietTime = time.Second
	maxQuiet  = 1024 // topics
)

func newTable(reg registry.Registry, cs *conns, c Config, log *slog.Logger) *table {
	ctx, cancel := context.WithCancel(context.Background())
	return &table{
		registry: reg, config: c, conns: cs, log: log, ctx: ctx, cancel: cancel,
		id:   rand.Text(),
		subs: map[string]remote{}, own: map[string]bool{}, topics: map[string]*topic{}, quiet: map[string]time.Time{},
	}
}

// outboxes returns one for each group of a topic. Before a topic gets its first, the registry is asked: the watch may be
// about to tell of more.
func (t *table) outboxes(ctx context.Context, name string) ([]*outbox, error) {
	list, known := t.known(name)
	if known {
		return list, nil
	}
	asked := time.Now()
	err := t.read(ctx)
	if err != nil && (ctx.Err() != nil || !t.knows(name)) {
		return nil, err
	}
	return t.start(name, asked), nil
}

// knows says whether there is something to go on with when the registry does not answer.
func (t *table) knows(name string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.loaded && !t.closed && t.hasSubs(name)
}

func (t *table) hasSubs(name string) bool {
	for _, s := range t.subs {
		if s.topic == name {
			return true
		}
	}
	return false
}

// known returns the outboxes of a topic that has some; none if that was found out just now.
func (t *table) known(name string) ([]*outbox, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if tp := t.topics[name]; tp != nil {
		return tp.list, true
	}
	if time.Since(t.quiet[name]) > min(20*t.took, quietTime) {
		return nil, false
	}
	return nil, !t.hasSubs(name)
}

// start makes the outboxes of a topic, and notes if there are none; asked is when the registry was asked.
func (t *table) start(name string, asked time.Time) []*outbox {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.topics[name] == nil {
		for _, s := range t.subs {
			if s.topic == name {
				t.join(s, true)
			}
		}
	}
	if tp := t.topics[name]; tp != nil {
		delete(t.quiet, name)
		return tp.list
	}
	if len(t.quiet) >= maxQuiet {
		clear(t.quiet)
	}
	t.quiet[name] = asked
	return nil
}

// again returns the outbox that a group has now, after an older one ended; nil if there is none.
func (t *table) again(old *outbox) *outbox {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if tp := t.topics[old.topic]; tp != nil && old.group != "" {
		return tp.boxes[groupKey(old.group)]
	}
	return nil
}

// all returns every outbox.
func (t *table) all() []*outbox {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var all []*outbox
	for _, tp := range t.topics {
		all = append(all, tp.list...)
	}
	return all
}

func groupKey(group string) string { return "group " + group }

func (s remote) key() string {
	if s.group == "" {
		return "subscription " + s.id
	}
	return groupKey(s.group)
}

// add takes in a subscription, and reports whether it is another process's.
func (t *table) add(s remote) (foreign bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.touch(s.id)
	t.addLocked(s)
	return !t.own[s.id]
}

// addOwn takes in a subscription of this process.
func (t *table) addOwn(s remote) {
	t.mu.Lock()
	t.own[s.id] = true
	t.mu.Unlock()
	t.add(s)
}

func (t *table) addLocked(s remote) {
	old, known := t.subs[s.id]
	if known && old == s || t.closed {
		return
	}
	if known {
		t.goneLocked(s.id)
	}
	t.subs[s.id] = s
	t.join(s, false)
}

// gone takes out a subscription that the registry does not have any more. Its link lives for as long as it is connected:
// it may be the registry that is in trouble.
func (t *table) gone(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.touch(id)
	t.goneLocked(id)
	delete(t.own, id)
}

func (t *table) goneLocked(id string) {
	s, known := t.subs[id]
	if !known {
		return
	}
	delete(t.subs, id)
	if tp := t.topics[s.topic]; tp != nil && tp.links[id] != nil {
		tp.links[id].register(false)
	}
}

// touch keeps what is newer than the reading under way from being overwritten by it.
func (t *table) touch(id string) {
	if t.touched != nil {
		t.touched[id] = true
	}
}

// join links a subscription to its outbox, if the topic is published to.
func (t *table) join(s remote, published bool) {
	tp := t.topics[s.topic]
	if t.closed || tp == nil && !published {
		return
	}
	if tp == nil {
		tp = &topic{boxes: map[string]*outbox{}, links: map[string]*link{}}
		t.topics[s.topic] = tp
	}
	if l := tp.links[s.id]; l != nil { // it was deregistered, and is back while it is still connected
		l.register(true)
		return
	}
	box := tp.boxes[s.key()]
	m := &member{id: s.id, addr: s.addr}
	if box == nil || !m.joined(box, s.concurrency) {
		box = newOutbox(s.topic, s.group, t.config, t.log, t.ended)
		box.sealed = t.sealed
		m.joined(box, s.concurrency)
		tp.boxes[s.key()] = box
		tp.list = values(tp.boxes)
	}
	l := &link{member: m, conns: t.conns, dial: min(maxDialTime, t.config.Timeout), forgotten: t.gone, ctx: t.ctx,
		news: make(chan struct{}, 1)}
	l.registered.Store(true)
	tp.links[s.id] = l
	t.work.Go(func() {
		l.run()
		t.unlink(tp, l)
	})
}

func (m *member) joined(box *outbox, concurrency int) bool {
	m.init(box, concurrency)
	return box.join(m)
}

func (t *table) unlink(tp *topic, l *link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tp.links[l.id] == l {
		delete(tp.links, l.id)
	}
	if s, again := t.subs[l.id]; again { // registered again meanwhile
		t.join(s, false)
	}
}

// ended is told by an outbox that it is closed.
func (t *table) ended(box *outbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tp := t.topics[box.topic]
	if tp == nil {
		return
	}
	for key, b := range tp.boxes {
		if b == box {
			delete(tp.boxes, key)
		}
	}
	tp.list = values(tp.boxes)
	if len(tp.list) == 0 {
		delete(t.topics, box.topic)
	}
}

func values(m map[string]*outbox) []*outbox {
	list := make([]*outbox, 0, len(m))
	for _, b := range m {
		list = append(list, b)
	}
	return list
}

// read waits for a reading of the registry that begins after the call.
func (t *table) read(ctx context.Context) error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return registry.ErrClosed
	}
	r := t.next
	if r == nil {
		r = &reading{done: make(chan struct{})}
		t.next = r
		t.work.Go(func() { t.readNow(r) })
	}
	t.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t *table) readNow(r *reading) {
	t.reading.Lock()
	defer t.reading.Unlock()
	defer close(r.done)
	t.announce() // who subscribes from now on waits for this publisher, and what was subscribed before is found
	t.follow()
	<-t.follower.Begun() // what changes after the reading must be seen
	t.mu.Lock()
	t.next = nil
	t.touched = map[string]bool{}
	t.mu.Unlock()
	began := time.Now()
	versions, err := t.registry.GetService(serviceName)
	if errors.Is(err, registry.ErrNotFound) {
		versions, err = nil, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.took = time.Since(began)
	if err != nil {
		r.err = fmt.Errorf("look up subscriptions in registry %s: %w", t.registry, err)
	} else {
		t.replace(versions)
		t.loaded = true
	}
	t.touched = nil
}

func (t *table) follow() {
	if t.follower != nil {
		return
	}
	t.follower = registry.Follow(t.registry, t.log, t.changed, func(ctx context.Context) {
		if err := t.read(ctx); err != nil {
			t.log.Debug("subscriptions not read again", "error", err)
		}
	})
}

func (t *table) changed(r *registry.Result) {
	if r.Service.Name != serviceName {
		return
	}
	for _, n := range r.Service.Nodes {
		t.apply(r.Action, n)
	}
}

// announce registers the publisher, so that subscribers wait until it knows of them. It goes without, if it must.
func (t *table) announce() {
	if t.keeper != nil {
		return
	}
	keeper, err := registry.Keep(t.registry, &registry.Service{Name: serviceName, Nodes: []*registry.Node{{
		ID: t.id, Address: noAddress, Metadata: map[string]string{metaPublisher: "true"},
	}}}, registrationTime, 0, t.log)
	if err != nil {
		t.log.Warn("publisher not registered, new subscribers may miss what it publishes in their first moments", "error", err)
		return
	}
	t.keeper = keeper
}

// publishers returns the IDs of all others.
func (t *table) publishers() []string {
	versions, err := t.registry.GetService(serviceName)
	if err != nil {
		return nil
	}
	var ids []string
	for _, version := range versions {
		for _, n := range version.Nodes {
			if n.Metadata[metaPublisher] != "" && n.ID != t.id {
				ids = append(ids, n.ID)
			}
		}
	}
	return ids
}

// confirm tells a new subscription that this publisher knows of it. The connection is kept for a moment: it may be
// needed at once.
func (t *table) confirm(s remote) {
	c := t.conns.acquire(s.addr)
	defer c.release()
	ctx, cancel := context.WithTimeout(t.ctx, spreadTime)
	defer cancel()
	if client, err := c.connect(ctx); err == nil {
		_, err = client.Call(ctx, &mux.Request{
			Service: serviceName, Endpoint: s.id, Codec: bytesCodec, Metadata: map[string]string{metaPublisher: t.id},
		})
		if err != nil {
			t.log.Debug("subscription does not want to know", "address", s.addr, "error", err)
		}
	}
	<-ctx.Done()
}

func (t *table) replace(versions []*registry.Service) {
	there := map[string]bool{}
	for _, version := range versions {
		for _, n := range version.Nodes {
			there[n.ID] = true
			if !t.touched[n.ID] && n.Metadata[metaPublisher] == "" {
				t.addLocked(remoteOf(n))
			}
		}
	}
	for id := range t.subs {
		if !there[id] && !t.touched[id] {
			t.goneLocked(id)
		}
	}
}

// Metadata of the node of a subscription.
const (
	metaTopic       = "topic"
	metaGroup       = "group"
	metaConcurrency = "concurrency"
)

// A publisher's node, and its calls to new subscriptions, carry this. Nobody dials its address, but registries may want
// one that looks like one.
const (
	metaPublisher = "publisher"
	noAddress     = "127.0.0.1:1"
)

func remoteOf(n *registry.Node) remote {
	md := n.Metadata
	return remote{id: n.ID, addr: n.Address, topic: md[metaTopic], group: md[metaGroup], concurrency: concurrencyOf(md[metaConcurrency])}
}

// concurrencyOf reads what a subscription says of itself.
func concurrencyOf(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 1
	}
	return min(n, 100_000)
}

func (t *table) apply(action string, n *registry.Node) {
	switch {
	case action == registry.Delete:
		t.gone(n.ID)
	case n.Metadata[metaPublisher] == "":
		s := remoteOf(n)
		if t.add(s) {
			t.work.Go(func() { t.confirm(s) })
		}
	}
}

// seal lets nothing more be published, and returns every outbox.
func (t *table) seal() []*outbox {
	t.mu.Lock()
	t.sealed = true
	t.mu.Unlock()
	all := t.all()
	for _, box := range all {
		box.seal()
	}
	return all
}

// close ends everything at once, and waits for that, for a time: a registry that hangs is left to it.
func (t *table) close() {
	t.closeAll()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t.work.Wait()
		if t.follower != nil {
			t.follower.Stop()
		}
		if t.keeper == nil {
			return
		}
		if err := t.keeper.Stop(context.Background()); err != nil {
			t.log.Warn("publisher not deregistered", "error", err)
		}
	}()
	select {
	case <-ended:
	case <-time.After(lastWords):
	}
}

func (t *table) closeAll() {
	t.mu.Lock()
	t.closed = true
	t.cancel()
	topics := t.topics
	t.topics = map[string]*topic{}
	t.mu.Unlock()
	for _, tp := range topics {
		for _, box := range tp.list {
			box.end()
		}
	}
}
