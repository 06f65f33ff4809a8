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

// maxIdle is how many connections to one host are kept that nothing uses.
const maxIdle = 512

// pool has the connections to all hosts.
type pool struct {
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
	addr  string
	conns int     // open ones, and those that are being opened
	idle  []*conn // the last is the one that was used last
}

// get returns a connection to a host: one that is kept unless it must be fresh, or a new one. The caller gives it back
// with put or drop.
func (p *pool) get(ctx context.Context, addr string, fresh bool) (*conn, error) {
	if ctx.Err() != nil {
		return nil, ended(ctx)
	}
	for {
		h, c := p.take(addr, fresh)
		switch {
		case c == nil:
			return p.dial(ctx, h)
		case c.isQuiet() && time.Since(c.idleSince) < p.idleTimeout:
			return c, nil
		}
		p.drop(c)
	}
}

// take returns a connection, or none: then one is to be opened, and counts already.
func (p *pool) take(addr string, fresh bool) (*host, *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hosts[addr]
	if h == nil {
		h = &host{addr: addr}
		p.hosts[addr] = h
	}
	last := len(h.idle) - 1
	if last < 0 || fresh {
		h.conns++
		return h, nil
	}
	c := h.idle[last]
	h.idle[last] = nil
	h.idle = h.idle[:last]
	return h, c
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
	if !p.keep(c) {
		p.drop(c)
	}
}

func (p *pool) keep(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(c.host.idle) >= maxIdle {
		return false
	}
	c.host.idle = append(c.host.idle, c)
	p.arm(p.idleTimeout)
	return true
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
	if h.conns--; h.conns == 0 {
		delete(p.hosts, h.addr)
	}
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
