// Package mux runs many calls and streams at once over one transport connection: what docs/wire.md describes.
//
// Package client dials and calls, package server accepts and answers; broker/direct uses its streams.
//
//	c, err := mux.Dial(ctx, tr, "10.0.0.7:4100", mux.Options{})
//	body, err := c.Call(ctx, &mux.Request{Service: "greeter", Endpoint: "Greeter.Hello", Codec: codec.For(req), Body: req})
//
// One goroutine at a time reads a connection: of a server its reader, which also answers short calls itself (inline.go),
// of a client its background reader, or a caller who is alone (turn.go). What it hands on is bounded by the credit of a
// stream, the number of calls and the bytes of their bodies, so that it waits for nobody, but for a call that it answers,
// and for that not long. Frames are written by whoever has one to send.
package mux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plugmicro/micro/internal/wire"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
)

// Options are the limits of one side of a connection. Zero values mean the defaults.
type Options struct {
	MaxCalls     int           // calls and streams that the peer may have open at once
	MaxBytes     int           // bytes of request bodies that wait or are being handled; as many of streams wait to be read
	Window       int           // bytes that the peer may send on a stream before they are read
	KeepAlive    time.Duration // a peer that was silent for so long is asked for a sign of life
	HelloTimeout time.Duration // for the peer to say hello
	Logger       *slog.Logger
}

// The defaults of Options.
const (
	DefaultMaxCalls     = 10_000
	DefaultMaxBytes     = 64 << 20
	DefaultWindow       = 256 << 10
	DefaultKeepAlive    = 10 * time.Second
	DefaultHelloTimeout = 5 * time.Second
)

func (o Options) withDefaults() Options {
	setDefault(&o.MaxCalls, DefaultMaxCalls)
	setDefault(&o.MaxBytes, DefaultMaxBytes)
	setDefault(&o.Window, DefaultWindow)
	setDefault(&o.KeepAlive, DefaultKeepAlive)
	setDefault(&o.HelloTimeout, DefaultHelloTimeout)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Error is how a call or a stream failed. It unwraps to a *status.Error.
type Error struct {
	Status status.Error
	NotRun bool  // the endpoint was not run and will not be: trying again is safe
	Lost   bool  // the connection is gone, or could not be made
	Remote bool  // the peer answered it
	Cause  error // why this side did not send it; nil: it did, or Status says it all
}

func (e *Error) Error() string { return e.Status.Error() }

// Unwrap gives errors.As and status.CodeOf the code, and errors.Is the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{&e.Status}
	}
	return []error{&e.Status, e.Cause}
}

func notRun(code status.Code, format string, args ...any) *Error {
	return &Error{NotRun: true, Status: status.Error{Code: code, Message: fmt.Sprintf(format, args...)}}
}

func lost(err error) *Error {
	return &Error{Lost: true, Status: status.Error{Code: status.Unavailable, Message: "connection lost: " + err.Error()}}
}

// maxControl bounds, beside two for each call that may be open, the frames that wait for a peer that does not read while
// it makes us answer.
const maxControl = 1024

// minLent is the length of the shortest body that is taken over from the connection; others are copied.
const minLent = 16 << 10

// maxHint bounds the room that is made for a frame because the last one was large.
const maxHint = 128 << 10

var errNotReading = errors.New("the peer sends, but does not read the answers")
var errSilent = errors.New("the peer gave no sign of life")

// session is what both sides of a connection have in common.
type session struct {
	conn transport.Conn
	opts Options
	peer wire.Settings

	heard     atomic.Bool // something came in since the last tick of keepAlive
	asked     bool        // a Ping is out; only keepAlive uses it
	keepAlive *time.Timer

	controlMu sync.Mutex
	control   []*wire.Buffer // waiting to be sent by sendControl
	sending   bool           // sendControl is running

	lastSize atomic.Int64 // of the frame sent last, maxHint at most: the room to make for the next
	queued   atomic.Int64 // cost of what waits to be read on all streams

	closeOnce sync.Once
	closed    chan struct{}
	err       error // why, valid once closed is closed
}

// hello exchanges Hello frames.
func (s *session) hello(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.opts.HelloTimeout, errNoHello)
	defer cancel()
	mine := wire.Settings{
		MaxMessage: uint64(s.conn.MaxMessage()),
		MaxCalls:   uint64(s.opts.MaxCalls),
		Window:     uint64(s.opts.Window),
	}
	if err := s.conn.Send(ctx, wire.AppendHello(nil, mine)); err != nil {
		return fmt.Errorf("say hello to %s: %w", s.conn.RemoteAddr(), err)
	}
	msg, err := s.conn.Recv(ctx)
	if err == nil {
		s.peer, err = wire.ParseHello(msg)
	}
	if errors.Is(context.Cause(ctx), errNoHello) {
		return fmt.Errorf("hello from %s: %w within %s", s.conn.RemoteAddr(), errNoHello, s.opts.HelloTimeout)
	}
	if err != nil {
		return fmt.Errorf("hello from %s: %w", s.conn.RemoteAddr(), err)
	}
	return nil
}

