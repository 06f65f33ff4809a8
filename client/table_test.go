package client

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/registry"
)

// TestNodeThatMovedThereAndBack is what a slow watcher is told of a node that went to another version and came back: its
// Create takes the place of the first change, before the Delete of the other version.
func TestNodeThatMovedThereAndBack(t *testing.T) {
	ps := newPeers(nil, mux.Options{}, slog.Default())
	defer ps.close()
	s := &service{name: "greeter", peers: ps, nodes: make(map[string]*Node)}
	change := func(action, version string) {
		s.apply(&registry.Result{Action: action, Service: &registry.Service{Name: "greeter", Version: version,
			Nodes: []*registry.Node{{ID: "a", Address: "127.0.0.1:1"}}}})
	}
	change(registry.Create, "1")
	change(registry.Create, "1")
	change(registry.Delete, "2")
	require.Len(t, s.nodes, 1)
	change(registry.Delete, "1")
	require.Empty(t, s.nodes)
}
