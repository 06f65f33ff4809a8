package registrytest

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plugmicro/micro/registry"
	"github.com/stretchr/testify/require"
)

func testFields(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	deep := &registry.Value{Name: "deepest", Type: "string"}
	for i := range registry.MaxDepth - 1 {
		deep = &registry.Value{Name: fmt.Sprint("level", i), Type: "Message", Values: []*registry.Value{deep}}
	}
	odd := map[string]string{
		"ключ": "значение", "empty": "", "": "empty key", "a=b": "c=d", "line\nbreak": "\"quotes\"\t\\ <html> & \u2028",
		"zero": "a\x00b", "emoji": "\U0001F600",
	}
	for name, change := range map[string]func(*registry.Service){
		"plain":             func(*registry.Service) {},
		"no version":        func(s *registry.Service) { s.Version = "" },
		"odd version":       func(s *registry.Service) { s.Version = "v1.2-rc/3 β" },
		"metadata":          func(s *registry.Service) { s.Metadata = odd },
		"node metadata":     func(s *registry.Service) { s.Nodes[0].Metadata = odd },
		"empty metadata":    func(s *registry.Service) { s.Metadata = map[string]string{} },
		"IPv6":              func(s *registry.Service) { s.Nodes[0].Address = "[2001:db8::1%eth0]:443" },
		"address not of IP": func(s *registry.Service) { s.Nodes[0].Address = "amqp://queue/ü?x=y#z" },
		"endpoints": func(s *registry.Service) {
			s.Endpoints = []*registry.Endpoint{
				{Name: "Z.First", Metadata: odd},
				{Name: "A.Second", Request: &registry.Value{Type: "string"}},
				{Name: "Deep", Request: deep, Response: deep},
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := b.service("n")
			s.Name += " " + name
			change(s)
			register(t, one, s)
			b.sees(t, one, s.Name, s)
			b.sees(t, two, s.Name, s)
			require.NoError(t, one.Deregister(s))
		})
	}
}

// testNames: each name and each ID is itself, whatever characters it is made of and however similar it is to another.
func testNames(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	long := strings.Repeat("long", 50)
	var all []*registry.Service
	for _, odd := range []string{
		"", "a", "A", "a.b", "a/b", "a-b", "../../etc/passwd", "a b", ".", "日本語", "a\\b", "a%2Fb", "a?b=c&d", "é", "e\u0301",
		long + "1", long + "2", "😀",
	} {
		s := b.service(odd)
		s.Name += odd
		register(t, one, s)
		all = append(all, s)
	}
	for _, s := range all {
		b.sees(t, two, s.Name, s)
	}
	for i, s := range all {
		require.NoError(t, one.Deregister(s))
		b.sees(t, two, s.Name)
		if i+1 < len(all) {
			b.sees(t, two, all[i+1].Name, all[i+1])
		}
	}
}

func incompressible(size int) string {
	raw := make([]byte, size*3/4)
	_, _ = rand.Read(raw)
	return base64.StdEncoding.EncodeToString(raw)
}

func testLarge(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	size := cmp.Or(b.LargestMetadata, defaultMetadata)
	s := b.service("n")
	s.Metadata = map[string]string{"large": incompressible(size)}
	register(t, one, s)
	b.sees(t, two, s.Name, s)
	for _, limit := range []int{registry.MaxSize, 20 * b.LargestMetadata} {
		if limit == 0 {
			continue
		}
		s := b.service("n")
		s.Name += "-refused"
		s.Metadata = map[string]string{"large": incompressible(limit)}
		err := one.Register(s)
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.Less(t, len(err.Error()), 500, "the error repeats the metadata")
		b.sees(t, one, s.Name)
	}
}

func testNodes(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	register(t, one, b.service("c", "a"))
	b.sees(t, two, b.prefix, b.service("a", "c"))

	register(t, two, b.service("b"))
	b.sees(t, one, b.prefix, b.service("a", "b", "c"))
	b.sees(t, two, b.prefix, b.service("a", "b", "c"))

	register(t, one, b.service("c", "a")) // b stays
	b.sees(t, two, b.prefix, b.service("a", "b", "c"))
}

func (b *backend) version(version string, ids ...string) *registry.Service {
	s := b.service(ids...)
	s.Version = version
	s.Metadata = map[string]string{"of": version}
	return s
}

