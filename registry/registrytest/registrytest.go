// Package registrytest checks that an implementation of registry.Registry keeps the contract. It is for the plugins of
// this module and for those of others:
//
//	func TestConformance(t *testing.T) {
//		registrytest.Run(t, func(t *testing.T) registrytest.Harness {
//			server := startServer(t)
//			return registrytest.Harness{
//				Open: func(t *testing.T) registry.Registry { return connect(t, server) },
//				Wipe: func(t *testing.T) { server.restartEmpty(t) },
//			}
//		})
//	}
//
// The tests use service names that nothing else uses, so that they can share one server. Run them with -race.
package registrytest

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plugmicro/micro/internal/suite"
	"github.com/plugmicro/micro/registry"
	"github.com/stretchr/testify/require"
)

// Harness is one backend and how to reach it. What is left out of it is demanded in full, or, if it is a fault, not tried.
type Harness struct {
	// Open connects to the backend. Each of its results is one process's view; all see the same services. The suite
	// closes those that are io.Closers.
	Open func(t *testing.T) registry.Registry

	// Backend is the server with its version, as docs/capabilities.md names it: "Consul 1.20.1"; "" if there is none.
	Backend string

	// Within is how long news may take from one instance to another; 0 means 5 s.
	Within time.Duration

	// TTL is the shortest one that the backend keeps with the precision of Within; 0 means 1 s.
	TTL time.Duration

	// LargestMetadata is the size in bytes of incompressible metadata that a service can have at least; 0 means
	// 512 KiB. If it is set, 20 times as much must be refused with ErrInvalid.
	LargestMetadata int

	// Nodes is how many there can be at least; 0 means 1,000.
	Nodes int

	// What the backend cannot do. Each of these ends up in the documentation of the plugin.
	NoTTL      bool // registrations do not expire
	NoTakeover bool // a node can be replaced and deregistered only by the instance that registered it

	// SeesCrash: the nodes of a process that crashed go without a TTL.
	SeesCrash bool

	// Faults. Each returns when it has happened.
	Wipe    func(t *testing.T)                                    // the backend loses what it knows
	Restart func(t *testing.T)                                    // the backend is restarted, and knows it still
	Pause   func(t *testing.T) (resume func())                    // nobody gets an answer
	Cut     func(t *testing.T, r registry.Registry) (heal func()) // r, a result of Open, gets no answer

	// Spawn starts a process that keeps s registered with registry.Keep, and returns when it is.
	Spawn func(t *testing.T, s *registry.Service, ttl time.Duration) Process
}

// Process is what Spawn started. Whatever is left of it when the test ends is the harness's to clean up.
type Process struct {
	Kill           func() // as kill -9 does
	Stop, Continue func() // as SIGSTOP and SIGCONT do; nil if the system has none
}

// Run runs all tests. start is called for each, and releases what it started with t.Cleanup.
func Run(t *testing.T, start func(t *testing.T) Harness) {
	s := suite.New(t, "registry")
	var b *backend
	for _, test := range tests {
		s.Test(test.name, func(t *testing.T) {
			b = &backend{Harness: start(t), suite: s, prefix: "test-" + strings.ToLower(rand.Text()[:12])}
			b.setDefaults()
			if test.needs != nil {
				if missing := test.needs(b); missing != "" {
					s.NotClaimed(t, missing)
				}
			}
			suite.NoLeaks(t)
			test.run(t, b)
		})
	}
	if b != nil {
		b.claims()
	}
	s.Done()
}

// claims is what the documentation says of the plugin.
func (b *backend) claims() {
	crashed := "at once"
	switch {
	case b.Spawn == nil:
		crashed = suite.NotTried
	case !b.SeesCrash && b.NoTTL:
		crashed = "stays"
	case !b.SeesCrash:
		crashed = "after its TTL"
	}
	for _, c := range []suite.Claim{
		{Capability: "a registration ends when its TTL passes", Value: suite.YesNo(!b.NoTTL)},
		{Capability: "what a crashed process registered goes", Value: crashed},
		{Capability: "any process can replace or deregister a node", Value: suite.YesNo(!b.NoTakeover)},
		{Capability: "metadata that a service can have at least", Value: suite.Size(cmp.Or(b.LargestMetadata, defaultMetadata))},
		{Capability: "registrations come back after the server lost its data", Value: suite.Tried(b.Wipe != nil)},
		{Capability: "goes on after a restart of the server", Value: suite.Tried(b.Restart != nil)},
		{Capability: "nothing hangs while the server is frozen", Value: suite.Tried(b.Pause != nil)},
		{Capability: "goes on after its connection was cut, and tells what was missed", Value: suite.Tried(b.Cut != nil)},
	} {
		b.suite.Claim(c.Capability, c.Value)
	}
}

