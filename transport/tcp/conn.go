package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plugmicro/micro/transport"
)

const (
	// headerSize is the length of a frame, big endian, ahead of its bytes.
	headerSize = 4
	// endOfMessages in place of a length says that the sender sends nothing more. A connection that ends without
	// it was lost, so that a peer that crashed is told from one that closed.
	endOfMessages = 1<<32 - 1
	// maxFrame is the largest limit that can be set.
	maxFrame = 1<<31 - 1
	// flushTimeout is how long Close waits for the peer to take what was sent.
	flushTimeout = time.Second
)

var _ transport.Conn = (*conn)(nil)

// conn frames messages on a net.Conn; sending is in send.go, receiving in recv.go.
type conn struct {
	nc      net.Conn
	raw     net.Conn      // below TLS, or nc itself; closing it waits for nothing
	max     int           // bytes of one message
	timeout time.Duration // for a message that has begun to arrive

	closed    atomic.Bool
	closeOnce sync.Once
	onClose   func() // gives back the place among the listener's connections; may be nil

	sender
	receiver
}

func newConn(nc net.Conn, maxMessage int, timeout time.Duration, onClose func()) *conn {
	c := &conn{nc: nc, raw: rawConn(nc), max: maxMessage, timeout: timeout, onClose: onClose}
	c.sender.init(c)
	return c
}

// Close implements transport.Conn.
func (c *conn) Close() error {
	c.closeOnce.Do(func() {
		c.closed.Store(true)
		c.interruptRecv()
		c.flushAndStop()
		c.raw.Close()
		if c.onClose != nil {
			c.onClose()
		}
	})
	return nil
}

// lost ends the connection because of err, which Send returns from now on. Close is still the caller's.
func (c *conn) lost(err error) {
	c.mu.Lock()
	c.stopSending(err)
	c.mu.Unlock()
	c.raw.Close()
}

func (c *conn) MaxMessage() int    { return c.max }
func (c *conn) LocalAddr() string  { return c.nc.LocalAddr().String() }
func (c *conn) RemoteAddr() string { return c.nc.RemoteAddr().String() }

// closedError is for calls that come after Close.
func (c *conn) closedError(call string) error {
	return fmt.Errorf("%s %s: %w", call, c.RemoteAddr(), transport.ErrClosed)
}

// lostError wraps what the network said.
func (c *conn) lostError(call string, err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // the addresses are told already
	}
	return fmt.Errorf("%s %s: connection lost: %w", call, c.RemoteAddr(), err)
}

func (c *conn) contextError(call string, ctx context.Context) error {
	return fmt.Errorf("%s %s: %w", call, c.RemoteAddr(), ctx.Err())
}

// rawConn is what TLS goes over, or nc itself.
func rawConn(nc net.Conn) net.Conn {
	if tc, ok := nc.(*tls.Conn); ok {
		return tc.NetConn()
	}
	return nc
}

// closeWrite tells the network that nothing follows. The end marker has told the peer, within TLS if there is TLS.
func (c *conn) closeWrite() {
	if tcp, ok := c.raw.(*net.TCPConn); ok {
		tcp.CloseWrite()
	}
}
