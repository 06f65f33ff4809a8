package rabbitmq

import (
	"context"
	"fmt"
	"slices"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/plugmicro/micro/transport"
)

const (
	// maxPending is how many bytes of frames wait to be published before Send waits; one message may always wait.
	maxPending = 256 << 10
	// keepPending is the largest buffer that a connection keeps while it has nothing to send.
	keepPending = 64 << 10
)

// sender is the sending half of a conn. Frames gather in pending; the writer of the link takes them from writes, as many
// at once as a message holds and the peer gave credit for.
type sender struct {
	pending []byte // room for a header, then frames that wait
	writes  []byte // the same, of which those from start on were not published
	start   int
	nextOut uint64 // number of the next message
	credit  int    // what the peer takes
	queued  bool   // the writer has this conn, or will take it
	confirm bool   // of a dialer: the accept is to be confirmed, with an empty message if there is nothing to send

	peerWindow  int
	fin         bool   // was appended
	ending      bool   // what closes the connection was appended
	resetReason string // is to be sent, in place of all else
	resetTold   bool   // it was
	gone        bool   // nothing is sent any more

	waiting int           // senders that wait for room
	room    chan struct{} // one of them may look again
	sendErr error         // why Send fails
	stop    chan struct{} // closed when sendErr is set
	flushed chan struct{} // closed when the last byte was published, or never will be
}

func (s *sender) init() {
	s.pending = make([]byte, headerSize)
	s.writes = make([]byte, headerSize)
	s.start = headerSize
	s.room = make(chan struct{}, 1)
	s.stop = make(chan struct{})
	s.flushed = make(chan struct{})
}

// Send implements transport.Conn.
func (c *conn) Send(ctx context.Context, msg []byte) error {
	if len(msg) > c.max {
		return fmt.Errorf("send to %s: %w: %d bytes, the limit is %d", c.remote, transport.ErrTooLarge, len(msg), c.max)
	}
	if ctx.Err() != nil {
		return c.contextError("send to", ctx)
	}
	n := framedSize(len(msg))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sendErr != nil || !c.fits(n) {
		if err := c.waitForRoom(ctx, n); err != nil {
			return err
		}
	}
	c.pending = appendMessage(slices.Grow(c.pending, n), msg)
	c.schedule()
	return nil
}

// fits says whether n bytes need not wait.
func (s *sender) fits(n int) bool {
	return len(s.pending) == headerSize || len(s.pending)+n <= maxPending
}

// waitForRoom waits until n bytes fit. c.mu is held, and again when it returns.
func (c *conn) waitForRoom(ctx context.Context, n int) error {
	for c.sendErr == nil && !c.fits(n) {
		c.waiting++
		c.mu.Unlock()
		var err error
		select {
		case <-c.room:
		case <-c.stop:
		case <-ctx.Done():
			err = c.contextError("send to", ctx)
			if b := c.link.out.Blocked(); b != nil {
				err = fmt.Errorf("%w: RabbitMQ takes nothing for now: %s", err, b.Reason)
			}
		}
		c.mu.Lock()
		c.waiting--
		if err != nil {
			c.wakeSender() // the word may have come to this one
			return err
		}
	}
	if c.closed {
		return c.closedError("send to")
	}
	c.wakeSender() // there may be room for more
	return c.sendErr
}

func (s *sender) wakeSender() {
	if s.waiting > 0 {
		wake(s.room)
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// CloseSend implements transport.Conn.
func (c *conn) CloseSend() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return c.closedError("close sending to")
	case c.fin:
		return nil
	case c.sendErr != nil:
		return c.sendErr
	}
	c.failSend(c.closedError("send to"))
	c.appendFin()
	c.schedule()
	return nil
}

// failSend makes Send answer err, if it does not fail already. c.mu is held.
func (s *sender) failSend(err error) {
	if s.sendErr == nil {
		s.sendErr = err
		close(s.stop)
	}
}

// appendFin says, behind what was sent, that nothing follows. c.mu is held.
func (s *sender) appendFin() {
	if !s.fin {
		s.fin = true
		s.pending = appendFrame(s.pending, frameFin, nil)
	}
}

// appendClose says that nothing is received either. c.mu is held.
func (s *sender) appendClose() {
	s.appendFin()
	s.pending = appendFrame(s.pending, frameClose, nil)
	s.ending = true
}

// dropUnsent forgets what was not published. c.mu is held.
func (s *sender) dropUnsent() {
	s.pending = s.pending[:headerSize]
	s.start = len(s.writes)
}

// giveUp sends nothing any more. c.mu is held.
func (s *sender) giveUp() {
	if s.gone {
		return
	}
	s.dropUnsent()
	s.gone = true
	close(s.flushed)
}

// schedule lets the writer look whether there is something to send. c.mu is held.
func (c *conn) schedule() {
	if !c.queued && !c.gone {
		c.queued = true
		c.link.writer.add(c)
	}
}

// take returns the next message for the writer, who has published the one before. When there is none now, the writer
// forgets c until it is scheduled again.
func (c *conn) take() (outgoing, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resetReason != "" && !c.gone {
		return c.takeReset()
	}
	if c.start == len(c.writes) && len(c.pending) > headerSize {
		c.pending, c.writes, c.start = recycled(c.writes), c.pending, headerSize
		c.wakeSender()
	}
	begin := c.start
	c.start = c.sendable()
	if c.start == begin && !c.owesMuch() && !c.confirm || c.gone {
		c.queued = false
		if c.ending && c.start == len(c.writes) {
			c.giveUp()
		}
		return outgoing{}, false
	}
	c.confirm = false
	body := c.writes[begin-headerSize : c.start] // what is before was published
	c.nextHeader().put(body)
	return c.outgoing(body), true
}

// takeReset is the last message.
func (c *conn) takeReset() (outgoing, bool) {
	if c.resetTold || c.peer == nil {
		c.giveUp()
		c.queued = false
		return outgoing{}, false
	}
	c.resetTold = true
	body := make([]byte, headerSize)
	c.nextHeader().put(body)
	return c.outgoing(appendFrame(body, frameReset, []byte(c.resetReason))), true
}

func (c *conn) nextHeader() header {
	h := header{dialer: c.dialer, number: c.nextOut, credit: c.payCredit()}
	c.nextOut++
	return h
}

func (c *conn) outgoing(body []byte) outgoing {
	o := outgoing{key: c.remote, msg: amqp091.Publishing{CorrelationId: c.id, Body: body}}
	if c.peer != nil {
		o.key = c.peer.inbox
	}
	if c.nextOut == 1 { // the first
		o.msg.ReplyTo = c.link.inbox
	}
	return o
}

// sendable is the end of the frames from start on that can go now, in one message. It takes their credit.
func (s *sender) sendable() int {
	end := s.start
	for end < len(s.writes) {
		t, payload, _, err := nextFrame(s.writes[end:])
		size := frameHead + len(payload)
		if err != nil || end > s.start && end+size-s.start > maxBody-headerSize {
			break
		}
		if t.counts() {
			if s.credit < cost(len(payload)) {
				break
			}
			s.credit -= cost(len(payload))
		}
		end += size
	}
	return end
}

// recycled is an empty buffer, b if it is not too large to be kept.
func recycled(b []byte) []byte {
	if cap(b) > keepPending {
		return make([]byte, headerSize)
	}
	return b[:headerSize]
}
