package direct

import (
	"context"
	"sync"

	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/transport"
)

// conns are the connections to the processes that have subscriptions, one for each address while somebody uses it.
type conns struct {
	transport transport.Transport
	opts      mux.Options

	mu     sync.Mutex
	byAddr map[string]*conn
}

// conn is one address.
type conn struct {
	all    *conns
	addr   string
	refs   int           // under all.mu
	busy   chan struct{} // holds a token while somebody dials or looks
	client *mux.Client   // for who holds the token
}

func newConns(tr transport.Transport, opts mux.Options) *conns {
	return &conns{transport: tr, opts: opts, byAddr: map[string]*conn{}}
}

// acquire returns the connection to addr, to be released. It is not made yet.
func (cs *conns) acquire(addr string) *conn {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.byAddr[addr]
	if c == nil {
		c = &conn{all: cs, addr: addr, busy: make(chan struct{}, 1)}
		cs.byAddr[addr] = c
	}
	c.refs++
	return c
}

// release ends the connection with its last user.
func (c *conn) release() {
	c.all.mu.Lock()
	c.refs--
	over := c.refs == 0
	if over {
		delete(c.all.byAddr, c.addr)
	}
	c.all.mu.Unlock()
	if over && c.client != nil {
		c.client.Drain()
	}
}

// open opens a stream to a subscription, on the connection that there is or on a new one.
func (c *conn) open(ctx context.Context, req *mux.Request) (*mux.Client, *mux.Stream, error) {
	client, err := c.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	st, err := client.Open(ctx, req)
	return client, st, err
}

func (c *conn) connect(ctx context.Context) (*mux.Client, error) {
	select {
	case c.busy <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-c.busy }()
	if c.client != nil && c.client.Usable() {
		return c.client, nil
	}
	client, err := mux.Dial(ctx, c.all.transport, c.addr, c.all.opts)
	if err == nil {
		c.client = client
	}
	return client, err
}

// limited is a transport whose connections take the messages of this broker, however large.
type limited struct {
	transport.Transport
	max int
}

func (l limited) Dial(ctx context.Context, addr string, opts ...transport.DialOption) (transport.Conn, error) {
	return l.Transport.Dial(ctx, addr, append(opts, transport.DialMaxMessage(l.max))...)
}
