package consul

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// maxConns is what one process uses of the 200 connections that an agent takes from one address.
const maxConns = 32

// endpoint is where an agent listens.
type endpoint struct {
	scheme, address string // address may end with a path
	socket          string // of a Unix domain socket; empty: TCP
}

func parseEndpoint(text string, tls bool) (endpoint, error) {
	shown := withoutSecrets(text)
	scheme, rest, isURL := strings.Cut(text, "://")
	switch {
	case !isURL && strings.Contains(text, "@"):
		return endpoint{}, fmt.Errorf("address %q: a user and a password are not taken here, use token", shown)
	case !isURL:
		if _, port, err := net.SplitHostPort(text); err != nil || port == "" {
			return endpoint{}, fmt.Errorf("address %q is not host:port, as in 127.0.0.1:8500", shown)
		}
		if tls {
			return endpoint{scheme: "https", address: text}, nil
		}
		return endpoint{scheme: "http", address: text}, nil
	case scheme == "unix":
		if !strings.HasPrefix(rest, "/") {
			return endpoint{}, fmt.Errorf("address %q: the path of the socket must be absolute, as in unix:///run/consul.sock", shown)
		}
		return endpoint{scheme: "http", address: "localhost", socket: rest}, nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || scheme != "http" && scheme != "https":
		return endpoint{}, fmt.Errorf("address %q is neither host:port nor a URL with http, https or unix", shown)
	case u.User != nil:
		return endpoint{}, fmt.Errorf("address %q: a user and a password are not taken here, use token", shown)
	case u.RawQuery != "" || u.Fragment != "":
		return endpoint{}, fmt.Errorf("address %q: nothing can follow the path", shown)
	case tls && scheme == "http":
		return endpoint{}, fmt.Errorf("address %q contradicts the tls options: write https", shown)
	}
	return endpoint{scheme: scheme, address: strings.TrimSuffix(rest, "/")}, nil
}

// withoutSecrets keeps passwords, and tokens in queries, out of errors.
func withoutSecrets(text string) string {
	if i := strings.LastIndexByte(text, '@'); i >= 0 {
		start := ""
		if scheme, _, _ := strings.Cut(text, "://"); scheme == "http" || scheme == "https" {
			start = scheme + "://"
		}
		text = start + "***" + text[i:]
	}
	if i := strings.IndexAny(text, "?#"); i >= 0 {
		text = text[:i+1] + "***"
	}
	return text
}

// agent is one of those in the settings.
type agent struct {
	name   string // as in the settings
	client *api.Client
	conns  *http.Transport

	parent context.Context
	mu     sync.Mutex
	ctx    context.Context // what long polls stand on: ends when a request is not answered
	cancel context.CancelCauseFunc
}

// errSilent is why a session ended.
var errSilent = errors.New("another request was not answered")

func newAgent(ctx context.Context, name string, c Config) (*agent, error) {
	e, err := parseEndpoint(name, c.TLS.Enabled())
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}}
	a := &agent{name: name, parent: ctx, conns: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: c.Timeout,
		MaxConnsPerHost:     maxConns,
		MaxIdleConnsPerHost: maxConns,
		IdleConnTimeout:     time.Minute,
	}}
	if a.conns.TLSClientConfig, err = c.TLS.Client(); err != nil {
		return nil, err
	}
	if e.socket != "" {
		a.conns.Proxy = nil
		a.conns.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", e.socket)
		}
	}
	config := &api.Config{
		Address: e.scheme + "://" + e.address, Scheme: e.scheme, Namespace: c.Namespace, Partition: c.Partition,
		Token: "-", // or the library takes one from the environment; ownSettings replaces it
		// No Timeout: it would end long polls.
		HttpClient: &http.Client{Transport: &ownSettings{a.conns, c}},
	}
	if a.client, err = api.NewClient(config); err != nil {
		return nil, err
	}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	return a, nil
}

// ownSettings undoes what the client library takes from CONSUL_* in the environment: what holds is what `micro config`
// shows.
type ownSettings struct {
	next   http.RoundTripper
	config Config
}

func (o *ownSettings) RoundTrip(req *http.Request) (*http.Response, error) {
	q := req.URL.Query()
	keep := func(key, own string) {
		if own == "" {
			q.Del(key)
		}
	}
	keep("ns", o.config.Namespace)
	keep("partition", o.config.Partition)
	own := req.Clone(req.Context())
	own.URL.RawQuery = q.Encode()
	own.Header.Del("X-Consul-Token")
	if token := o.config.Token.Reveal(); token != "" {
		own.Header.Set("X-Consul-Token", token)
	}
	return o.next.RoundTrip(own)
}

// session ends when a request was not answered: whoever waits for this agent is better off asking anew.
func (a *agent) session() context.Context {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ctx
}

func (a *agent) endSession() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cancel(errSilent)
	a.ctx, a.cancel = context.WithCancelCause(a.parent)
}

// agents are tried in order, beginning with the one that answered last.
type agents struct {
	list     []*agent
	timeout  time.Duration
	answered chan struct{} // holds a token when a request was answered

	mu      sync.Mutex
	current int
}

