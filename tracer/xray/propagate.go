package xray

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// cameKey is the key of the header that Extract read. It is beside the span in the context because a span's context
// can neither say "not decided yet" nor hold foreign pairs.
type cameKey struct{}

// came is the header that a request came with; ok is false if it came with none, or the span of ctx is of another trace.
func came(ctx context.Context) (h header, ok bool) {
	h, ok = ctx.Value(cameKey{}).(header)
	if id := trace.SpanContextFromContext(ctx).TraceID(); ok && h.root.IsValid() && h.root != id {
		return header{}, false
	}
	return h, ok
}

// Extract returns ctx with the span that X-Amzn-Trace-Id names. Without that header, or with one that is malformed, it
// takes what W3C's traceparent and tracestate say, so that callers with OpenTelemetry's own headers are of the same trace.
func (t *Tracer) Extract(ctx context.Context, get func(key string) string) context.Context {
	h, ok := parseHeader(get(headerName))
	if !ok {
		return propagation.TraceContext{}.Extract(ctx, getter(get))
	}
	ctx = context.WithValue(ctx, cameKey{}, h)
	if !h.root.IsValid() {
		return ctx
	}
	span := trace.SpanContextConfig{TraceID: h.root, SpanID: h.parent, Remote: true}
	if h.sampled == yes {
		span.TraceFlags = trace.FlagsSampled
	}
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(span))
}

// Inject sets X-Amzn-Trace-Id, with Lineage and the other pairs that the request of ctx came with.
func (t *Tracer) Inject(ctx context.Context, set func(key, value string)) {
	span := trace.SpanContextFromContext(ctx)
	if !span.TraceID().IsValid() {
		return
	}
	incoming, ok := came(ctx)
	h := header{root: span.TraceID(), parent: span.SpanID(), sampled: no, others: incoming.others}
	switch {
	case span.IsSampled():
		h.sampled = yes
	case span.IsRemote() && ok: // it is passed on as it came: nobody decided here
		h.sampled = incoming.sampled
	}
	set(headerName, h.String())
}

// Respond implements tracer.Responder, for requests whose header asked with Sampled=? what is decided here.
func (t *Tracer) Respond(ctx context.Context, set func(key, value string)) {
	incoming, _ := came(ctx)
	span := trace.SpanContextFromContext(ctx)
	if incoming.sampled != asked || span.IsRemote() || !span.IsValid() {
		return
	}
	h := header{root: span.TraceID(), parent: incoming.parent, sampled: no}
	if span.IsSampled() {
		h.sampled = yes
	}
	set(headerName, h.String())
}

// getter is the carrier of OpenTelemetry's propagators, to read from.
type getter func(key string) string

func (g getter) Get(key string) string { return g(key) }
func (getter) Set(string, string)      {}
func (getter) Keys() []string          { return nil }

// ids makes trace IDs that begin with the time in seconds: X-Ray refuses traces that are older than 30 days, and shows
// them by that time.
type ids struct{}

var _ sdktrace.IDGenerator = ids{}

func (i ids) NewIDs(ctx context.Context) (id trace.TraceID, span trace.SpanID) {
	binary.BigEndian.PutUint32(id[:], uint32(time.Now().Unix()))
	binary.BigEndian.PutUint32(id[4:], rand.Uint32())
	binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	return id, i.NewSpanID(ctx, id)
}

func (ids) NewSpanID(context.Context, trace.TraceID) (span trace.SpanID) {
	for !span.IsValid() {
		binary.BigEndian.PutUint64(span[:], rand.Uint64())
	}
	return span
}
