package client

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/plugmicro/micro/internal/mux"
)

// Node is one instance of a service, as a Balancer or a Filter sees it.
type Node struct {
	ID       string
	Address  string
	Version  string
	Metadata map[string]string

	idempotent map[string]bool // endpoints
	lost       *mux.Client     // if the registry has it no more: the connection for whose life it is kept
	resting    *atomic.Bool    // it refused a call, and is not picked for a while
	peer       *peer
}

// rest keeps the node from being picked for a while: it refuses calls, but its address may serve others well.
func (n *Node) rest() {
	if n.resting == nil || n.resting.Swap(true) {
		return
	}
	n.peer.all.changed.Add(1)
	time.AfterFunc(ejection, func() {
		n.resting.Store(false)
		n.peer.all.changed.Add(1)
	})
}

// InFlight is how many calls and streams of this client are open on the node.
func (n *Node) InFlight() int { return int(n.peer.calls.Load() + n.peer.streams.Load()) }

// Latency is the moving average of its answers, fading while it is asked for none; of a node that owes answers it is at
// least the time since the last one.
func (n *Node) Latency() time.Duration { return n.peer.latency.value(n.peer.calls.Load() > 0) }

// Balancer picks the node for a call. It must be safe for concurrent use.
type Balancer interface {
	// Pick returns one of nodes, which has at least two and must not be changed. key is the HashKey of the call.
	Pick(nodes []*Node, key string) *Node
}

type balancerFunc func(nodes []*Node, key string) *Node

func (f balancerFunc) Pick(nodes []*Node, key string) *Node { return f(nodes, key) }

// LeastLoaded takes two nodes by chance and of them the one with less work before it: its latency times its open calls.
func LeastLoaded() Balancer {
	return balancerFunc(func(nodes []*Node, _ string) *Node {
		i := rand.IntN(len(nodes))
		j := rand.IntN(len(nodes) - 1)
		if j >= i {
			j++
		}
		if cost(nodes[j]) < cost(nodes[i]) {
			return nodes[j]
		}
		return nodes[i]
	})
}

func cost(n *Node) int64 {
	return int64(n.Latency()+time.Microsecond) * int64(n.InFlight()+1)
}

// RoundRobin takes one node after the other.
func RoundRobin() Balancer {
	var next atomic.Uint64
	return balancerFunc(func(nodes []*Node, _ string) *Node { return nodes[next.Add(1)%uint64(len(nodes))] })
}

// Random takes any.
func Random() Balancer {
	return balancerFunc(func(nodes []*Node, _ string) *Node { return nodes[rand.IntN(len(nodes))] })
}

// ConsistentHash takes the same node for the same HashKey, in every process, for as long as the node is there; a node
// that comes or goes moves only its own share of the keys. Calls without a HashKey go anywhere.
func ConsistentHash() Balancer {
	return balancerFunc(func(nodes []*Node, key string) *Node {
		if key == "" {
			return nodes[rand.IntN(len(nodes))]
		}
		best, highest := nodes[0], uint64(0)
		for _, n := range nodes { // rendezvous hashing: the node that scores highest with the key
			if h := hash(key, n.ID); h >= highest {
				best, highest = n, h
			}
		}
		return best
	})
}

// hash is FNV-1a over both, then mixed, because FNV alone orders short strings that differ at the end too regularly.
func hash(a, b string) uint64 {
	h := uint64(14695981039346656037)
	for _, s := range [2]string{a, b} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	return h
}
