package xray

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// staleAfter is how long rules that cannot be fetched again are used.
const staleAfter = time.Hour

// sampler decides which traces are recorded: as whoever decided first did, and for the others by the rules of X-Ray, or
// without rules by so many a second and a rate.
type sampler struct {
	process request                 // what is the same for all requests
	rules   atomic.Pointer[ruleSet] // nil: there are none
	random  func() float64

	mu        sync.Mutex // for the reservoir
	reservoir reservoir
	perSecond int64
	rate      float64
}

var _ sdktrace.Sampler = (*sampler)(nil)

func newSampler(c Config, process request) *sampler {
	return &sampler{process: process, random: rand.Float64, perSecond: int64(c.Reservoir), rate: c.Rate}
}

// Description implements sdktrace.Sampler.
func (s *sampler) Description() string { return "AWS X-Ray" }

// ShouldSample follows the parent, as OpenTelemetry's ParentBased does, but knows two things more that a header can say:
// that it is sampled without naming a parent, and that it has a parent and is not decided.
func (s *sampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	parent := trace.SpanContextFromContext(p.ParentContext)
	result := sdktrace.SamplingResult{Decision: sdktrace.Drop, Tracestate: parent.TraceState()}
	header, ok := came(p.ParentContext)
	sampled := false
	switch {
	case parent.IsValid() && (!parent.IsRemote() || !ok):
		sampled = parent.IsSampled()
	case header.sampled == yes || header.sampled == no:
		sampled = header.sampled == yes
	default:
		var rule string
		if sampled, rule = s.decide(p.Attributes); sampled && rule != "" {
			result.Attributes = []attribute.KeyValue{ruleKey.String(rule)}
		}
	}
	if sampled {
		result.Decision = sdktrace.RecordAndSample
	}
	return result
}

// decide asks the rules. It names the one that decided.
func (s *sampler) decide(attributes []attribute.KeyValue) (sampled bool, rule string) {
	now := time.Now()
	if set := s.rules.Load(); set != nil && now.Sub(set.fetched) < staleAfter {
		q := s.request(attributes)
		if r := set.find(&q); r != nil {
			return r.sample(now, s.random()), r.RuleName
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reservoir.take(now, s.perSecond) || s.random() < s.rate, ""
}

// request is made of what is known when a span starts. A call that is not HTTP has the path /service/method and the
// method POST, as in X-Ray's SDKs for gRPC.
func (s *sampler) request(attributes []attribute.KeyValue) request {
	value := func(key string) string {
		for _, a := range attributes {
			if string(a.Key) == key {
				return a.Value.String()
			}
		}
		return ""
	}
	q := s.process
	q.attribute = value
	q.host, q.method, q.path = value("server.address"), value("http.request.method"), value("url.path")
	if rpc := value("rpc.method"); rpc != "" && q.method == "" {
		q.method, q.path = "POST", "/"+rpc
		if service := value("rpc.service"); service != "" {
			q.path = "/" + service + "/" + rpc
		}
	}
	return q
}
