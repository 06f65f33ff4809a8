// Package ipallow lets requests pass by the address of their client:
//
//	micro gateway --gateway-middleware=ipallow --middleware-ipallow-allow=192.0.2.0/24,2001:db8::/32
//
// Choose it first, so that nothing is done for those it refuses. It is also linked as ipwhitelist, its old name; its options
// are --middleware-ipwhitelist-… then.
//
// Who the client is says the gateway (--gateway-trusted-proxies, --gateway-client-header, --gateway-proxy-protocol). A client
// whose address is not known is refused, whatever the lists say.
//
// A list has addresses and prefixes. 0.0.0.0/0 is all of IPv4, and ::/0 all of IPv6. Who is in a deny list is refused, and
// who is not in the allow list, if there is one. Lists of the settings and of the file are put together:
//
//	allow: [192.0.2.0/24, "2001:db8::/32"]
//	deny:
//	  - 192.0.2.66
//	routes:                         # by host and path, as gateway.MatchHost and gateway.HasPrefix have it
//	  - path: /admin
//	    allow: [192.0.2.1]
//	  - host: "*.example.com"
//	    path: /public
//	    allow: [0.0.0.0/0, "::/0"]
//	services:                       # by what is called in the end
//	  - service: accounts
//	    allow: [192.0.2.1]
//	  - service: accounts
//	    endpoint: Accounts.Balance
//	    allow: [192.0.2.0/28]
//
// Of the routes that match, all deny lists count, with the one above; and the allow list of the most specific route that has
// one: an exact host before a wildcard, a longer one before a shorter, then the longer path. No route has one: the one above.
//
// The client of a call must also pass the lists of the service, again all deny lists and the most specific allow list. Where
// the router passes requests on to the HTTP address of a service, only that knows which endpoint is meant: the client
// must be in all allow lists of the service then.
//
// PROTECT A SERVICE BY services, NOT BY A PATH. The same endpoint is called by several paths, and by /v1/rpc, where the body
// names it: a list for the path /accounts says nothing about those. Lists for routes are for what the router sends
// elsewhere, and to narrow or widen what is allowed at some host.
//
// The file is followed while the gateway runs. What is wrong in it, an empty list included, is told with its line and keeps
// the gateway from starting, or the lists before in force. With dry-run nobody is refused: who would be is logged, all of them
// at level debug, and counted in micro_gateway_ipallow_requests_total, by list.
package ipallow

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/clientip"
	"github.com/plugmicro/micro/internal/filewatch"
	"github.com/plugmicro/micro/plugin"
)

func init() {
	plugin.Register("ipallow", New, plugin.Doc("lets requests pass by the address of their client"))
	plugin.Register("ipwhitelist", New, plugin.Doc("the old name of ipallow"))
}

// Config is what --middleware-ipallow-* sets.
type Config struct {
	Allow  []string `help:"addresses and prefixes that may pass; without a list, here or in the file, all may that are not denied"`
	Deny   []string `help:"addresses and prefixes that may not pass, whatever allows them"`
	File   string   `help:"file with more of both, YAML or JSON, and with lists for routes and services; it is followed while the gateway runs"`
	DryRun bool     `help:"refuse nobody: log and count who would be"`
}

// Validate is asked when the settings are loaded.
func (c Config) Validate() error {
	var errs []error
	if c.File == "" && len(c.Allow) == 0 && len(c.Deny) == 0 {
		errs = append(errs, errors.New("there is no list: set allow, deny or file, or do not choose this middleware"))
	}
	return errors.Join(append(errs, check("allow", c.Allow), check("deny", c.Deny))...)
}

func check(option string, list []string) error {
	if list != nil && len(list) == 0 {
		return fmt.Errorf("%s is an empty list: name addresses or prefixes, or remove it", option)
	}
	if _, err := clientip.ParseSet(list); err != nil {
		return fmt.Errorf("%s: %w", option, err)
	}
	return nil
}

