package tcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plugmicro/micro/transport"
)

const (
	minReadBuffer = 4 << 10   // of a connection with little to read
	maxReadBuffer = 32 << 10  // of a busy one; frames that do not fit have a buffer of their own
	firstLarge    = 128 << 10 // of such a frame before it has come
)

// past is a deadline that ends a read at once.
var past = time.Unix(1, 0)

// receiver is the receiving half of a conn. Only Recv uses it, except for reads and interrupts.
type receiver struct {
	buf     []byte
	r, w    int   // buf[r:w] has come from the network and was not received yet
	grow    bool  // a read filled buf
	started bool  // a frame came: the peer is one of ours
	recvErr error // Recv's answer for good

	large largeFrame
	reads atomic.Uint32 // from the network, for the sender to look at

	armed   bool            // the deadline for the frame that has begun is set
	watched <-chan struct{} // the Done of the context that interrupts, while nothing else does

	interrupts interruption
}

// largeFrame is a frame that buf cannot hold. Its buffer grows with what arrives, not with what is announced.
type largeFrame struct {
	buf  *buffer // nil: there is none
	size int
}

// interruption ends a read through its deadline: because ctx ended or because of Close.
type interruption struct {
	mu      sync.Mutex
	active  bool // the deadline is past
	closing bool // and stays so
	stop    func() bool
}

// Recv implements transport.Conn.
func (c *conn) Recv(ctx context.Context) ([]byte, error) {
	if c.closed.Load() {
		return nil, c.closedError("receive from")
	}
	if c.recvErr != nil {
		return nil, c.recvErr
	}
	if c.large.complete() {
		c.large.release()
	}
	for c.large.buf == nil {
		have, need := c.w-c.r, headerSize
		if have >= headerSize {
			size := binary.BigEndian.Uint32(c.buf[c.r:])
			if size == endOfMessages {
				c.recvErr = io.EOF
				return nil, io.EOF
			}
			if uint64(size) > uint64(c.max) {
				return nil, c.refuse(size)
			}
			c.started = true
			need += int(size)
			if have >= need {
				msg := c.buf[c.r+headerSize : c.r+need : c.r+need]
				c.r += need
				return msg, nil
			}
			if need > maxReadBuffer {
				c.beginLarge(int(size))
				break
			}
		}
		if err := c.fill(ctx, need); err != nil {
			return nil, err
		}
	}
	return c.recvLarge(ctx)
}

// Ready says whether there is something for Recv, if that is known: TLS does not tell.
func (c *conn) Ready() (ready, known bool) {
	if c.try == nil {
		return false, false
	}
	return c.recvErr != nil || c.buffered() || c.try.readable(), true
}

// buffered says whether buf has a whole frame.
func (c *conn) buffered() bool {
	have := c.w - c.r
	return have >= headerSize && uint64(have) >= headerSize+uint64(binary.BigEndian.Uint32(c.buf[c.r:]))
}

// fill reads more into buf, which gets room for the need bytes of the frame that begins at r.
func (c *conn) fill(ctx context.Context, need int) error {
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	if c.r+need > len(c.buf) || c.w == len(c.buf) {
		c.makeRoom(need)
	}
	n, err := c.read(ctx, c.buf[c.w:], c.w > c.r)
	c.w += n
	c.grow = c.w == len(c.buf)
	return err
}

// makeRoom moves what is unreceived to the front of a buffer of at least need bytes.
func (c *conn) makeRoom(need int) {
	size := max(len(c.buf), minReadBuffer)
	if c.grow {
		size *= 2
	}
	for size < need {
		size *= 2
	}
	to := c.buf
	if size = min(size, maxReadBuffer); size > len(c.buf) {
		to = make([]byte, size)
	}
	c.w = copy(to, c.buf[c.r:c.w])
	c.buf, c.r = to, 0
}

func (c *conn) beginLarge(size int) {
	c.large = largeFrame{buf: getBuffer(min(size, firstLarge)), size: size}
	c.large.buf.data = append(c.large.buf.data, c.buf[c.r+headerSize:c.w]...)
	c.r, c.w = 0, 0
}

func (c *conn) recvLarge(ctx context.Context) ([]byte, error) {
	l := &c.large
	for !l.complete() {
		n, err := c.read(ctx, l.room(), true)
		if err != nil {
			return nil, err
		}
		l.buf.data = l.buf.data[:len(l.buf.data)+n]
	}
	return l.buf.data[:l.size:l.size], nil
}