// defaultMetadata is what is demanded of a registry that says nothing else, in bytes.
const defaultMetadata = 512 << 10

type test struct {
	name  string
	run   func(*testing.T, *backend)
	needs func(*backend) (missing string)
}

var tests = []test{
	{name: "Fields", run: testFields},
	{name: "Names", run: testNames},
	{name: "Large", run: testLarge},
	{name: "Nodes", run: testNodes},
	{name: "Versions", run: testVersions},
	{name: "Update", run: testUpdate},
	{name: "Deregister", run: testDeregister},
	{name: "Takeover", run: testTakeover, needs: takeover},
	{name: "NotFound", run: testNotFound},
	{name: "List", run: testList},
	{name: "Copies", run: testCopies},
	{name: "Invalid", run: testInvalid},
	{name: "TTL", run: testTTL, needs: ttl},
	{name: "TTLOfTwoNodes", run: testTTLOfTwoNodes, needs: ttl},
	{name: "Watch", run: testWatch},
	{name: "WatchFromNowOn", run: testWatchFromNowOn},
	{name: "WatchStop", run: testWatchStop},
	{name: "WatchSlowly", run: testWatchSlowly},
	{name: "ManyNodes", run: testManyNodes},
	{name: "Concurrently", run: testConcurrently},
	{name: "Close", run: testClose},
	{name: "Keep", run: testKeep},
	{name: "Wipe", run: testWipe, needs: fault("Wipe", func(b *backend) bool { return b.Wipe != nil })},
	{name: "WatchOverWipe", run: testWatchOverWipe, needs: fault("Wipe", func(b *backend) bool { return b.Wipe != nil })},
	{name: "Restart", run: testRestart, needs: fault("Restart", func(b *backend) bool { return b.Restart != nil })},
	{name: "Pause", run: testPause, needs: fault("Pause", func(b *backend) bool { return b.Pause != nil })},
	{name: "Cut", run: testCut, needs: fault("Cut", func(b *backend) bool { return b.Cut != nil })},
	{name: "WatchOverCut", run: testWatchOverCut, needs: fault("Cut", func(b *backend) bool { return b.Cut != nil })},
	{name: "Kill", run: testKill, needs: func(b *backend) string {
		if b.NoTTL && !b.SeesCrash {
			return "NoTTL, and not SeesCrash"
		}
		return fault("Spawn", func(b *backend) bool { return b.Spawn != nil })(b)
	}},
	{name: "Stopped", run: testStopped, needs: fault("Spawn, with a TTL", func(b *backend) bool { return b.Spawn != nil && !b.NoTTL })},
}

func takeover(b *backend) string {
	if b.NoTakeover {
		return "NoTakeover"
	}
	return ""
}

func ttl(b *backend) string {
	if b.NoTTL {
		return "NoTTL"
	}
	return ""
}

func fault(name string, there func(*backend) bool) func(*backend) string {
	return func(b *backend) string {
		if there(b) {
			return ""
		}
		return "fault " + name
	}
}

// backend is a Harness in one test.
type backend struct {
	Harness
	suite  *suite.Suite
	prefix string
}

func (b *backend) setDefaults() {
	if b.Within == 0 {
		b.Within = 5 * time.Second
	}
	if b.TTL == 0 {
		b.TTL = time.Second
	}
	if b.Nodes == 0 {
		b.Nodes = 1000
	}
}

func (b *backend) open(t *testing.T) registry.Registry {
	t.Helper()
	r := b.Open(t)
	require.NotEmpty(t, r.String())
	b.suite.Plugin(r.String(), b.Backend)
	t.Cleanup(func() { closeRegistry(t, r) })
	return r
}

func closeRegistry(t *testing.T, r registry.Registry) {
	if c, ok := r.(io.Closer); ok {
		require.NoError(t, c.Close())
	}
}

// service returns a service whose name nothing else uses, with a node for each ID.
func (b *backend) service(ids ...string) *registry.Service {
	s := &registry.Service{Name: b.prefix, Version: "1.0.0"}
	for _, id := range ids {
		port := 1000 + crc32.ChecksumIEEE([]byte(id))%60_000
		s.Nodes = append(s.Nodes, &registry.Node{ID: b.id(id), Address: fmt.Sprint("192.0.2.1:", port)})
	}
	return s
}

