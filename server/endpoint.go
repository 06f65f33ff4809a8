package server

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"sync"

	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/status"
)

// form is which of the four forms an endpoint has.
type form int

const (
	unary form = iota
	serverStream
	clientStream
	bidiStream
)

// String is what an error calls it.
func (f form) String() string {
	return [...]string{"a call, not a stream", "a stream of answers", "a stream of requests", "a stream both ways"}[f]
}

// stream is the value of registry.MetadataStream.
func (f form) stream() string { return [...]string{"", "server", "client", "both"}[f] }

type endpoint struct {
	mux.Pace
	name       string
	kind       form
	request    reflect.Type // the message, not a pointer to it
	response   reflect.Type
	idempotent bool

	newRequest func() any // of a unary endpoint
	// run answers with the decoded body of a unary endpoint, or with the stream of c.
	run func(ctx context.Context, body any, c *mux.Call) (any, error)
}

func (e *endpoint) describe() *registry.Endpoint {
	d := &registry.Endpoint{Name: e.name, Request: describe(e.request), Response: describe(e.response)}
	if e.kind == unary && !e.idempotent {
		return d
	}
	d.Metadata = make(map[string]string)
	if e.kind != unary {
		d.Metadata[registry.MetadataStream] = e.kind.stream()
	}
	if e.idempotent {
		d.Metadata[registry.MetadataIdempotent] = "true"
	}
	return d
}

func unaryFunc[Req, Rsp any](name string, f func(context.Context, *Req) (*Rsp, error)) *endpoint {
	return &endpoint{
		name:       name,
		kind:       unary,
		request:    reflect.TypeFor[Req](),
		response:   reflect.TypeFor[Rsp](),
		newRequest: func() any { return new(Req) },
		run: func(ctx context.Context, body any, _ *mux.Call) (any, error) {
			rsp, err := f(ctx, body.(*Req))
			if err != nil {
				return nil, err
			}
			if rsp == nil {
				return nil, errNilAnswer
			}
			return rsp, nil
		},
	}
}

var errNilAnswer = status.Errorf(status.Internal, "the handler returned neither an answer nor an error")

var (
	contextType = reflect.TypeFor[context.Context]()
	errorType   = reflect.TypeFor[error]()
	binderType  = reflect.TypeFor[binder]()
)

// methods makes endpoints of the methods of v that take a context.
func methods(v any) ([]*endpoint, error) {
	value := reflect.ValueOf(v)
	if !value.IsValid() || value.Kind() == reflect.Pointer && value.IsNil() {
		return nil, fmt.Errorf("handle %T: it is nil", v)
	}
	name := reflect.Indirect(value).Type().Name()
	if name == "" {
		return nil, fmt.Errorf("handle %T: the type needs a name, which begins the names of its endpoints", v)
	}
	var endpoints []*endpoint
	for i := range value.NumMethod() {
		m := value.Type().Method(i)
		if t := value.Method(i).Type(); t.NumIn() == 0 || t.In(0) != contextType {
			continue
		}
		e, err := method(boundMethod{value.Method(i), value, m.Func})
		if err != nil {
			return nil, fmt.Errorf("handle %T: method %s: %w", v, m.Name, err)
		}
		e.name = name + "." + m.Name
		endpoints = append(endpoints, e)
	}
	if len(endpoints) == 0 {
		return nil, fmt.Errorf("handle %T: it has no exported method that takes a context.Context first%s", v, pointerHint(value))
	}
	return endpoints, nil
}

func pointerHint(v reflect.Value) string {
	if v.Kind() != reflect.Pointer && reflect.PointerTo(v.Type()).NumMethod() > v.NumMethod() {
		return "; its pointer has: pass &" + v.Type().Name() + "{…}"
	}
	return ""
}

// boundMethod is a method of a value; f is the same as a function that takes its receiver first, which is cheaper to call.
type boundMethod struct{ bound, receiver, f reflect.Value }

func method(m boundMethod) (*endpoint, error) {
	f, t := m.bound, m.bound.Type()
	last := t.NumOut() - 1
	if last < 0 || t.Out(last) != errorType || last > 1 || (last == 1 && t.Out(0).Kind() != reflect.Pointer) {
		return nil, formError(t, "it must return (*Response, error), or error where it sends a stream")
	}
	in := func(i int) bool { return t.NumIn() > i && t.In(i).Kind() == reflect.Pointer }
	streams := func(i int, f form) bool {
		return in(i) && t.In(i).Implements(binderType) && newBinder(t.In(i)).form() == f
	}
	switch {
	case t.NumIn() == 2 && last == 1 && streams(1, clientStream):
		return clientStreamMethod(f), nil
	case t.NumIn() == 2 && last == 0 && streams(1, bidiStream):
		return bidiMethod(f), nil
	case t.NumIn() == 3 && last == 0 && in(1) && streams(2, serverStream):
		return serverStreamMethod(f), nil
	case t.NumIn() == 2 && last == 1 && in(1) && !t.In(1).Implements(binderType):
		return unaryMethod(m), nil
	}
	return nil, formError(t, mistake(t))
}

func formError(t reflect.Type, mistake string) error {
	return fmt.Errorf(`%s is no endpoint: %s; the forms are
	(ctx, *Request) (*Response, error)
	(ctx, *Request, *server.Sender[Response]) error
	(ctx, *server.Receiver[Request]) (*Response, error)
	(ctx, *server.Stream[Request, Response]) error`, t, mistake)
}

