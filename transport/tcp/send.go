package tcp

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/plugmicro/micro/transport"
)

const (
	// maxPending is how many bytes of frames wait for the kernel before Send waits; one frame may always wait.
	maxPending = 1 << 20
	// keepPending is the largest buffer that a connection keeps while it has nothing to send.
	keepPending = 64 << 10
	// crowdMemory is for how many lonely flushes a connection expects that senders come together again.
	crowdMemory = 16
)

// sender is the sending half of a conn. Frames gather in pending; one goroutine at a time, the one that set writing,
// gives them to the kernel. A sender that is alone does so itself, without waiting for the peer, which spares a switch
// of goroutines; when several send at once a flusher goroutine writes for all of them, with few calls.
type sender struct {
	conn *conn
	try  *tryWriter // nil: only the flusher writes

	mu      sync.Mutex
	pending *buffer // frames that nobody writes yet
	frames  int     // in pending
	writes  *buffer // frames that are being written, or empty
	written int     // how much of them a direct write has done
	writing bool
	ended   bool // the end marker was queued

	lastReads uint32 // conn.reads when somebody sent last
	crowd     int    // > 0: several senders are expected at once

	waiting int           // senders that wait for room
	room    chan struct{} // one of them may look again
	sendErr error         // why Send fails
	stop    chan struct{} // closed when sendErr is set
	flushed chan struct{} // closed when the last byte was written, or never will be
	flushFn func()        // flush, as a value that `go` starts without allocating
}

func (s *sender) init(c *conn) {
	s.conn = c
	if tc, ok := c.nc.(*net.TCPConn); ok {
		s.try = newTryWriter(tc)
	}
	s.pending, s.writes = getBuffer(0), getBuffer(0)
	s.room = make(chan struct{}, 1)
	s.stop = make(chan struct{})
	s.flushed = make(chan struct{})
	s.flushFn = s.flush
}

// Send implements transport.Conn.
func (s *sender) Send(ctx context.Context, msg []byte) error {
	c := s.conn
	if len(msg) > c.max {
		return fmt.Errorf("send to %s: %w: %d bytes, the limit is %d", c.RemoteAddr(), transport.ErrTooLarge, len(msg), c.max)
	}
	if ctx.Err() != nil {
		return c.contextError("send to", ctx)
	}
	s.mu.Lock()
	if s.sendErr != nil || !s.fits(len(msg)) {
		if err := s.waitForRoom(ctx, len(msg)); err != nil {
			s.mu.Unlock()
			return err
		}
	}
	s.queue(uint32(len(msg)), msg)
	s.lookAround()
	if s.writing {
		s.mu.Unlock()
		return nil
	}
	s.writing = true
	if s.crowd > 0 || s.try == nil {
		s.mu.Unlock()
		go s.flushFn()
		return nil
	}
	s.take()
	s.mu.Unlock()
	n, err := s.try.write(s.writes.data)
	s.mu.Lock()
	s.wrote(n, err)
	s.mu.Unlock()
	return nil
}

// lookAround recognises that senders come together: two messages without a read in between. One caller that waits for
// each answer, and its peer, take turns; callers that share the connection, or the answers to them, come in bursts.
// s.mu is held.
func (s *sender) lookAround() {
	reads := s.conn.reads.Load()
	if reads == s.lastReads {
		s.crowd = crowdMemory
	}
	s.lastReads = reads
}

// queue appends a frame to what is pending. s.mu is held.
func (s *sender) queue(length uint32, msg []byte) {
	s.pending = s.pending.grown(headerSize + len(msg))
	s.pending.data = append(binary.BigEndian.AppendUint32(s.pending.data, length), msg...)
	s.frames++
}

// fits says whether a message of n bytes need not wait.
func (s *sender) fits(n int) bool {
	return len(s.pending.data) == 0 || len(s.pending.data)+headerSize+n <= maxPending
}