func testVersions(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	register(t, one, b.version("2", "b"))
	register(t, two, b.version("10", "a"))
	register(t, one, b.version("", "c"))
	b.sees(t, one, b.prefix, b.version("", "c"), b.version("10", "a"), b.version("2", "b"))
	b.sees(t, two, b.prefix, b.version("", "c"), b.version("10", "a"), b.version("2", "b"))

	w := b.watch(t, two)
	register(t, one, b.version("10", "b")) // a node is in one version only
	b.sees(t, two, b.prefix, b.version("", "c"), b.version("10", "a", "b"))
	w.expect(t, registry.Delete, b.version("2", "b"))
	w.expect(t, registry.Create, b.version("10", "b"))
}

func testUpdate(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	s := b.service("a")
	register(t, one, s)
	b.sees(t, two, s.Name, s)
	for _, change := range []func(){
		func() { s.Nodes[0].Address = "198.51.100.1:1" },
		func() { s.Nodes[0].Metadata = map[string]string{"k": "v"} },
		func() { s.Metadata = map[string]string{"k": "v"} },
		func() { s.Endpoints = []*registry.Endpoint{{Name: "E"}} },
		func() { s.Metadata, s.Endpoints, s.Nodes[0].Metadata = nil, nil, nil },
	} {
		change()
		register(t, one, s)
		b.sees(t, one, s.Name, s)
		b.sees(t, two, s.Name, s)
	}
}

func testDeregister(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	require.NoError(t, one.Deregister(b.service("unknown")))
	register(t, one, b.service("a", "b"))
	require.NoError(t, one.Deregister(b.service("unknown")))
	b.sees(t, two, b.prefix, b.service("a", "b"))

	byID := &registry.Service{Name: b.prefix, Nodes: []*registry.Node{{ID: b.id("b")}}}
	require.NoError(t, one.Deregister(byID))
	b.sees(t, one, b.prefix, b.service("a"))
	b.sees(t, two, b.prefix, b.service("a"))
	require.NoError(t, one.Deregister(byID), "again")

	require.NoError(t, one.Deregister(b.service("a")))
	b.sees(t, one, b.prefix)
	b.sees(t, two, b.prefix)

	register(t, one, b.service("a")) // and back at once
	b.sees(t, two, b.prefix, b.service("a"))
	for range 20 {
		require.NoError(t, one.Deregister(b.service("a")))
		register(t, one, b.service("a"))
	}
	b.sees(t, one, b.prefix, b.service("a"))
	b.sees(t, two, b.prefix, b.service("a"))
}

func testTakeover(t *testing.T, b *backend) {
	one, two, three := b.open(t), b.open(t), b.open(t)
	s := b.service("a")
	register(t, one, s)
	b.sees(t, two, s.Name, s)
	for i, r := range []registry.Registry{two, one, two} {
		s.Nodes[0].Address = fmt.Sprint("198.51.100.1:", i)
		register(t, r, s)
		for _, r := range []registry.Registry{one, two, three} {
			b.sees(t, r, s.Name, s)
		}
	}
	require.NoError(t, one.Deregister(s))
	for _, r := range []registry.Registry{one, two, three} {
		b.sees(t, r, s.Name)
	}
	register(t, three, s)
	for _, r := range []registry.Registry{one, two, three} {
		b.sees(t, r, s.Name, s)
	}
}

func testNotFound(t *testing.T, b *backend) {
	r := b.open(t)
	for _, name := range []string{b.prefix, b.prefix + "/x", "", "*"} {
		got, err := r.GetService(name)
		require.ErrorIs(t, err, registry.ErrNotFound, "service %q", name)
		require.Empty(t, got)
	}
	s := b.service("a")
	register(t, r, s)
	_, err := r.GetService(s.Name[:len(s.Name)-1])
	require.ErrorIs(t, err, registry.ErrNotFound, "the beginning of a name")
}

func (b *backend) list(t *testing.T, r registry.Registry) []string {
	list, err := r.ListServices()
	require.NoError(t, err)
	var names []string
	last := ""
	for _, s := range list {
		require.LessOrEqual(t, last, s.Name, "not sorted")
		last = s.Name
		if strings.HasPrefix(s.Name, b.prefix) {
			names = append(names, s.Name)
		}
	}
	return names
}

