// Package otelsdk is what the tracers on OpenTelemetry's SDK have in common. A plugin brings its exporter, and where it
// has its own ways, its sampler, propagator and generator of ids:
//
//	type Config struct {
//		otelsdk.Sampling
//		otelsdk.Batching
//	}
//
//	func New(env *plugin.Env, c Config) (tracer.Tracer, error) {
//		…
//		return otelsdk.New(env, otelsdk.Options{Exporter: exporter, Sampler: c.Sampler(), Batching: c.Batching})
//	}
//
// Nothing of it is global: neither the global tracer provider of OpenTelemetry nor its error handler is set.
package otelsdk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/tracer"
)

// Options are what makes a tracer.
type Options struct {
	Exporter   sdktrace.SpanExporter         // sends spans; New and Close shut it down. It must heed its contexts
	Sampler    sdktrace.Sampler              // nil: every trace
	Propagator propagation.TextMapPropagator // nil: W3C's traceparent, tracestate and baggage
	IDs        sdktrace.IDGenerator          // nil: random
	Batching   Batching                      // zero fields get their defaults
	Timeout    time.Duration                 // of one export, whatever the exporter makes of it; 0: 30 s

	// Around returns what is told of spans in place of queue, which takes them when they have ended; nil: queue itself.
	Around func(queue sdktrace.SpanProcessor) sdktrace.SpanProcessor
}

// Sampling is embedded in the settings of a plugin.
type Sampling struct {
	SampleRatio float64 `default:"1" help:"share of the traces that begin here which is sent, 0 to 1; a trace that began elsewhere is sent if it was there"`
}

// Validate is for package plugin.
func (s Sampling) Validate() error {
	if !(s.SampleRatio >= 0 && s.SampleRatio <= 1) {
		return fmt.Errorf("sample-ratio %v: want 0 to 1", s.SampleRatio)
	}
	return nil
}

// Sampler decides by ratio, and by the parent where there is one.
func (s Sampling) Sampler() sdktrace.Sampler {
	return sdktrace.ParentBased(sdktrace.TraceIDRatioBased(s.SampleRatio))
}

// Batching is embedded in the settings of a plugin.
type Batching struct {
	QueueSize    int           `default:"4096" help:"spans that wait to be sent; what is more is dropped, and counted in the log"`
	BatchSize    int           `default:"512" help:"spans that are sent at once"`
	BatchDelay   time.Duration `default:"2s" help:"how long a span waits for others to be sent with"`
	CloseTimeout time.Duration `default:"5s" help:"limit for sending what waits when the program stops"`
}

// Validate is for package plugin.
func (b Batching) Validate() error {
	var errs []error
	if b.QueueSize < 1 {
		errs = append(errs, fmt.Errorf("queue-size %d: want at least 1", b.QueueSize))
	}
	if b.BatchSize < 1 {
		errs = append(errs, fmt.Errorf("batch-size %d: want at least 1", b.BatchSize))
	}
	if b.BatchDelay <= 0 {
		errs = append(errs, fmt.Errorf("batch-delay %s: want more than 0", b.BatchDelay))
	}
	if b.CloseTimeout <= 0 {
		errs = append(errs, fmt.Errorf("close-timeout %s: want more than 0", b.CloseTimeout))
	}
	return errors.Join(errs...)
}

// WithDefaults is for settings made in code.
func (b Batching) WithDefaults() Batching {
	b.QueueSize = cmp.Or(b.QueueSize, 4096)
	b.BatchSize = min(cmp.Or(b.BatchSize, 512), b.QueueSize)
	b.BatchDelay = cmp.Or(b.BatchDelay, 2*time.Second)
	b.CloseTimeout = cmp.Or(b.CloseTimeout, 5*time.Second)
	return b
}

// Tracer is a tracer.Tracer.
type Tracer struct {
	name       string
	provider   *sdktrace.TracerProvider
	propagator propagation.TextMapPropagator
	queue      *queue
	limit      time.Duration

	closing  sync.Once
	closeErr error
}

