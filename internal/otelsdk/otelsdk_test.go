package otelsdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/tracer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver keeps spans in memory, and fails or hangs as told.
type receiver struct {
	*tracetest.InMemoryExporter
	hang    bool // until its context ends
	deaf    bool // not even then
	fail    error
	exports atomic.Int64
	got     atomic.Int64
}

func newReceiver() *receiver { return &receiver{InMemoryExporter: tracetest.NewInMemoryExporter()} }

func (r *receiver) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	r.exports.Add(1)
	if r.deaf {
		time.Sleep(time.Minute)
	}
	if r.hang {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if r.fail == nil {
		r.got.Add(int64(len(spans)))
		return r.InMemoryExporter.ExportSpans(ctx, spans)
	}
	return r.fail
}

// log is what was logged, to be read when nobody writes.
func open(t *testing.T, o Options) (*Tracer, *bytes.Buffer) {
	log := new(bytes.Buffer)
	c := plugin.NewCatalog()
	plugin.NewKindIn[tracer.Tracer](c, "tracer").SetDefault("test")
	plugin.RegisterIn(c, "test", func(env *plugin.Env, _ struct{}) (tracer.Tracer, error) { return New(env, o) })
	settings, err := plugin.NewLoader(c).Load(nil)
	require.NoError(t, err)
	program := plugin.Program{Name: "shop", Version: "1.2.0", ID: "shop-7"}
	host := settings.Open(t.Context(), slog.New(slog.NewTextHandler(log, nil)), plugin.OpenedBy(program))
	tr, err := plugin.Open[tracer.Tracer](host)
	require.NoError(t, err)
	return tr.(*Tracer), log
}

func spans(t *Tracer, n int) {
	for range n {
		_, span := t.Provider().Tracer("test").Start(context.Background(), "work")
		span.End()
	}
}

func TestSpansSayWhoseTheyAre(t *testing.T) {
	for name, c := range map[string]struct{ env, want map[string]string }{
		"the program's word": {nil, map[string]string{"service.name": "shop", "service.version": "1.2.0", "service.instance.id": "shop-7"}},
		"OpenTelemetry's variables": {
			map[string]string{"OTEL_SERVICE_NAME": "till", "OTEL_RESOURCE_ATTRIBUTES": "service.version=2,deployment.environment.name=prod"},
			map[string]string{"service.name": "till", "service.version": "2", "service.instance.id": "shop-7", "deployment.environment.name": "prod"}},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			r := newReceiver()
			tr, _ := open(t, Options{Exporter: r})
			require.Equal(t, "test", tr.String())
			spans(tr, 1)
			require.NoError(t, tr.provider.ForceFlush(t.Context()))
			got := map[string]string{}
			for _, a := range r.GetSpans()[0].Resource.Attributes() {
				got[string(a.Key)] = a.Value.String()
			}
			for k, v := range c.want {
				require.Equal(t, v, got[k], k)
			}
			require.NotEmpty(t, got["host.name"])
			require.NotEmpty(t, got["process.pid"])
			require.NotContains(t, got, "process.command_args")
			require.NoError(t, tr.Close())
		})
	}
}

func TestWrongResourceAttributesAreAnError(t *testing.T) {
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "nonsense")
	_, err := New(&plugin.Env{}, Options{Exporter: newReceiver()})
	require.ErrorContains(t, err, "OTEL_RESOURCE_ATTRIBUTES")
}

func TestContextTravels(t *testing.T) {
	r := newReceiver()
	tr, _ := open(t, Options{Exporter: r})
	defer tr.Close()
	ctx, span := tr.Provider().Tracer("test").Start(t.Context(), "here")
	pairs := map[string]string{}
	tr.Inject(ctx, func(k, v string) { pairs[k] = v })
	require.Contains(t, pairs, "traceparent")

	there := tr.Extract(t.Context(), func(k string) string { return pairs[k] })
	require.Equal(t, span.SpanContext().TraceID(), trace.SpanContextFromContext(there).TraceID())
	require.True(t, trace.SpanContextFromContext(there).IsRemote())
	for _, malformed := range []string{"", "00", "00-" + strings.Repeat("0", 32) + "-" + strings.Repeat("0", 16) + "-01", strings.Repeat("x", 1<<16)} {
		ctx := tr.Extract(t.Context(), func(string) string { return malformed })
		require.False(t, trace.SpanContextFromContext(ctx).IsValid(), malformed)
	}
}

func TestSamplingFollowsTheParent(t *testing.T) {
	parent := func(flags trace.TraceFlags) context.Context {
		return trace.ContextWithRemoteSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: flags, Remote: true}))
	}
	for _, ratio := range []float64{0, 1} {
		r := newReceiver()
		tr, _ := open(t, Options{Exporter: r, Sampler: Sampling{ratio}.Sampler()})
		start := func(ctx context.Context) bool {
			_, span := tr.Provider().Tracer("test").Start(ctx, "work", trace.WithAttributes(attribute.String("a", "b")))
			defer span.End()
			return span.SpanContext().IsSampled()
		}
		require.True(t, start(parent(trace.FlagsSampled)))
		require.False(t, start(parent(0)))
		require.Equal(t, ratio == 1, start(t.Context()))
		require.NoError(t, tr.Close())
		require.EqualValues(t, 1+int(ratio), r.got.Load(), "what is not sampled is not sent")
	}
}