func (b *backend) lists(t *testing.T, r registry.Registry, want ...string) {
	t.Helper()
	var got []string
	if !eventually(b.Within, func() bool { got = b.list(t, r); return fmt.Sprint(got) == fmt.Sprint(want) }) {
		require.Equal(t, want, got)
	}
}

func testList(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	b.lists(t, one)
	for _, suffix := range []string{"-b", "-a", "-ü"} {
		for i, version := range []string{"1", "2"} {
			s := b.version(version, fmt.Sprint(suffix, i))
			s.Name += suffix
			register(t, one, s)
		}
	}
	for _, r := range []registry.Registry{one, two} {
		b.lists(t, r, b.prefix+"-a", b.prefix+"-b", b.prefix+"-ü")
	}
	gone := b.service("-a0", "-a1")
	gone.Name += "-a"
	require.NoError(t, one.Deregister(gone))
	b.lists(t, two, b.prefix+"-b", b.prefix+"-ü")
}

func full(b *backend) *registry.Service {
	s := b.service("a", "b")
	s.Metadata = map[string]string{"k": "v"}
	s.Nodes[0].Metadata = map[string]string{"k": "v"}
	s.Endpoints = []*registry.Endpoint{{
		Name: "E", Metadata: map[string]string{"k": "v"},
		Request:  &registry.Value{Name: "r", Type: "T", Values: []*registry.Value{{Name: "f", Type: "string"}}},
		Response: &registry.Value{Name: "r", Type: "T"},
	}}
	return s
}

func scribble(s *registry.Service) {
	s.Version = "scribbled"
	s.Metadata["k"] = "scribbled"
	s.Endpoints[0].Metadata["k"] = "scribbled"
	s.Endpoints[0].Request.Values[0].Type = "scribbled"
	s.Endpoints[0].Response.Type = "scribbled"
	s.Endpoints[0] = nil
	for _, n := range s.Nodes {
		n.Address = "scribbled"
		if n.Metadata != nil {
			n.Metadata["k"] = "scribbled"
		}
	}
	s.Nodes[0] = nil
}

func testCopies(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	w, other := b.watch(t, one), b.watch(t, one)
	mine := full(b)
	register(t, one, mine)
	scribble(mine)
	for _, r := range []registry.Registry{one, two} {
		b.sees(t, r, b.prefix, full(b))
		got, err := r.GetService(b.prefix)
		require.NoError(t, err)
		scribble(got[0])
		b.sees(t, r, b.prefix, full(b))
	}
	told := w.next(t).Service
	want := full(b)
	want.Nodes = want.Nodes[:len(told.Nodes)]
	require.True(t, want.Equal(told), "told of %v", told)
	scribble(told)
	other.expect(t, registry.Create, want)
	b.sees(t, one, b.prefix, full(b))
}

func testInvalid(t *testing.T, b *backend) {
	r := b.open(t)
	for name, change := range map[string]func(*registry.Service){
		"no name":    func(s *registry.Service) { s.Name = "" },
		"control":    func(s *registry.Service) { s.Name += "\n" },
		"long":       func(s *registry.Service) { s.Name += strings.Repeat("x", registry.MaxName) },
		"no nodes":   func(s *registry.Service) { s.Nodes = nil },
		"no ID":      func(s *registry.Service) { s.Nodes[0].ID = "" },
		"no address": func(s *registry.Service) { s.Nodes[0].Address = "" },
		"not UTF-8":  func(s *registry.Service) { s.Metadata = map[string]string{"k": "\xff"} },
		"nil node":   func(s *registry.Service) { s.Nodes[0] = nil },
	} {
		s := b.service("a", "b")
		change(s)
		require.ErrorIs(t, r.Register(s), registry.ErrInvalid, name)
		_, err := r.GetService(s.Name)
		require.ErrorIs(t, err, registry.ErrNotFound, name)
	}
	require.ErrorIs(t, r.Register(nil), registry.ErrInvalid)
}

