// Package server answers calls and streams: it turns methods into endpoints and serves them on any transport.
//
// A service written with package micro has one already. By itself:
//
//	s := server.New("greeter", server.Options{})
//	err := s.Handle(Greeter{}) // endpoints Greeter.Hello, …
//	l, err := tr.Listen(ctx, "127.0.0.1:0")
//	go s.Serve(l)
//	defer s.Shutdown(ctx)
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/plugmicro/micro/internal/loglimit"
	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
)

// Options are the limits of a server. Zero values mean the defaults, which package mux documents.
type Options struct {
	MaxCalls  int           // calls and streams open at once on one connection; default 10,000
	MaxBytes  int           // bytes of request bodies open at once on one connection; default 64 MiB
	Window    int           // bytes of one stream that wait to be read; default 256 KiB
	KeepAlive time.Duration // silence after which a peer is asked for a sign of life; default 10 s
	Logger    *slog.Logger
}

// Request is what a Middleware sees of a call.
type Request struct {
	Service  string
	Endpoint string // "Greeter.Hello"
	Stream   bool
	Peer     string // address of the caller
	Body     any    // the decoded request; nil for streams, which read it themselves
}

// HandlerFunc answers a request. A stream's answer is nil.
type HandlerFunc func(ctx context.Context, r *Request) (any, error)

// Middleware wraps the handlers of all endpoints.
type Middleware func(next HandlerFunc) HandlerFunc

// Server serves one service. It is safe for concurrent use.
type Server struct {
	service string
	opts    Options
	log     *slog.Logger
	workers *mux.Workers
	base    context.Context
	stop    context.CancelFunc
	refused loglimit.Limit // peers that are none, or misbehave
	failed  loglimit.Limit // handlers, with errors that have no code

	mu         sync.Mutex
	endpoints  map[string]*endpoint // not changed any more once serving
	middleware []Middleware
	serving    bool
	stopped    bool
	listeners  map[transport.Listener]struct{}
	conns      map[*mux.Server]struct{}
	open       sync.WaitGroup // goroutines of connections
}

// New makes a server for a service.
func New(service string, opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	base, stop := context.WithCancel(context.Background())
	return &Server{
		service:   service,
		opts:      opts,
		log:       opts.Logger,
		workers:   mux.NewWorkers(),
		base:      base,
		stop:      stop,
		endpoints: make(map[string]*endpoint),
		listeners: make(map[transport.Listener]struct{}),
		conns:     make(map[*mux.Server]struct{}),
	}
}

// Use adds middleware; the first one is the outermost. It must be called before Serve.
func (s *Server) Use(m ...Middleware) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.middleware = append(s.middleware, m...)
}

// Handle makes endpoints of the methods of v that take a context first. Their names are "Type.Method", and they have
// one of four forms:
//
//	func (Greeter) Hello(ctx context.Context, req *HelloRequest) (*HelloResponse, error)
//	func (Greeter) List(ctx context.Context, req *ListRequest, out *server.Sender[Item]) error
//	func (Greeter) Sum(ctx context.Context, in *server.Receiver[Number]) (*Total, error)
//	func (Greeter) Chat(ctx context.Context, both *server.Stream[Line, Line]) error
//
// A method that takes a context and has another form is an error, and so is a v without endpoints.
func (s *Server) Handle(v any, opts ...HandleOption) error {
	endpoints, err := methods(v)
	if err != nil {
		return err
	}
	return s.add(endpoints, opts)
}

// Func makes one endpoint of a function. It is what Handle does to a method, without reflection on the way.
func Func[Req, Rsp any](s *Server, name string, f func(context.Context, *Req) (*Rsp, error), opts ...HandleOption) error {
	if name == "" || f == nil {
		return fmt.Errorf("handle: endpoint %q: want a name and a function that is not nil", name)
	}
	return s.add([]*endpoint{unaryFunc(name, f)}, opts)
}

// HandleOption says more about endpoints.
type HandleOption func(map[string]*endpoint) error

// Idempotent declares endpoints, by their full names, that may run twice for one call: clients retry them after a lost
// connection.
func Idempotent(names ...string) HandleOption {
	return func(endpoints map[string]*endpoint) error {
		for _, name := range names {
			e := endpoints[name]
			if e == nil {
				return fmt.Errorf("idempotent: no endpoint %q among those that are handled: %s", name,
					strings.Join(slices.Sorted(maps.Keys(endpoints)), ", "))
			}
			e.idempotent = true
		}
		return nil
	}
}

func (s *Server) add(endpoints []*endpoint, opts []HandleOption) error {
	byName := make(map[string]*endpoint)
	for _, e := range endpoints {
		byName[e.name] = e
	}
	for _, opt := range opts {
		if err := opt(byName); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving {
		return errors.New("handle: the server is serving already: handle everything before Serve")
	}
	for name := range byName {
		if s.endpoints[name] != nil {
			return fmt.Errorf("handle: endpoint %q exists already: two types of one name, or one that was handled twice", name)
		}
	}
	for name, e := range byName {
		s.endpoints[name] = e
	}
	return nil
}

// Endpoints describes what can be called, sorted by name, for the registry.
func (s *Server) Endpoints() []*registry.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*registry.Endpoint, 0, len(s.endpoints))
	for _, e := range s.endpoints {
		list = append(list, e.describe())
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list
}

// Serve answers calls on the connections of l, until Shutdown: then it returns nil. It may be called for several
// listeners, and closes them in the end. After Shutdown it closes l at once.
func (s *Server) Serve(l transport.Listener) error {
	if !s.begin(l) {
		return l.Close()
	}
	defer s.end(l)
	for {
		conn, err := l.Accept(s.base)
		switch {
		case err == nil:
			s.take(conn)
		case s.isStopped():
			return nil
		case errors.Is(err, transport.ErrClosed):
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		default:
			s.refused.Warn(s.log, "connection refused", "error", err)
		}
	}
}

