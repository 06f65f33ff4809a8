package httpd

import (
	"crypto/tls"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/plugmicro/micro/tracer"
)

// maxSeries bounds how many counters there are, whatever routes there are: what comes after that is of route "other".
const maxSeries = 2_000

// metrics are what the gateway counts, on a registry of its own.
type metrics struct {
	registry   *prometheus.Registry
	requests   *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	inFlight   prometheus.Gauge
	received   prometheus.Counter
	sent       prometheus.Counter
	clientGone prometheus.Counter
	panics     prometheus.Counter

	streamErrors *prometheus.CounterVec
	connections  prometheus.Gauge
	waited       prometheus.Counter

	mu     sync.Mutex // held while series is replaced
	series atomic.Pointer[map[label]*series]
}

// label is what requests are told apart by.
type label struct {
	route, method string
	status        int
}

// series are the counters of one label, found without asking Prometheus, which would make strings of it.
type series struct {
	requests prometheus.Counter
	duration prometheus.Observer
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "micro_gateway_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "micro_gateway_" + name, Help: help})
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "micro_gateway_requests_total", Help: "Requests that were answered, or whose client is gone: code 499.",
		}, []string{"route", "method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "micro_gateway_request_duration_seconds", Help: "Time from the head of a request to the end of its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route"}),
		inFlight:   gauge("requests_in_flight", "Requests that are being answered, streams included."),
		received:   counter("received_bytes_total", "Bytes of bodies that came from clients."),
		sent:       counter("sent_bytes_total", "Bytes of bodies that went to clients."),
		clientGone: counter("client_gone_total", "Requests whose client went away before it had the whole answer."),
		panics:     counter("panics_total", "Requests that ended in a panic."),
		streamErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "micro_gateway_stream_errors_total", Help: "Streams that failed after their answer had begun, which has code 200 then, or 101.",
		}, []string{"code"}),
		connections: gauge("connections", "Connections of clients."),
		waited:      counter("connection_limit_total", "Times that connections had to wait because there were too many."),
	}
	m.series.Store(&map[label]*series{})
	m.registry.MustRegister(m.requests, m.duration, m.inFlight, m.received, m.sent, m.clientGone, m.panics, m.streamErrors, m.connections, m.waited,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// watchCertificate shows how long the certificate is good that config has from files. Asking for it also finds out whether
// the files have changed.
func (m *metrics) watchCertificate(config *tls.Config) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "micro_gateway_certificate_expiry_timestamp_seconds", Help: "Until when the certificate is good that clients are shown, in seconds since 1970.",
	}, func() float64 {
		cert, err := config.GetCertificate(&tls.ClientHelloInfo{})
		if err != nil || cert.Leaf == nil {
			return 0
		}
		return float64(cert.Leaf.NotAfter.Unix())
	}))
}

// watchTracer shows how many spans were lost, if t counts them.
func (m *metrics) watchTracer(t tracer.Tracer) {
	counting, ok := t.(tracer.Dropper)
	if !ok {
		return
	}
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "micro_gateway_spans_dropped_total", Help: "Spans of the gateway that the tracer could not send.",
	}, func() float64 { return float64(counting.Dropped()) }))
}

// observe counts a request.
func (m *metrics) observe(l label, took time.Duration) {
	s := (*m.series.Load())[l]
	if s == nil {
		s = m.add(l)
	}
	s.requests.Inc()
	s.duration.Observe(took.Seconds())
}

// add makes the counters of a label.
func (m *metrics) add(l label) *series {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := *m.series.Load()
	if len(old) >= maxSeries {
		l.route = "other"
	}
	if s := old[l]; s != nil {
		return s
	}
	s := &series{
		requests: m.requests.WithLabelValues(l.route, l.method, strconv.Itoa(l.status)),
		duration: m.duration.WithLabelValues(l.route),
	}
	grown := maps.Clone(old)
	grown[l] = s
	m.series.Store(&grown)
	return s
}

// methodLabel is one of a few, whatever strangers make up.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace:
		return method
	}
	return "other"
}

// statusLabel is a status of HTTP, whatever an upstream makes up.
func statusLabel(status int) int {
	if status < 100 || status > 599 {
		return 0
	}
	return status
}
