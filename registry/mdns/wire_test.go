package mdns

import (
	"fmt"
	"log/slog"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/plugmicro/micro/registry"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

// unconnected hears what is given to receive, and says nothing.
func unconnected(t testing.TB) *Registry {
	r, err := newRegistry(Config{}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	close(r.ready)
	return r
}

func node(id, address string) *registry.Service {
	return &registry.Service{Name: "greeter", Nodes: []*registry.Node{{ID: id, Address: address}}}
}

func sealed(t testing.TB, r *Registry, s *registry.Service, stamp int64) *entry {
	e := &entry{label: label(s.Name, s.Nodes[0].ID), service: s, own: true}
	require.NoError(t, r.seal(e, stamp))
	return e
}

func response(t testing.TB, r *Registry, list ...answer) []byte {
	packet, err := r.names.response(list)
	require.NoError(t, err)
	return packet
}

func address(t *testing.T, r *Registry) string {
	got, err := r.GetService("greeter")
	if err != nil {
		require.ErrorIs(t, err, registry.ErrNotFound)
		return ""
	}
	require.Len(t, got, 1)
	require.Len(t, got[0].Nodes, 1)
	return got[0].Nodes[0].Address
}

// TestTheLaterRegistrationCounts, in whatever order news arrive.
func TestTheLaterRegistrationCounts(t *testing.T) {
	r := unconnected(t)
	first := sealed(t, r, node("n", "first:1"), 1000)
	second := sealed(t, r, node("n", "second:2"), 2000)
	hear := func(e *entry, ttl time.Duration) { r.receive(response(t, r, answer{e, ttl})) }

	hear(second, time.Minute)
	require.Equal(t, "second:2", address(t, r))
	hear(first, time.Minute)
	hear(first, 0)
	require.Equal(t, "second:2", address(t, r))
	hear(second, 0)
	require.Empty(t, address(t, r))
	hear(second, time.Minute)
	require.Empty(t, address(t, r), "said before the goodbye")
	third := sealed(t, r, node("n", "third:3"), 3000)
	hear(third, 0)
	hear(third, time.Minute)
	require.Empty(t, address(t, r), "the goodbye came first")

	require.NoError(t, r.Register(node("n", "own:1")))
	require.Equal(t, "own:1", address(t, r))
	clear(r.due)
	hear(third, time.Minute)
	require.Equal(t, "own:1", address(t, r))
	require.Contains(t, r.due, third.label, "who says old things is told the new ones")

	ahead := sealed(t, r, node("n", "ahead:1"), time.Now().Add(time.Hour).UnixNano())
	hear(ahead, time.Minute)
	require.Equal(t, "ahead:1", address(t, r), "taken over")
	require.NoError(t, r.Register(node("n", "own:2")))
	require.Equal(t, "own:2", address(t, r), "in spite of a slow clock")
	require.Greater(t, r.table.entries[ahead.label].stamp, ahead.stamp)
}

func TestQueries(t *testing.T) {
	r := unconnected(t)
	require.NoError(t, r.Register(node("a", "192.0.2.1:1")))
	require.NoError(t, r.Register(node("b", "192.0.2.1:2")))
	a, b := label("greeter", "a"), label("greeter", "b")
	for name, test := range map[string]struct {
		all    bool
		known  []answer
		labels []string
		want   []string
	}{
		"all":           {all: true, want: []string{a, b}},
		"but for known": {all: true, known: []answer{{&entry{label: a}, time.Minute}}, want: []string{b}},
		"one":           {labels: []string{b, "other"}, want: []string{b}},
		"none":          {labels: []string{"other"}},
	} {
		clear(r.due)
		packet, err := r.names.query(test.all, test.known, test.labels)
		require.NoError(t, err)
		r.receive(packet)
		require.Len(t, r.due, len(test.want), name)
		for _, label := range test.want {
			require.Contains(t, r.due, label, name)
		}
	}
	clear(r.due)
	packet, err := names{domain: ".other.", service: "_micro._tcp.other."}.query(true, nil, nil)
	require.NoError(t, err)
	r.receive(packet)
	require.Empty(t, r.due, "another domain")
}

// TestRecords: tools of others see a service of DNS-SD.
func TestRecords(t *testing.T) {
	r := unconnected(t)
	for address, want := range map[string]string{
		"192.0.2.1:80":          "PTR SRV 80 TXT A 192.0.2.1",
		"[2001:db8::1%eth0]:80": "PTR SRV 80 TXT AAAA 2001:db8::1",
		"greeter.example:80":    "PTR SRV 0 TXT",
	} {
		var p dnsmessage.Parser
		h, err := p.Start(response(t, r, answer{sealed(t, r, node("Node 1", address), 1), 90 * time.Second}))
		require.NoError(t, err)
		require.True(t, h.Response && h.Authoritative)
		require.NoError(t, p.SkipAllQuestions())
		all, err := p.AllAnswers()
		require.NoError(t, err)
		instance := label("greeter", "Node 1") + "._micro._tcp.local."
		require.Regexp(t, `^node-1-[0-9a-f]{20}\._micro`, instance)
		var got []string
		for _, rr := range all {
			require.EqualValues(t, 90, rr.Header.TTL)
			require.Equal(t, rr.Header.Type != dnsmessage.TypePTR, rr.Header.Class&flush != 0, "PTR is shared, the others are not")
			switch b := rr.Body.(type) {
			case *dnsmessage.PTRResource:
				require.Equal(t, "_micro._tcp.local.", rr.Header.Name.String())
				require.Equal(t, instance, b.PTR.String())
				got = append(got, "PTR")
			case *dnsmessage.SRVResource:
				require.Equal(t, instance, rr.Header.Name.String())
				got = append(got, "SRV", fmt.Sprint(b.Port))
			case *dnsmessage.TXTResource:
				require.Equal(t, "v=1", b.TXT[0])
				got = append(got, "TXT")
			case *dnsmessage.AResource:
				got = append(got, "A", fmt.Sprintf("%d.%d.%d.%d", b.A[0], b.A[1], b.A[2], b.A[3]))
			case *dnsmessage.AAAAResource:
				require.Equal(t, byte(0x20), b.AAAA[0])
				got = append(got, "AAAA 2001:db8::1")
			}
		}
		require.Equal(t, want, strings.Join(got, " "))
	}
}

func TestWhatIsTooLargeIsRefused(t *testing.T) {
	r := unconnected(t)
	s := node("n", "192.0.2.1:1")
	s.Metadata = map[string]string{"long": strings.Repeat("compressible ", 5000)}
	require.NoError(t, r.Register(s))
	s.Metadata = map[string]string{"long": strings.Repeat("x", maxText)}
	require.ErrorIs(t, r.Register(s), registry.ErrInvalid, "more than is decompressed")
	require.ErrorContains(t, r.Register(s), "multicast DNS takes 131072 at most: use another registry")
}

// TestTheTableIsBounded: anybody can announce anything.
func TestTheTableIsBounded(t *testing.T) {
	r := unconnected(t)
	r.table.limits.bytes = 1 << 20
	large := node("", "192.0.2.1:1")
	large.Metadata = map[string]string{"bomb": strings.Repeat("x", 120<<10)}
	for i := range 20 {
		large.Nodes[0].ID = fmt.Sprint("large", i)
		r.receive(response(t, r, answer{sealed(t, r, large, 1), time.Hour}))
	}
	require.Len(t, r.table.entries, 8)
	require.True(t, r.full)

	r = unconnected(t)
	r.table.limits.entries = 100
	for i := range 200 {
		r.receive(response(t, r, answer{sealed(t, r, node(fmt.Sprint(i), "a:1"), 1), time.Duration(i%2) * time.Hour}))
	}
	require.Len(t, r.table.entries, 100, "those that are gone are counted, too")
}

func TestHostileTexts(t *testing.T) {
	r := unconnected(t)
	good := sealed(t, r, node("n", "192.0.2.1:1"), 1)
	for name, e := range map[string]*entry{
		"not ours":        {label: "x", text: text{raw: "\x05hello"}},
		"no text":         {label: "x", text: text{raw: "\x03v=1"}},
		"not compressed":  {label: "x", text: text{raw: string(frame([]byte("{}")))}},
		"another node":    {label: "x", text: good.text},
		"not JSON":        {label: "x", text: packed("null")},
		"no nodes":        {label: "x", text: packed(`{"name":"greeter"}`)},
		"endless":         {label: "x", text: packed(strings.Repeat(" ", maxText+1))},
		"stamp":           {label: good.label, text: packed(fmt.Sprintf(`{"name":"greeter","nodes":[{"id":"n","address":"a"}],"stamp":%d}`, int64(math.MaxInt64)))},
		"negative stamp":  {label: good.label, text: packed(`{"name":"greeter","nodes":[{"id":"n","address":"a"}],"stamp":-1}`)},
		"invalid service": {label: label("greeter", "n\n"), text: packed(`{"name":"greeter","nodes":[{"id":"n\n","address":"a"}]}`)},
	} {
		r.receive(response(t, r, answer{e, time.Minute}))
		require.Empty(t, r.table.entries, name)
	}
	r.receive(response(t, r, answer{good, math.MaxUint32 * time.Second}))
	require.Equal(t, "192.0.2.1:1", address(t, r))
	require.WithinDuration(t, time.Now().Add(maxTTL), r.table.entries[good.label].expires, time.Minute, "nothing lives for ever")
}

func packed(s string) text {
	w := &strings.Builder{}
	f := writer()
	defer writers.Put(f)
	f.Reset(w)
	_, _ = f.Write([]byte(s))
	_ = f.Close()
	return text{raw: string(frame([]byte(w.String())))}
}

func FuzzReceive(f *testing.F) {
	r := unconnected(f)
	e := sealed(f, r, node("n", "192.0.2.1:1"), 1)
	f.Add(response(f, r, answer{e, time.Minute}))
	f.Add(response(f, r, answer{e, time.Minute}, answer{e, 0}))
	query, err := r.names.query(true, []answer{{e, time.Minute}}, []string{e.label, "x"})
	require.NoError(f, err)
	f.Add(query)
	f.Fuzz(func(t *testing.T, packet []byte) {
		r := unconnected(t)
		require.NoError(t, r.Register(node("own", "192.0.2.1:1")))
		r.receive(packet)
		bytes := 0
		for label, e := range r.table.entries {
			require.Equal(t, label, e.label)
			bytes += e.text.bytes
			if e.alive() {
				require.NoError(t, registry.Validate(e.service))
			}
		}
		require.Equal(t, bytes, r.table.bytes)
		for label := range maps.Keys(r.due) {
			require.True(t, r.table.entries[label].own)
		}
	})
}