func testTTL(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	w := b.watch(t, two)
	forever := b.service("forever")
	register(t, one, forever)
	w.expect(t, registry.Create, forever)

	short := b.service("short")
	start := time.Now()
	last, longest := start, time.Duration(0)
	register(t, one, short, registry.TTL(b.TTL))
	w.expect(t, registry.Create, short)
	for time.Since(start) < 3*b.TTL { // kept by registering again
		time.Sleep(b.TTL / 4)
		before := time.Now()
		register(t, one, short, registry.TTL(b.TTL))
		longest = max(longest, time.Since(last))
		last = before
	}
	b.sees(t, one, b.prefix, b.service("forever", "short"))
	if longest < b.TTL*3/4 { // else this machine was too slow to refresh in time
		require.Empty(t, w.results, "a refresh is no news")
	}
	for len(w.results) > 0 {
		<-w.results
	}

	refreshed := time.Now()
	b.seesWithin(t, b.TTL+b.Within, two, b.prefix, forever)
	require.GreaterOrEqual(t, time.Since(refreshed), b.TTL/2, "gone too early")
	b.sees(t, one, b.prefix, forever)
	w.expect(t, registry.Delete, short)

	register(t, one, short, registry.TTL(b.TTL)) // it comes back
	register(t, one, short)                      // and stays
	w.expect(t, registry.Create, short)
	time.Sleep(b.TTL + b.TTL/2)
	b.sees(t, one, b.prefix, b.service("forever", "short"))
	require.Empty(t, w.results)
}

// testTTLOfTwoNodes: two nodes of one service, registered by one process, live and end each for itself.
func testTTLOfTwoNodes(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	ttl := 2 * b.TTL
	w := b.watch(t, two)
	w.patience += ttl
	table := make(map[string]*registry.Service)
	there := func(s *registry.Service) func() bool { return func() bool { return table[keys(s)[0]] != nil } }
	gone := func(s *registry.Service) func() bool { return func() bool { return table[keys(s)[0]] == nil } }
	kept, left := b.service("kept"), b.service("left")
	k := b.keepFor(t, one, kept, ttl)
	defer stop(t, k, b.Within)
	register(t, one, left, registry.TTL(ttl))
	w.until(t, "the second node", table, there(left))
	w.until(t, "the end of the second node, which nobody refreshed", table, gone(left))
	b.sees(t, two, b.prefix, kept)
	other := b.keepFor(t, one, left, ttl)
	w.until(t, "the second node", table, there(left))
	stop(t, other, b.Within)
	b.sees(t, two, b.prefix, kept)
}

func testWatch(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	readers := []*reader{b.watch(t, one), b.watch(t, one), b.watch(t, two)}
	expect := func(action string, s *registry.Service) {
		t.Helper()
		for _, w := range readers {
			w.expect(t, action, s)
		}
	}
	a, c := b.service("a"), b.version("2", "c")
	register(t, one, a)
	expect(registry.Create, a)
	register(t, one, a) // unchanged
	register(t, one, c)
	expect(registry.Create, c)
	for i := range 5 {
		a.Nodes[0].Address = fmt.Sprint("198.51.100.1:", i)
		register(t, one, a)
		expect(registry.Update, a)
	}
	a.Metadata = map[string]string{"k": "v"}
	register(t, one, a)
	expect(registry.Update, a)
	require.NoError(t, one.Deregister(a))
	expect(registry.Delete, a)
	require.NoError(t, one.Deregister(a))
	require.NoError(t, one.Deregister(c))
	expect(registry.Delete, c)
	for _, w := range readers {
		require.Empty(t, w.results)
	}
}

func testWatchFromNowOn(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	register(t, one, b.service("before"))
	b.sees(t, two, b.prefix, b.service("before"))
	for i := range 3 {
		w := b.watch(t, two)
		s := b.service(fmt.Sprint("after", i))
		register(t, one, s)
		w.expect(t, registry.Create, s)
		w.w.Stop()
	}
}

func testWatchStop(t *testing.T, b *backend) {
	r := b.open(t)
	stopped, other := b.watch(t, r), b.watch(t, r) // both wait in Next
	stopped.w.Stop()
	stopped.w.Stop()
	stopped.ends(t, registry.ErrWatcherStopped)
	_, err := stopped.w.Next()
	require.ErrorIs(t, err, registry.ErrWatcherStopped)

	register(t, r, b.service("a"))
	other.expect(t, registry.Create, b.service("a"))
}

