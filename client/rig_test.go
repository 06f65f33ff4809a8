package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/metadata"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	memreg "github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
	"github.com/plugmicro/micro/transport/memory"
	"github.com/plugmicro/micro/transport/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is how long a test waits for what must happen.
const soon = 10 * time.Second

// world is a registry, a network in which things go wrong, the nodes of service "greeter", and a client.
type world struct {
	t      testing.TB
	store  *memreg.Store
	reg    registry.Registry // the client's
	net    *faulty
	client *client.Client
	nodes  []*node
}

type option func(*world, *client.Options)

func overTCP(c tcp.Config) option {
	return func(w *world, _ *client.Options) {
		tr, err := tcp.New(&plugin.Env{}, c)
		require.NoError(w.t, err)
		w.net.Transport = tr
	}
}

func withRegistry(f func(registry.Registry) registry.Registry) option {
	return func(w *world, _ *client.Options) { w.reg = f(w.reg) }
}

func with(f func(*client.Options)) option { return func(_ *world, o *client.Options) { f(o) } }

// newWorld makes one with n nodes, over memory where nothing else is said.
func newWorld(t testing.TB, n int, opts ...option) *world {
	tr, err := memory.NewPrivate(memory.Config{})
	require.NoError(t, err)
	w := &world{t: t, store: memreg.NewStore(), net: newFaulty(tr)}
	w.reg = w.store.Open()
	o := client.Options{Logger: slog.New(slog.DiscardHandler)}
	for _, opt := range opts {
		opt(w, &o)
	}
	for i := range n {
		w.start(fmt.Sprint("node-", i), "1.0.0")
	}
	w.client = client.New(w.reg, w.net, o)
	t.Cleanup(func() {
		require.NoError(t, w.client.Close())
		for _, n := range w.nodes {
			n.stop()
		}
	})
	return w
}

// node is one running instance.
type node struct {
	w      *world
	id     string
	addr   string
	server *server.Server
	served chan error
	calls  atomic.Int64 // answered
	delay  atomic.Int64 // nanoseconds that an answer takes
	fail   atomic.Pointer[status.Error]
	hold   atomic.Pointer[chan struct{}] // endpoints wait for it to be closed
	held   atomic.Int64                  // how many have come to wait
}

// start starts a node and registers it. Its address is chosen, or the one given.
func (w *world) start(id, version string, addr ...string) *node {
	n := w.startService("greeter", id, append(addr, "127.0.0.1:0")[0])
	n.register(version)
	return n
}

