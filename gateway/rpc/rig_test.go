package rpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/directory"
	"github.com/plugmicro/micro/gateway/rpc"
	"github.com/plugmicro/micro/metadata"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	memreg "github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
	"github.com/plugmicro/micro/transport/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is how long a test waits for what must happen.
const soon = 10 * time.Second

// world is services, a client of them over TCP, and a gateway of nothing but Prepare and the handler.
type world struct {
	t       testing.TB
	store   *memreg.Store
	tr      transport.Transport
	client  *client.Client
	dir     *directory.Directory
	handler *rpc.Handler
	http    *httptest.Server
	status  atomic.Int64                             // of the last answer
	before  func(*http.Request, *gateway.Info) error // what middlewares do
	greeter *Greeter
	running atomic.Int64 // endpoints, on all nodes
	config  http.Server  // timeouts of the gateway's
	http2   bool
}

type option func(*world, *rpc.Options)

func with(f func(*rpc.Options)) option { return func(_ *world, o *rpc.Options) { f(o) } }

func overHTTP2(w *world, _ *rpc.Options) { w.http2 = true }

func middleware(f func(*http.Request, *gateway.Info) error) option {
	return func(w *world, _ *rpc.Options) { w.before = f }
}

func newWorld(t testing.TB, opts ...option) *world {
	tr, err := tcp.New(&plugin.Env{}, tcp.Config{})
	require.NoError(t, err)
	w := &world{t: t, store: memreg.NewStore(), tr: tr, greeter: &Greeter{}}
	w.serve("greeter", "1.0.0", w.greeter)
	w.serve("shop.cart", "1.0.0", Cart{})
	w.serve("_internal", "1.0.0", Cart{})
	quiet := slog.New(slog.DiscardHandler)
	o := rpc.Options{Logger: quiet}
	for _, opt := range opts {
		opt(w, &o)
	}
	w.client = client.New(w.store.Open(), tr, client.Options{Logger: quiet})
	w.dir = directory.Follow(w.store.Open(), quiet)
	require.Eventually(t, w.dir.Ready, soon, time.Millisecond)
	w.handler = rpc.New(w.client, w.dir, o)
	w.http = httptest.NewUnstartedServer(http.HandlerFunc(w.gateway))
	w.http.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	w.http.Config.ReadTimeout, w.http.Config.WriteTimeout = w.config.ReadTimeout, w.config.WriteTimeout
	if w.http2 {
		w.http.EnableHTTP2 = true
		w.http.StartTLS()
	} else {
		w.http.Start()
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		require.NoError(t, w.handler.Shutdown(ctx))
		w.http.Close()
		require.NoError(t, w.dir.Close())
		require.NoError(t, w.client.Close())
	})
	return w
}

// gateway is what stands before the handler.
func (w *world) gateway(rw http.ResponseWriter, r *http.Request) {
	info := &gateway.Info{ID: "id-7", Client: netip.MustParseAddr("203.0.113.9")}
	r = gateway.With(r, info)
	host, err := gateway.Prepare(r)
	info.Host = host
	if err == nil && w.before != nil {
		err = w.before(r, info)
	}
	rec := &recorder{ResponseWriter: rw}
	if err != nil {
		gateway.Fail(rec, r, err)
	} else {
		w.handler.ServeHTTP(rec, r)
	}
	w.status.Store(int64(rec.status))
}

// recorder keeps the status, as the access log does.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// node is one running instance.
type node struct {
	w      *world
	server *server.Server
	at     *registry.Service
	served chan error
	conns  *connections
}