// id makes IDs unique in the whole backend.
func (b *backend) id(s string) string { return b.prefix + "-" + s }

func register(t *testing.T, r registry.Registry, s *registry.Service, opts ...registry.RegisterOption) {
	t.Helper()
	require.NoError(t, r.Register(s, opts...))
}

// sees waits until r answers exactly want for its name, or nothing if it is empty.
func (b *backend) sees(t *testing.T, r registry.Registry, name string, want ...*registry.Service) {
	t.Helper()
	b.seesWithin(t, b.Within, r, name, want...)
}

func (b *backend) seesWithin(t *testing.T, within time.Duration, r registry.Registry, name string, want ...*registry.Service) {
	t.Helper()
	var got []*registry.Service
	var err error
	ok := eventually(within, func() bool {
		got, err = r.GetService(name)
		return slices.EqualFunc(got, want, (*registry.Service).Equal)
	})
	if !ok {
		require.Equal(t, want, got, "service %q: not so within %v", name, within)
	}
	if len(want) == 0 {
		require.ErrorIs(t, err, registry.ErrNotFound)
	} else {
		require.NoError(t, err)
	}
}

func eventually(within time.Duration, ok func() bool) bool {
	for end := time.Now().Add(within); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// reader reads a watcher all the time, and passes on what is about the services of one test.
type reader struct {
	prefix   string
	patience time.Duration
	w        registry.Watcher
	results  chan *registry.Result
	err      error // once results is closed
}

func (b *backend) watch(t *testing.T, r registry.Registry) *reader {
	t.Helper()
	w, err := r.Watch()
	require.NoError(t, err)
	t.Cleanup(w.Stop)
	return b.read(w)
}

func (b *backend) read(w registry.Watcher) *reader {
	rd := &reader{prefix: b.prefix, patience: b.Within, w: w, results: make(chan *registry.Result, 10_000)}
	go rd.read()
	return rd
}

func (rd *reader) read() {
	defer close(rd.results)
	for {
		r, err := rd.w.Next()
		if err != nil {
			rd.err = err
			return
		}
		if strings.HasPrefix(r.Service.Name, rd.prefix) {
			rd.results <- r
		}
	}
}

func (rd *reader) next(t *testing.T) *registry.Result {
	t.Helper()
	select {
	case r, ok := <-rd.results:
		require.True(t, ok, "the watcher ended: %v", rd.err)
		require.NotEmpty(t, r.Service.Nodes, "a result without nodes")
		return r
	case <-time.After(rd.patience):
		require.FailNow(t, "no change was told within "+rd.patience.String())
		return nil
	}
}

// ends waits until Next has answered with an error.
func (rd *reader) ends(t *testing.T, want error) {
	t.Helper()
	end := time.After(rd.patience)
	for {
		select {
		case _, ok := <-rd.results:
			if !ok {
				require.ErrorIs(t, rd.err, want)
				return
			}
		case <-end:
			require.FailNow(t, "Next still waits after "+rd.patience.String())
		}
	}
}

func (rd *reader) expect(t *testing.T, action string, want *registry.Service) {
	t.Helper()
	r := rd.next(t)
	require.Equal(t, action, r.Action)
	if action == registry.Delete { // which nodes, not what they were
		require.Equal(t, keys(want), keys(r.Service))
		return
	}
	if !want.Equal(r.Service) {
		require.Equal(t, want, r.Service)
	}
}

func keys(s *registry.Service) []string {
	var k []string
	for _, n := range s.Nodes {
		k = append(k, fmt.Sprintf("%q %q %q", s.Name, s.Version, n.ID))
	}
	return k
}

// until applies changes to table, which is kept by service name, version and node ID, until it is as expected.
func (rd *reader) until(t *testing.T, what string, table map[string]*registry.Service, done func() bool) {
	t.Helper()
	end := time.After(rd.patience)
	for !done() {
		select {
		case r, ok := <-rd.results:
			require.True(t, ok, "the watcher ended: %v", rd.err)
			for _, key := range keys(r.Service) {
				if r.Action == registry.Delete {
					delete(table, key)
				} else {
					table[key] = r.Service
				}
			}
		case <-end:
			require.FailNow(t, "not told within "+rd.patience.String()+": "+what)
		}
	}
}