var errNoHello = errors.New("the peer said nothing")

func (s *session) start() {
	s.closed = make(chan struct{})
	s.keepAlive = time.AfterFunc(math.MaxInt64, s.checkAlive)
	s.keepAlive.Reset(s.opts.KeepAlive) // not before checkAlive can see the timer
}

// checkAlive asks a peer that was silent for one interval, and gives it up after another one.
func (s *session) checkAlive() {
	select {
	case <-s.closed:
		return
	default:
	}
	switch {
	case s.heard.Swap(false):
		s.asked = false
	case s.asked:
		s.close(errSilent)
		return
	default:
		s.asked = true
		s.post(wire.CopyBuffer([]byte{byte(wire.Ping)}))
	}
	s.keepAlive.Reset(s.opts.KeepAlive)
}

// close ends the session, once, with the reason that its calls are told.
func (s *session) close(err error) {
	s.closeOnce.Do(func() {
		s.err = err
		close(s.closed)
		s.keepAlive.Stop()
		s.conn.Close()
	})
}

// recv returns the next frame that is not about the connection itself.
func (s *session) recv(ctx context.Context) (wire.Type, []byte, error) {
	for {
		msg, err := s.conn.Recv(ctx)
		if err != nil {
			return 0, nil, err
		}
		if len(msg) == 0 {
			return 0, nil, s.protocolError(fmt.Errorf("%w: it is empty", wire.ErrMalformed))
		}
		if !s.heard.Load() {
			s.heard.Store(true)
		}
		switch t := wire.Type(msg[0]); t {
		case wire.Ping:
			s.post(wire.CopyBuffer([]byte{byte(wire.Pong)}))
		case wire.Pong:
		default:
			return t, msg, nil
		}
	}
}

// lender is implemented by connections that can leave the memory of the message that Recv returned last to the caller.
// Like Recv it is not safe for concurrent use. It returns nil if other messages are in the same memory.
type lender interface{ TakeLast() interface{ Release() } }

// keep returns what outlives the next Recv: body, which is in the message that came last.
func (s *session) keep(body []byte) *wire.Buffer {
	if len(body) < minLent {
		return wire.CopyBuffer(body)
	}
	if l, ok := s.conn.(lender); ok {
		if owner := l.TakeLast(); owner != nil {
			return wire.BorrowBuffer(body, owner)
		}
	}
	return wire.CopyBuffer(body)
}

// post sends a control frame without making its caller wait: the reader must go on reading.
func (s *session) post(b *wire.Buffer) {
	s.controlMu.Lock()
	defer s.controlMu.Unlock()
	if len(s.control) >= maxControl+2*s.opts.MaxCalls {
		b.Release()
		go s.close(errNotReading)
		return
	}
	s.control = append(s.control, b)
	if !s.sending {
		s.sending = true
		go s.sendControl()
	}
}

func (s *session) sendControl() {
	for {
		s.controlMu.Lock()
		frames := s.control
		s.control = nil
		s.sending = len(frames) > 0
		s.controlMu.Unlock()
		if len(frames) == 0 {
			return
		}
		for _, b := range frames {
			s.conn.Send(context.Background(), b.B) // if it fails, the reader notices as well
			b.Release()
		}
	}
}

func (s *session) postCredit(id, n uint64) {
	b := wire.GetBuffer(16)
	b.B = wire.AppendCredit(b.B, id, n)
	s.post(b)
}

// buffer returns one with room for a frame like the last.
func (s *session) buffer() *wire.Buffer { return wire.GetBuffer(int(s.lastSize.Load())) }

// send sends and releases a frame.
func (s *session) send(ctx context.Context, b *wire.Buffer) error {
	defer b.Release()
	if n := int64(min(len(b.B), maxHint)); n != s.lastSize.Load() {
		s.lastSize.Store(n)
	}
	if limit := s.peer.MaxMessage; limit > 0 && uint64(len(b.B)) > limit {
		return fmt.Errorf("%w: %d bytes, the peer takes %d", transport.ErrTooLarge, len(b.B), limit)
	}
	return s.conn.Send(ctx, b.B)
}

// ErrProtocol is wrapped by what ended a connection whose peer broke the protocol.
var ErrProtocol = errors.New("protocol broken")

// protocolError tells the peer, if it listens, and the caller.
func (s *session) protocolError(err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.conn.Send(ctx, wire.AppendGoAway(nil, err.Error())) // best effort: the connection is closed next
	return fmt.Errorf("%w by %s: %w", ErrProtocol, s.conn.RemoteAddr(), err)
}
