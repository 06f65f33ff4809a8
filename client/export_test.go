package client

import "context"

// Known is what c keeps: services, their nodes, and the addresses that it holds connections to.
func (c *Client) Known() (services, nodes, peers int) {
	n := c.network.Load()
	n.table.mu.RLock()
	defer n.table.mu.RUnlock()
	for _, s := range n.table.services {
		s.mu.Lock()
		nodes += len(s.nodes)
		s.mu.Unlock()
	}
	n.peers.mu.Lock()
	defer n.peers.mu.Unlock()
	return len(n.table.services), nodes, len(n.peers.byAddr)
}

// InFlight is how many calls and streams are open on all peers.
func (c *Client) InFlight() int {
	n := c.network.Load()
	if n == nil {
		return 0
	}
	n.peers.mu.Lock()
	defer n.peers.mu.Unlock()
	total := 0
	for _, p := range n.peers.byAddr {
		total += int(p.calls.Load() + p.streams.Load())
	}
	return total
}

// ReadRegistry is what the client does from time to time.
func (c *Client) ReadRegistry() { c.network.Load().table.readAll(context.Background()) }
