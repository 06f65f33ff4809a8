package kafka

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// conns dials the connections of one owner and can end all of them, which ends every wait of kafka-go that knows no
// context: joining a group, leaving it, a request under way.
type conns struct {
	dialer func(ctx context.Context, network, addr string) (net.Conn, error)
	limit  time.Duration // of a read or write for which kafka-go sets none: it sets none while it authenticates

	dialing context.Context // ends with close
	end     context.CancelFunc
	reached atomic.Bool // somebody has accepted a connection

	mu   sync.Mutex
	open map[*conn]struct{}
}

func newConns(limit time.Duration, servers int) *conns {
	each := max(limit/time.Duration(max(servers, 1)), limit/4) // the first one must not take the time of all
	c := &conns{dialer: (&net.Dialer{Timeout: each}).DialContext, limit: limit}
	return c.another()
}

// another has the same settings, and connections of its own.
func (c *conns) another() *conns {
	own := &conns{dialer: c.dialer, limit: c.limit, open: map[*conn]struct{}{}}
	own.dialing, own.end = context.WithCancel(context.Background())
	return own
}

func (c *conns) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.dialing, cancel)()
	raw, err := c.dialer(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c.reached.Store(true)
	n := &conn{Conn: raw, owner: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dialing.Err() != nil {
		raw.Close()
		return nil, net.ErrClosed
	}
	c.open[n] = struct{}{}
	return n, nil
}

// close ends all connections, and every further one at once.
func (c *conns) close() {
	c.end()
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range c.open {
		n.Conn.Close()
	}
}

// conn never waits longer than its owner's limit, unless it was told to.
type conn struct {
	net.Conn
	owner *conns

	mu          sync.Mutex
	read, write bool // a deadline is set
}

func (c *conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	if !c.read {
		_ = c.Conn.SetReadDeadline(time.Now().Add(c.owner.limit))
	}
	c.mu.Unlock()
	return c.Conn.Read(p)
}

func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if !c.write {
		_ = c.Conn.SetWriteDeadline(time.Now().Add(c.owner.limit))
	}
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read, c.write = !t.IsZero(), !t.IsZero()
	return c.Conn.SetDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = !t.IsZero()
	return c.Conn.SetReadDeadline(t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write = !t.IsZero()
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.open, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}