// testWatchSlowly: what nobody has read yet is told once for each node, as it is now.
func testWatchSlowly(t *testing.T, b *backend) {
	r := b.open(t)
	slow, err := r.Watch()
	require.NoError(t, err)
	t.Cleanup(slow.Stop)
	quick := b.watch(t, r)

	a, gone, end := b.service("a"), b.service("gone"), b.service("end")
	register(t, r, gone)
	for i := range 100 {
		a.Nodes[0].Address = fmt.Sprint("198.51.100.1:", i)
		register(t, r, a)
	}
	table := make(map[string]*registry.Service)
	quick.until(t, "last address", table, func() bool { return a.Equal(table[keys(a)[0]]) })
	require.NoError(t, r.Deregister(gone))
	quick.until(t, "deletion", table, func() bool { return table[keys(gone)[0]] == nil })
	register(t, r, end)
	quick.until(t, "end", table, func() bool { return table[keys(end)[0]] != nil })

	late := b.read(slow)
	seen := make(map[string]*registry.Result)
	for seen[keys(end)[0]] == nil {
		r := late.next(t)
		key := keys(r.Service)[0]
		require.Nil(t, seen[key], "told twice of %s", key)
		seen[key] = r
	}
	require.True(t, a.Equal(seen[keys(a)[0]].Service))
	require.Equal(t, registry.Delete, seen[keys(gone)[0]].Action)
}

func testManyNodes(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	w := b.watch(t, two)
	w.patience *= 4
	want := b.service()
	start := time.Now()
	var work sync.WaitGroup
	each := b.Nodes / 4
	for part := range 4 {
		for i := range each {
			want.Nodes = append(want.Nodes, &registry.Node{ID: b.id(fmt.Sprintf("%d-%04d", part, i)), Address: "192.0.2.1:1"})
		}
		nodes := want.Nodes[part*each:]
		work.Go(func() {
			for _, n := range nodes {
				s := b.service()
				s.Nodes = []*registry.Node{n}
				register(t, one, s)
			}
		})
	}
	work.Wait()
	registered := time.Since(start)
	b.seesWithin(t, 4*b.Within, one, b.prefix, want)
	b.seesWithin(t, 4*b.Within, two, b.prefix, want)
	table := make(map[string]*registry.Service)
	w.until(t, "all nodes", table, func() bool { return len(table) == len(want.Nodes) })
	b.suite.Measure(t, fmt.Sprint(len(want.Nodes), " nodes registered"), registered.String())
	b.suite.Measure(t, fmt.Sprint(len(want.Nodes), " nodes seen by another instance"), time.Since(start).String())

	require.NoError(t, one.Deregister(want))
	b.seesWithin(t, 4*b.Within, two, b.prefix)
	w.until(t, "all nodes gone", table, func() bool { return len(table) == 0 })
}

func testConcurrently(t *testing.T, b *backend) {
	instances := []registry.Registry{b.open(t), b.open(t)}
	watcher := b.watch(t, instances[1])
	var work sync.WaitGroup
	for i := range 8 {
		r := instances[i%2]
		work.Go(func() {
			s := b.service(fmt.Sprint(i))
			for range 10 {
				w, err := r.Watch()
				require.NoError(t, err)
				register(t, r, s)
				got, err := r.GetService(s.Name)
				require.NoError(t, err)
				require.NotEmpty(t, got)
				b.list(t, r)
				if i > 0 {
					require.NoError(t, r.Deregister(s))
				}
				w.Stop()
			}
		})
	}
	work.Wait()
	left := b.service("0")
	for _, r := range instances {
		b.sees(t, r, b.prefix, left)
	}
	table := make(map[string]*registry.Service)
	end := b.service("end")
	register(t, instances[0], end)
	watcher.until(t, "what is left", table, func() bool { return table[keys(end)[0]] != nil && len(table) == 2 })
	require.True(t, left.Equal(table[keys(left)[0]]))
}