// Middleware is the plugin. It is safe for concurrent use.
type Middleware struct {
	config  Config
	log     *slog.Logger
	lists   atomic.Pointer[lists]
	counted *prometheus.CounterVec
	unknown *rule // counts clients that are not known
	watch   *filewatch.Watch
}

var (
	_ gateway.Middleware   = (*Middleware)(nil)
	_ prometheus.Collector = (*Middleware)(nil)
)

// New reads the lists.
func New(env *plugin.Env, c Config) (gateway.Middleware, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m := &Middleware{config: c, log: env.Logger(), counted: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name:        "micro_gateway_ipallow_requests_total",
		Help:        "Requests by the list that decided, and what it did: allowed, denied, or would_deny in a dry run.",
		ConstLabels: prometheus.Labels{"plugin": env.Name()},
	}, []string{"list", "did"})}
	m.unknown = m.counting(&rule{name: "client unknown"})
	if c.File == "" {
		return m, m.load(nil)
	}
	var err error
	if m.watch, err = filewatch.Follow(c.File, m.log, m.load); err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	return m, nil
}

// load puts what the file says in force, with what the settings say.
func (m *Middleware) load(data []byte) error {
	l, err := parse(m.config, data)
	if err != nil {
		return err
	}
	for _, rules := range []rules{l.routes, l.services} {
		for _, r := range rules {
			m.counting(r)
		}
	}
	m.lists.Store(l)
	return nil
}

func (m *Middleware) counting(r *rule) *rule {
	denied := "denied"
	if m.config.DryRun {
		denied = "would_deny"
	}
	r.allowed, r.denied = m.counted.WithLabelValues(r.name, "allowed"), m.counted.WithLabelValues(r.name, denied)
	return r
}

// Handler implements gateway.Middleware.
func (m *Middleware) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info := gateway.Of(r)
		by, ok := m.unknown, false
		lists := m.lists.Load()
		if info.Client.IsValid() {
			by, ok = lists.routes.decide(info.Host, r.URL.Path, info.Client)
		}
		if err := m.settle(info, by, ok); err != nil {
			gateway.Fail(w, r, err)
			return
		}
		if len(lists.services) > 0 || m.watch != nil {
			info.Guard(func(service, endpoint string) error { return m.admit(info, service, endpoint) })
		}
		next.ServeHTTP(w, r)
	})
}

// admit is asked before a service is called, by the lists that are in force then.
func (m *Middleware) admit(info *gateway.Info, service, endpoint string) error {
	if !info.Client.IsValid() {
		return nil // a dry run: it was counted when it came
	}
	services := m.lists.Load().services
	by, ok := services.decide(service, endpoint, info.Client)
	if endpoint == "" {
		by, ok = services.decideAnyEndpoint(service, info.Client)
	}
	if by == nil {
		return nil
	}
	return m.settle(info, by, ok)
}

// settle counts what a list decided; its error refuses the request, and tells nothing of the lists.
func (m *Middleware) settle(info *gateway.Info, by *rule, ok bool) error {
	if ok {
		by.allowed.Inc()
		return nil
	}
	by.denied.Inc()
	msg := "request refused"
	if m.config.DryRun {
		msg = "request would be refused"
	}
	args := []any{"client", shown(info.Client), "list", by.name, "request_id", info.ID}
	m.log.Debug(msg, args...)
	by.limit.Warn(m.log, msg, args...)
	if m.config.DryRun {
		return nil
	}
	return gateway.NewProblem(http.StatusForbidden, "this is not allowed from the address that the request comes from")
}

func shown(client netip.Addr) string {
	if !client.IsValid() {
		return "unknown"
	}
	return client.String()
}

// Close ends the following of the file.
func (m *Middleware) Close() error {
	if m.watch == nil {
		return nil
	}
	return m.watch.Close()
}

// Describe implements prometheus.Collector.
func (m *Middleware) Describe(c chan<- *prometheus.Desc) { m.counted.Describe(c) }

// Collect implements prometheus.Collector.
func (m *Middleware) Collect(c chan<- prometheus.Metric) { m.counted.Collect(c) }
