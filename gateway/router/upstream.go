package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/plugmicro/micro/gateway/directory"
)

// upstreamSpec is what the file says of an upstream: servers that answer the same.
type upstreamSpec struct {
	name    string
	named   bool // in upstreams; others are known by what they are
	line    int
	urls    []string
	service string // whose nodes answer HTTP
	version string
	health  *health
	breaker breakerSpec
}

type health struct {
	path              string
	interval, timeout time.Duration
	up, down          int // answers in a row that change what is thought of a server
}

type breakerSpec struct {
	failures int // in a row; 0: never opens
	open     time.Duration
	statuses []int // that are failures, beside having no answer
}

func newUpstreamSpec(line int) *upstreamSpec {
	return &upstreamSpec{line: line, breaker: breakerSpec{failures: 5, open: 5 * time.Second}}
}

// key is the same for specs that say the same: what is known of their servers stays known when the file is read again.
func (s *upstreamSpec) key() string {
	key := fmt.Sprintf("%q %q %q %v", s.urls, s.service, s.version, s.breaker)
	if s.named {
		key = fmt.Sprintf("%s %s", s.name, key)
	}
	if s.health != nil {
		key += fmt.Sprintf(" %+v", *s.health)
	}
	return key
}

// sameCare says whether servers are judged the same way.
func (s *upstreamSpec) sameCare(o *upstreamSpec) bool {
	return s.breaker.failures == o.breaker.failures && s.breaker.open == o.breaker.open && slices.Equal(s.breaker.statuses, o.breaker.statuses) &&
		(s.health == nil) == (o.health == nil) && (s.health == nil || *s.health == *o.health)
}

// parseUpstreamURL takes a scheme, a host and a path to put before others.
func parseUpstreamURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("this is no URL: write http://host:port")
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		return nil, fmt.Errorf("%s is no URL of an upstream: write http://host:port or https://host", u.Redacted())
	case u.User != nil:
		return nil, fmt.Errorf("%s has a password in it: set the header Authorization by request_headers", u.Host)
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return nil, fmt.Errorf("%s has a query or a fragment: the request's own query is sent", u.Redacted())
	}
	u.Path = cmp.Or(u.Path, "/")
	if err := checkPath(u.Path); err != nil || u.RawPath != "" {
		return nil, cmp.Or(err, errors.New("the path of the URL is written decoded"))
	}
	return u, nil
}

func urlLabel(text string) string {
	if u, err := url.Parse(text); err == nil {
		return u.Host
	}
	return "?"
}

// server is one of an upstream.
type server struct {
	url     *url.URL
	label   string
	breaker *gobreaker.TwoStepCircuitBreaker[any] // nil: there is none
	down    atomic.Bool                           // by the checks of its health
	row     int                                   // answers in a row that speak against down; of the checker alone
}

// upstream is an upstream in use.
type upstream struct {
	spec    *upstreamSpec
	log     *slog.Logger
	metrics *metrics
	dir     *directory.Directory // of a service
	get     func(*http.Request) (*http.Response, error)
	turn    atomic.Uint64
	budget  budget

	answered sync.Map // counters of requests, by counterKey
	told     limits   // failures

	mu      sync.Mutex // for replacing servers
	servers atomic.Pointer[servers]

	stop context.CancelFunc
	done sync.WaitGroup
}

type servers struct {
	generation uint64
	list       []*server
}

// newUpstream starts the checks of health. What before, if there is one, knows of the same servers stays known.
func (m *Router) newUpstream(spec *upstreamSpec, before *upstream) *upstream {
	u := &upstream{spec: spec, log: m.log.With("upstream", spec.name), metrics: m.metrics, get: m.roundTrip}
	u.budget.tokens.Store(budgetStart)
	if spec.service != "" {
		u.dir = m.dir
	}
	u.servers.Store(new(servers))
	if before != nil && before.spec.sameCare(spec) {
		u.servers.Store(&servers{list: before.servers.Load().list})
	}
	u.resolve()
	ctx, cancel := context.WithCancel(context.Background())
	u.stop = cancel
	if spec.health != nil {
		u.done.Go(func() { u.watch(ctx) })
	}
	return u
}

// close ends the checks. Requests that are on their way are not touched.
func (u *upstream) close() {
	u.stop()
	u.done.Wait()
}

// current returns the servers there are now.
func (u *upstream) current() []*server {
	s := u.servers.Load()
	if u.dir != nil && s.generation != u.dir.Generation() {
		u.resolve()
		s = u.servers.Load()
	}
	return s.list
}

// resolve makes the list of servers anew, out of the URLs or the registry.
func (u *upstream) resolve() {
	u.mu.Lock()
	defer u.mu.Unlock()
	next := &servers{}
	var urls []*url.URL
	if u.dir != nil {
		next.generation = u.dir.Generation()
		urls = u.ofService()
	}
	for _, text := range u.spec.urls {
		if parsed, err := parseUpstreamURL(text); err == nil {
			urls = append(urls, parsed)
		}
	}
	known := make(map[string]*server)
	for _, s := range u.servers.Load().list {
		known[s.url.String()] = s
	}
	for _, target := range urls {
		s := known[target.String()]
		if s == nil {
			s = &server{url: target, label: target.Host}
			s.breaker = u.newBreaker(s.label)
		}
		if !slices.Contains(next.list, s) {
			next.list = append(next.list, s)
		}
	}
	u.servers.Store(next)
}

// metadataHTTP is the key in a node's metadata under which a service that listens for HTTP, too, says where: host:port, or
// a URL. Services of others, registered in Consul, have that address as their own.
const metadataHTTP = "http"

func (u *upstream) ofService() []*url.URL {
	var urls []*url.URL
	for _, s := range u.dir.Service(u.spec.service) {
		if u.spec.version != "" && s.Version != u.spec.version {
			continue
		}
		for _, n := range s.Nodes {
			address := cmp.Or(n.Metadata[metadataHTTP], n.Address)
			if !strings.Contains(address, "://") {
				address = "http://" + address
			}
			target, err := parseUpstreamURL(address)
			if err != nil {
				u.log.Warn("a node of the service has no HTTP address: it is left out", "service", s.Name, "node", n.ID, "error", err)
				continue
			}
			urls = append(urls, target)
		}
	}
	return urls
}

func (u *upstream) newBreaker(label string) *gobreaker.TwoStepCircuitBreaker[any] {
	if u.spec.breaker.failures == 0 {
		return nil
	}
	limit := uint32(u.spec.breaker.failures)
	return gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
		Timeout:     u.spec.breaker.open,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= limit },
		IsExcluded:  func(err error) bool { return errors.Is(err, errNotTheServer) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			switch to {
			case gobreaker.StateOpen:
				u.metrics.ejections.WithLabelValues(u.spec.name, "failures").Inc()
				u.log.Warn("the server fails: it is left out for a while", "server", label, "for", u.spec.breaker.open)
			case gobreaker.StateClosed:
				u.log.Info("the server answers again", "server", label)
			}
		},
	})
}

// errNotTheServer is reported to a breaker when it was the client that ended a request.
var errNotTheServer = errors.New("not the server's fault")

// errNoServer is why nothing is sent.
var errNoServer = errors.New("no server of the upstream can be asked")

// choose takes the next server in turn whose circuit is not open, not one of tried unless there is no other. Servers that
// are down by the checks of their health are asked if there is no other: the checks can be what is wrong. report must be
// called with what became of it.
func (u *upstream) choose(tried []*server) (s *server, report func(error), err error) {
	list := u.current()
	if len(list) == 0 {
		return nil, nil, errNoServer
	}
	start := u.turn.Add(1)
	for _, pass := range []func(*server) bool{
		func(s *server) bool { return !s.down.Load() && !slices.Contains(tried, s) },
		func(s *server) bool { return s.down.Load() && !slices.Contains(tried, s) },
		func(s *server) bool { return slices.Contains(tried, s) },
	} {
		for i := range list {
			s := list[(start+uint64(i))%uint64(len(list))]
			if !pass(s) {
				continue
			}
			if s.breaker == nil {
				return s, func(error) {}, nil
			}
			if report, err := s.breaker.Allow(); err == nil {
				return s, report, nil
			}
		}
	}
	return nil, nil, errNoServer
}

// states counts the servers by what is thought of them.
func (u *upstream) states() map[string]int {
	states := map[string]int{"up": 0, "unhealthy": 0, "failing": 0}
	for _, s := range u.current() {
		switch {
		case s.breaker != nil && s.breaker.State() == gobreaker.StateOpen:
			states["failing"]++
		case s.down.Load():
			states["unhealthy"]++
		default:
			states["up"]++
		}
	}
	return states
}

// watch checks the health of all servers now and then.
func (u *upstream) watch(ctx context.Context) {
	tick := time.NewTicker(u.spec.health.interval)
	defer tick.Stop()
	for {
		var checks sync.WaitGroup
		for _, s := range u.current() {
			checks.Go(func() { u.check(ctx, s) })
		}
		checks.Wait()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (u *upstream) check(ctx context.Context, s *server) {
	h := u.spec.health
	err := u.ask(ctx, s)
	if ctx.Err() != nil {
		return
	}
	down := s.down.Load()
	if (err != nil) == down {
		s.row = 0
		return
	}
	s.row++
	switch {
	case down && s.row >= h.up:
		s.down.Store(false)
		u.log.Info("the server is healthy again", "server", s.label)
	case !down && s.row >= h.down:
		s.down.Store(true)
		u.metrics.ejections.WithLabelValues(u.spec.name, "health").Inc()
		u.log.Warn("the server is not healthy: it is left out", "server", s.label, "error", err)
	default:
		return
	}
	s.row = 0
}

func (u *upstream) ask(ctx context.Context, s *server) error {
	ctx, cancel := context.WithTimeout(ctx, u.spec.health.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url.String(), nil)
	if err != nil {
		return err
	}
	setPath(r.URL, joinPath(s.url.Path, u.spec.health.path))
	r.Header.Set("User-Agent", "micro-gateway-health")
	res, err := u.get(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // for the connection to be used again
	if res.StatusCode < 200 || res.StatusCode >= 400 {
		return fmt.Errorf("it answers %s", res.Status)
	}
	return nil
}

func joinPath(base, path string) string {
	if base == "/" {
		return path
	}
	return strings.TrimSuffix(base, "/") + path
}

// budget bounds how much retries add to what an upstream is asked: a fifth, and ten at once.
type budget struct{ tokens atomic.Int64 }

const (
	budgetStart = 10 * retryCost
	budgetMost  = 100 * retryCost
	retryCost   = 5 // requests that pay for one retry
)

func (b *budget) pay() {
	if b.tokens.Load() < budgetMost {
		b.tokens.Add(1)
	}
}

func (b *budget) take() bool {
	if b.tokens.Add(-retryCost) >= 0 {
		return true
	}
	b.tokens.Add(retryCost)
	return false
}