func testClose(t *testing.T, b *backend) {
	r := b.Open(t)
	c, ok := r.(io.Closer)
	if !ok {
		b.suite.NotClaimed(t, "io.Closer, it holds no resources")
	}
	register(t, r, b.service("a"))
	w := b.watch(t, r) // waits in Next
	require.NoError(t, c.Close())
	require.NoError(t, c.Close(), "again")
	w.ends(t, registry.ErrClosed)
	_, err := w.w.Next()
	require.ErrorIs(t, err, registry.ErrClosed)
	w.w.Stop()
	require.ErrorIs(t, r.Register(b.service("a")), registry.ErrClosed)
	require.ErrorIs(t, r.Deregister(b.service("a")), registry.ErrClosed)
	_, err = r.GetService(b.prefix)
	require.ErrorIs(t, err, registry.ErrClosed)
	_, err = r.ListServices()
	require.ErrorIs(t, err, registry.ErrClosed)
	_, err = r.Watch()
	require.ErrorIs(t, err, registry.ErrClosed)

	again := b.open(t) // the others are not concerned
	register(t, again, b.service("b"))
	got, err := again.GetService(b.prefix)
	require.NoError(t, err)
	require.Equal(t, b.id("b"), got[0].Nodes[len(got[0].Nodes)-1].ID)
}

func (b *backend) keep(t *testing.T, r registry.Registry, s *registry.Service) *registry.Keeper {
	t.Helper()
	k, err := registry.Keep(r, s, b.lifetime(), 2*b.TTL, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return k
}

// keepFor refreshes four times in a TTL.
func (b *backend) keepFor(t *testing.T, r registry.Registry, s *registry.Service, ttl time.Duration) *registry.Keeper {
	t.Helper()
	k, err := registry.Keep(r, s, ttl, ttl/4, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return k
}

func (b *backend) lifetime() time.Duration {
	if b.NoTTL {
		return 0
	}
	return 10 * b.TTL
}

func stop(t *testing.T, k *registry.Keeper, within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within+10*time.Second)
	defer cancel()
	require.NoError(t, k.Stop(ctx))
}

func testKeep(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	s := b.service("a")
	k := b.keep(t, one, s)
	require.True(t, k.Registered())
	b.sees(t, two, s.Name, s)
	if !b.NoTakeover {
		changed := s.Clone()
		changed.Nodes[0].Address = "198.51.100.1:1"
		register(t, two, changed)
		b.sees(t, one, s.Name, changed)
		require.NoError(t, two.Deregister(s))
		b.sees(t, two, s.Name, s) // it is back, as it was
		require.True(t, eventually(b.Within, k.Registered))
	}
	stop(t, k, b.Within)
	b.sees(t, two, s.Name)
}

// comesBack is how long a kept registration may take after a fault is over.
func (b *backend) comesBack() time.Duration { return 3*b.Within + 4*b.TTL }

func testWipe(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	kept, lost := b.service("kept"), b.service("lost")
	k := b.keep(t, one, kept)
	defer stop(t, k, b.Within)
	register(t, one, lost)
	b.sees(t, two, b.prefix, b.service("kept", "lost"))
	for range 3 {
		b.Wipe(t)
		b.seesWithin(t, b.comesBack(), two, b.prefix, kept)
		require.True(t, eventually(b.Within, k.Registered))
	}
	b.works(t, one, two)
}

// follow keeps a table as a client has it: what a watcher tells, and, only when one ended with an error, what is there.
type follow struct {
	b       *backend
	r       registry.Registry
	quit    chan struct{}
	mu      sync.Mutex
	watcher registry.Watcher
	table   map[string]*registry.Service
}

func (b *backend) follow(t *testing.T, r registry.Registry) *follow {
	t.Helper()
	f := &follow{b: b, r: r, quit: make(chan struct{}), table: make(map[string]*registry.Service)}
	require.NoError(t, f.watch())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for f.next() {
		}
	}()
	t.Cleanup(func() {
		close(f.quit)
		f.mu.Lock()
		f.watcher.Stop()
		f.mu.Unlock()
		<-done
	})
	return f
}

func (f *follow) watch() error {
	w, err := f.r.Watch()
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watcher = w
	select {
	case <-f.quit:
		w.Stop()
	default:
	}
	return nil
}

// next reports false when it is over.
func (f *follow) next() bool {
	result, err := f.watcher.Next() // only this goroutine changes it
	if err == nil {
		f.apply(result, f.b.prefix)
		return true
	}
	for err != nil {
		f.watcher.Stop()
		select {
		case <-f.quit:
			return false
		case <-time.After(10 * time.Millisecond):
		}
		if err = f.watch(); err == nil { // watch anew, then get again
			err = f.read(f.r, f.b.prefix)
		}
	}
	return true
}