// TakeLast leaves the memory of the message that Recv returned last to the caller, who releases it. It is nil for a
// message that shares its memory with others.
func (c *conn) TakeLast() interface{ Release() } {
	if !c.large.complete() {
		return nil
	}
	b := c.large.buf
	c.large = largeFrame{}
	return b
}

func (l *largeFrame) complete() bool { return l.buf != nil && len(l.buf.data) == l.size }

// room is where the next bytes of the frame go.
func (l *largeFrame) room() []byte {
	have := len(l.buf.data)
	if have == cap(l.buf.data) {
		l.buf = l.buf.grown(min(3*have, l.size-have))
	}
	return l.buf.data[have:min(l.size, cap(l.buf.data))]
}

func (l *largeFrame) release() {
	l.buf.Release()
	*l = largeFrame{}
}

// read reads what there is, at least one byte. begun says that a part of a frame has come: then the rest must come
// within the timeout. An error that is not about ctx is for good.
func (c *conn) read(ctx context.Context, p []byte, begun bool) (int, error) {
	if done := ctx.Done(); done != c.watched {
		c.watch(ctx)
	}
	if begun != c.armed {
		c.arm(begun)
	}
	n, err := c.nc.Read(p)
	c.reads.Add(1)
	if n > 0 || err == nil {
		return n, nil // an error comes again
	}
	switch {
	case c.closed.Load():
		return 0, c.closedError("receive from")
	case ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded):
		c.armed = false // whoever asks for the rest gives it time again
		return 0, c.contextError("receive from", ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("receive from %s: connection lost: a message that had begun did not end within %s", c.RemoteAddr(), c.timeout)
	case err == io.EOF && begun:
		err = c.lostError("receive from", fmt.Errorf("%w within a message", io.ErrUnexpectedEOF))
	case err == io.EOF:
		err = c.lostError("receive from", fmt.Errorf("%w: the peer ended without closing", io.ErrUnexpectedEOF))
	default:
		err = c.lostError("receive from", err)
	}
	return 0, c.failRecv(err)
}

// failRecv makes err the end of the connection.
func (c *conn) failRecv(err error) error {
	c.recvErr = err
	c.lost(err)
	return err
}

// refuse ends the connection because of a frame that is longer than allowed.
func (c *conn) refuse(size uint32) error {
	tooLarge := fmt.Errorf("%w: %d bytes, the limit is %d", transport.ErrTooLarge, size, c.max)
	if c.started {
		return c.failRecv(fmt.Errorf("receive from %s: %w", c.RemoteAddr(), tooLarge))
	}
	seen := describe(c.buf[c.r:c.w])
	return c.failRecv(fmt.Errorf("receive from %s: %w: %s; taken as the length of a message it is a %w",
		c.RemoteAddr(), transport.ErrProtocol, seen, tooLarge))
}

// watch makes the end of ctx interrupt reads, from now on until another context is watched.
func (c *conn) watch(ctx context.Context) {
	done := ctx.Done()
	i := &c.interrupts
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stop != nil {
		i.stop()
		i.stop = nil
	}
	if i.closing {
		return
	}
	if i.active {
		i.active = false
		c.nc.SetReadDeadline(time.Time{})
		c.armed = false
	}
	c.watched = done
	if done == nil {
		return
	}
	i.stop = context.AfterFunc(ctx, func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		if c.watched == done {
			i.active = true
			c.nc.SetReadDeadline(past)
		}
	})
}

// arm sets the deadline for a frame that has begun, or takes it away.
func (c *conn) arm(begun bool) {
	i := &c.interrupts
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.active {
		return
	}
	var deadline time.Time
	if begun {
		deadline = time.Now().Add(c.timeout)
	}
	c.armed = begun
	c.nc.SetReadDeadline(deadline)
}

// interruptRecv ends a Recv, and all that follow, because of Close.
func (c *conn) interruptRecv() {
	i := &c.interrupts
	i.mu.Lock()
	defer i.mu.Unlock()
	i.active, i.closing = true, true
	if i.stop != nil {
		i.stop()
	}
	c.nc.SetReadDeadline(past)
}
