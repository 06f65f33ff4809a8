package client

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
)

// peers are the addresses that a client knows, with one connection each, whatever services are behind it.
type peers struct {
	transport transport.Transport
	opts      mux.Options
	log       *slog.Logger
	changed   atomic.Uint64 // counts peers that were ejected or came back
	work      sync.WaitGroup
	ctx       context.Context
	cancel    context.CancelFunc

	mu     sync.Mutex
	byAddr map[string]*peer
}

// peer is one address.
type peer struct {
	all  *peers
	addr string
	refs int // of nodes and calls; under all.mu
	ctx  context.Context
	stop context.CancelFunc // when the last reference is gone

	calls   atomic.Int64 // that are open
	streams atomic.Int64
	latency latency
	ejected atomic.Bool

	failures atomic.Int32 // one after the other

	mu           sync.Mutex
	conn         atomic.Pointer[mux.Client] // changed under mu
	dialing      *dial
	reconnecting bool
}

// dial is one attempt to connect that several calls wait for.
type dial struct {
	done chan struct{}
	conn *mux.Client
	err  error
}

// maxFailures is how many calls of a node may fail, one after the other, before it is ejected for a while. After that
// time one more is enough, until a call succeeds.
const maxFailures = 5

// ejection is how long that is.
const ejection = 2 * time.Second

func newPeers(tr transport.Transport, opts mux.Options, log *slog.Logger) *peers {
	ctx, cancel := context.WithCancel(context.Background())
	return &peers{transport: tr, opts: opts, log: log, ctx: ctx, cancel: cancel, byAddr: make(map[string]*peer)}
}

// acquire returns the peer at addr, to be released.
func (ps *peers) acquire(addr string) *peer {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.byAddr[addr]
	if p == nil {
		p = &peer{all: ps, addr: addr}
		p.ctx, p.stop = context.WithCancel(ps.ctx)
		ps.byAddr[addr] = p
	}
	p.refs++
	return p
}

// release lets the connection go, when its calls are done, with the last reference.
func (ps *peers) release(p *peer) {
	if !ps.drop(p) {
		return
	}
	p.mu.Lock()
	c := p.conn.Load()
	p.mu.Unlock()
	if c != nil && !ps.run(c.Drain) { // which may have to wait for a peer that takes nothing
		c.Close()
	}
}

// drop says whether it was the last reference.
func (ps *peers) drop(p *peer) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p.refs--
	if p.refs > 0 {
		return false
	}
	delete(ps.byAddr, p.addr)
	p.stop()
	return true
}

func (ps *peers) close() {
	ps.mu.Lock()
	ps.cancel()
	all := slices.Collect(maps.Values(ps.byAddr))
	ps.mu.Unlock()
	var closing sync.WaitGroup // at once: a peer that takes nothing holds up its own connection for a moment
	for _, p := range all {
		p.mu.Lock()
		if c := p.conn.Load(); c != nil {
			closing.Go(c.Close)
		}
		p.mu.Unlock()
	}
	closing.Wait()
	ps.work.Wait()
}

// run runs f in a goroutine that close waits for; false: it is too late for that.
func (ps *peers) run(f func()) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.ctx.Err() != nil {
		return false
	}
	ps.work.Go(f)
	return true
}

// usable is the connection, if there is one that takes calls.
func (p *peer) usable() *mux.Client {
	if c := p.conn.Load(); c != nil && c.Usable() {
		return c
	}
	return nil
}

// connect returns the connection, and makes it if there is none.
func (p *peer) connect(ctx context.Context) (*mux.Client, error) {
	d := p.connectSoon()
	select {
	case <-d.done:
		switch {
		case d.err == nil:
			return d.conn, nil
		case p.all.ctx.Err() != nil:
			return nil, errClosed
		}
		return nil, unreachable(d.err)
	case <-ctx.Done():
		if context.Cause(ctx) == errImpatient {
			return nil, unreachable(errImpatient)
		}
		return nil, &mux.Error{NotRun: true, Status: *status.From(ctx.Err())}
	}
}

// connectSoon begins to connect, unless that has been done.
func (p *peer) connectSoon() *dial {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.usable(); c != nil {
		return dialed(c, nil)
	}
	if p.dialing != nil {
		return p.dialing
	}
	d := &dial{done: make(chan struct{})}
	if p.ctx.Err() != nil || !p.all.run(func() { p.dial(d) }) {
		return dialed(nil, errGone)
	}
	p.dialing = d
	return d
}

// dialed is a dial that is over.
func dialed(c *mux.Client, err error) *dial {
	d := &dial{done: make(chan struct{}), conn: c, err: err}
	close(d.done)
	return d
}

