// Package client calls services by name: it finds their nodes, picks one, calls it over the one connection to it, and
// tries another one where that is safe.
//
//	c := client.New(reg, tr, client.Options{}) // a service has one: svc.Client()
//	defer c.Close()
//	rsp, err := client.Call[HelloResponse](ctx, c, "greeter", "Greeter.Hello", &HelloRequest{Name: "Ada"})
//
// Nodes are kept in a table that follows the registry by watching it. The table outlives the registry: while that is
// away, calls go on to the nodes that are known.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/internal/wire"
	"github.com/plugmicro/micro/metadata"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
)

// Options are the settings of a Client. Zero values mean the defaults.
type Options struct {
	Timeout   time.Duration // of a call whose context has no deadline, all attempts together; of opening a stream; default 10 s
	Attempts  int           // how often one call is tried, the first time included; default 5
	Balancer  Balancer      // default LeastLoaded
	KeepAlive time.Duration // silence after which a peer is asked for a sign of life; default 10 s
	Logger    *slog.Logger
}

// Client calls services. It is safe for concurrent use.
type Client struct {
	opts   Options
	open   func() (registry.Registry, transport.Transport, error)
	budget *budget

	around  atomic.Pointer[Invoker] // the middleware, around run; nil: there is none
	network atomic.Pointer[network]
	mu      sync.Mutex // held while one of the two is made
	closed  bool
}

// network is where calls go: what the registry knows, and the connections.
type network struct {
	table *table
	peers *peers
}

// Request is what a Middleware sees of a call, or of the opening of a stream.
type Request struct {
	Service  string
	Endpoint string
	Stream   bool
	Body     any // nil for streams
	Reply    any // a pointer to what the answer is decoded into; nil for streams
	options  callOptions
	stream   *openStream // what opening a stream gives
	deadline time.Time   // see due
	watchers []Observer
}

// Observer learns what a Middleware does not see of a request, because it happens inside of it or after it.
type Observer interface {
	// Attempt is called after each attempt on a node, with the error of that attempt.
	Attempt(address string, err error)
	// End is called once for a stream that was opened, from any goroutine: with nil after the last answer or when the
	// caller has closed it, with the error that ended it otherwise.
	End(err error)
}

// Observe has o told of what becomes of r; a Middleware calls it before it passes r on.
func (r *Request) Observe(o Observer) { r.watchers = append(r.watchers, o) }

func (r *Request) attempted(n *Node, err error) {
	for _, o := range r.watchers {
		o.Attempt(n.Address, err)
	}
}

// Invoker makes the call; when it returns nil, the Reply is filled.
type Invoker func(ctx context.Context, r *Request) error

// Middleware wraps all calls of a client.
type Middleware func(next Invoker) Invoker

// New makes a client. It does nothing before the first call.
func New(reg registry.Registry, tr transport.Transport, opts Options, middleware ...Middleware) *Client {
	return Lazy(func() (registry.Registry, transport.Transport, error) { return reg, tr, nil }, opts, middleware...)
}

// Lazy makes a client whose registry and transport are opened by its first call, and by the next one if that fails.
func Lazy(open func() (registry.Registry, transport.Transport, error), opts Options, middleware ...Middleware) *Client {
	if opts.Timeout == 0 {
		opts.Timeout = 10 * time.Second
	}
	if opts.Attempts == 0 {
		opts.Attempts = 5
	}
	if opts.Balancer == nil {
		opts.Balancer = LeastLoaded()
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	c := &Client{opts: opts, open: open, budget: newBudget()}
	c.Use(middleware...)
	return c
}

// Use puts middleware around that which there is; of m, the first one is the outermost. It counts for calls that begin
// after it.
func (c *Client) Use(m ...Middleware) {
	if len(m) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	invoke := Invoker(c.run)
	if around := c.around.Load(); around != nil {
		invoke = *around
	}
	for _, m := range slices.Backward(m) {
		invoke = m(invoke)
	}
	c.around.Store(&invoke)
}

func (c *Client) invoke(ctx context.Context, r *Request) error {
	if around := c.around.Load(); around != nil {
		return (*around)(ctx, r)
	}
	return c.run(ctx, r)
}

// Close ends all connections, and the calls on them, at once. It waits for the client's own goroutines.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.network.Load(); n != nil && !c.closed {
		n.table.close()
		n.peers.close()
	}
	c.closed = true
	return nil
}

// connect opens the network for the first call.
func (c *Client) connect() (*network, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.network.Load(); n != nil {
		return n, nil
	}
	if c.closed {
		return nil, errClosed
	}
	reg, tr, err := c.open()
	if err != nil {
		return nil, failf(status.Unavailable, "%w", err)
	}
	ps := newPeers(tr, mux.Options{KeepAlive: c.opts.KeepAlive, Logger: c.opts.Logger}, c.opts.Logger)
	n := &network{table: newTable(reg, ps, c.opts.Logger), peers: ps}
	c.network.Store(n)
	return n, nil
}