// begin says whether l is to be served.
func (s *Server) begin(l transport.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.serving = true
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) end(l transport.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	l.Close()
}

// take serves a connection, unless Shutdown came first, which then does not wait for it.
func (s *Server) take(conn transport.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		go conn.Close()
		return
	}
	s.open.Go(func() { s.serveConn(conn) })
}

func (s *Server) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

func (s *Server) serveConn(conn transport.Conn) {
	c, err := mux.Accept(s.base, conn, handler{s}, s.workers, mux.Options{
		MaxCalls: s.opts.MaxCalls, MaxBytes: s.opts.MaxBytes, Window: s.opts.Window, KeepAlive: s.opts.KeepAlive, Logger: s.log,
	})
	if err != nil {
		if !s.isStopped() {
			s.refused.Warn(s.log, "connection refused", "peer", conn.RemoteAddr(), "error", err)
		}
		return
	}
	defer context.AfterFunc(s.base, c.Close)()
	s.mu.Lock()
	s.conns[c] = struct{}{}
	if s.stopped {
		c.Drain()
	}
	s.mu.Unlock()
	s.logEnd(conn, c.Run())
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// logEnd tells of a peer that misbehaved; that connections come and go is nothing to tell of.
func (s *Server) logEnd(conn transport.Conn, err error) {
	switch {
	case err == nil:
	case errors.Is(err, mux.ErrProtocol), errors.Is(err, transport.ErrTooLarge), errors.Is(err, transport.ErrProtocol):
		s.refused.Warn(s.log, "connection lost", "peer", conn.RemoteAddr(), "error", err)
	default:
		s.log.Debug("connection lost", "peer", conn.RemoteAddr(), "error", err)
	}
}

// lastWords is how long a client has to hang up after its calls were answered and it was told that none will be taken.
const lastWords = time.Second

// Shutdown takes no new calls, waits until those that run have been answered, and closes the connections. When ctx ends
// it waits no longer: what still runs has its context ended and its connection closed, and the error says so.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = true
	for l := range s.listeners {
		l.Close()
	}
	conns := make([]*mux.Server, 0, len(s.conns))
	for c := range s.conns {
		c.Drain()
		conns = append(conns, c)
	}
	s.mu.Unlock()

	err := drain(ctx, conns)
	s.stop() // closes the connections that are left
	s.open.Wait()
	s.workers.Close()
	return err
}

func drain(ctx context.Context, conns []*mux.Server) error {
	for _, c := range conns {
		select {
		case <-c.Drained():
		case <-c.Closed():
		case <-ctx.Done():
			return fmt.Errorf("shut down: calls were still running, and were cut off: %w", context.Cause(ctx))
		}
	}
	patience := time.NewTimer(lastWords)
	defer patience.Stop()
	for _, c := range conns {
		select {
		case <-c.Closed():
		case <-patience.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// handler is what package mux sees of a Server.
type handler struct{ *Server }

var _ mux.Handler = handler{}

// Find refuses what this server does not have; a client may try another node when it is another service's address.
func (h handler) Find(service, name []byte, stream bool) (any, *mux.Error) {
	if string(service) != h.service {
		return nil, refusal(status.Unavailable, "this address is service %q now, not %q", h.service, service)
	}
	e := h.endpoints[string(name)]
	if e == nil {
		return nil, refusal(status.Unimplemented, "service %q has no endpoint %q", h.service, name)
	}
	if stream != (e.kind != unary) {
		return nil, refusal(status.Unimplemented, "endpoint %q of service %q is %s", name, h.service, e.kind)
	}
	return e, nil
}

func refusal(code status.Code, format string, args ...any) *mux.Error {
	return &mux.Error{NotRun: true, Status: status.Error{Code: code, Message: fmt.Sprintf(format, args...)}}
}

// Serve answers one call. A panic, be it of the handler, of middleware or of a method that encodes the answer, is one.
func (h handler) Serve(c *mux.Call) {
	e := c.Target.(*endpoint)
	defer func() {
		if p := recover(); p != nil {
			h.log.Error("handler panicked", "endpoint", e.name, "panic", p, "stack", string(debug.Stack()))
			c.Fail(status.Errorf(status.Internal, "panic in %s: the log of the service says more", e.name))
		}
	}()
	rsp, err := h.run(e, c)
	if err != nil {
		if status.CodeOf(err) == status.Unknown { // nobody thought of who would read it: strangers may not be told
			h.failed.Warn(h.log, "handler failed", "endpoint", e.name, "error", err)
		}
		c.Fail(err)
		return
	}
	c.Reply(rsp)
}

func (h handler) run(e *endpoint, c *mux.Call) (any, error) {
	var body any
	if e.kind == unary {
		body = e.newRequest()
		if err := decode(c, c.Body.B, body); err != nil {
			return nil, err
		}
	}
	if len(h.middleware) == 0 {
		return e.run(c, body, c)
	}
	r := &Request{Service: h.service, Endpoint: e.name, Stream: e.kind != unary, Peer: c.Peer(), Body: body}
	last := func(ctx context.Context, r *Request) (any, error) { return e.run(ctx, r.Body, c) }
	return chain(last, h.middleware)(c, r)
}

func chain(h HandlerFunc, middleware []Middleware) HandlerFunc {
	for _, m := range slices.Backward(middleware) {
		h = m(h)
	}
	return h
}
