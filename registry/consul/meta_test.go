package consul

import (
	"maps"
	"strconv"
	"strings"
	"testing"

	"github.com/plugmicro/micro/registry"
	"github.com/stretchr/testify/require"
)

func TestEscape(t *testing.T) {
	for text, want := range map[string]string{
		"greeter": "greeter", "go.micro.Greeter-1": "go.micro.Greeter-1", "_direct": "_direct", "..": "~2e.", "a/b": "a~2fb",
		"~": "~7e", "a:b": "a~3ab", "é": "~c3~a9", "%2F": "~252F", "": "",
	} {
		require.Equal(t, want, escape(text, false))
		back, ok := unescape(want, false)
		require.True(t, ok)
		require.Equal(t, text, back)
	}
	require.Equal(t, "~41a", escape("Aa", true))
	for _, bad := range []string{"~", "~4", "~zz", "~61", "a b", "~4G", "A~"} {
		_, ok := unescape(bad, false)
		require.False(t, ok, bad)
	}
	require.NotEqual(t, serviceID("a", "b-c"), serviceID("a-b", "c"))
	require.NotEqual(t, strings.ToLower(serviceID("a", "X")), strings.ToLower(serviceID("a", "x")))
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"greeter", "..", "~7e", "日本語", "\xff", ":"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, lower := range []bool{false, true} {
			back, ok := unescape(escape(s, lower), lower)
			require.True(t, ok)
			require.Equal(t, s, back)
			if text, ok := unescape(s, lower); ok {
				require.Equal(t, s, escape(text, lower))
			}
		}
	})
}

// FuzzUnpack: Meta is written by whoever may write to Consul.
func FuzzUnpack(f *testing.F) {
	good, _, err := pack(&registry.Service{
		Name: "greeter", Version: "1", Metadata: map[string]string{"k": "v"},
		Nodes:     []*registry.Node{{ID: "n", Address: "192.0.2.1:1"}},
		Endpoints: []*registry.Endpoint{{Name: "E", Request: &registry.Value{Type: "T"}}},
	})
	require.NoError(f, err)
	f.Add(good["micro-0"], "")
	f.Add("", "x")
	f.Add("AAAA", "AAAA")
	f.Fuzz(func(t *testing.T, first, second string) {
		s, _, err := unpack(map[string]string{"micro-0": first, "micro-1": second})
		if err != nil {
			return
		}
		require.NoError(t, registry.Validate(s))
		again, _, err := pack(s)
		require.NoError(t, err)
		back, _, err := unpack(again)
		require.NoError(t, err)
		require.True(t, s.Equal(back))
	})
}

// TestBomb: a little that unpacks to a lot is refused.
func TestBomb(t *testing.T) {
	large := &registry.Service{
		Name: "bomb", Nodes: []*registry.Node{{ID: "n", Address: "x:1"}},
		Metadata: map[string]string{"zeros": strings.Repeat("0", maxUnpacked)},
	}
	meta, _, err := pack(large)
	require.NoError(t, err)
	_, _, err = unpack(meta)
	require.ErrorContains(t, err, "more than "+strconv.Itoa(maxUnpacked))
}

func TestMetaKeepsToTheLimits(t *testing.T) {
	s := &registry.Service{Name: "greeter", Version: "1", Metadata: make(map[string]string), Nodes: []*registry.Node{{ID: "n", Address: "x:1"}}}
	for i := range 200 {
		s.Metadata["key"+strconv.Itoa(i)] = "value"
	}
	for _, odd := range []string{"micro", "micro-0", "consul-x", "with space", "ключ", "", strings.Repeat("k", maxKey+1)} {
		s.Metadata[odd] = "odd"
	}
	s.Metadata["long"] = strings.Repeat("v", maxValue+1)
	meta, _, err := pack(s)
	require.NoError(t, err)
	require.Len(t, meta, maxPairs-1)
	for key, value := range meta {
		require.True(t, keyFormat(key), key)
		require.LessOrEqual(t, len(key), maxKey)
		require.LessOrEqual(t, len(value), maxValue)
		require.NotEqual(t, "odd", value)
	}
	back, _, err := unpack(meta)
	require.NoError(t, err)
	require.True(t, s.Equal(back))
	require.Equal(t, "odd", s.Metadata["micro-0"], "the caller's own stays as it was")

	same, sum, err := pack(s.Clone())
	require.NoError(t, err)
	require.True(t, maps.Equal(meta, same), "the same is registered the same")
	s.Nodes[0].Address = "y:1"
	_, other, err := pack(s)
	require.NoError(t, err)
	require.NotEqual(t, sum, other)
}

func TestAlive(t *testing.T) {
	heartbeat := func(node, id, status string, index uint64) check {
		id = serviceID("s", id)
		return check{Node: node, CheckID: checkPrefix + id, ServiceName: "s", ServiceID: id, Status: status, ModifyIndex: index}
	}
	found := alive([]check{
		heartbeat("h1", "a", "passing", 1),
		heartbeat("h1", "b", "critical", 1),
		heartbeat("h1", "c", "passing", 1), {Node: "h1", CheckID: "other", ServiceID: "s:c", Status: "critical"},
		heartbeat("h1", "d", "passing", 1), {Node: "h1", CheckID: "other", ServiceID: "s:d", Status: "warning"},
		{Node: "h1", CheckID: "disk", Status: "warning"},
		heartbeat("h2", "e", "passing", 1), {Node: "h2", CheckID: "serfHealth", Status: "critical"},
		heartbeat("h1", "f", "passing", 1), heartbeat("h3", "f", "passing", 3), heartbeat("h2", "f", "passing", 9),
		{Node: "h1", CheckID: "g", ServiceID: "g", Status: "passing"},
		{Node: "h1", CheckID: checkPrefix, Status: "passing"},
		{Node: "h1", CheckID: checkPrefix + "x", ServiceName: "..", ServiceID: "x", Status: "passing"},
		{Node: "h1", CheckID: checkPrefix + ":x", ServiceID: ":x", Status: "passing"},
		{Node: "h1", CheckID: checkPrefix + `s:"`, ServiceName: "s", ServiceID: `s:"`, Status: "passing"},
	})
	var ids []string
	for id := range found {
		ids = append(ids, id)
	}
	require.ElementsMatch(t, []string{"s:a", "s:d", "s:f"}, ids)
	require.Equal(t, "h3", found["s:f"].Node, "the last of those whose host is alive")
}