// serve starts a node of a service and registers it.
func (w *world) serve(name, version string, handlers ...any) *node {
	n := &node{w: w, server: server.New(name, server.Options{Logger: slog.New(slog.DiscardHandler)}), served: make(chan error, 1)}
	for _, v := range handlers {
		require.NoError(w.t, n.server.Handle(v))
	}
	if name == "greeter" {
		require.NoError(w.t, server.Func(n.server, "Greeter.Read", w.greeter.Hello, server.Idempotent("Greeter.Read")))
		require.NoError(w.t, server.Func(n.server, "Upper", upper))
	}
	n.server.Use(func(next server.HandlerFunc) server.HandlerFunc {
		return func(ctx context.Context, r *server.Request) (any, error) {
			w.running.Add(1)
			defer w.running.Add(-1)
			return next(ctx, r)
		}
	})
	l, err := w.tr.Listen(w.t.Context(), "127.0.0.1:0")
	require.NoError(w.t, err)
	n.conns = &connections{Listener: l}
	go func() { n.served <- n.server.Serve(n.conns) }()
	n.at = &registry.Service{Name: name, Version: version, Endpoints: n.server.Endpoints(),
		Nodes: []*registry.Node{{ID: name + "-" + l.Addr(), Address: l.Addr()}}}
	require.NoError(w.t, w.store.Open().Register(n.at))
	w.t.Cleanup(func() { n.stop() })
	return n
}

func (n *node) deregister() { require.NoError(n.w.t, n.w.store.Open().Deregister(n.at)) }

// stop stops the node but leaves it in the registry.
func (n *node) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	require.NoError(n.w.t, n.server.Shutdown(ctx))
	if n.served != nil {
		require.NoError(n.w.t, <-n.served)
		n.served = nil
	}
}

// connections are those of a node, so that they can be cut.
type connections struct {
	transport.Listener
	mu   sync.Mutex
	open []transport.Conn
}

func (c *connections) Accept(ctx context.Context) (transport.Conn, error) {
	conn, err := c.Listener.Accept(ctx)
	if err == nil {
		c.mu.Lock()
		c.open = append(c.open, conn)
		c.mu.Unlock()
	}
	return conn, err
}

func (c *connections) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		conn.Close()
	}
}

// Greeter is what most tests call.
type Greeter struct {
	calls atomic.Int64
	hold  atomic.Pointer[chan struct{}] // endpoints wait until it is closed
	ended atomic.Int64                  // calls and streams that saw their context end
}