func (f *follow) apply(r *registry.Result, prefix string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range keys(r.Service) {
		switch {
		case !strings.HasPrefix(r.Service.Name, prefix):
		case r.Action == registry.Delete:
			delete(f.table, key)
		default:
			f.table[key] = r.Service
		}
	}
}

func (f *follow) read(r registry.Registry, name string) error {
	services, err := r.GetService(name)
	if err != nil && !errors.Is(err, registry.ErrNotFound) {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.table)
	for _, s := range services {
		for _, n := range s.Nodes {
			single := s.Clone()
			single.Nodes = []*registry.Node{n}
			f.table[keys(single)[0]] = single
		}
	}
	return nil
}

// has waits until the table is exactly want, of one node each.
func (f *follow) has(t *testing.T, within time.Duration, want ...*registry.Service) {
	t.Helper()
	ok := eventually(within, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, s := range want {
			if got := f.table[keys(s)[0]]; got == nil || !s.Equal(got) {
				return false
			}
		}
		return len(f.table) == len(want)
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	require.True(t, ok, "a watcher that was there all the time knows, after %v, %v; want %v", within, f.table, want)
}

// testWatchOverWipe: what is gone because the backend lost it is told to those who watched before.
func testWatchOverWipe(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	f := b.follow(t, two)
	kept, lost := b.service("kept"), b.service("lost")
	k := b.keep(t, one, kept)
	defer stop(t, k, b.Within)
	register(t, one, lost)
	f.has(t, b.Within, kept, lost)
	b.Wipe(t)
	f.has(t, b.comesBack(), kept)
	late := b.service("late")
	require.True(t, eventually(b.comesBack(), func() bool { return one.Register(late) == nil }))
	f.has(t, b.comesBack(), kept, late)
}

// testWatchOverCut: what changed while a watcher was cut off is told when it is back.
func testWatchOverCut(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	f := b.follow(t, two)
	stays, goes, changes, comes := b.service("stays"), b.service("goes"), b.service("changes"), b.service("comes")
	for _, s := range []*registry.Service{stays, goes, changes} {
		register(t, one, s)
	}
	f.has(t, b.Within, stays, goes, changes)
	heal := sync.OnceFunc(b.Cut(t, two))
	defer heal()
	require.NoError(t, one.Deregister(goes))
	changes.Nodes[0].Address = "198.51.100.1:1"
	register(t, one, changes)
	register(t, one, comes)
	b.sees(t, one, b.prefix, b.whole(stays, changes, comes))
	heal()
	f.has(t, b.comesBack(), stays, changes, comes)
}

// whole puts the nodes of all together, as GetService does.
func (b *backend) whole(all ...*registry.Service) *registry.Service {
	s := b.service()
	for _, single := range all {
		s.Nodes = append(s.Nodes, single.Nodes...)
	}
	slices.SortFunc(s.Nodes, func(a, b *registry.Node) int { return strings.Compare(a.ID, b.ID) })
	return s
}

func testRestart(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	s := b.service("a")
	k := b.keep(t, one, s)
	defer stop(t, k, b.Within)
	b.sees(t, two, s.Name, s)
	b.Restart(t)
	b.seesWithin(t, b.comesBack(), two, s.Name, s)
	b.works(t, one, two)
}

func testPause(t *testing.T, b *backend) {
	one, two, leaves := b.open(t), b.open(t), b.Open(t)
	s := b.service("a")
	k := b.keep(t, one, s)
	w := b.watch(t, leaves)
	resume := sync.OnceFunc(b.Pause(t))
	defer resume()
	b.bounded(t, one)
	if c, ok := leaves.(io.Closer); ok {
		b.returns(t, "Close", func() { _ = c.Close() })
		w.ends(t, registry.ErrClosed)
	}
	ctx, cancel := context.WithTimeout(t.Context(), b.Within)
	defer cancel()
	err := k.Stop(ctx) // does not hang
	resume()
	if err != nil && b.NoTTL {
		require.NoError(t, one.Deregister(s))
	}
	b.seesWithin(t, b.lifetime()+b.comesBack(), two, s.Name)
	b.works(t, one, two)
}

func testCut(t *testing.T, b *backend) {
	one, two := b.open(t), b.open(t)
	s := b.service("a")
	k := b.keep(t, one, s)
	defer stop(t, k, b.Within)
	b.sees(t, two, s.Name, s)
	heal := sync.OnceFunc(b.Cut(t, one))
	defer heal() // before it is stopped
	b.bounded(t, one)
	if !b.NoTTL {
		b.seesWithin(t, 12*b.TTL+b.comesBack(), two, s.Name)
		require.True(t, eventually(b.Within, func() bool { return !k.Registered() }), "it takes itself for registered")
	}
	heal()
	b.seesWithin(t, b.comesBack(), two, s.Name, s)
	b.works(t, one, two)
}

// bounded makes each call once, whatever it answers.
func (b *backend) bounded(t *testing.T, r registry.Registry) {
	t.Helper()
	other := b.service("bounded") // what got no answer may be carried out later, in any order: it must not be in the way
	other.Name += "-bounded"
	b.returns(t, "Register", func() { _ = r.Register(other) })
	b.returns(t, "Deregister", func() { _ = r.Deregister(other) })
	b.returns(t, "GetService", func() { _, _ = r.GetService(b.prefix) })
	b.returns(t, "ListServices", func() { _, _ = r.ListServices() })
	b.returns(t, "Watch", func() {
		if w, err := r.Watch(); err == nil {
			w.Stop()
		}
	})
}

func (b *backend) returns(t *testing.T, what string, call func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		call()
	}()
	select {
	case <-done:
	case <-time.After(b.Within + 10*time.Second):
		require.FailNow(t, what+" is not bounded by a timeout")
	}
}

