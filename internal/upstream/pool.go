package upstream

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

// pool has the connections to all hosts.
type pool struct {
	maxConns    int // for each host; 0: without limit
	maxIdle     int // for each host
	idleTimeout time.Duration
	dialer      net.Dialer

	mu     sync.Mutex
	hosts  map[string]*host // those that have connections
	alarm  *time.Timer      // that closes the connections that were idle for long
	armed  bool
	closed bool
}

// host is guarded by the pool's lock.
type host struct {
	addr    string
	conns   int          // open ones, and those that are being opened
	idle    []*conn      // the last is the one that was used last
	waiting []chan *conn // requests that wait, each for a connection or, nil, for the right to open one; each has room for it
}

// get returns a connection to a host: one that is kept unless it must be fresh, or a new one. The caller gives it back
// with put or drop.
func (p *pool) get(ctx context.Context, addr string, fresh bool) (*conn, error) {
	for {
		if ctx.Err() != nil {
			return nil, ended(ctx)
		}
		h, c, wait := p.take(addr, fresh)
		if wait != nil {
			var err error
			if c, err = p.wait(ctx, h, wait); err != nil {
				return nil, err
			}
		}
		switch {
		case c == nil:
			return p.dial(ctx, h)
		case fresh: // only what it counts for
			c.tcp.Close()
			return p.dial(ctx, h)
		case c.isQuiet() && time.Since(c.idleSince) < p.idleTimeout:
			return c, nil
		}
		p.drop(c)
	}
}

// take returns a connection, or none and the right to open one, or what to wait for.
func (p *pool) take(addr string, fresh bool) (*host, *conn, chan *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hosts[addr]
	if h == nil {
		h = &host{addr: addr}
		p.hosts[addr] = h
	}
	mayOpen := p.maxConns == 0 || h.conns < p.maxConns
	if last := len(h.idle) - 1; last >= 0 && !(fresh && mayOpen) {
		c := h.idle[last]
		h.idle[last] = nil
		h.idle = h.idle[:last]
		return h, c, nil
	}
	if mayOpen {
		h.conns++
		return h, nil, nil
	}
	wait := make(chan *conn, 1)
	h.waiting = append(h.waiting, wait)
	return h, nil, wait
}

func (p *pool) wait(ctx context.Context, h *host, wait chan *conn) (*conn, error) {
	select {
	case c := <-wait:
		return c, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	i := slices.Index(h.waiting, wait)
	if i >= 0 {
		h.waiting = slices.Delete(h.waiting, i, i+1)
	}
	p.mu.Unlock()
	if i < 0 { // it came just now
		if c := <-wait; c != nil {
			p.put(c)
		} else {
			p.release(h)
		}
	}
	return nil, ended(ctx)
}

func (p *pool) dial(ctx context.Context, h *host) (*conn, error) {
	addr, err := dialAddr(h.addr)
	if err == nil {
		var nc net.Conn
		if nc, err = p.dialer.DialContext(ctx, "tcp", addr); err == nil {
			return newConn(p, h, nc.(*net.TCPConn)), nil
		}
	}
	p.release(h)
	if ctx.Err() != nil {
		err = ended(ctx)
	}
	return nil, err
}

// dialAddr is the address for the host of a URL.
func dialAddr(h string) (string, error) {
	h, err := httpguts.PunycodeHostPort(h)
	if err != nil {
		return "", err
	}
	if i := strings.LastIndexByte(h, ':'); i >= 0 && !strings.HasSuffix(h, "]") {
		if i == len(h)-1 {
			h += "80"
		}
		return h, nil
	}
	return h + ":80", nil
}

// put keeps a connection for the next request.
func (p *pool) put(c *conn) {
	c.idleSince = time.Now()
	p.mu.Lock()
	h := c.host
	switch {
	case p.closed || len(h.waiting) == 0 && len(h.idle) >= p.maxIdle:
		p.mu.Unlock()
		p.drop(c)
		return
	case len(h.waiting) > 0:
		h.next() <- c
	default:
		h.idle = append(h.idle, c)
		p.arm(p.idleTimeout)
	}
	p.mu.Unlock()
}

// drop closes a connection.
func (p *pool) drop(c *conn) {
	c.tcp.Close()
	p.release(c.host)
}

// release is said of a connection that is no more.
func (p *pool) release(h *host) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(h.waiting) > 0 {
		h.next() <- nil
		return
	}
	if h.conns--; h.conns == 0 {
		delete(p.hosts, h.addr)
	}
}

func (h *host) next() chan *conn {
	next := h.waiting[0]
	h.waiting = slices.Delete(h.waiting, 0, 1)
	return next
}

// arm sets the alarm unless it is set. One for all connections, because one for each would be set with every request.
func (p *pool) arm(d time.Duration) {
	switch {
	case p.armed:
		return
	case p.alarm == nil:
		p.alarm = time.AfterFunc(d, p.expire)
	default:
		p.alarm.Reset(d)
	}
	p.armed = true
}

// expire closes what was idle for too long.
func (p *pool) expire() {
	p.mu.Lock()
	p.armed = false
	now := time.Now()
	var old []*conn
	next := time.Duration(-1)
	for _, h := range p.hosts {
		n := 0
		for n < len(h.idle) && now.Sub(h.idle[n].idleSince) >= p.idleTimeout {
			n++
		}
		old = append(old, h.idle[:n]...)
		h.idle = slices.Delete(h.idle, 0, n)
		if len(h.idle) > 0 {
			if left := p.idleTimeout - now.Sub(h.idle[0].idleSince); next < 0 || left < next {
				next = left
			}
		}
	}
	if next >= 0 {
		p.arm(next)
	}
	p.mu.Unlock()
	for _, c := range old {
		p.drop(c)
	}
}

func (p *pool) closeIdle() {
	p.mu.Lock()
	var all []*conn
	for _, h := range p.hosts {
		all = append(all, h.idle...)
		h.idle = nil
	}
	if p.armed {
		p.alarm.Stop()
		p.armed = false
	}
	p.mu.Unlock()
	for _, c := range all {
		p.drop(c)
	}
}

func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.closeIdle()
}
