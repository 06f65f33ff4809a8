package mux

import "time"

// Waiting is how many calls and streams of c wait for their answer.
func (c *Client) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting()
}

// Open is how many calls and streams of s are open, and the bytes that it counts for them.
func (s *Server) Open() (calls, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls), s.bytes
}

// NobodyReads says whether the next caller of c takes the turn.
func (c *Client) NobodyReads() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.turn.free
}

// Prove makes p that of an endpoint that has been fast.
func (p *Pace) Prove() { p.mean.Store(1) }

// Fast says whether the reader answers calls of p.
func (p *Pace) Fast() bool { return p.fast() }

// Took is a call that took d.
func (p *Pace) Took(d time.Duration) { p.took(d) }

// Queued is the cost of what waits to be read on all streams.
func (s *session) Queued() int { return int(s.queued.Load()) }
