// Package router is a middleware of the gateway that sends requests where a file says: to endpoints of services, to the
// HTTP address of services, to any URL, or to an answer of its own.
//
//	micro gateway --gateway-middleware=router --middleware-router-file=routes.yaml
//
// The file is YAML or JSON. It is read again when it changes. A file with a mistake is refused with file, line and reason,
// all of them at once, and the routes before stay in use; a gateway does not start with one. What a route would do with a
// request is told by
//
//	micro gateway routes test GET http://shop.example.com/cart/7
//
// An example with most keys; docs/routes.md has all of them:
//
//	upstreams:
//	  shop:
//	    url: [http://10.0.0.1:8080, http://10.0.0.2:8080]
//	    health: {path: /healthz, interval: 5s}
//	    breaker: {failures: 5, open: 10s}
//	routes:
//	- name: cart
//	  priority: 10
//	  match:
//	    methods: [GET, POST]
//	    host: [shop.example.com, "*.shop.example.com"]
//	    template: /cart/{id}
//	    headers: {X-Beta: {absent: true}}
//	  rewrite: {path: "/v2/carts/{id}"}
//	  to:
//	  - {weight: 9, upstream: shop}
//	  - {weight: 1, service_http: newshop}
//	  retries: {attempts: 2, on: [connect, 503]}
//	  timeout: 5s
//	- name: hello
//	  match: {template: "/hello/{name}"}
//	  to: {service: greeter, endpoint: Greeter.Hello}
//	- name: old
//	  match: {prefix: /old}
//	  to: {redirect: {to: "https://{host}/new", status: 308}}
//
// # Order
//
// Of the routes that match, the one with the highest priority (0 unless it says) takes the request, and of several the
// one that is first in the file. What a route matches does not count: put the special ones before the general ones. What
// no route takes goes on to the services by its path, or is answered with 404 if --middleware-router-only is set.
//
// # What is compared is what is forwarded
//
// Host and path are compared, rewritten and forwarded in the normal form that the gateway has made of them. A header or a
// parameter of the query that came more than once meets no condition but present: the server behind might take another of
// its values. Paths are compared with their case.
package router

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/directory"
	"github.com/plugmicro/micro/internal/filewatch"
	outbound "github.com/plugmicro/micro/internal/upstream"
	"github.com/plugmicro/micro/internal/yamlfile"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
)

// Config is set by --middleware-router-*.
type Config struct {
	File        string        `help:"required: file with the routes, YAML or JSON; read again when it changes"`
	Only        bool          `help:"answer 404 to what no route takes, instead of calling the service that the path names"`
	Timeout     time.Duration `default:"30s" help:"until the head of an answer is there, for routes that do not say"`
	IdleTimeout time.Duration `default:"5m" help:"how long nothing may move in a body, a WebSocket or a stream of events, for routes that do not say"`
	MaxBody     plugin.Size   `default:"0B" help:"bytes of a request's body, for routes that do not say; 0: what the gateway allows"`
	TLS         plugin.TLS    // for upstreams with https; those are verified by the system's authorities unless it says otherwise
}

// Validate is called when the settings are loaded.
func (c Config) Validate() error {
	switch {
	case c.File == "":
		return errors.New("file: name the file with the routes")
	case c.Timeout <= 0 || c.IdleTimeout <= 0 || c.MaxBody < 0:
		return errors.New("timeout and idle-timeout must be above 0, max-body 0 or above")
	}
	return nil
}

func init() {
	plugin.Register("router", New, plugin.Doc("sends requests where a file of routes says: services, URLs, redirects, fixed answers"))
}

// Router is the middleware.
type Router struct {
	config  Config
	env     *plugin.Env
	log     *slog.Logger
	metrics *metrics
	ctx     context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup // copies on their way
	mirrors chan struct{}
	plain   *outbound.Transport // for http://
	secure  *http.Transport     // for https://
	watch   *filewatch.Watch
	dir     *directory.Directory // nil until a route needs it
	table   atomic.Pointer[table]

	told limits // what clients did
}

var (
	_ gateway.Last         = (*Router)(nil)
	_ prometheus.Collector = (*Router)(nil)
	_ io.Closer            = (*Router)(nil)
)

