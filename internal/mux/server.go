package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/internal/clip"
	"github.com/plugmicro/micro/internal/wire"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
)

// Handler answers the calls of a Server.
type Handler interface {
	// Find returns what Serve needs to know of an endpoint, or why it cannot be called. It is called by the reader of
	// the connection: it must not wait, and must not keep the slices.
	Find(service, endpoint []byte, stream bool) (target any, err *Error)
	// Serve answers the call, by Reply or Fail, and returns when it is over. Calls whose target embeds a Pace may be run
	// by the reader, all others have a goroutine of their own.
	Serve(c *Call)
}

// Server is the answering side of a connection.
type Server struct {
	session
	handler Handler
	workers *Workers
	base    context.Context
	ended   chan error // gets why reading ended
	inline  inline

	mu       sync.Mutex
	calls    map[uint64]*Call
	bytes    int // of the bodies in calls
	draining bool
	drained  chan struct{} // closed when draining and no call is open
	late     alarm         // for calls
}

// Workers are goroutines that answer calls, kept for the next ones. The zero value is not ready: use NewWorkers.
type Workers struct {
	idle   chan *Call
	parked chan struct{} // a token for each that waits
	quit   chan struct{}
	once   sync.Once
}

// maxParked is how many goroutines are kept when there is nothing to do.
const maxParked = 256

// NewWorkers makes a pool for any number of connections.
func NewWorkers() *Workers {
	return &Workers{idle: make(chan *Call), parked: make(chan struct{}, maxParked), quit: make(chan struct{})}
}

// Close lets the goroutines end that have nothing to do. It may be called more than once.
func (w *Workers) Close() { w.once.Do(func() { close(w.quit) }) }

func (w *Workers) serve(c *Call) {
	select {
	case w.idle <- c:
	default:
		go w.loop(c)
	}
}

func (w *Workers) loop(c *Call) {
	for {
		c.serve()
		select {
		case w.parked <- struct{}{}:
		default:
			return
		}
		select {
		case c = <-w.idle:
			<-w.parked
		case <-w.quit:
			return
		}
	}
}

// Accept takes a connection: hellos are exchanged, then calls are answered until it is lost or closed. base is the
// parent of the contexts of its calls.
func Accept(base context.Context, conn transport.Conn, h Handler, w *Workers, opts Options) (*Server, error) {
	s := &Server{
		session: session{conn: conn, opts: opts.withDefaults()},
		handler: h,
		workers: w,
		base:    base,
		calls:   make(map[uint64]*Call),
		drained: make(chan struct{}),
		ended:   make(chan error, 1),
	}
	s.late.ring = s.endLate
	s.startInline()
	if err := s.hello(base); err != nil {
		conn.Close()
		return nil, err
	}
	s.start()
	return s, nil
}

// Run reads the connection until it ends, and says why: nil if the peer closed it.
func (s *Server) Run() error {
	go s.read() // a handler that ends its goroutine must not end this one
	err := <-s.ended
	s.close(err)
	s.mu.Lock()
	s.draining = true
	calls := make([]*Call, 0, len(s.calls))
	for _, c := range s.calls {
		calls = append(calls, c)
	}
	s.late.stop()
	s.mu.Unlock()
	for _, c := range calls {
		c.cancel(context.Canceled)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, transport.ErrClosed) {
		return nil
	}
	return err
}

// Drain takes no new calls from now on, and tells the peer so. Drained is closed when those that are open have been
// answered.
func (s *Server) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return
	}
	s.draining = true
	s.post(wire.CopyBuffer(wire.AppendGoAway(nil, "the service is stopping")))
	if len(s.calls) == 0 {
		close(s.drained)
	}
}

// Drained is closed when the last call was answered after Drain.
func (s *Server) Drained() <-chan struct{} { return s.drained }

// Closed is closed when the connection is.
func (s *Server) Closed() <-chan struct{} { return s.closed }

// Close ends the connection at once; the contexts of its calls end.
func (s *Server) Close() { s.close(transport.ErrClosed) }

// read reads until the connection ends, or until another goroutine goes on with it.
func (s *Server) read() {
	if err := s.readAll(); err != errRelieved {
		s.ended <- err
	}
}

func (s *Server) readAll() error {
	for {
		t, msg, err := s.recv(context.Background())
		if err != nil {
			return err
		}
		if t == wire.GoAway {
			return fmt.Errorf("%w here, says %s: %s", ErrProtocol, s.conn.RemoteAddr(), wire.ParseGoAway(msg))
		}
		if err := s.handle(t, msg); err == errRelieved {
			return err
		} else if err != nil {
			return s.protocolError(err)
		}
	}
}

