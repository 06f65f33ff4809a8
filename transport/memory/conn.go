package memory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/plugmicro/micro/transport"
)

var (
	errPeerClosed = errors.New("connection lost: the peer closed it")
	errRefused    = errors.New("connection lost: the listener closed before it was accepted")
)

// conn is one end of a connection: it sends into out and receives from in, which are the other end's in and out.
type conn struct {
	local, remote string
	limit         int
	in, out       *pipe
	once          sync.Once
	closed        chan struct{}
}

var _ transport.Conn = (*conn)(nil)

// newPair connects a dialer to a listener. Neither end sends what the other one does not take.
func newPair(dialer, addr string, dialLimit, listenLimit int) (near, far *conn) {
	limit := min(dialLimit, listenLimit)
	a, b := newPipe(), newPipe()
	near = &conn{local: dialer, remote: addr, limit: limit, in: a, out: b, closed: make(chan struct{})}
	far = &conn{local: addr, remote: dialer, limit: limit, in: b, out: a, closed: make(chan struct{})}
	return near, far
}

// Send implements transport.Conn.
func (c *conn) Send(ctx context.Context, msg []byte) error {
	if c.isClosed() {
		return c.wrap("send to", transport.ErrClosed)
	}
	if len(msg) > c.limit {
		return fmt.Errorf("send to %s: %w: %d bytes, the limit is %d", c.remote, transport.ErrTooLarge, len(msg), c.limit)
	}
	return c.wrap("send to", c.out.put(ctx, msg))
}

// Recv implements transport.Conn.
func (c *conn) Recv(ctx context.Context) ([]byte, error) {
	if c.isClosed() {
		return nil, c.wrap("receive from", transport.ErrClosed)
	}
	msg, err := c.in.get(ctx, c.closed)
	if err == io.EOF {
		return nil, err
	}
	return msg, c.wrap("receive from", err)
}

// Ready says whether there is something for Recv, which is always known.
func (c *conn) Ready() (ready, known bool) { return c.isClosed() || c.in.readable(), true }

// CloseSend implements transport.Conn.
func (c *conn) CloseSend() error {
	if c.isClosed() {
		return c.wrap("close sending to", transport.ErrClosed)
	}
	c.out.end(io.EOF, transport.ErrClosed)
	return nil
}

// Close implements transport.Conn.
func (c *conn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.out.end(io.EOF, transport.ErrClosed)
		c.in.abandon()
	})
	return nil
}

// refuse ends a connection that was never accepted.
func (c *conn) refuse() {
	c.out.end(errRefused, transport.ErrClosed)
	c.Close()
}

func (c *conn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

func (c *conn) wrap(call string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", call, c.remote, err)
}

func (c *conn) MaxMessage() int    { return c.limit }
func (c *conn) LocalAddr() string  { return c.local }
func (c *conn) RemoteAddr() string { return c.remote }
