// Package spantest is a tracer for tests: its spans are there as soon as they end.
//
//	spans := spantest.New()
//	c.Use(tracing.Client(spans))
//	…
//	call := spans.Wait(t, "greeter/Greeter.Hello client")
package spantest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/plugmicro/micro/tracer"
)

// Tracer keeps its spans. It is safe for concurrent use.
type Tracer struct {
	provider *sdktrace.TracerProvider
	spans    *tracetest.InMemoryExporter
	headers  propagation.TextMapPropagator
}

var _ tracer.Tracer = (*Tracer)(nil)

// New makes one that samples everything, unless options say otherwise.
func New(opts ...sdktrace.TracerProviderOption) *Tracer {
	spans := tracetest.NewInMemoryExporter()
	return &Tracer{
		provider: sdktrace.NewTracerProvider(append([]sdktrace.TracerProviderOption{sdktrace.WithSyncer(spans)}, opts...)...),
		spans:    spans,
		headers:  propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
	}
}

// Provider implements tracer.Tracer.
func (t *Tracer) Provider() trace.TracerProvider { return t.provider }

// Inject implements tracer.Tracer.
func (t *Tracer) Inject(ctx context.Context, set func(key, value string)) {
	carrier := propagation.MapCarrier{}
	t.headers.Inject(ctx, carrier)
	for k, v := range carrier {
		set(k, v)
	}
}

// Extract implements tracer.Tracer.
func (t *Tracer) Extract(ctx context.Context, get func(key string) string) context.Context {
	carrier := propagation.MapCarrier{}
	for _, k := range t.headers.Fields() {
		carrier[k] = get(k)
	}
	return t.headers.Extract(ctx, carrier)
}

// Close implements tracer.Tracer.
func (t *Tracer) Close() error { return nil }

// String implements tracer.Tracer.
func (t *Tracer) String() string { return "spantest" }

// Span is a span that ended.
type Span struct{ tracetest.SpanStub }

// Label is the name and the kind, as in "publish orders producer".
func (s Span) Label() string { return s.Name + " " + s.SpanKind.String() }

// Attribute is the text of an attribute; "" if there is none.
func (s Span) Attribute(key string) string { return find(s.Attributes, key) }

// ChildOf tells whether p is the parent, in the same trace.
func (s Span) ChildOf(p Span) bool {
	return s.Parent.TraceID() == p.SpanContext.TraceID() && s.Parent.SpanID() == p.SpanContext.SpanID() &&
		s.SpanContext.TraceID() == p.SpanContext.TraceID()
}

// EventAttribute is the text of an attribute of the event at index i.
func (s Span) EventAttribute(i int, key string) string { return find(s.Events[i].Attributes, key) }

func find(attrs []attribute.KeyValue, key string) string {
	for _, a := range attrs {
		if string(a.Key) == key {
			return a.Value.String()
		}
	}
	return ""
}

// Ended are the spans that ended, in that order.
func (t *Tracer) Ended() []Span {
	var spans []Span
	for _, s := range t.spans.GetSpans() {
		spans = append(spans, Span{s})
	}
	return spans
}

// Labels are those of Ended.
func (t *Tracer) Labels() []string {
	var labels []string
	for _, s := range t.Ended() {
		labels = append(labels, s.Label())
	}
	return labels
}

// Wait returns the first span with a label, once it has ended.
func (t *Tracer) Wait(tb testing.TB, label string) Span {
	tb.Helper()
	var found Span
	require.Eventually(tb, func() bool {
		for _, s := range t.Ended() {
			if s.Label() == label {
				found = s
				return true
			}
		}
		return false
	}, 10*time.Second, time.Millisecond, "%s did not end; ended are %s", label, strings.Join(t.Labels(), ", "))
	return found
}

// Reset forgets what ended.
func (t *Tracer) Reset() { t.spans.Reset() }