// works checks after a fault that all is as before.
func (b *backend) works(t *testing.T, one, two registry.Registry) {
	t.Helper()
	var w *reader
	require.True(t, eventually(b.comesBack(), func() bool {
		if watcher, err := two.Watch(); err == nil {
			watcher.Stop()
			return one.Register(b.service("works")) == nil && one.Deregister(b.service("works")) == nil
		}
		return false
	}))
	_ = eventually(b.Within, func() bool { got, err := two.GetService(b.prefix); return err == nil && !has(got, b.id("works")) })
	w = b.watch(t, two)
	s := b.version("after", "after")
	register(t, one, s)
	table := make(map[string]*registry.Service)
	w.until(t, "a registration after the fault", table, func() bool { return s.Equal(table[keys(s)[0]]) })
	require.NoError(t, one.Deregister(s))
	w.until(t, "a deletion after the fault", table, func() bool { return table[keys(s)[0]] == nil })
}

func has(services []*registry.Service, id string) bool {
	for _, s := range services {
		for _, n := range s.Nodes {
			if n.ID == id {
				return true
			}
		}
	}
	return false
}

// testKill: what a crashed process registered is gone, at once if the backend sees that, else when its TTL has passed.
func testKill(t *testing.T, b *backend) {
	lifetime := b.TTL
	if b.SeesCrash {
		lifetime = 0
	}
	r := b.open(t)
	w := b.watch(t, r)
	w.patience += lifetime
	register(t, r, b.service("mine"))
	w.expect(t, registry.Create, b.service("mine"))
	for range 3 {
		s := b.service("killed")
		p := b.Spawn(t, s, lifetime)
		b.sees(t, r, b.prefix, b.service("killed", "mine"))
		w.expect(t, registry.Create, s)
		start := time.Now()
		p.Kill()
		w.expect(t, registry.Delete, s)
		t.Logf("told %v after kill -9", time.Since(start))
		b.sees(t, r, b.prefix, b.service("mine"))
	}
}

// testStopped: a process that lives but does nothing loses its registration, and gets it back when it goes on.
func testStopped(t *testing.T, b *backend) {
	r := b.open(t)
	w := b.watch(t, r)
	w.patience += b.TTL
	s := b.service("stopped")
	p := b.Spawn(t, s, b.TTL)
	w.expect(t, registry.Create, s)
	if p.Stop == nil {
		b.suite.NotClaimed(t, "fault Stop")
	}
	p.Stop()
	w.expect(t, registry.Delete, s)
	b.sees(t, r, b.prefix)
	p.Continue()
	w.expect(t, registry.Create, s)
	b.sees(t, r, b.prefix, s)
}
