package amqp

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// closeTimeout is how long Close waits for the server to say that it took everything. Under a memory alarm it says
// nothing.
const closeTimeout = time.Second

// Conn is one connection, until it is lost. It is safe for concurrent use; its channels are not.
type Conn struct {
	// Addr is the address of the server.
	Addr string

	conn *amqp091.Connection
	nc   net.Conn // below TLS
	lost chan struct{}

	mu      sync.Mutex
	err     error
	blocked *Blocked
}

// Blocked is that the server takes nothing for now, because it is short of memory or disk.
type Blocked struct {
	Reason string
	Ended  <-chan struct{} // closed when it takes something again, or the connection is lost
	end    chan struct{}
}

func newConn(c *amqp091.Connection, nc net.Conn, addr string) *Conn {
	conn := &Conn{Addr: addr, conn: c, nc: nc, lost: make(chan struct{})}
	// Both must be drained all the time: amqp091 waits for who does not.
	closed := c.NotifyClose(make(chan *amqp091.Error, 1))
	blocked := c.NotifyBlocked(make(chan amqp091.Blocking, 8))
	go conn.watch(closed, blocked)
	return conn
}

func (c *Conn) watch(closed <-chan *amqp091.Error, blocked <-chan amqp091.Blocking) {
	for {
		select {
		case b, ok := <-blocked:
			if !ok {
				blocked = nil
				continue
			}
			c.block(b)
		case err, ok := <-closed:
			if !ok {
				err = nil
			}
			c.end(err)
			return
		}
	}
}

func (c *Conn) block(b amqp091.Blocking) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case b.Active && c.blocked == nil:
		ended := make(chan struct{})
		c.blocked = &Blocked{Reason: b.Reason, Ended: ended, end: ended}
	case !b.Active && c.blocked != nil:
		close(c.blocked.end)
		c.blocked = nil
	}
}

func (c *Conn) end(err *amqp091.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = fmt.Errorf("the connection to %s was closed", c.Addr)
	if err != nil {
		c.err = fmt.Errorf("the connection to %s was lost: %s", c.Addr, lossReason(err))
	}
	if c.blocked != nil {
		close(c.blocked.end)
		c.blocked = nil
	}
	close(c.lost)
}

// lossReason is what the server said. amqp091 gives a code also to what it noticed itself, which is an error of the socket.
func lossReason(err *amqp091.Error) string {
	if err.Server {
		return fmt.Sprintf("%s (%d)", err.Reason, err.Code)
	}
	reason := err.Reason[strings.LastIndex(err.Reason, ": ")+1:]
	switch reason = strings.TrimSpace(reason); reason {
	case "EOF":
		return "the server closed it"
	case "i/o timeout":
		return "the server gave no sign of life"
	}
	return reason
}

// Lost is closed when the connection is lost, or was closed.
func (c *Conn) Lost() <-chan struct{} { return c.lost }

// IsLost tells of a loss before Lost and Err do, and before any of the channels end because of it.
func (c *Conn) IsLost() bool { return c.conn.IsClosed() }

// Err is why the connection was lost, nil before that.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Blocked is nil while the server takes what is published. The server says so after the first message that it did not
// take.
func (c *Conn) Blocked() *Blocked {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.blocked
}

// Channel opens a channel, within ctx. A channel is for one goroutine.
func (c *Conn) Channel(ctx context.Context) (*amqp091.Channel, error) {
	var ch *amqp091.Channel
	err := c.Within(ctx, func() (err error) {
		ch, err = c.conn.Channel()
		return err
	})
	if err != nil {
		return nil, err
	}
	return ch, nil
}

// Within runs f, which asks the server something, and returns when f does or ctx ends. In that case f goes on, and ends
// with the connection at the latest: its channel is of no more use.
func (c *Conn) Within(ctx context.Context, f func() error) error {
	result := make(chan error, 1)
	go func() { result <- f() }()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("no answer from %s: %w", c.Addr, ctx.Err())
	}
}

// Close ends the connection and its channels, after what was published; it never takes much more than a second.
func (c *Conn) Close() error {
	// Closing can wait for a server that reads nothing (memory alarm), and heartbeats move the deadline that it is
	// given: only the end of the socket ends it.
	hard := time.AfterFunc(closeTimeout, func() { c.nc.Close() })
	defer hard.Stop()
	err := c.conn.CloseDeadline(time.Now().Add(closeTimeout))
	<-c.lost
	if err == amqp091.ErrClosed { // it was lost, or is closed already
		return nil
	}
	return err
}