// mistake is what is most likely wrong with a method that returns what endpoints do.
func mistake(t reflect.Type) string {
	last := t.In(t.NumIn() - 1)
	of := form(-1)
	if last.Kind() == reflect.Pointer && last.Implements(binderType) {
		of = newBinder(last).form()
	}
	switch {
	case t.NumIn() == 1:
		return "it takes no request; an empty one is *struct{}"
	case of == serverStream && t.NumIn() == 2:
		return "it must take its request before the sender"
	case of == serverStream && t.NumIn() == 3 || of == bidiStream && t.NumIn() == 2:
		if t.NumOut() == 2 {
			return "it sends its answers, so it must return error alone"
		}
	case of == clientStream && t.NumIn() == 2:
		return "it must return (*Response, error)"
	case t.NumIn() > 2:
		return fmt.Sprintf("it takes %d arguments after the context", t.NumIn()-1)
	case t.NumIn() == 2 && t.In(1).Kind() != reflect.Pointer:
		return fmt.Sprintf("its request must be a pointer, *%s", t.In(1))
	case t.NumOut() == 1:
		return "it must return (*Response, error)"
	}
	return "its request must be a pointer"
}

// answer reads the (*Response, error) or (error) of a handler.
func answer(out []reflect.Value) (any, error) {
	if err, _ := out[len(out)-1].Interface().(error); err != nil {
		return nil, err
	}
	if len(out) == 1 {
		return nil, nil
	}
	if out[0].IsNil() {
		return nil, errNilAnswer
	}
	return out[0].Interface(), nil
}

func unaryMethod(m boundMethod) *endpoint {
	request := m.bound.Type().In(1).Elem()
	return &endpoint{
		kind:       unary,
		request:    request,
		response:   m.bound.Type().Out(0).Elem(),
		newRequest: func() any { return reflect.New(request).Interface() },
		run: func(ctx context.Context, body any, _ *mux.Call) (any, error) {
			return callUnary(m, ctx, body)
		},
	}
}

// arguments of a reflected call are reused: it takes two allocations with them, six without.
type arguments struct {
	ctx context.Context
	in  [3]reflect.Value // the receiver, ctx and the request
}

var argumentsPool = sync.Pool{New: func() any {
	a := new(arguments)
	a.in[1] = reflect.ValueOf(&a.ctx).Elem()
	return a
}}

func callUnary(m boundMethod, ctx context.Context, body any) (any, error) {
	a := argumentsPool.Get().(*arguments)
	a.in[0], a.ctx, a.in[2] = m.receiver, ctx, reflect.ValueOf(body)
	out := m.f.Call(a.in[:])
	a.in[0], a.ctx, a.in[2] = reflect.Value{}, nil, reflect.Value{}
	argumentsPool.Put(a)
	return answer(out)
}

func serverStreamMethod(f reflect.Value) *endpoint {
	request, sender := f.Type().In(1).Elem(), f.Type().In(2)
	_, response := newBinder(sender).messages()
	return &endpoint{
		kind:     serverStream,
		request:  request,
		response: response,
		run: func(ctx context.Context, _ any, c *mux.Call) (any, error) {
			req := reflect.New(request)
			if err := receive(ctx, c, req.Interface()); err != nil {
				return nil, missing(err)
			}
			return answer(f.Call([]reflect.Value{reflect.ValueOf(ctx), req, bound(sender, ctx, c)}))
		},
	}
}

// receive decodes the next request of a stream into what v points to; io.EOF after the last one.
func receive(ctx context.Context, c *mux.Call, v any) error {
	b, err := c.Stream.Recv(ctx)
	if err != nil {
		return err
	}
	defer b.Release()
	return decode(c, b.B, v)
}

// decode says what is wrong in the words of the caller, who knows nothing of v's type.
func decode(c *mux.Call, data []byte, v any) error {
	if err := c.Codec.Decode(data, v); err != nil {
		return status.Errorf(status.InvalidArgument, "decode the request of %s: %w", c.Target.(*endpoint).name, err)
	}
	return nil
}

// missing is what a stream of answers says when its one request did not come.
func missing(err error) error {
	if err == io.EOF {
		return status.Errorf(status.InvalidArgument, "the stream ended before its request")
	}
	return err
}

func clientStreamMethod(f reflect.Value) *endpoint {
	receiver := f.Type().In(1)
	request, _ := newBinder(receiver).messages()
	return &endpoint{
		kind:     clientStream,
		request:  request,
		response: f.Type().Out(0).Elem(),
		run: func(ctx context.Context, _ any, c *mux.Call) (any, error) {
			rsp, err := answer(f.Call([]reflect.Value{reflect.ValueOf(ctx), bound(receiver, ctx, c)}))
			if err != nil {
				return nil, err
			}
			return nil, c.Stream.Send(ctx, c.Codec, rsp)
		},
	}
}

func bidiMethod(f reflect.Value) *endpoint {
	both := f.Type().In(1)
	request, response := newBinder(both).messages()
	return &endpoint{
		kind:     bidiStream,
		request:  request,
		response: response,
		run: func(ctx context.Context, _ any, c *mux.Call) (any, error) {
			return answer(f.Call([]reflect.Value{reflect.ValueOf(ctx), bound(both, ctx, c)}))
		},
	}
}