// waitForRoom waits until n bytes fit. s.mu is held, and again when it returns.
func (s *sender) waitForRoom(ctx context.Context, n int) error {
	for s.sendErr == nil && !s.fits(n) {
		s.waiting++
		s.mu.Unlock()
		var err error
		select {
		case <-s.room:
		case <-s.stop:
		case <-ctx.Done():
			err = s.conn.contextError("send to", ctx)
		}
		s.mu.Lock()
		s.waiting--
		if err != nil {
			s.wakeOne() // the word may have come to this one
			return err
		}
	}
	if s.conn.closed.Load() {
		return s.conn.closedError("send to")
	}
	s.wakeOne() // there may be room for more
	return s.sendErr
}

// wakeOne lets one of the waiting senders look whether there is room. s.mu is held.
func (s *sender) wakeOne() {
	if s.waiting == 0 {
		return
	}
	select {
	case s.room <- struct{}{}:
	default:
	}
}

// take moves what is pending to where it is written from. s.mu is held, by the one that writes.
func (s *sender) take() {
	s.pending, s.writes = s.writes, s.pending
	s.written, s.frames = 0, 0
	s.wakeOne()
}

// wrote is the end of a direct write of n bytes: what is left is the flusher's. s.mu is held.
func (s *sender) wrote(n int, err error) {
	s.written = n
	switch {
	case err != nil:
		s.fail(err)
	case n < len(s.writes.data) || len(s.pending.data) > 0:
		go s.flushFn()
	default:
		s.idle()
	}
}

// flush writes until nothing is pending.
func (s *sender) flush() {
	for {
		if rest := s.writes.data[s.written:]; len(rest) > 0 {
			if _, err := s.conn.nc.Write(rest); err != nil {
				s.mu.Lock()
				s.fail(err)
				s.mu.Unlock()
				return
			}
		}
		// Let those who are ready to run send first: their frames go in one call.
		runtime.Gosched()
		s.mu.Lock()
		s.writes.data = s.writes.data[:0]
		if len(s.pending.data) == 0 {
			s.idle()
			s.mu.Unlock()
			return
		}
		if s.frames == 1 && s.crowd > 0 {
			s.crowd--
		}
		s.take()
		s.mu.Unlock()
	}
}

// idle ends the writing, with nothing pending. s.mu is held.
func (s *sender) idle() {
	s.writes.data = s.writes.data[:0]
	s.written = 0
	s.pending, s.writes = s.pending.shrunk(keepPending), s.writes.shrunk(keepPending)
	s.writing = false
	if s.ended {
		s.conn.closeWrite()
		close(s.flushed)
	}
}

// fail ends the writing because the network refused it. The receiving side finds out by itself, after what has
// arrived before. s.mu is held.
func (s *sender) fail(err error) {
	s.stopSending(s.conn.lostError("send to", err))
	s.pending, s.writes = new(buffer), new(buffer)
	s.written = 0
	s.writing = false
	if s.ended {
		close(s.flushed)
	}
}

// stopSending makes Send fail with err, if it does not fail already. s.mu is held.
func (s *sender) stopSending(err error) {
	if s.sendErr == nil {
		s.sendErr = err
		close(s.stop)
	}
}

// CloseSend implements transport.Conn.
func (s *sender) CloseSend() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.closed.Load() {
		return s.conn.closedError("close sending to")
	}
	if s.sendErr != nil && !s.ended {
		return s.sendErr
	}
	s.end()
	return nil
}

// end queues the end marker behind what was sent. s.mu is held.
func (s *sender) end() {
	if s.sendErr != nil {
		return
	}
	s.stopSending(s.conn.closedError("send to"))
	s.ended = true
	s.queue(endOfMessages, nil)
	if !s.writing {
		s.writing = true
		go s.flushFn()
	}
}

// flushAndStop waits until what was sent is with the kernel, flushTimeout at most.
func (s *sender) flushAndStop() {
	s.conn.nc.SetWriteDeadline(time.Now().Add(flushTimeout))
	s.mu.Lock()
	s.end()
	wait := s.ended
	s.mu.Unlock()
	if wait {
		<-s.flushed
	}
}