func TestZeroBatchingIsTheDeclaredDefault(t *testing.T) {
	values := reflect.ValueOf(Batching{}.WithDefaults())
	for i := range values.NumField() {
		require.Equal(t, values.Type().Field(i).Tag.Get("default"), fmt.Sprint(values.Field(i)), values.Type().Field(i).Name)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	require.NoError(t, Sampling{0.5}.Validate())
	require.ErrorContains(t, Sampling{1.5}.Validate(), "sample-ratio 1.5")
	require.ErrorContains(t, Sampling{-1}.Validate(), "sample-ratio -1")
	require.NoError(t, Batching{}.WithDefaults().Validate())
	require.NoError(t, Batching{QueueSize: 10}.WithDefaults().Validate(), "a batch is no larger than the queue")
	err := Batching{QueueSize: -1, BatchSize: -1, BatchDelay: -1, CloseTimeout: -1}.Validate()
	for _, option := range []string{"queue-size", "batch-size", "batch-delay", "close-timeout"} {
		require.ErrorContains(t, err, option)
	}
}

func TestOutageIsToldOfOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver()
		r.fail = errors.New("connection refused")
		tr, log := open(t, Options{Exporter: r, Batching: Batching{QueueSize: 8, BatchSize: 4}})
		for range 20 {
			spans(tr, 3)
			time.Sleep(2 * time.Second)
			synctest.Wait()
		}
		require.EqualValues(t, 60, tr.Dropped())
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log)
		require.Contains(t, log.String(), "connection refused")

		r.fail = nil
		spans(tr, 3)
		time.Sleep(quiet)
		spans(tr, 3)
		time.Sleep(quiet)
		synctest.Wait()
		require.Equal(t, 2, strings.Count(log.String(), "\n"), log)
		require.Contains(t, log.String(), "spans are sent again")
		require.Contains(t, log.String(), "lost=60")
		require.NoError(t, tr.Close())
		require.EqualValues(t, 6, r.got.Load())
		require.Equal(t, 2, strings.Count(log.String(), "\n"), log)
	})
}

func TestExportsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver()
		r.hang = true
		tr, log := open(t, Options{Exporter: r, Timeout: 3 * time.Second})
		spans(tr, 1)
		time.Sleep(4 * time.Second)
		require.Zero(t, tr.Dropped())
		time.Sleep(2 * time.Second)
		require.EqualValues(t, 1, tr.Dropped(), log)
		require.NoError(t, tr.Close())
	})
}

func TestALongErrorIsCut(t *testing.T) {
	r := newReceiver()
	r.fail = errors.New(strings.Repeat("ü", 10_000))
	tr, log := open(t, Options{Exporter: r})
	spans(tr, 1)
	require.NoError(t, tr.Close())
	require.Less(t, log.Len(), 1000)
}

func TestOfABatchSomeMayBeLost(t *testing.T) {
	r := newReceiver()
	r.fail = &Lost{Spans: 2, Err: errors.New("too large")}
	tr, log := open(t, Options{Exporter: r})
	spans(tr, 5)
	require.NoError(t, tr.Close())
	require.EqualValues(t, 2, tr.Dropped())
	require.Contains(t, log.String(), "too large")
}

func TestFullQueueDropsAndDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver()
		r.hang = true
		tr, log := open(t, Options{Exporter: r, Batching: Batching{QueueSize: 10, BatchSize: 5, CloseTimeout: time.Second}})
		before := time.Now()
		for range 100 {
			spans(tr, 1)
			synctest.Wait() // the batch that hangs is taken out of the queue, and counts all the same
		}
		require.Zero(t, time.Since(before), "nobody waited")
		require.EqualValues(t, 90, tr.Dropped())
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log)
		require.Contains(t, log.String(), "10 spans wait, which is the queue-size")

		err := tr.Close()
		require.Equal(t, time.Second, time.Since(before))
		require.ErrorContains(t, err, "close-timeout")
		require.Equal(t, err, tr.Close())
		require.EqualValues(t, 100, tr.Dropped())
		require.Contains(t, log.String(), "spans were lost until the end")
		require.EqualValues(t, 1, r.exports.Load(), "after the one that was given up nothing was tried")
	})
}

func TestCloseDoesNotWaitForADeafExporter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver()
		r.deaf = true
		tr, _ := open(t, Options{Exporter: r, Batching: Batching{CloseTimeout: time.Second}})
		spans(tr, 1)
		before := time.Now()
		require.ErrorContains(t, tr.Close(), "an export did not return")
		require.Equal(t, time.Second+linger, time.Since(before))
		time.Sleep(time.Minute) // it does in the end
	})
}

func TestCloseSendsWhatWaits(t *testing.T) {
	r := newReceiver()
	tr, log := open(t, Options{Exporter: r})
	spans(tr, 1000)
	require.NoError(t, tr.Close())
	require.EqualValues(t, 1000, r.got.Load())
	require.Zero(t, tr.Dropped())
	require.Empty(t, log.String())
	spans(tr, 1) // does no harm
}
