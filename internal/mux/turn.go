package mux

import (
	"context"
	"errors"
	"time"

	"github.com/plugmicro/micro/status"
)

// For the reason that inline.go tells, a caller that is alone reads its answer from the connection itself. One goroutine
// reads at a time, the one that has the turn. The background reader has it in the beginning, while several calls or any
// streams are open, and when nobody called for a while. When the last of calls that came one at a time was answered it
// lets the turn go: the next caller takes it. Until then nobody reads, so that caller first looks at what has come in.

const (
	// quiet is how long the background reader waits for a caller to take the turn.
	quiet = 20 * time.Millisecond
	// fresh is how long after the turn was let go a caller does not look at what came in meanwhile: a reader would need as
	// long to wake up and see it.
	fresh = 50 * time.Microsecond
	// aloneCalls is how many calls in a row must have been alone before the background reader lets the turn go.
	aloneCalls = 4
)

// turn is guarded by Client.mu, but for what only its holder uses.
type turn struct {
	free   bool               // nobody has it
	since  time.Time          // when it was let go
	taken  bool               // a caller took it since the background reader looked last
	back   chan struct{}      // the turn itself, on its way to the background reader
	reader context.Context    // of Recv
	stop   context.CancelFunc // of reader

	// The holder's.
	caller bool  // it is a caller
	alone  int   // calls since several were open
	err    error // why reading failed

	polls poller // nil: only the background reader reads
	gone  bool   // the background reader let the turn go; only it uses this
}

// poller is implemented by connections that can tell, without waiting, whether there is something for Recv. known is
// the same as long as the connection lives. Like Recv it is not safe for concurrent use.
type poller interface{ Ready() (ready, known bool) }

func (c *Client) startTurn() {
	c.turn.back = make(chan struct{}, 1)
	c.renewReader()
	p, ok := c.conn.(poller)
	if !ok || c.opts.KeepAlive < 4*quiet { // the answer to a ping would lie unread for too long
		return
	}
	if _, known := p.Ready(); known {
		c.turn.polls = p
	}
}

func (c *Client) renewReader() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn.reader, c.turn.stop = context.WithCancel(context.Background())
}

// interruptReader makes who reads look up from the connection.
func (c *Client) interruptReader() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn.stop()
}

// takeTurn is for a caller who is about to send. c.mu is held.
func (c *Client) takeTurn() bool {
	if !c.turn.free {
		return false
	}
	c.turn.free, c.turn.taken, c.turn.caller = false, true, true
	return true
}

// passTurn is for a caller who reads no longer.
func (c *Client) passTurn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn.free, c.turn.caller, c.turn.since = true, false, time.Now()
	if c.turn.err != nil || c.waiting() > 0 {
		c.turn.alone = 0
		c.sendReader()
	}
}

// sendReader sends the background reader to the connection if nobody is there. c.mu is held.
func (c *Client) sendReader() {
	if c.turn.free {
		c.turn.free = false
		c.turn.back <- struct{}{}
	}
}

// catchUp is for a caller who has the turn, before sending: what came in while nobody read may say that the connection
// is lost or takes no calls.
func (c *Client) catchUp(ctx context.Context, p *pending) error {
	ready := func() bool {
		ready, _ := c.turn.polls.Ready()
		return ready
	}
	if time.Since(c.turn.since) < fresh || !ready() {
		return nil
	}
	c.readWhile(ctx, p, ready)
	switch {
	case c.turn.err != nil:
		return c.notSent(c.whyEnded(c.turn.err))
	case c.draining.Load():
		return c.notSent(errLeaving)
	case len(p.done) > 0:
		return notRun(status.DeadlineExceeded, "the time was over before the call could be sent")
	}
	return nil
}

// readFor reads until p is answered, ctx has ended or the connection is lost.
func (c *Client) readFor(ctx context.Context, p *pending) {
	c.readWhile(ctx, p, func() bool { return true })
}

func (c *Client) readWhile(ctx context.Context, p *pending, more func() bool) {
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, c.interruptReader)()
	}
	for c.turn.err == nil && len(p.done) == 0 && ctx.Err() == nil && more() {
		c.turn.err = c.readFrame()
	}
}

// readFrame handles one frame, or none if it was interrupted.
func (c *Client) readFrame() error {
	t, msg, err := c.recv(c.turn.reader)
	if errors.Is(err, context.Canceled) {
		c.renewReader()
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.handle(t, msg); err != nil {
		return c.protocolError(err)
	}
	return nil
}

// letTurnGo is for who reads, before a caller has its answer: the turn is free when that one makes its next call. left
// is how many calls and streams are open.
func (c *Client) letTurnGo(left int) {
	t := &c.turn
	if left > 0 {
		t.alone = 0
		return
	}
	t.alone++
	if t.polls == nil || t.caller || t.alone < aloneCalls {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting() == 0 {
		t.free, t.gone, t.since = true, true, time.Now()
	}
}

// readAll is the background reader's.
func (c *Client) readAll() error {
	for {
		err := c.readFrame()
		if c.turn.gone {
			c.awaitTurn()
			c.turn.gone = false
			err = c.turn.err
		}
		if err != nil {
			return err
		}
	}
}

// awaitTurn returns when the background reader has the turn again.
func (c *Client) awaitTurn() {
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	closed := c.closed
	for {
		select {
		case <-c.turn.back:
			return
		case <-tick.C:
		case <-closed:
			closed = nil
		}
		if c.reclaimTurn(closed == nil) {
			return
		}
	}
}

// reclaimTurn takes a turn that nobody wanted since it was called last, or that is free now.
func (c *Client) reclaimTurn(now bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	reclaimed := c.turn.free && (now || !c.turn.taken)
	c.turn.taken = false
	if reclaimed {
		c.turn.free = false
	}
	return reclaimed
}
