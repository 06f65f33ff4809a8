package mux

import (
	"context"
	"sync"
	"time"
)

// sendContext is the context of sending a call whose deadline its caller's context does not know. It costs nothing while
// the transport has room: only one that waits asks for Done. Then the sendContext is not used again, because contexts
// made from it may still look at it.
type sendContext struct {
	context.Context
	deadline time.Time

	mu    sync.Mutex
	timed context.Context // made when somebody asks
	stop  context.CancelFunc
}

// Deadline implements context.Context.
func (c *sendContext) Deadline() (time.Time, bool) { return c.deadline, true }

// Done implements context.Context.
func (c *sendContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timed == nil {
		c.timed, c.stop = context.WithDeadline(c.Context, c.deadline)
	}
	return c.timed.Done()
}

// Err implements context.Context.
func (c *sendContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timed == nil {
		return c.Context.Err()
	}
	return c.timed.Err()
}

// sendContext is ctx with the deadline of p.
func (p *pending) sendContext(ctx context.Context) context.Context {
	p.send.Context, p.send.deadline = ctx, p.deadline
	return p.send
}

// sent ends the use of the sendContext.
func (p *pending) sent() {
	if p.send.Context == nil {
		return
	}
	p.send.mu.Lock()
	defer p.send.mu.Unlock()
	if p.send.stop != nil {
		p.send.stop()
		p.send = new(sendContext)
		return
	}
	p.send.Context = nil
}