type Hello struct {
	Name   string            `json:"name"`
	Age    int8              `json:"age,omitempty"`
	Loud   bool              `json:"loud,omitempty"`
	Rate   float64           `json:"rate,omitempty"`
	Tags   []string          `json:"tags,omitempty"`
	Nums   []uint16          `json:"nums,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	Key    []byte            `json:"key,omitempty"`
	From   *Place            `json:"from,omitempty"`
	Stops  []Place           `json:"stops,omitempty"`
}

type Place struct {
	City string `json:"city,omitempty"`
	Zip  int    `json:"zip,omitempty"`
}

type Greeting struct {
	Message string `json:"message"`
}

func (g *Greeter) Hello(ctx context.Context, req *Hello) (*Greeting, error) {
	g.calls.Add(1)
	if hold := g.hold.Load(); hold != nil {
		select {
		case <-*hold:
		case <-ctx.Done():
			g.ended.Add(1)
			return nil, ctx.Err()
		}
	}
	return &Greeting{"Hello, " + req.Name}, nil
}

// Call is what a path without an endpoint leads to.
func (g *Greeter) Call(context.Context, *Hello) (*Greeting, error) { return &Greeting{"called"}, nil }

func (g *Greeter) SayHello(ctx context.Context, req *Hello) (*Greeting, error) {
	return g.Hello(ctx, req)
}

// Echo tells what came.
func (g *Greeter) Echo(_ context.Context, req *Hello) (*Hello, error) { return req, nil }

// Fail fails with the code that it is given.
func (g *Greeter) Fail(_ context.Context, req *Place) (*Greeting, error) {
	if req.Zip < 0 {
		return nil, errors.New("no code")
	}
	return nil, status.Errorf(status.Code(req.Zip), "as you say")
}

// Told answers the metadata that came, and how much time there is.
func (g *Greeter) Told(ctx context.Context, _ *struct{}) (*Told, error) {
	t := &Told{Metadata: metadata.All(ctx)}
	if d, ok := ctx.Deadline(); ok {
		t.Left = time.Until(d)
	}
	return t, nil
}

type Told struct {
	Metadata map[string]string
	Left     time.Duration
}

// Count streams as many answers as Zip says; then it fails, if there is a city.
func (g *Greeter) Count(ctx context.Context, req *Place, out *server.Sender[Place]) error {
	for i := range req.Zip {
		if err := out.Send(&Place{Zip: i + 1}); err != nil {
			g.ended.Add(1)
			return err
		}
	}
	if req.City == "wait" {
		<-ctx.Done()
		g.ended.Add(1)
		return ctx.Err()
	}
	if req.City != "" {
		return status.Errorf(status.DataLoss, "%s", req.City)
	}
	return nil
}

// Flood streams large answers until nobody takes them.
func (g *Greeter) Flood(ctx context.Context, _ *struct{}, out *server.Sender[Place]) error {
	large := &Place{City: strings.Repeat("x", 32<<10)}
	for {
		if err := out.Send(large); err != nil {
			g.ended.Add(1)
			return err
		}
		g.calls.Add(1)
	}
}

// Sum adds up what comes.
func (g *Greeter) Sum(_ context.Context, in *server.Receiver[Place]) (*Place, error) {
	sum := &Place{}
	for p, err := range in.All() {
		if err != nil {
			g.ended.Add(1)
			return nil, err
		}
		g.calls.Add(1)
		if p.City != "" {
			return nil, status.Errorf(status.OutOfRange, "no %s", p.City)
		}
		sum.Zip += p.Zip
	}
	return sum, nil
}

// Chat answers each.
func (g *Greeter) Chat(_ context.Context, both *server.Stream[Hello, Greeting]) error {
	for req, err := range both.All() {
		if err != nil {
			g.ended.Add(1)
			return err
		}
		if req.Name == "fail" {
			return status.Errorf(status.DataLoss, "as you say")
		}
		if err := both.Send(&Greeting{"Hello, " + req.Name}); err != nil {
			return err
		}
	}
	return nil
}

// Deaf takes nothing that comes.
func (g *Greeter) Deaf(ctx context.Context, _ *server.Stream[Hello, Greeting]) error {
	<-ctx.Done()
	g.ended.Add(1)
	return ctx.Err()
}

// UpperAll is a stream of protobuf messages.
func (g *Greeter) UpperAll(_ context.Context, both *server.Stream[wrapperspb.StringValue, wrapperspb.StringValue]) error {
	for v, err := range both.All() {
		if err != nil {
			return err
		}
		if err := both.Send(wrapperspb.String(strings.ToUpper(v.Value))); err != nil {
			return err
		}
	}
	return nil
}

func upper(_ context.Context, v *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	return wrapperspb.String(strings.ToUpper(v.Value)), nil
}

type Cart struct{}

func (Cart) AddItem(context.Context, *struct{}) (*Greeting, error) { return &Greeting{"added"}, nil }

// Blob takes bytes.
func (Cart) Blob(_ context.Context, b *[]byte) (*[]byte, error) { return b, nil }

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request; headers are "Name: value".
func (w *world) do(method, path, body string, headers ...string) answer {
	w.t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.http.URL+path, in)
	require.NoError(w.t, err)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	rsp, err := w.http.Client().Do(r)
	require.NoError(w.t, err)
	defer rsp.Body.Close()
	text, err := io.ReadAll(rsp.Body)
	require.NoError(w.t, err)
	return answer{rsp.StatusCode, rsp.Header, string(text)}
}

// problem reads an answer that must be one.
func (w *world) problem(a answer) gateway.Problem {
	w.t.Helper()
	require.Equal(w.t, "application/problem+json", a.header.Get("Content-Type"), a.body)
	var p gateway.Problem
	require.NoError(w.t, json.Unmarshal([]byte(a.body), &p))
	require.Equal(w.t, a.status, p.Status)
	require.Equal(w.t, "id-7", p.ID)
	return p
}

// dial opens a bare connection to the gateway.
func (w *world) dial() net.Conn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.http.Listener.Addr().String())
	require.NoError(w.t, err)
	w.t.Cleanup(func() { c.Close() })
	return c
}

// held has the endpoints wait until the test is over, or release is called.
func (w *world) held() (release func()) {
	hold := make(chan struct{})
	w.greeter.hold.Store(&hold)
	release = sync.OnceFunc(func() {
		w.greeter.hold.Store(nil)
		close(hold)
	})
	w.t.Cleanup(release)
	return release
}

const jsonType = "Content-Type: " + codec.JSON