// CallOption changes one call or stream.
type CallOption func(*callOptions)

type callOptions struct {
	address  string
	key      string
	codec    codec.Codec
	codecErr error
	filters  []Filter
	timeout  time.Duration
}

// Filter says which nodes may be called.
type Filter func(*Node) bool

// Address calls that node, whatever the registry says.
func Address(addr string) CallOption { return func(o *callOptions) { o.address = addr } }

// HashKey is what ConsistentHash goes by.
func HashKey(key string) CallOption { return func(o *callOptions) { o.key = key } }

// ContentType asks for a codec, where the type of the request does not say it.
func ContentType(t string) CallOption {
	return func(o *callOptions) { o.codec, o.codecErr = codec.Get(t) }
}

// Timeout is Options.Timeout for one call.
func Timeout(d time.Duration) CallOption { return func(o *callOptions) { o.timeout = d } }

// Where lets only those nodes be called that the filter takes.
func Where(f Filter) CallOption {
	return func(o *callOptions) { o.filters = append(o.filters, f) }
}

// Version takes the nodes of one version.
func Version(v string) Filter { return func(n *Node) bool { return n.Version == v } }

// Metadata takes the nodes with that pair in their metadata.
func Metadata(key, value string) Filter {
	return func(n *Node) bool { return n.Metadata[key] == value }
}

// Call calls an endpoint of a service and returns its answer. Errors have a code: status.CodeOf(err).
func Call[Rsp, Req any](ctx context.Context, c *Client, service, endpoint string, req *Req, opts ...CallOption) (*Rsp, error) {
	rsp := new(Rsp)
	if err := CallInto(ctx, c, service, endpoint, req, rsp, opts...); err != nil {
		return nil, err
	}
	return rsp, nil
}

// CallInto is Call that decodes the answer into rsp: what is there, codec.Raw for one, is used again.
func CallInto[Rsp, Req any](ctx context.Context, c *Client, service, endpoint string, req *Req, rsp *Rsp, opts ...CallOption) error {
	if c.around.Load() == nil && len(opts) == 0 {
		r := Request{Service: service, Endpoint: endpoint, Body: req, Reply: rsp}
		return c.run(ctx, &r)
	}
	r := &Request{Service: service, Endpoint: endpoint, Body: req, Reply: rsp}
	for _, opt := range opts {
		opt(&r.options)
	}
	return c.invoke(ctx, r)
}

// run is the innermost Invoker.
func (c *Client) run(ctx context.Context, r *Request) error {
	if r.options.codecErr != nil {
		return failf(status.InvalidArgument, "call %s %s: %w", r.Service, r.Endpoint, r.options.codecErr)
	}
	if r.options.codec == nil {
		r.options.codec = codec.For(r.Body)
	}
	net := c.network.Load()
	if net == nil {
		var err error
		if net, err = c.connect(); err != nil {
			return err
		}
	}
	if r.options.address != "" {
		n := &Node{ID: r.options.address, Address: r.options.address, peer: net.peers.acquire(r.options.address)}
		defer net.peers.release(n.peer)
		err := c.once(ctx, n, r, 0)
		r.attempted(n, err)
		return tell(r, n, err)
	}
	s := net.table.usable(r.Service)
	if s == nil {
		var err error
		if s, err = c.lookUp(ctx, net.table, r); err != nil {
			return err
		}
	}
	return c.retry(ctx, s, r)
}

func (c *Client) lookUp(ctx context.Context, t *table, r *Request) (*service, error) {
	ctx, cancel := c.bound(ctx, r)
	defer cancel()
	return t.lookUp(ctx, r.Service)
}

// due is when r ends if its context does not say: all that is done for it share the time. It is asked for where
// something has to be waited for, because the clock is not free.
func (c *Client) due(r *Request) time.Time {
	if r.deadline.IsZero() {
		r.deadline = time.Now().Add(c.timeout(r))
	}
	return r.deadline
}

// timeout is how long r may take if its context does not say.
func (c *Client) timeout(r *Request) time.Duration {
	if r.options.timeout > 0 {
		return r.options.timeout
	}
	return c.opts.Timeout
}

// bound returns ctx with the deadline of r. The context of a stream is for all of its life: what is done to open it has
// the timeout of a call.
func (c *Client) bound(ctx context.Context, r *Request) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok && !r.Stream {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, c.due(r))
}

// retry calls one node after the other, while that is safe and there is time and budget for it.
func (c *Client) retry(ctx context.Context, s *service, r *Request) error {
	var tried []*Node
	for {
		n, patience, err := c.pick(s, r, tried)
		if err != nil {
			return err
		}
		err = c.once(ctx, n, r, patience)
		r.attempted(n, err)
		if err == nil {
			c.budget.refill()
			return nil
		}
		tried = append(tried, n)
		if !retriable(n, r, err) || len(tried) >= c.opts.Attempts || !c.budget.take() || !c.pause(ctx, r, len(tried), err) {
			return tell(r, n, err)
		}
	}
}

// retriable says whether the call may be made again: it cannot have run, or may run twice.
func retriable(n *Node, r *Request, err error) bool {
	var e *mux.Error
	if !errors.As(err, &e) {
		return false
	}
	if e.NotRun {
		return e.Status.Code == status.Unavailable || e.Status.Code == status.ResourceExhausted
	}
	return e.Lost && !r.Stream && n.idempotent[r.Endpoint]
}

// impatience is how long a call waits to be connected to one node while there are others.
const impatience = 300 * time.Millisecond

// pick chooses a node, if it can one that was not tried yet and is connected: one that is not is being connected for the
// calls to come. Patience is how long the call may wait for a connection; 0: as long as it has time.
func (c *Client) pick(s *service, r *Request, tried []*Node) (n *Node, patience time.Duration, err error) {
	nodes := s.usable()
	if len(r.options.filters) > 0 {
		nodes = slices.DeleteFunc(slices.Clone(nodes), func(n *Node) bool {
			return slices.ContainsFunc(r.options.filters, func(f Filter) bool { return !f(n) })
		})
	}
	if len(nodes) == 0 {
		return nil, 0, s.nobody(len(r.options.filters) > 0)
	}
	if len(tried) > 0 {
		nodes = preferred(nodes, func(n *Node) bool {
			return !slices.ContainsFunc(tried, func(t *Node) bool { return t.peer == n.peer })
		})
	}
	if n = c.choose(nodes, r); len(nodes) == 1 || n.peer.usable() != nil {
		return n, 0, nil
	}
	n.peer.connectSoon()
	connected := preferred(nodes, func(n *Node) bool { return n.peer.usable() != nil })
	if len(connected) < len(nodes) {
		n = c.choose(connected, r)
	}
	return n, impatience, nil
}

func (c *Client) choose(nodes []*Node, r *Request) *Node {
	if len(nodes) == 1 {
		return nodes[0]
	}
	return c.opts.Balancer.Pick(nodes, r.options.key)
}

// preferred are those nodes that f takes, or all if it takes none.
func preferred(nodes []*Node, f func(*Node) bool) []*Node {
	some := slices.DeleteFunc(slices.Clone(nodes), func(n *Node) bool { return !f(n) })
	if len(some) == 0 {
		return nodes
	}
	return some
}

// once makes the call on one node, and lets the node's standing know how it went.
func (c *Client) once(ctx context.Context, n *Node, r *Request, patience time.Duration) error {
	conn := n.peer.usable()
	if conn == nil {
		var err error
		if conn, err = c.connectTo(ctx, n, r, patience); err != nil {
			return err
		}
	}
	req := mux.Request{Service: r.Service, Endpoint: r.Endpoint, Metadata: metadata.Outgoing(ctx), Codec: r.options.codec, Body: r.Body}
	if r.Stream {
		return c.openOnce(ctx, n, conn, &req, r)
	}
	start := n.peer.begin()
	req.Timeout = c.timeout(r)
	if !r.deadline.IsZero() {
		req.Timeout = max(r.deadline.Sub(start), 1)
	}
	body, err := conn.Call(ctx, &req)
	n.end(start, err)
	if err != nil {
		return err
	}
	return decode(body, r)
}

var errImpatient = fmt.Errorf("not connected within %v", impatience)

func (c *Client) connectTo(ctx context.Context, n *Node, r *Request, patience time.Duration) (*mux.Client, error) {
	ctx, cancel := c.bound(ctx, r)
	defer cancel()
	if patience > 0 {
		var done context.CancelFunc
		ctx, done = context.WithTimeoutCause(ctx, patience, errImpatient)
		defer done()
	}
	return n.peer.connect(ctx)
}

func decode(body *wire.Buffer, r *Request) error {
	defer body.Release()
	if err := r.options.codec.Decode(body.B, r.Reply); err != nil {
		f := failf(status.Internal, "decode the answer of %s %s into %T: %w", r.Service, r.Endpoint, r.Reply, err)
		f.MayHaveRun = true
		return f
	}
	return nil
}

// tell says what was called and where, unless it is the endpoint's own answer.
func tell(r *Request, n *Node, err error) error {
	var e *mux.Error
	if err == nil || !errors.As(err, &e) {
		return err
	}
	if e.Remote && !e.NotRun {
		return &e.Status
	}
	return failure(e, e.Status.Code, "call %s %s at %s: %s", r.Service, r.Endpoint, n.Address, e.Status.Message)
}
