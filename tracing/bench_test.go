package tracing_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/internal/otelsdk"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/tracer"
)

// nowhere takes spans and does nothing with them.
type nowhere struct{}

func (nowhere) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (nowhere) Shutdown(context.Context) error                             { return nil }

// BenchmarkCall echoes 64 bytes over TCP, both sides in this process: without tracing, with a trace that is not sampled,
// and with one that is.
func BenchmarkCall(b *testing.B) {
	for _, c := range []struct {
		name  string
		ratio float64
	}{{"off", -1}, {"unsampled", 0}, {"sampled", 1}} {
		var t tracer.Tracer
		if c.ratio >= 0 {
			sdk, err := otelsdk.New(&plugin.Env{}, otelsdk.Options{
				Exporter: nowhere{}, Sampler: otelsdk.Sampling{SampleRatio: c.ratio}.Sampler(), Batching: otelsdk.Batching{QueueSize: 1 << 16},
			})
			require.NoError(b, err)
			b.Cleanup(func() { require.NoError(b, sdk.Close()) })
			t = sdk
		}
		w := newWorldOf(b, t)
		body := make([]byte, 64)
		b.Run(c.name+"/1", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.Call[[]byte](b.Context(), w.client, "greeter", "Echo", &body); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"/64", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism((64 + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := client.Call[[]byte](context.Background(), w.client, "greeter", "Echo", &body); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
