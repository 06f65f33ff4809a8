// Package tracer is the contract of tracing: what a request caused, from the gateway through calls, streams, publishes and
// handlers, as spans of OpenTelemetry.
//
// Package micro and the gateway make the spans. A plugin says where they go and how their context travels:
//
//	func init() { plugin.Register("xray", New, plugin.Doc("AWS X-Ray")) }
//	func New(env *plugin.Env, c Config) (tracer.Tracer, error) { … }
//
// It is chosen with --tracer=xray. When none is chosen, or --tracer=none, nothing is traced, and nothing of it is on the
// way of a call.
// Handlers add spans of their own to the one in their context:
//
//	ctx, span := trace.SpanFromContext(ctx).TracerProvider().Tracer("shop").Start(ctx, "reserve")
//	defer span.End()
package tracer

import (
	"context"

	"go.opentelemetry.io/otel/trace"

	"github.com/plugmicro/micro/plugin"
)

// Plugins is the kind: --tracer, MICRO_TRACER.
var Plugins = plugin.NewKind[Tracer]("tracer", plugin.Optional(),
	plugin.KindDoc("tells what a request caused, and where the time went"), plugin.Known("otlp", "stdout", "xray"))

// Tracer makes spans and carries their context from process to process. All methods are safe for concurrent use, and
// none waits for what the spans are sent to: what cannot be sent is dropped, counted and logged. What some can do besides
// are interfaces of their own: Dropper and Responder.
type Tracer interface {
	// Provider makes tracers, which make spans.
	Provider() trace.TracerProvider
	// Inject calls set with each pair that carries the span of ctx to another process. Keys are names of HTTP headers.
	Inject(ctx context.Context, set func(key, value string))
	// Extract returns ctx with the span that another process put into the pairs; get returns "" for one that is not
	// there, and takes any case. What is malformed is as if it were not there.
	Extract(ctx context.Context, get func(key string) string) context.Context
	// Close sends what is waiting, for a bounded time, and ends.
	Close() error
	// String is the name under which the plugin is registered.
	String() string
}

// Dropper is a Tracer that tells how much it could not send. The gateway shows it in /metrics.
type Dropper interface {
	Tracer
	// Dropped is how many spans were not sent since the start.
	Dropped() int64
}

// Responder is a Tracer that tells a client which asked what was decided of its trace. The gateway asks it before each answer.
type Responder interface {
	Tracer
	// Respond calls set with each header that is to go with the response, none if the client has not asked. ctx is
	// that of the span which was started for the request.
	Respond(ctx context.Context, set func(key, value string))
}