// table is what one reading of the file gave. Requests keep the one they began with.
type table struct {
	routes []*route
	index  *index
	pools  map[string]*upstream // by the keys of their specs
}

// New reads the file and follows it.
func New(env *plugin.Env, c Config) (gateway.Middleware, error) {
	m, err := open(env, c)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func open(env *plugin.Env, c Config) (*Router, error) {
	tlsConfig, err := c.TLS.Client()
	if err != nil {
		return nil, err
	}
	m := &Router{config: c, env: env, log: env.Logger(), metrics: newMetrics(), mirrors: make(chan struct{}, maxMirrored)}
	m.ctx, m.cancel = context.WithCancel(env.Context())
	m.plain = outbound.New(outbound.Options{DialTimeout: dialTimeout, IdleTimeout: keepIdle})
	m.secure = &http.Transport{
		DialContext:     (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig: tlsConfig, TLSHandshakeTimeout: dialTimeout, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 512, IdleConnTimeout: keepIdle, DisableCompression: true,
		ExpectContinueTimeout: time.Second, MaxResponseHeaderBytes: 256 << 10,
	}
	m.table.Store(&table{index: newIndex(nil)})
	if m.watch, err = filewatch.Follow(c.File, m.log, m.load); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

const (
	dialTimeout = 5 * time.Second
	keepIdle    = 50 * time.Second // servers commonly close after 60 s
)

// Close is called when no request is in the router any more.
func (m *Router) Close() error {
	m.cancel() // so that it does not wait for a registry
	err := m.watch.Close()
	m.close()
	return err
}

func (m *Router) close() {
	m.cancel()
	m.work.Wait()
	for _, u := range m.table.Load().pools {
		u.close()
	}
	if m.dir != nil {
		m.dir.Close()
	}
	m.secure.CloseIdleConnections()
	_ = m.plain.Close() // never fails
}

// maxLogged is how many mistakes of a file the log has; Check says more.
const maxLogged = 20

// load puts a file into use.
func (m *Router) load(data []byte) error {
	doc, err := parse(m.config.File, data, m.config)
	if err == nil {
		err = m.follow(doc)
	}
	if err != nil {
		m.metrics.reloads.WithLabelValues("refused").Inc()
		return yamlfile.Shorten(err, maxLogged)
	}
	m.use(doc)
	m.metrics.reloads.WithLabelValues("used").Inc()
	return nil
}

// follow opens the registry, if the routes need it. It waits a moment for what is in it: the first requests need that.
func (m *Router) follow(doc *document) error {
	needed := slices.ContainsFunc(doc.specs(), func(s *upstreamSpec) bool { return s.service != "" })
	if !needed || m.dir != nil {
		return nil
	}
	reg, err := plugin.Use[registry.Registry](m.env)
	if err != nil {
		return err
	}
	m.dir = directory.Follow(reg, m.log)
	ctx, cancel := context.WithTimeout(m.ctx, 2*time.Second)
	defer cancel()
	_ = m.dir.Await(ctx) // without it, the directory logs why
	return nil
}

// specs are all upstreams that the document speaks of.
func (d *document) specs() []*upstreamSpec {
	var specs []*upstreamSpec
	for _, s := range d.upstreams {
		specs = append(specs, s)
	}
	for _, r := range d.routes {
		for _, t := range r.targets {
			if t.upstream != nil {
				specs = append(specs, t.upstream)
			}
		}
		if r.mirror != nil {
			specs = append(specs, r.mirror.upstream)
		}
	}
	return specs
}

// use replaces the routes. What is known of upstreams that are still there is kept, and so are their connections.
func (m *Router) use(doc *document) {
	before := m.table.Load()
	t := &table{routes: doc.routes, index: newIndex(doc.routes), pools: make(map[string]*upstream)}
	for _, s := range doc.specs() {
		t.pools[s.key()] = before.pools[s.key()]
	}
	named := make(map[string]*upstream)
	for key, u := range before.pools {
		if _, ok := t.pools[key]; !ok {
			u.close()
			named[u.spec.name] = u
		}
	}
	pool := func(s *upstreamSpec) *upstream {
		key := s.key()
		if t.pools[key] == nil {
			t.pools[key] = m.newUpstream(s, named[s.name])
		}
		return t.pools[key]
	}
	for _, s := range doc.specs() {
		pool(s)
	}
	for _, r := range doc.routes {
		for _, target := range r.targets {
			if target.upstream != nil {
				target.pool = pool(target.upstream)
			}
		}
		if r.mirror != nil {
			r.mirror.pool = pool(r.mirror.upstream)
		}
	}
	m.table.Store(t)
}

func (m *Router) roundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "https" {
		return m.secure.RoundTrip(r)
	}
	return m.plain.RoundTrip(r)
}

// EndsChain implements gateway.Last: a request that a route takes is answered here.
func (m *Router) EndsChain() {}

// Handler implements gateway.Middleware.
func (m *Router) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info := gateway.Of(r)
		rt := m.table.Load().index.find(r, info.Host, info.Secure)
		switch {
		case rt != nil:
			info.Route = rt.name
			m.serve(w, r, rt, info, next)
		case m.config.Only:
			gateway.Fail(w, r, gateway.NewProblem(http.StatusNotFound, "there is nothing at this address"))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (m *Router) serve(w http.ResponseWriter, r *http.Request, rt *route, info *gateway.Info, next http.Handler) {
	params := rt.match.path.values(r.URL.Path)
	switch t := rt.pick(r, info); {
	case t.pool != nil:
		path, err := rt.rewrite.apply(r.URL.Path, valuesOf(r, params))
		if service := t.upstream.service; err == nil && service != "" {
			err = info.Admit(service, "") // which endpoint it is, only the service knows
		}
		if err != nil {
			gateway.Fail(w, r, err)
			return
		}
		m.proxy(w, r, rt, t.pool, path, info)
	case t.service != nil:
		if err := limitBody(w, r, rt); err != nil {
			gateway.Fail(w, r, err)
			return
		}
		call := *t.service
		call.Timeout = rt.timeout
		info.Target, info.Params = &call, params
		rt.request.apply(r.Header)
		if !rt.response.empty() {
			w = &changedHeader{ResponseWriter: w, change: &rt.response}
		}
		next.ServeHTTP(w, r)
	case t.redirect != nil:
		location, err := t.redirect.location(r, params)
		if err != nil {
			gateway.Fail(w, r, err)
			return
		}
		leaveBody(w, r)
		w.Header().Set("Location", location)
		rt.response.apply(w.Header())
		w.WriteHeader(t.redirect.status)
	default:
		t.respond.serve(w, r, rt)
	}
}

func (a *respond) serve(w http.ResponseWriter, r *http.Request, rt *route) {
	leaveBody(w, r)
	h := w.Header()
	if a.body != "" {
		h.Set("Content-Type", "text/plain; charset=utf-8")
	}
	for name, value := range a.header {
		h[name] = []string{value}
	}
	rt.response.apply(h)
	leaveType(h)
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(a.body)) // who does not read it is gone
	}
}

// leaveBody is for answers that need no body. net/http reads what there is of it, but not of a client that waits to be told
// so, and may send it all the same.
func leaveBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 && r.ProtoMajor == 1 && r.Header.Get("Expect") != "" {
		gateway.EndAfterAnswer(w)
	}
}

// changedHeader changes the header of an answer just before it is sent.
type changedHeader struct {
	http.ResponseWriter
	change *headerChange
	done   bool
}

// Unwrap is for http.ResponseController.
func (c *changedHeader) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *changedHeader) WriteHeader(status int) {
	switch {
	case c.done:
	case status < 200:
		c.change.hold(c.Header())
	default:
		c.done = true
		c.change.apply(c.Header())
		leaveType(c.Header())
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *changedHeader) Write(p []byte) (int, error) {
	if !c.done {
		c.WriteHeader(http.StatusOK)
	}
	return c.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (c *changedHeader) Flush() {
	if !c.done {
		c.WriteHeader(http.StatusOK)
	}
	_ = http.NewResponseController(c.ResponseWriter).Flush() // who cannot flush does not stream
}
