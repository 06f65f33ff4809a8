package micro_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/plugmicro/micro"
	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/internal/spantest"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/tracer"
	"github.com/plugmicro/micro/transport/tcp"
)

func TestTracing(t *testing.T) {
	spans := spantest.New()
	var inMiddleware []bool
	handled := make(chan trace.SpanContext, 1)
	svc := start(t, "traced", func(s *micro.Service) {
		s.Handle(Greeter{})
		s.Subscribe("traced", func(ctx context.Context, e *Hello) error {
			handled <- trace.SpanContextFromContext(ctx)
			return nil
		})
	}, micro.WithTracer(spans),
		micro.WithClientMiddleware(func(next client.Invoker) client.Invoker {
			return func(ctx context.Context, r *client.Request) error {
				inMiddleware = append(inMiddleware, trace.SpanFromContext(ctx).IsRecording())
				return next(ctx, r)
			}
		}),
		micro.WithServerMiddleware(func(next server.HandlerFunc) server.HandlerFunc {
			return func(ctx context.Context, r *server.Request) (any, error) {
				inMiddleware = append(inMiddleware, trace.SpanFromContext(ctx).IsRecording())
				return next(ctx, r)
			}
		}))
	ctx, root := svc.Tracer().Provider().Tracer("test").Start(t.Context(), "root")
	_, err := client.Call[Greeting](ctx, svc.Client(), "traced", "Greeter.Hello", &Hello{"Ada"})
	require.NoError(t, err)
	require.NoError(t, svc.Publish(ctx, "traced", &Hello{"Ada"}))
	require.Equal(t, root.SpanContext().TraceID(), (<-handled).TraceID())
	require.Equal(t, []bool{true, true}, inMiddleware, "the spans are around all middleware")
	for _, label := range []string{"traced/Greeter.Hello client", "traced/Greeter.Hello server", "publish traced producer", "process traced consumer"} {
		require.Equal(t, root.SpanContext().TraceID(), spans.Wait(t, label).SpanContext.TraceID())
	}
}

func TestTracerIsSwitchedOff(t *testing.T) {
	spans := spantest.New()
	svc := start(t, "dark", func(s *micro.Service) { s.Handle(Greeter{}) }, micro.WithTracer(spans), micro.WithArgs("--tracer=none"))
	_, err := client.Call[Greeting](t.Context(), svc.Client(), "dark", "Greeter.Hello", &Hello{"Ada"})
	require.NoError(t, err)
	require.Nil(t, svc.Tracer())
	require.Empty(t, spans.Ended())
	require.Nil(t, micro.New("new").Tracer())
}

func TestTracerThatFailsToOpenFailsTheStart(t *testing.T) {
	svc := micro.New("broken", inMemory(micro.WithSetting("tracer", "broken"))...)
	svc.Handle(Greeter{})
	require.ErrorContains(t, svc.Start(t.Context()), "tracer/broken: no such luck")
	require.False(t, svc.Ready())
}

// The plugin knows the service, and what was traced while stopping is not lost: it is closed last.
func TestTracerIsClosedLast(t *testing.T) {
	log := new([]string)
	opened = log
	svc := micro.New("last", inMemory(micro.WithVersion("1.2.0"), micro.WithSetting("tracer", "watched"))...)
	svc.Handle(Greeter{})
	svc.Subscribe("last", func(context.Context, *Hello) error { return nil })
	require.NoError(t, svc.Start(t.Context()))
	require.NoError(t, svc.Publish(t.Context(), "last", &Hello{}))
	require.NoError(t, svc.Stop(context.Background()))
	require.Equal(t, []string{"open for last 1.2.0 " + svc.ID(), "span", "span", "close"}, *log)
}

var opened *[]string

func init() {
	plugin.Register("broken", func(*plugin.Env, struct{}) (tracer.Tracer, error) { return nil, errors.New("no such luck") })
	plugin.Register("watched", func(env *plugin.Env, _ struct{}) (tracer.Tracer, error) {
		p := env.Program()
		*opened = append(*opened, "open for "+p.Name+" "+p.Version+" "+p.ID)
		return &watched{spantest.New(), opened}, nil
	})
}

type watched struct {
	*spantest.Tracer
	log *[]string
}

func (w *watched) Close() error {
	for range w.Ended() {
		*w.log = append(*w.log, "span")
	}
	*w.log = append(*w.log, "close")
	return nil
}

// TestWithoutATracerNothingIsPaid: a service without one allocates what a client and a server by themselves do, which know
// nothing of tracing.
func TestWithoutATracerNothingIsPaid(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	reg := memory.NewStore().Open()
	tr, err := tcp.New(&plugin.Env{}, tcp.Config{})
	require.NoError(t, err)
	echo := func(_ context.Context, req *[]byte) (*[]byte, error) { return req, nil }
	bare := server.New("bare", server.Options{Logger: log})
	require.NoError(t, server.Func(bare, "Echo", echo))
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- bare.Serve(l) }()
	require.NoError(t, reg.Register(&registry.Service{Name: "bare", Nodes: []*registry.Node{{ID: "1", Address: l.Addr()}}}))
	c := client.New(reg, tr, client.Options{Logger: log})
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		require.NoError(t, bare.Shutdown(context.Background()))
		require.NoError(t, <-served)
	})
	allocations := func(c *client.Client, service string) float64 {
		body := make([]byte, 64)
		call := func() {
			if _, err := client.Call[[]byte](context.Background(), c, service, "Echo", &body); err != nil {
				panic(err)
			}
		}
		call()
		return testing.AllocsPerRun(3000, call)
	}
	of := func(name string, opts ...micro.Option) float64 {
		opts = append(opts, micro.WithSetting("transport", "tcp"), micro.WithRegistry(reg))
		svc := start(t, name, func(s *micro.Service) { micro.HandleFunc(s, "Echo", echo) }, opts...)
		return allocations(svc.Client(), name)
	}
	want := allocations(c, "bare")
	require.InDelta(t, want, of("off"), 0.5)
	require.Greater(t, of("on", micro.WithTracer(spantest.New())), want+5)
}
