package server

import (
	"context"
	"io"
	"iter"
	"reflect"

	"github.com/plugmicro/micro/internal/mux"
)

// Sender sends the answers of a stream. One goroutine at a time may use it, and only until the handler returns.
type Sender[Rsp any] struct{ to *stream }

// Send sends one answer, and waits while the caller does not keep up. An error means that the caller is gone.
func (s *Sender[Rsp]) Send(rsp *Rsp) error { return s.to.send(rsp) }

// Receiver receives the requests of a stream. One goroutine at a time may use it, and only until the handler returns.
type Receiver[Req any] struct{ from *stream }

// Recv returns the next request; io.EOF after the last one.
func (r *Receiver[Req]) Recv() (*Req, error) { return recv[Req](r.from) }

// All are the requests up to the last one; a last pair has the error, if there was one.
func (r *Receiver[Req]) All() iter.Seq2[*Req, error] { return all[Req](r.from) }

// Stream is both at once: one goroutine may send while another one receives.
type Stream[Req, Rsp any] struct{ both *stream }

// Send sends one answer, and waits while the caller does not keep up. An error means that the caller is gone.
func (s *Stream[Req, Rsp]) Send(rsp *Rsp) error { return s.both.send(rsp) }

// Recv returns the next request; io.EOF after the last one.
func (s *Stream[Req, Rsp]) Recv() (*Req, error) { return recv[Req](s.both) }

// All are the requests up to the last one; a last pair has the error, if there was one.
func (s *Stream[Req, Rsp]) All() iter.Seq2[*Req, error] { return all[Req](s.both) }

// stream is what the three have in common.
type stream struct {
	ctx  context.Context
	call *mux.Call
}

func (s *stream) send(v any) error { return s.call.Stream.Send(s.ctx, s.call.Codec, v) }

func recv[T any](s *stream) (*T, error) {
	v := new(T)
	if err := receive(s.ctx, s.call, v); err != nil {
		return nil, err
	}
	return v, nil
}

func all[T any](s *stream) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for {
			v, err := recv[T](s)
			if err == io.EOF || !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// binder is how methods that take a Sender, a Receiver or a Stream are recognised and given one.
type binder interface {
	bind(s *stream)
	form() form
	messages() (request, response reflect.Type)
}

func (s *Sender[Rsp]) bind(to *stream)        { s.to = to }
func (r *Receiver[Req]) bind(from *stream)    { r.from = from }
func (s *Stream[Req, Rsp]) bind(both *stream) { s.both = both }

func (*Sender[Rsp]) form() form      { return serverStream }
func (*Receiver[Req]) form() form    { return clientStream }
func (*Stream[Req, Rsp]) form() form { return bidiStream }

func (*Sender[Rsp]) messages() (_, _ reflect.Type)   { return nil, reflect.TypeFor[Rsp]() }
func (*Receiver[Req]) messages() (_, _ reflect.Type) { return reflect.TypeFor[Req](), nil }
func (*Stream[Req, Rsp]) messages() (_, _ reflect.Type) {
	return reflect.TypeFor[Req](), reflect.TypeFor[Rsp]()
}

func newBinder(t reflect.Type) binder { return reflect.New(t.Elem()).Interface().(binder) }

// bound makes the argument of type t, a pointer to one of the three, for a handler.
func bound(t reflect.Type, ctx context.Context, c *mux.Call) reflect.Value {
	b := newBinder(t)
	b.bind(&stream{ctx, c})
	return reflect.ValueOf(b)
}
