package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/plugmicro/micro/transport"
)

// flushTimeout is how long Close waits for the peer to take what was sent.
const flushTimeout = time.Second

var (
	errPeerClosed = errors.New("connection lost: the peer closed it")
	errUnsent     = errors.New("the peer closed before all that it had sent was taken")
)

var _ transport.Conn = (*conn)(nil)

// conn is one end of a connection; sending is in send.go, receiving in recv.go. One mutex guards both.
type conn struct {
	link          *link
	id            string // of the connection, the same at both ends
	dialer        bool   // this end dialled
	local, remote string
	maxRecv       int        // bytes of the largest message that is taken
	onClose       func()     // gives back the place among the listener's connections; may be nil
	opened        chan error // of a dialer: how it went, once

	mu     sync.Mutex
	peer   *peer  // nil until it accepted
	max    int    // bytes of the largest message that is sent
	onOpen func() // of a listener's: hands it to Accept when the dialer has confirmed; nil afterwards
	closed bool
	done   chan struct{} // closed by Close

	sender
	receiver
}

func newConn(l *link, id string, dialer bool, limit int) *conn {
	c := &conn{link: l, id: id, dialer: dialer, maxRecv: limit, max: limit, done: make(chan struct{})}
	c.sender.init()
	c.receiver.init(int(l.transport.config.Window))
	if dialer {
		c.opened = make(chan error, 1)
	}
	return c
}

// hello is the frame of open and accept.
func (c *conn) hello(t frameType) []byte {
	return appendFrame(nil, t, terms{window: uint32(c.window), maxMessage: uint32(c.maxRecv)}.append(nil))
}

// agree takes the terms of the peer. c.mu is held, or nobody else has c yet.
func (c *conn) agree(p *peer, t terms) {
	c.peer = p
	c.max = min(c.max, int(t.maxMessage))
	c.credit, c.peerWindow = int(t.window), int(t.window)
}

// Close implements transport.Conn.
func (c *conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	close(c.done)
	c.queue, c.partial = nil, nil
	c.failSend(c.closedError("send to"))
	c.appendClose()
	c.schedule()
	c.mu.Unlock()

	timer := time.NewTimer(flushTimeout)
	defer timer.Stop()
	select {
	case <-c.flushed:
	case <-timer.C:
		c.reset(errUnsent)
	}
	c.link.remove(c)
	if c.onClose != nil {
		c.onClose()
	}
	return nil
}

// end has all calls answer err; what was sent before still goes.
func (c *conn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(err)
}

// lost ends the connection because of err, without a word to the peer, who is gone. What was received stays.
func (c *conn) lost(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(err)
	c.giveUp()
}

// reset ends the connection because of err, and tells the peer.
func (c *conn) reset(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resetLocked(err)
}

func (c *conn) resetLocked(err error) {
	c.fail(err)
	c.dropUnsent()
	c.resetReason = err.Error()
	c.schedule()
}

// fail makes Recv, when it has returned what came before, and Send answer err. c.mu is held.
func (c *conn) fail(err error) {
	c.answer(err)
	if c.recvErr == nil {
		c.recvErr = c.lostError("receive from", err)
	}
	c.failSend(c.lostError("send to", err))
	c.partial = nil
	c.wakeReceiver()
	if c.onOpen != nil { // nobody will close it
		c.onOpen = nil
		go c.Close()
	}
}

// expire ends a connection whose dialer never confirmed it.
func (c *conn) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.onOpen != nil {
		c.resetLocked(errors.New("the dialer did not confirm it in time"))
	}
}

// answer is what Dial waits for.
func (c *conn) answer(err error) {
	if c.opened == nil {
		return
	}
	select {
	case c.opened <- err:
	default:
	}
}

// neverAnswered says that the dialer has heard nothing.
func (c *conn) neverAnswered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer == nil
}

// aborted says that nothing can be had from c but an error.
func (c *conn) aborted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue) == 0 && c.recvErr != nil && c.recvErr != io.EOF
}

// MaxMessage implements transport.Conn.
func (c *conn) MaxMessage() int    { return c.max }
func (c *conn) LocalAddr() string  { return c.local }
func (c *conn) RemoteAddr() string { return c.remote }

func (c *conn) closedError(call string) error {
	return fmt.Errorf("%s %s: %w", call, c.remote, transport.ErrClosed)
}

func (c *conn) lostError(call string, err error) error {
	switch err {
	case io.EOF:
		return err
	case transport.ErrClosed:
		return c.closedError(call)
	}
	return fmt.Errorf("%s %s: connection lost: %w", call, c.remote, err)
}

func (c *conn) contextError(call string, ctx context.Context) error {
	return fmt.Errorf("%s %s: %w", call, c.remote, ctx.Err())
}