func newAgents(ctx context.Context, c Config) (*agents, error) {
	as := &agents{timeout: c.Timeout, answered: make(chan struct{}, 1)}
	for _, name := range c.Address {
		a, err := newAgent(ctx, name, c)
		if err != nil {
			return nil, err
		}
		as.list = append(as.list, a)
	}
	return as, nil
}

func (as *agents) close() {
	for _, a := range as.list {
		a.cancel(nil)
		a.conns.CloseIdleConnections()
	}
}

func (as *agents) first() int {
	as.mu.Lock()
	defer as.mu.Unlock()
	return as.current
}

// pick is the agent to talk to.
func (as *agents) pick() *agent { return as.list[as.first()] }

func (as *agents) prefer(i int) {
	as.mu.Lock()
	as.current = i
	as.mu.Unlock()
	select {
	case as.answered <- struct{}{}:
	default:
	}
}

// do calls f with one agent after the other until one answers, be it with a refusal. Each gets its share of the timeout.
func (as *agents) do(ctx context.Context, f func(context.Context, *agent) error) error {
	ctx, cancel := context.WithTimeout(ctx, as.timeout)
	defer cancel()
	begin := as.first()
	var errs []error
	for i := range as.list {
		at := (begin + i) % len(as.list)
		a := as.list[at]
		err := as.try(ctx, a, len(as.list)-i, f)
		if isAnswer(err) {
			as.prefer(at)
			return explain(a, err, as.timeout)
		}
		var status api.StatusError
		if !errors.As(err, &status) && ctx.Err() != context.Canceled {
			a.endSession()
		}
		errs = append(errs, explain(a, err, as.timeout/time.Duration(len(as.list)-i)))
	}
	return errors.Join(errs...)
}

func (as *agents) try(ctx context.Context, a *agent, left int, f func(context.Context, *agent) error) error {
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
	defer cancel()
	return f(ctx, a)
}

// isAnswer tells a refusal, which other agents would repeat, from an agent that is in trouble.
func isAnswer(err error) bool {
	var status api.StatusError
	return err == nil || errors.As(err, &status) && status.Code/100 == 4 && status.Code != http.StatusTooManyRequests
}

func isUnknown(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) && status.Code == http.StatusNotFound
}

// explain says who failed, why, and what to look at, in a line. What was attempted is the caller's to say.
func explain(a *agent, err error, timeout time.Duration) error {
	var status api.StatusError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &status):
		body := strings.Join(strings.Fields(status.Body), " ")
		return fmt.Errorf("consul %s refused: %d %.300s%s%w", a.name, status.Code, cmp.Or(body, http.StatusText(status.Code)), refusalHint(status), quiet{err})
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("consul %s: no answer within %v: check --registry-address and --registry-timeout%w", a.name, timeout.Round(time.Millisecond), quiet{err})
	}
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err // without the long URL
	}
	text, hint := failure(err)
	return fmt.Errorf("consul %s: %s%s%w", a.name, text, hint, quiet{err})
}

func refusalHint(status api.StatusError) string {
	switch {
	case status.Code == http.StatusForbidden, status.Code == http.StatusUnauthorized:
		return " (set --registry-token to an ACL token that may do this)"
	case strings.Contains(status.Body, "HTTP request to an HTTPS server"):
		return " (set --registry-tls-enable, or write https:// in --registry-address)"
	case status.Code == http.StatusNotFound && !strings.HasPrefix(status.Body, "Unknown "):
		return " (is it Consul's HTTP port? check --registry-address)"
	}
	return ""
}

// failure words what came instead of an answer, and what to do.
func failure(err error) (text, hint string) {
	const isIt = ": is it Consul's HTTP port, and does it speak TLS? check --registry-address and --registry-tls-enable"
	var op *net.OpError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	text = err.Error()
	switch {
	case errors.Is(err, errSilent), errors.Is(err, context.Canceled):
		return text, ""
	case errors.Is(err, http.ErrSchemeMismatch):
		return "it answered without TLS", ": leave the options --registry-tls-… out, or check the port in --registry-address"
	case errors.As(err, &unknown):
		return text, ": set --registry-tls-ca to the certificates of the server's authorities"
	case errors.As(err, &name):
		return text, ": set --registry-tls-server-name to a name that the certificate is for"
	case errors.As(err, &op) && op.Op == "dial":
		return op.Err.Error(), ": does an agent listen there? check --registry-address" // the address is told already
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return text, ": check HTTP_PROXY, HTTPS_PROXY and NO_PROXY in the environment"
	case errors.As(err, &op) && op.Op == "remote error":
		return text, ": check --registry-tls-cert and --registry-tls-key" // an alert of TLS: it does not like what it was shown
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it closed the connection without an answer", isIt
	case strings.Contains(text, "malformed HTTP"):
		return "what it answered is not HTTP", isIt
	}
	return text, isIt
}

// quiet is a cause that can be matched, but has been told in other words.
type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }
