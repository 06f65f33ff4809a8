package tracing

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/metadata"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/tracer"
)

// Client traces the calls of a client. A span is about one call with all its attempts, or about a stream until that ends.
func Client(t tracer.Tracer) client.Middleware {
	spans := tracerOf(t)
	return func(next client.Invoker) client.Invoker {
		return func(ctx context.Context, r *client.Request) (err error) {
			ctx, span := start(ctx, spans, trace.SpanKindClient, r.Service, r.Endpoint)
			pairs := make(map[string]string, 2)
			t.Inject(ctx, func(key, value string) { pairs[strings.ToLower(key)] = value })
			ctx = metadata.WithAll(ctx, pairs)
			if !span.IsRecording() {
				return next(ctx, r)
			}
			o := &call{span: span}
			r.Observe(o)
			err = errNoReturn
			defer func() {
				if err != nil || !r.Stream {
					o.End(err)
				}
			}()
			return next(ctx, r)
		}
	}
}

// Server traces what a server answers; the span of a stream lasts as long as its handler.
func Server(t tracer.Tracer) server.Middleware {
	spans := tracerOf(t)
	return func(next server.HandlerFunc) server.HandlerFunc {
		return func(ctx context.Context, r *server.Request) (rsp any, err error) {
			received := metadata.All(ctx)
			ctx = t.Extract(ctx, func(key string) string { return lookUp(received, key) })
			ctx, span := start(ctx, spans, trace.SpanKindServer, r.Service, r.Endpoint)
			if !span.IsRecording() {
				return next(ctx, r)
			}
			span.SetAttributes(address(r.Peer, keyPeer, keyPeerPort)...)
			err = errNoReturn
			defer func() { finish(span, err, isFault(err)) }()
			return next(ctx, r)
		}
	}
}

func start(ctx context.Context, spans trace.Tracer, kind trace.SpanKind, service, endpoint string) (context.Context, trace.Span) {
	return spans.Start(ctx, service+"/"+endpoint, trace.WithSpanKind(kind), trace.WithAttributes(
		keySystem.String("micro"), keyService.String(service), keyMethod.String(endpoint)))
}

func finish(span trace.Span, err error, failed bool) {
	span.SetAttributes(keyStatus.String(status.CodeOf(err).String()))
	if failed {
		fail(span, err)
	}
	span.End()
}

// isFault tells whether an error is the server's, as the conventions have it: what the caller did wrong is no failure
// of the one who says so.
func isFault(err error) bool {
	switch status.CodeOf(err) {
	case status.Unknown, status.DeadlineExceeded, status.Unimplemented, status.Internal, status.Unavailable, status.DataLoss:
		return true
	}
	return false
}

// call is the span of a call or of a stream.
type call struct {
	span trace.Span
	last attempt
}

var _ client.Observer = (*call)(nil)

type attempt struct {
	address string
	err     error
	at      time.Time
}

// Attempt implements client.Observer. An attempt that is followed by another one becomes an event; of the last one the
// span has the address, and the outcome.
func (c *call) Attempt(addr string, err error) {
	if c.last.err != nil {
		c.span.AddEvent("attempt failed", trace.WithTimestamp(c.last.at), trace.WithAttributes(c.last.attributes()...))
	}
	c.last = attempt{address: addr, err: err}
	if err != nil {
		c.last.at = time.Now()
	}
}

func (a attempt) attributes() []attribute.KeyValue {
	return append(address(a.address, keyServer, keyServerPort), keyStatus.String(status.CodeOf(a.err).String()))
}

// End implements client.Observer.
func (c *call) End(err error) {
	if c.last.address != "" {
		c.span.SetAttributes(address(c.last.address, keyServer, keyServerPort)...)
	}
	finish(c.span, err, err != nil)
}