var (
	errGone   = errors.New("the node is gone")
	errClosed = failf(status.Unavailable, "the client is closed")
)

func unreachable(err error) error {
	return &mux.Error{NotRun: true, Lost: true, Status: status.Error{Code: status.Unavailable, Message: err.Error()}}
}

// dial connects on behalf of all who wait: it goes on when one of them gives up.
func (p *peer) dial(d *dial) {
	c, err := mux.Dial(p.ctx, p.all.transport, p.addr, p.all.opts)
	p.mu.Lock()
	p.dialing = nil
	if err == nil && p.ctx.Err() != nil { // released meanwhile
		c.Close()
		err = errGone
	}
	if err == nil {
		p.conn.Store(c)
		p.all.work.Go(func() { p.follow(c) }) // this one is counted still
	}
	p.mu.Unlock()
	if err != nil {
		p.lost()
	} else {
		p.failures.Store(0)
		p.latency.nanos.Store(0) // it may be another process now
		p.eject(false)
	}
	d.conn, d.err = c, err
	close(d.done)
}

// follow waits for the connection to end.
func (p *peer) follow(c *mux.Client) {
	<-c.Closed()
	if p.conn.Load() == c {
		p.lost()
	}
}

// lost ejects the peer until it could be connected again in the background: no call has to find out that it is back.
func (p *peer) lost() {
	p.eject(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reconnecting && p.ctx.Err() == nil {
		p.reconnecting = p.all.run(p.reconnect)
	}
}

func (p *peer) reconnect() {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = 50 * time.Millisecond
	b.MaxInterval = 5 * time.Second
	for {
		select {
		case <-time.After(b.NextBackOff()):
		case <-p.ctx.Done():
			return
		}
		if _, err := p.connect(p.ctx); err != nil {
			continue
		}
		p.mu.Lock()
		p.reconnecting = p.usable() == nil // it may have been lost again while this still counted as reconnecting
		again := p.reconnecting
		p.mu.Unlock()
		if !again {
			return
		}
	}
}

func (p *peer) eject(yes bool) {
	if p.ejected.Swap(yes) != yes {
		p.all.changed.Add(1)
	}
}

// begin counts a call that starts.
func (p *peer) begin() time.Time {
	now := time.Now()
	if p.calls.Add(1) == 1 {
		p.latency.at.Store(now.UnixNano())
	}
	return now
}

// end counts how a call went: a node that only fails is not picked for a while, and neither is one that refuses.
func (n *Node) end(start time.Time, err error) {
	p := n.peer
	p.calls.Add(-1)
	if err == nil {
		p.answered(start)
		return
	}
	e, ok := err.(*mux.Error)
	switch {
	case !ok:
	case e.NotRun: // which is no work, and says nothing of how fast work is done
		if e.Remote && e.Status.Code == status.Unavailable {
			n.rest()
		}
	case failed(e.Status.Code):
		p.latency.observe(time.Since(start))
		p.failed()
	case e.Remote:
		p.answered(start)
	}
}

// failed says which errors are the node's. Others are answers, or the caller's own doing.
func failed(c status.Code) bool {
	return c == status.DeadlineExceeded || c == status.Unavailable || c == status.Internal
}

func (p *peer) answered(start time.Time) {
	p.latency.observe(time.Since(start))
	if p.failures.Load() != 0 {
		p.failures.Store(0)
	}
}

func (p *peer) failed() {
	if p.failures.Add(1) < maxFailures {
		return
	}
	p.failures.Store(maxFailures - 1)
	p.eject(true)
	time.AfterFunc(ejection, func() {
		if p.usable() != nil {
			p.eject(false)
		}
	})
}

// latency is a moving average. Updates that cross may lose one another: it is an estimate.
type latency struct {
	nanos atomic.Int64
	at    atomic.Int64 // when it was last updated, or the first of the calls that are open began; in Unix nanoseconds
}

// halfLife is how fast the average of a node that gives no answers fades, so that one that was slow is tried again.
const halfLife = 5 * time.Second

func (l *latency) observe(d time.Duration) {
	l.at.Store(time.Now().UnixNano())
	old := l.nanos.Load()
	if old == 0 {
		l.nanos.Store(int64(d))
		return
	}
	l.nanos.Store(old + (int64(d)-old)/8)
}

func (l *latency) value(owed bool) time.Duration {
	silent := time.Duration(time.Now().UnixNano() - l.at.Load())
	if owed {
		return max(silent, time.Duration(l.nanos.Load()))
	}
	return time.Duration(l.nanos.Load() >> min(silent/halfLife, 62))
}
