package rabbitmq

import (
	"context"
	"fmt"
	"io"

	"github.com/plugmicro/micro/transport"
)

// receiver is the receiving half of a conn. It holds no more than the window, and beside it one message, the next, while
// that is being put together.
type receiver struct {
	window int // credit that the peer has at most

	queue       []message // to be received
	partial     []byte    // the beginning of one more
	partialCost int       // of it, for which no credit was given again
	nextIn      uint64    // number that the next message of the peer must have
	unread      int       // cost of what came and was not given as credit again
	owed        int       // of that, what has been received
	recvErr     error     // what Recv answers behind queue
	ready       chan struct{}
}

// message is one of the connection, and its cost.
type message struct {
	data []byte
	cost int
}

func (r *receiver) init(window int) {
	r.window = window
	r.ready = make(chan struct{}, 1)
}

// Recv implements transport.Conn.
func (c *conn) Recv(ctx context.Context) ([]byte, error) {
	for {
		msg, err, ok := c.next()
		if ok {
			return msg, err
		}
		select {
		case <-c.ready:
		case <-c.done:
		case <-ctx.Done():
			return nil, c.contextError("receive from", ctx)
		}
	}
}

// next is what Recv returns, if it need not wait.
func (c *conn) next() (msg []byte, err error, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, c.closedError("receive from"), true
	case len(c.queue) > 0:
		m := c.queue[0]
		c.queue[0] = message{}
		if c.queue = c.queue[1:]; len(c.queue) == 0 { // what came of the one behind it has its place now
			m.cost += c.partialCost
			c.partialCost = 0
		}
		c.owe(m.cost)
		return m.data, nil, true
	case c.recvErr != nil:
		return nil, c.recvErr, true
	}
	return nil, nil, false
}

// Ready says whether there is something for Recv, which is always known.
func (c *conn) Ready() (ready, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed || len(c.queue) > 0 || c.recvErr != nil, true
}

// TakeLast leaves the memory of the message that Recv returned last to the caller: it is not used again.
func (c *conn) TakeLast() interface{ Release() } { return garbageCollected{} }

type garbageCollected struct{}

func (garbageCollected) Release() {}

// owe notes that the peer may send so much more. c.mu is held.
func (c *conn) owe(n int) {
	c.owed += n
	if c.owesMuch() {
		c.schedule()
	}
}

// owesMuch says that credit is worth a message of its own.
func (r *receiver) owesMuch() bool { return r.owed >= r.window/2 }

// payCredit is what the next header says. c.mu is held.
func (r *receiver) payCredit() uint32 {
	n := r.owed
	r.owed = 0
	r.unread -= n
	return uint32(n)
}

func (c *conn) wakeReceiver() { wake(c.ready) }

// receive takes a message of the peer, unless c is over: a dialer that gave up has no peer any more. It never waits: the
// link calls it for all connections.
func (c *conn) receive(h header, frames []byte, from string) (taken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone || c.peer == nil && c.resetReason != "" {
		return false
	}
	if err := c.arrived(h, frames, from); err != nil {
		c.link.strange("a peer breaks the protocol, its connection ends", "from", c.remote, "error", err)
		c.resetLocked(fmt.Errorf("%w: %w", transport.ErrProtocol, err))
		return true
	}
	if c.peer != nil {
		c.peer.heard.Store(true)
	}
	return true
}

// arrived handles one message of AMQP. c.mu is held.
func (c *conn) arrived(h header, frames []byte, from string) error {
	if h.number != c.nextIn {
		return fmt.Errorf("message %d came where %d was due", h.number, c.nextIn)
	}
	c.nextIn++
	if h.credit > 0 {
		if c.credit += int(h.credit); c.credit > c.peerWindow {
			return fmt.Errorf("credit of %d, more than the window of %d", c.credit, c.peerWindow)
		}
		c.schedule()
	}
	for len(frames) > 0 {
		t, payload, rest, err := nextFrame(frames)
		if err == nil {
			err = c.handle(t, payload, from)
		}
		if err != nil {
			return err
		}
		frames = rest
	}
	if c.onOpen != nil {
		c.onOpen()
		c.onOpen = nil
	}
	return nil
}

// handle takes one frame. c.mu is held.
func (c *conn) handle(t frameType, payload []byte, from string) error {
	if c.peer == nil && t != frameAccept && t != frameReset {
		return fmt.Errorf("frame %d came before the connection was accepted", t)
	}
	switch t {
	case frameAccept:
		return c.accepted(payload, from)
	case framePart, frameData:
		return c.data(t, payload)
	case frameFin:
		if c.recvErr == nil {
			c.recvErr = io.EOF
			c.wakeReceiver()
		}
	case frameClose:
		c.failSend(c.lostError("send to", errPeerClosed))
		c.giveUp()
	case frameReset:
		err := fmt.Errorf("the peer ended it: %.200q", payload)
		if c.peer == nil {
			err = fmt.Errorf("%w: it was refused: %.200q", transport.ErrUnreachable, payload)
		}
		c.fail(err)
		c.giveUp()
	default:
		return fmt.Errorf("frame %d is not for a connection", t)
	}
	return nil
}

// accepted is the answer to a dialer.
func (c *conn) accepted(payload []byte, from string) error {
	t, err := parseTerms(payload)
	if err != nil {
		return err
	}
	if c.peer != nil || !c.dialer || !isInbox(from) {
		return fmt.Errorf("an accept from %q out of place", from)
	}
	c.agree(c.link.join(c, from), t)
	c.confirm = true
	c.schedule()
	c.answer(nil)
	return nil
}

// data takes a message, or a part of one. c.mu is held.
func (c *conn) data(t frameType, payload []byte) error {
	n := cost(len(payload))
	if c.unread += n; c.unread > c.window {
		return fmt.Errorf("it sends more than its credit")
	}
	switch {
	case c.closed: // nobody receives it, and nobody gives credit for it
		return nil
	case c.recvErr != nil:
		return fmt.Errorf("it sends after saying that nothing follows")
	case len(c.partial)+len(payload) > c.maxRecv:
		return fmt.Errorf("%w: the limit is %d bytes", transport.ErrTooLarge, c.maxRecv)
	case t == framePart:
		c.partial = append(c.partial, payload...)
		if len(c.queue) == 0 {
			c.owe(n)
		} else {
			c.partialCost += n
		}
		return nil
	case c.partial != nil:
		payload = append(c.partial, payload...)
		n += c.partialCost
		c.partial, c.partialCost = nil, 0
	}
	c.queue = append(c.queue, message{payload, n})
	c.wakeReceiver()
	return nil
}
