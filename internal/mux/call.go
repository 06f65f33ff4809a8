package mux

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/internal/clip"
	"github.com/plugmicro/micro/internal/wire"
	"github.com/plugmicro/micro/metadata"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
)

// Call is a call or a stream being answered, and the context that its handler gets: it ends at the caller's deadline,
// when the caller gives up, when the connection is lost, and when the handler has returned. It is not reused, because
// handlers may keep their context; that it is one piece makes it one allocation.
type Call struct {
	Target any          // what Find returned
	Codec  codec.Codec  // of the caller's content type
	Body   *wire.Buffer // of a call; released when Serve returns
	Stream *Stream      // of a stream, else nil

	server   *Server
	id       uint64
	md       map[string]string
	size     int32 // of the body
	answered bool  // Reply or Fail was called
	pace     *Pace // of the endpoint, nil: it is of no interest
	alone    bool  // nothing else was open when it came, and it has a pace
	deadline time.Time

	mu    sync.Mutex
	ended error
	done  chan struct{} // made when somebody asks
	after map[*afterFunc]struct{}
}

type afterFunc struct{ f func() }

var _ context.Context = (*Call)(nil)

// Peer is the address of the caller.
func (c *Call) Peer() string { return c.server.conn.RemoteAddr() }

// Deadline is the caller's.
func (c *Call) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Value answers the received metadata, then what the server's own context answers.
func (c *Call) Value(key any) any {
	if _, ok := key.(metadata.Incoming); ok {
		return c.md
	}
	return c.server.base.Value(key)
}

// Err says why the context ended.
func (c *Call) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// Done is closed when the context ends.
func (c *Call) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.ended != nil {
			close(c.done)
		}
	}
	return c.done
}

// AfterFunc is what package context looks for, so that contexts derived from a call cost no goroutine.
func (c *Call) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		go f()
		return func() bool { return false }
	}
	if c.after == nil {
		c.after = make(map[*afterFunc]struct{})
	}
	a := &afterFunc{f}
	c.after[a] = struct{}{}
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, waiting := c.after[a]
		delete(c.after, a)
		return waiting
	}
}

// cancel ends the context, and the stream with it.
func (c *Call) cancel(err error) {
	c.mu.Lock()
	if c.ended != nil {
		c.mu.Unlock()
		return
	}
	c.ended = err
	if c.done != nil {
		close(c.done)
	}
	after := c.after
	c.after = nil
	c.mu.Unlock()
	for a := range after {
		go a.f()
	}
	if c.Stream != nil {
		c.Stream.end(true, status.From(err))
	}
}

// data takes in what came for the stream, or ends it when there is too much.
func (c *Call) data(body []byte) error {
	err := c.Stream.data(body)
	if err != errFull {
		return err
	}
	c.Stream.end(true, errFull)
	c.cancel(context.Canceled)
	return nil
}

func (c *Call) serve() {
	if c.alone {
		began := time.Now()
		defer func() { c.pace.took(time.Since(began)) }()
	}
	defer c.finish() // also after runtime.Goexit, which a handler may call
	c.server.handler.Serve(c)
}

func (c *Call) finish() {
	if !c.answered {
		c.Fail(status.Errorf(status.Internal, "the handler ended without an answer"))
	}
	c.cancel(context.Canceled)
	c.Body.Release()
	if c.Stream != nil {
		c.Stream.discard()
	}
	c.server.remove(c)
}

// Reply ends the call well. A stream's v is nil.
func (c *Call) Reply(v any) {
	b := c.server.buffer()
	b.B = wire.AppendReply(b.B, c.id)
	if v != nil {
		var err error
		if b.B, err = c.Codec.Append(b.B, v); err != nil {
			b.Release()
			c.Fail(status.Errorf(status.Internal, "encode the answer: %w", err))
			return
		}
	}
	err := c.server.send(context.Background(), b)
	if errors.Is(err, transport.ErrTooLarge) {
		c.Fail(status.Errorf(status.ResourceExhausted, "answer: %w", err))
		return
	}
	c.answered = true
}

// maxErrorMessage bounds, in bytes, what an error tells the caller.
const maxErrorMessage = 16 << 10

// Fail ends the call badly.
func (c *Call) Fail(err error) {
	e := status.From(err)
	if e.Code == status.OK {
		e = &status.Error{Code: status.Unknown, Message: fmt.Sprintf("handler returned an error with code OK: %s", e.Message)}
	}
	message := clip.Text(e.Message, maxErrorMessage)
	c.answered = true
	b := wire.GetBuffer(len(message) + 32)
	b.B = wire.AppendError(b.B, &wire.Failure{ID: c.id, Code: uint32(e.Code), Message: []byte(message)})
	c.server.send(context.Background(), b)
}