func (w *world) startService(name, id, addr string) *node {
	w.t.Helper()
	n := &node{w: w, id: id, served: make(chan error, 1)}
	n.server = server.New(name, server.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(w.t, n.server.Handle(&Greeter{n}, server.Idempotent("Greeter.Read")))
	require.NoError(w.t, server.Func(n.server, "Fast.Echo", (&Greeter{n}).Echo))
	l, err := w.net.Transport.Listen(w.t.Context(), addr)
	require.NoError(w.t, err)
	n.addr = l.Addr()
	go func() { n.served <- n.server.Serve(l) }()
	w.nodes = append(w.nodes, n)
	return n
}

func (n *node) service(version string) *registry.Service {
	return &registry.Service{Name: "greeter", Version: version, Endpoints: n.server.Endpoints(),
		Nodes: []*registry.Node{{ID: n.id, Address: n.addr, Metadata: map[string]string{"zone": "zone of " + n.id}}}}
}

func (n *node) register(version string) {
	require.NoError(n.w.t, n.w.store.Open().Register(n.service(version)))
}

func (n *node) deregister() {
	require.NoError(n.w.t, n.w.store.Open().Deregister(n.service("")))
}

// stop stops the node as SIGTERM does, but leaves it in the registry.
func (n *node) stop() {
	require.NoError(n.w.t, n.server.Shutdown(context.Background()))
	if n.served != nil {
		require.NoError(n.w.t, <-n.served)
		n.served = nil
	}
}

// kill ends it without a word to anybody: connections break, calls are not answered.
func (n *node) kill() {
	n.w.net.cut(n.addr)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n.server.Shutdown(ctx)
}

// Greeter is what the nodes serve.
type Greeter struct{ n *node }

type Hello struct {
	Name string `json:"name"`
}

type Greeting struct {
	Message string `json:"message"`
	Node    string `json:"node"`
	Tenant  string `json:"tenant,omitempty"`
}

func (g *Greeter) Hello(ctx context.Context, req *Hello) (*Greeting, error) {
	if d := g.n.delay.Load(); d > 0 {
		select {
		case <-time.After(time.Duration(d)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if hold := g.n.hold.Load(); hold != nil {
		g.n.held.Add(1)
		select {
		case <-*hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if e := g.n.fail.Load(); e != nil {
		return nil, e
	}
	g.n.calls.Add(1)
	return &Greeting{"Hello, " + req.Name, g.n.id, metadata.Get(ctx, "tenant")}, nil
}

// Read is Hello, and idempotent.
func (g *Greeter) Read(ctx context.Context, req *Hello) (*Greeting, error) { return g.Hello(ctx, req) }

func (g *Greeter) Echo(_ context.Context, req *[]byte) (*[]byte, error) { return req, nil }

func (g *Greeter) Chat(_ context.Context, both *server.Stream[Hello, Greeting]) error {
	for req, err := range both.All() {
		if err != nil {
			return err
		}
		if req.Name == "fail" {
			return status.Errorf(status.DataLoss, "as you say")
		}
		if err := both.Send(&Greeting{"Hello, " + req.Name, g.n.id, ""}); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) hello(opts ...client.CallOption) (*Greeting, error) {
	return w.call(w.t.Context(), "Greeter.Hello", opts...)
}

func (w *world) call(ctx context.Context, endpoint string, opts ...client.CallOption) (*Greeting, error) {
	return client.Call[Greeting](ctx, w.client, "greeter", endpoint, &Hello{"Ada"}, opts...)
}

// hellos makes n calls that must succeed, and counts who answered.
func (w *world) hellos(n int, opts ...client.CallOption) map[string]int {
	w.t.Helper()
	answered := make(map[string]int)
	for range n {
		rsp, err := w.hello(opts...)
		require.NoError(w.t, err)
		answered[rsp.Node]++
	}
	return answered
}

// connected waits until the client has a connection to every node, so that a balancer's choice stands.
func (w *world) connected(n int) {
	w.t.Helper()
	answered := make(map[string]bool) // a connection that is still being made has answered nothing
	require.Eventually(w.t, func() bool {
		for node := range w.hellos(10) {
			answered[node] = true
		}
		return len(answered) == n && w.net.live() == n
	}, soon, time.Millisecond)
}

// faulty is a transport on which things go wrong.
type faulty struct {
	transport.Transport
	mu    sync.Mutex
	conns map[*conn]string // by address
	black map[string]bool  // addresses where dialling gets no answer
	dials int
}

func newFaulty(tr transport.Transport) *faulty {
	return &faulty{Transport: tr, conns: make(map[*conn]string), black: make(map[string]bool)}
}

func (f *faulty) Dial(ctx context.Context, addr string, opts ...transport.DialOption) (transport.Conn, error) {
	f.mu.Lock()
	f.dials++
	black := f.black[addr]
	f.mu.Unlock()
	if black {
		<-ctx.Done()
		return nil, fmt.Errorf("dial %s: %w", addr, ctx.Err())
	}
	inner, err := f.Transport.Dial(ctx, addr, opts...)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: inner, net: f}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns[c] = addr
	return c, nil
}

// live is how many connections there are.
func (f *faulty) live() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns)
}

func (f *faulty) blackhole(addr string, yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.black[addr] = yes
}

func (f *faulty) to(addr string) []*conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []*conn
	for c, a := range f.conns {
		if a == addr {
			list = append(list, c)
		}
	}
	return list
}

// cut breaks the connections to addr.
func (f *faulty) cut(addr string) {
	for _, c := range f.to(addr) {
		c.broken.Store(true)
		c.Conn.Close()
	}
}

// freeze makes the connections to addr swallow what is sent, both ways, or ends that; nothing else seems wrong with them.
func (f *faulty) freeze(addr string, yes bool) {
	for _, c := range f.to(addr) {
		c.frozen.Store(yes)
	}
}

type conn struct {
	transport.Conn
	net    *faulty
	broken atomic.Bool
	frozen atomic.Bool
}

var errBroken = errors.New("connection reset by test")

func (c *conn) Send(ctx context.Context, msg []byte) error {
	if c.broken.Load() {
		return errBroken
	}
	if c.frozen.Load() {
		return nil
	}
	return c.Conn.Send(ctx, msg)
}

func (c *conn) Recv(ctx context.Context) ([]byte, error) {
	for {
		msg, err := c.Conn.Recv(ctx)
		switch {
		case c.broken.Load():
			return nil, errBroken
		case err == nil && c.frozen.Load():
		default:
			return msg, err
		}
	}
}

func (c *conn) Close() error {
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	return c.Conn.Close()
}

// load is callers that call all the time, until done.
type load struct {
	stop   chan struct{}
	work   sync.WaitGroup
	calls  atomic.Int64
	mu     sync.Mutex
	errors []error
}

func (w *world) load(callers int, endpoint string) *load {
	l := &load{stop: make(chan struct{})}
	for range callers {
		l.work.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				_, err := w.call(context.Background(), endpoint)
				l.calls.Add(1)
				if err != nil {
					l.mu.Lock()
					l.errors = append(l.errors, err)
					l.mu.Unlock()
				}
			}
		})
	}
	return l
}

// during waits until n more calls were made.
func (l *load) during(t testing.TB, n int64) {
	until := l.calls.Load() + n
	require.Eventually(t, func() bool { return l.calls.Load() >= until }, 3*soon, time.Millisecond)
}

// done ends the load and returns the errors.
func (l *load) done() []error {
	close(l.stop)
	l.work.Wait()
	return slices.Clone(l.errors)
}
