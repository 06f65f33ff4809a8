package client_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/client"
)

func balanced(b client.Balancer) option { return with(func(o *client.Options) { o.Balancer = b }) }

func TestRoundRobin(t *testing.T) {
	w := newWorld(t, 4, balanced(client.RoundRobin()))
	w.connected(4)
	for node, n := range w.hellos(100) {
		require.Equal(t, 25, n, node)
	}
}

func TestRandom(t *testing.T) {
	w := newWorld(t, 4, balanced(client.Random()))
	w.connected(4)
	got := w.hellos(400)
	require.Len(t, got, 4)
	for node, n := range got {
		require.Greater(t, n, 40, node)
	}
}

func TestConsistentHash(t *testing.T) {
	w := newWorld(t, 4, balanced(client.ConsistentHash()))
	w.connected(4)
	owners := func() map[string]string {
		of := make(map[string]string)
		for i := range 200 {
			key := fmt.Sprint("user-", i)
			for node := range w.hellos(2, client.HashKey(key)) {
				require.Empty(t, of[key], "one node for one key")
				of[key] = node
			}
		}
		return of
	}
	before := owners()
	share := make(map[string]int)
	for _, node := range before {
		share[node]++
	}
	require.Len(t, share, 4)
	for node, n := range share {
		require.InDelta(t, 50, n, 30, node)
	}
	w.nodes[2].deregister()
	w.nodes[2].stop()
	require.Eventually(t, func() bool { return w.net.live() == 3 }, soon, time.Millisecond)
	for key, node := range owners() {
		if before[key] != "node-2" {
			require.Equal(t, before[key], node, "only the keys of the node that is gone move")
		}
	}
	require.Greater(t, len(w.hellos(100)), 1, "without a key they go anywhere")
}

func TestLeastLoaded(t *testing.T) {
	w := newWorld(t, 3)
	w.connected(3)
	w.nodes[0].delay.Store(int64(30 * time.Millisecond))
	w.hellos(30) // it shows
	got := w.hellos(100)
	require.Less(t, got["node-0"], 10, "the slow one is spared")
	require.Greater(t, got["node-1"], 10)
	require.Greater(t, got["node-2"], 10)
}

func TestLeastLoadedCountsWhatIsOpen(t *testing.T) {
	w := newWorld(t, 2)
	w.connected(2)
	first := client.Where(func(n *client.Node) bool { return n.ID == "node-0" })
	for range 500 { // more than the latencies of two nodes in one process can differ
		st, err := client.Open[Hello, Greeting](t.Context(), w.client, "greeter", "Greeter.Chat", first)
		require.NoError(t, err)
		defer st.Close()
	}
	require.Equal(t, map[string]int{"node-1": 100}, w.hellos(100))
}

func TestFilters(t *testing.T) {
	w := newWorld(t, 2)
	w.start("canary", "2.0.0")
	require.Equal(t, map[string]int{"canary": 20}, w.hellos(20, client.Where(client.Version("2.0.0"))))
	require.Equal(t, map[string]int{"node-1": 20}, w.hellos(20, client.Where(client.Metadata("zone", "zone of node-1"))))
	notCanary := func(n *client.Node) bool { return n.ID != "canary" }
	require.NotContains(t, w.hellos(50, client.Where(notCanary)), "canary")
	require.Equal(t, map[string]int{"node-0": 20},
		w.hellos(20, client.Where(notCanary), client.Where(client.Metadata("zone", "zone of node-0"))), "all of them count")
}

func TestNodesShowLoadAndLatency(t *testing.T) {
	w := newWorld(t, 1)
	w.nodes[0].delay.Store(int64(5 * time.Millisecond))
	w.hellos(3)
	var latency time.Duration
	inFlight := -1
	w.hellos(1, client.Where(func(n *client.Node) bool {
		latency, inFlight = n.Latency(), n.InFlight()
		return true
	}))
	require.Greater(t, latency, 4*time.Millisecond)
	require.Zero(t, inFlight)
}