var _ tracer.Dropper = (*Tracer)(nil)

// New makes a tracer that is called what env's plugin is. It owns the exporter, also when it fails.
func New(env *plugin.Env, o Options) (*Tracer, error) {
	b := o.Batching.WithDefaults()
	of, err := Resource(env)
	if err = errors.Join(err, b.Validate()); err != nil {
		return nil, errors.Join(err, o.Exporter.Shutdown(env.Context()))
	}
	if o.Sampler == nil {
		o.Sampler = sdktrace.AlwaysSample()
	}
	if o.Propagator == nil {
		o.Propagator = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	}
	q := newQueue(o.Exporter, b, cmp.Or(o.Timeout, 30*time.Second), env.Logger())
	told := sdktrace.SpanProcessor(q)
	if o.Around != nil {
		told = o.Around(q)
	}
	opts := []sdktrace.TracerProviderOption{sdktrace.WithSpanProcessor(told), sdktrace.WithSampler(o.Sampler), sdktrace.WithResource(of)}
	if o.IDs != nil {
		opts = append(opts, sdktrace.WithIDGenerator(o.IDs))
	}
	return &Tracer{
		name: env.Name(), provider: sdktrace.NewTracerProvider(opts...), propagator: o.Propagator, queue: q, limit: b.CloseTimeout,
	}, nil
}

// Resource says whose spans these are. New gives it to all of them. The variables that OpenTelemetry has for it, OTEL_SERVICE_NAME and
// OTEL_RESOURCE_ATTRIBUTES, go before what the program says of itself. The command line is not in it: secrets may be.
func Resource(env *plugin.Env) (*resource.Resource, error) {
	p := env.Program()
	attrs := []attribute.KeyValue{semconv.ServiceName(cmp.Or(p.Name, filepath.Base(os.Args[0])))}
	if p.Version != "" {
		attrs = append(attrs, semconv.ServiceVersion(p.Version))
	}
	if p.ID != "" {
		attrs = append(attrs, semconv.ServiceInstanceID(p.ID))
	}
	r, err := resource.New(env.Context(), resource.WithTelemetrySDK(), resource.WithHost(), resource.WithProcessPID(),
		resource.WithAttributes(attrs...), resource.WithFromEnv())
	if errors.Is(err, resource.ErrSchemaURLConflict) {
		err = nil // the attributes are there, without the version of their names
	}
	if err != nil {
		return nil, fmt.Errorf("describe the service, also by OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return r, nil
}

// Provider implements tracer.Tracer.
func (t *Tracer) Provider() trace.TracerProvider { return t.provider }

// Inject implements tracer.Tracer.
func (t *Tracer) Inject(ctx context.Context, set func(key, value string)) {
	t.propagator.Inject(ctx, carrier{set: set})
}

// Extract implements tracer.Tracer.
func (t *Tracer) Extract(ctx context.Context, get func(key string) string) context.Context {
	return t.propagator.Extract(ctx, carrier{get: get})
}

// Dropped implements tracer.Dropper: those for which the queue was full, and those that could not be sent.
func (t *Tracer) Dropped() int64 { return t.queue.losses.total.Load() }

// Close sends what waits, within the close-timeout, and ends.
func (t *Tracer) Close() error {
	t.closing.Do(func() {
		ctx, cancel := context.WithTimeoutCause(context.Background(), t.limit, fmt.Errorf("%s passed, which is the close-timeout", t.limit))
		defer cancel()
		t.closeErr = t.provider.Shutdown(ctx)
	})
	return t.closeErr
}

// String implements tracer.Tracer.
func (t *Tracer) String() string { return t.name }

// carrier is the two functions of the contract as OpenTelemetry has them.
type carrier struct {
	get func(key string) string
	set func(key, value string)
}

var _ propagation.TextMapCarrier = carrier{}

func (c carrier) Get(key string) string { return c.get(key) }
func (c carrier) Set(key, value string) { c.set(key, value) }
func (c carrier) Keys() []string        { return nil } // no propagator of ours looks for keys that it does not know