func (s *Server) handle(t wire.Type, msg []byte) error {
	switch t {
	case wire.CallT:
		var call wire.Call
		err := wire.ParseCall(msg, &call)
		if err != nil && !errors.Is(err, wire.ErrHeader) {
			return err
		}
		return s.begin(&call, err)
	case wire.Data:
		id, body, err := wire.ParseBody(msg)
		if err != nil {
			return err
		}
		if c := s.call(id); c != nil && c.Stream != nil {
			return c.data(body)
		}
	case wire.End:
		id, _, err := wire.ParseBody(msg)
		if err != nil {
			return err
		}
		if c := s.call(id); c != nil && c.Stream != nil {
			c.Stream.end(false, nil)
		}
	case wire.Cancel:
		id, _, err := wire.ParseBody(msg)
		if err != nil {
			return err
		}
		if c := s.call(id); c != nil {
			c.cancel(context.Canceled)
		}
	case wire.Credit:
		id, n, err := wire.ParseCredit(msg)
		if err != nil {
			return err
		}
		if c := s.call(id); c != nil && c.Stream != nil {
			c.Stream.giveCredit(n)
		}
	default:
		return fmt.Errorf("%w: type %s does not come from a caller", wire.ErrMalformed, t)
	}
	return nil
}

func (s *Server) call(id uint64) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[id]
}

// begin takes a call in, or refuses it; tooMuch is why ParseCall would not have it.
func (s *Server) begin(w *wire.Call, tooMuch error) error {
	if s.call(w.ID) != nil {
		return fmt.Errorf("%w: call %d is open already", wire.ErrMalformed, w.ID)
	}
	if tooMuch != nil {
		s.refuse(w.ID, notRun(status.InvalidArgument, "%v", tooMuch))
		return nil
	}
	target, failed := s.handler.Find(w.Service, w.Endpoint, w.Stream)
	var cdc codec.Codec
	if failed == nil {
		var err error
		if cdc, err = codec.Get(string(w.ContentType)); err != nil {
			failed = notRun(status.Unimplemented, "%v", err)
		}
	}
	if failed != nil {
		s.refuse(w.ID, failed)
		return nil
	}
	c := &Call{server: s, id: w.ID, Target: target, Codec: cdc, size: int32(len(w.Metadata))}
	if w.Timeout > 0 {
		c.deadline = time.Now().Add(w.Timeout)
	}
	if w.Stream {
		c.Stream = newStream(&s.session, w.ID, int64(min(s.peer.Window, maxCredit)))
	} else {
		c.size += int32(len(w.Body))
		if p, ok := target.(paced); ok {
			c.pace = p.pace()
		}
	}
	if failed := s.add(c); failed != nil {
		s.refuse(w.ID, failed)
		return nil
	}
	c.md = w.Metadata.Map()
	if w.Stream {
		s.postCredit(w.ID, uint64(s.opts.Window))
	} else {
		c.Body = s.keep(w.Body)
	}
	if c.alone && c.pace.fast() {
		return s.answer(c)
	}
	s.workers.serve(c)
	return nil
}

// maxRefusal bounds, in bytes, what a refusal says: it may repeat what the caller sent, and waits for it to read.
const maxRefusal = 512

func (s *Server) refuse(id uint64, e *Error) {
	message := clip.Text(e.Status.Message, maxRefusal)
	b := wire.GetBuffer(len(message) + 32)
	b.B = wire.AppendError(b.B, &wire.Failure{ID: id, Code: uint32(e.Status.Code), NotRun: e.NotRun, Message: []byte(message)})
	s.post(b)
}

func (s *Server) add(c *Call) *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return notRun(status.Unavailable, "the service is stopping")
	case len(s.calls) >= s.opts.MaxCalls:
		return notRun(status.ResourceExhausted, "%d calls are open on the connection, which is the limit", s.opts.MaxCalls)
	case s.bytes+int(c.size) > s.opts.MaxBytes:
		return notRun(status.ResourceExhausted, "requests of %d bytes are open on the connection, with this one of %d they pass the limit of %d",
			s.bytes, c.size, s.opts.MaxBytes)
	}
	c.alone = c.pace != nil && len(s.calls) == 0
	s.calls[c.id] = c
	s.bytes += int(c.size)
	s.late.notLater(c.deadline)
	return nil
}

// remove takes out a call that was answered.
func (s *Server) remove(c *Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, c.id)
	s.bytes -= int(c.size)
	if s.draining && len(s.calls) == 0 {
		select {
		case <-s.drained:
		default:
			close(s.drained)
		}
	}
}

// endLate ends the contexts of calls that are late.
func (s *Server) endLate() {
	now := time.Now()
	var late []*Call
	var next time.Time
	s.mu.Lock()
	for _, c := range s.calls {
		switch {
		case c.deadline.IsZero():
		case !c.deadline.After(now):
			late = append(late, c)
		case next.IsZero() || c.deadline.Before(next):
			next = c.deadline
		}
	}
	s.late.rung()
	s.late.notLater(next)
	s.mu.Unlock()
	for _, c := range late {
		c.cancel(context.DeadlineExceeded)
	}
}
