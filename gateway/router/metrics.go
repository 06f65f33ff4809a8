package router

import (
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/loglimit"
	outbound "github.com/plugmicro/micro/internal/upstream"
)

// outcome is how passing on a request ended.
type outcome string

const (
	answered       outcome = "answered"        // by the upstream, with whatever status, to the end
	clientGone     outcome = "client_gone"     // before it had sent all, or had the whole answer
	clientSlow     outcome = "client_slow"     // in sending its body
	tooLarge       outcome = "too_large"       // its body
	badRequest     outcome = "bad_request"     // it cannot be passed on as it is
	silentUpstream outcome = "timeout"         // no head of an answer in time
	stalled        outcome = "idle"            // nothing moved any more
	unreachable    outcome = "unreachable"     // no answer
	noServer       outcome = "no_server"       // none was asked
	broken         outcome = "upstream_broken" // in the middle of an answer, or by one that cannot be passed on
)

// ofClient says that it is the client's fault, of which no server is the worse.
func (o outcome) ofClient() bool {
	return o == clientGone || o == clientSlow || o == tooLarge || o == badRequest
}

// problem is what the client is told. Where upstreams are, and what they said, is for the log.
func (o outcome) problem(rt *route) *gateway.Problem {
	switch o {
	case clientGone:
		return gateway.NewProblem(gateway.ClientClosed, "the client is gone")
	case clientSlow:
		return gateway.NewProblem(http.StatusRequestTimeout, "nothing of the body came for %s", rt.idle)
	case tooLarge:
		return gateway.NewProblem(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", rt.maxBody)
	case badRequest:
		return gateway.NewProblem(http.StatusBadRequest, "the request cannot be passed on as it is")
	case silentUpstream:
		return gateway.NewProblem(http.StatusGatewayTimeout, "there was no answer within %s", rt.timeout)
	case noServer:
		return gateway.NewProblem(http.StatusServiceUnavailable, "no server can take the request now")
	case broken:
		return gateway.NewProblem(http.StatusBadGateway, "the server behind gave an answer that cannot be passed on")
	}
	return gateway.NewProblem(http.StatusBadGateway, "the server behind gave no answer")
}

// metrics is what /metrics shows.
type metrics struct {
	requests  *prometheus.CounterVec
	retries   *prometheus.CounterVec
	ejections *prometheus.CounterVec
	mirrors   *prometheus.CounterVec
	reloads   *prometheus.CounterVec
	servers   *prometheus.Desc
	routes    *prometheus.Desc
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "micro_gateway_router_" + name, Help: help}, labels)
	}
	return &metrics{
		requests:  counter("requests_total", "Requests passed on to upstreams, by how that ended.", "route", "upstream", "outcome"),
		retries:   counter("retries_total", "Requests that were sent once more.", "route", "upstream"),
		ejections: counter("ejections_total", "How often a server was left out, because of failures or of its health.", "upstream", "why"),
		mirrors:   counter("mirrored_total", "Copies of requests, by what became of them.", "route", "result"),
		reloads:   counter("reloads_total", "Readings of the file of routes.", "result"),
		servers:   prometheus.NewDesc("micro_gateway_router_servers", "Servers of upstreams, by what is thought of them.", []string{"upstream", "state"}, nil),
		routes:    prometheus.NewDesc("micro_gateway_router_routes", "Routes in use.", nil, nil),
	}
}

// counters are looked up once for each way of ending, which is not for free.
func (m *metrics) count(rt *route, u *upstream, o outcome) {
	if o == answered {
		key := counterKey{rt.name, u.spec.name}
		c, ok := u.answered.Load(key)
		if !ok {
			c, _ = u.answered.LoadOrStore(key, m.requests.WithLabelValues(rt.name, u.spec.name, string(o)))
		}
		c.(prometheus.Counter).Inc()
		return
	}
	m.requests.WithLabelValues(rt.name, u.spec.name, string(o)).Inc()
}

type counterKey struct{ route, upstream string }

func (m *metrics) mirrored(rt *route, result string) {
	m.mirrors.WithLabelValues(rt.name, result).Inc()
}

// Describe implements prometheus.Collector.
func (m *Router) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.metrics.counters() {
		c.Describe(ch)
	}
	ch <- m.metrics.servers
	ch <- m.metrics.routes
}

// Collect implements prometheus.Collector.
func (m *Router) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.metrics.counters() {
		c.Collect(ch)
	}
	t := m.table.Load()
	ch <- prometheus.MustNewConstMetric(m.metrics.routes, prometheus.GaugeValue, float64(len(t.routes)))
	states := make(map[[2]string]int)
	for _, u := range t.pools {
		for state, n := range u.states() {
			states[[2]string{u.spec.name, state}] += n
		}
	}
	for key, n := range states {
		ch <- prometheus.MustNewConstMetric(m.metrics.servers, prometheus.GaugeValue, float64(n), key[0], key[1])
	}
}

func (m *metrics) counters() []*prometheus.CounterVec {
	return []*prometheus.CounterVec{m.requests, m.retries, m.ejections, m.mirrors, m.reloads}
}

// logFailure says why a request failed: at once what an upstream has not failed with before, and then now and then. What
// strangers can cause alone is bounded for all upstreams together.
func (m *Router) logFailure(x *exchange, err error) {
	told := &x.pool.told
	if x.outcome.ofClient() {
		told = &m.told
	}
	told.of(x.outcome).Warn(m.log, "a request was not answered, or not to the end", "why", string(x.outcome), "route", x.route.name,
		"upstream", x.pool.spec.name, "phase", x.phase(err), "request_id", x.info.ID, "error", fmt.Sprint(err))
}

// limits bound what is logged, for each outcome on its own.
type limits struct{ byOutcome sync.Map }

func (l *limits) of(o outcome) *loglimit.Limit {
	limit, ok := l.byOutcome.Load(o)
	if !ok {
		limit, _ = l.byOutcome.LoadOrStore(o, new(loglimit.Limit))
	}
	return limit.(*loglimit.Limit)
}

// phase is how far the exchange came that ended with err.
func (x *exchange) phase(err error) string {
	var ours *outbound.Error
	switch {
	case x.outcome == noServer:
		return "choosing a server"
	case x.outcome == clientSlow, x.outcome == tooLarge, errors.As(x.body.failure(), new(*clientError)):
		return "reading the request"
	case isConnect(err):
		return "connecting"
	case x.hasHead():
		return "passing on the answer"
	case errors.As(err, &ours) && ours.Phase == outbound.Write:
		return "sending the request"
	}
	return "waiting for the answer"
}
