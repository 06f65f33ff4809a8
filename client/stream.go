package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/status"
)

// Stream is an open stream: one goroutine may send while another one receives. It must be closed, or its context ended,
// or received from until there is an error.
type Stream[Req, Rsp any] struct{ open *openStream }

// openStream is a Stream without its types.
type openStream struct {
	name   string // of the service and the endpoint, and where it is
	ctx    context.Context
	codec  codec.Codec
	stream *mux.Stream
	close  func(err error) // why it ended: nil if nothing went wrong
}

// Open opens a stream to an endpoint; ctx is the life of the stream. The forms of endpoint differ in who sends:
//
//   - a stream of answers: Send once, CloseSend, then Recv until io.EOF
//   - a stream of requests: Send, CloseSend, then Recv once
//   - both ways: as the two agree
func Open[Req, Rsp any](ctx context.Context, c *Client, service, endpoint string, opts ...CallOption) (*Stream[Req, Rsp], error) {
	r := &Request{Service: service, Endpoint: endpoint, Stream: true}
	r.options.codec = codec.For(new(Req))
	for _, opt := range opts {
		opt(&r.options)
	}
	if err := c.invoke(ctx, r); err != nil {
		return nil, err
	}
	if r.stream == nil {
		return nil, status.Errorf(status.Internal, "open %s %s: a middleware answered for the service, which it cannot for streams", service, endpoint)
	}
	return &Stream[Req, Rsp]{r.stream}, nil
}

// openOnce opens the stream on one node.
func (c *Client) openOnce(ctx context.Context, n *Node, conn *mux.Client, req *mux.Request, r *Request) error {
	if deadline, ok := ctx.Deadline(); ok {
		req.Timeout = max(time.Until(deadline), 1)
	}
	opening, cancel := c.bound(ctx, r)
	defer cancel()
	start := n.peer.begin()
	st, err := conn.Open(opening, req)
	if err != nil {
		n.end(start, err)
		return err
	}
	n.peer.streams.Add(1)
	n.end(start, nil)
	var once sync.Once
	watchers := r.watchers
	closeStream := func(err error) {
		once.Do(func() {
			conn.CloseStream(st)
			n.peer.streams.Add(-1)
			for _, o := range watchers {
				o.End(err)
			}
		})
	}
	stop := context.AfterFunc(ctx, func() { closeStream(ctx.Err()) })
	r.stream = &openStream{name: fmt.Sprintf("%s %s at %s", r.Service, r.Endpoint, n.Address), ctx: ctx, codec: r.options.codec, stream: st,
		close: func(err error) { stop(); closeStream(err) }}
	return nil
}

// Send sends one request, and waits while the service does not keep up. After a request that was larger than the service
// takes, transport.ErrTooLarge, the stream goes on without it; after other errors Recv says why it ended.
func (s *Stream[Req, Rsp]) Send(req *Req) error {
	return s.open.why(s.open.stream.Send(s.open.ctx, s.open.codec, req))
}

// CloseSend says that no request follows.
func (s *Stream[Req, Rsp]) CloseSend() error { return s.open.why(s.open.stream.CloseSend()) }

// Recv returns the next answer; io.EOF after the last one; the error with which the endpoint ended the stream. After an
// error of these the stream is closed; an answer that cannot be decoded is an error of its own.
func (s *Stream[Req, Rsp]) Recv() (*Rsp, error) {
	b, err := s.open.stream.Recv(s.open.ctx)
	if err != nil {
		err = s.open.why(err)
		if err == io.EOF {
			s.open.close(nil)
		} else {
			s.open.close(err)
		}
		return nil, err
	}
	defer b.Release()
	rsp := new(Rsp)
	if err := s.open.codec.Decode(b.B, rsp); err != nil {
		return nil, status.Errorf(status.Internal, "decode an answer of %s into %T: %w", s.open.name, rsp, err)
	}
	return rsp, nil
}

// All are the answers up to the last one; a last pair has the error, if there was one.
func (s *Stream[Req, Rsp]) All() iter.Seq2[*Rsp, error] {
	return func(yield func(*Rsp, error) bool) {
		for {
			rsp, err := s.Recv()
			if err == io.EOF || !yield(rsp, err) || err != nil {
				return
			}
		}
	}
}

// Close ends the stream at once; the endpoint's context ends, if it has not returned yet. It may be called more than once.
func (s *Stream[Req, Rsp]) Close() error {
	s.open.close(nil)
	return nil
}

// why prefers the reason why the context ended to its consequences.
func (o *openStream) why(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	code, message := status.CodeOf(err), status.From(err).Message
	if ended := o.ctx.Err(); ended != nil {
		code, message = status.CodeOf(ended), ended.Error()
	}
	f := failf(code, "stream %s: %s", o.name, message)
	f.MayHaveRun = true
	var e *mux.Error
	if errors.As(err, &e) {
		if e.Remote {
			return &e.Status
		}
		f.cause = e.Cause
	}
	return f
}
