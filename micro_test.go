package micro_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/plugmicro/micro"
	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/metadata"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type Greeter struct{}

type Hello struct {
	Name string `json:"name"`
}

type Greeting struct {
	Message string `json:"message"`
}

func (Greeter) Hello(ctx context.Context, req *Hello) (*Greeting, error) {
	return &Greeting{"Hello, " + req.Name + metadata.Get(ctx, "mark")}, nil
}

// inMemory are the plugins that need no files and no ports.
func inMemory(opts ...micro.Option) []micro.Option {
	return append([]micro.Option{
		micro.WithArgs(), micro.WithEnviron(), micro.WithLogger(slog.New(slog.DiscardHandler)),
		micro.WithSetting("registry", "memory"), micro.WithSetting("broker", "memory"), micro.WithSetting("transport", "memory"),
	}, opts...)
}

// start starts a service, and stops it at the end of the test.
func start(t *testing.T, name string, prepare func(*micro.Service), opts ...micro.Option) *micro.Service {
	svc := micro.New(name, inMemory(opts...)...)
	prepare(svc)
	require.NoError(t, svc.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, svc.Stop(context.Background())) })
	return svc
}

func none(*micro.Service) {}

func TestServicesCallEachOther(t *testing.T) {
	start(t, "greeter", func(s *micro.Service) { s.Handle(Greeter{}) })
	caller := start(t, "caller", none)
	ctx := metadata.With(t.Context(), "Mark", "!")
	rsp, err := client.Call[Greeting](ctx, caller.Client(), "greeter", "Greeter.Hello", &Hello{"Ada"})
	require.NoError(t, err)
	require.Equal(t, "Hello, Ada!", rsp.Message)
}

func TestEvents(t *testing.T) {
	got := make(chan string, 10)
	start(t, "listener", func(s *micro.Service) {
		s.Subscribe("json", func(_ context.Context, e *Hello) error { got <- "json " + e.Name; return nil })
		s.Subscribe("both", func(_ context.Context, e *Hello, m *broker.Message) error {
			got <- "both " + e.Name + " " + m.Key
			return nil
		})
		s.Subscribe("proto", func(_ context.Context, e *wrapperspb.StringValue) error { got <- "proto " + e.Value; return nil })
		s.Subscribe("raw", func(_ context.Context, m *broker.Message) error {
			got <- "raw " + string(m.Body) + " " + m.Key + " " + m.Header["colour"] + " " + m.Header["Content-Type"]
			return nil
		})
	})
	publisher := start(t, "publisher", none)
	for _, test := range []struct {
		topic string
		event any
		want  string
	}{
		{"json", &Hello{"Ada"}, "json Ada"},
		{"both", &Hello{"Ada"}, "both Ada k"},
		{"proto", wrapperspb.String("Ada"), "proto Ada"},
		{"raw", []byte("Ada"), "raw Ada k red application/octet-stream"},
	} {
		require.NoError(t, publisher.Publish(t.Context(), test.topic, test.event, micro.Key("k"), micro.Header("colour", "red")))
		require.Equal(t, test.want, <-got)
	}
}

// TestEventThatCannotBeDecoded goes to the dead letters without being tried again.
func TestEventThatCannotBeDecoded(t *testing.T) {
	dead := make(chan *broker.Message, 1)
	start(t, "listener", func(s *micro.Service) {
		s.Subscribe("numbers", func(context.Context, *struct{ N int }) error { return nil }, broker.DeadLetter("dead"))
		s.Subscribe("dead", func(_ context.Context, m *broker.Message) error { dead <- m; return nil })
	})
	publisher := start(t, "publisher", none)
	require.NoError(t, publisher.Publish(t.Context(), "numbers", []byte("no number"), micro.Header("Content-Type", "application/json")))
	m := <-dead
	require.Equal(t, "1", m.Header[broker.HeaderAttempts])
	require.Contains(t, m.Header[broker.HeaderDeadReason], "decode message")
	require.ErrorContains(t, publisher.Publish(t.Context(), "numbers", nil), "the event is nil")
}

func TestHandleFunc(t *testing.T) {
	svc := start(t, "greeter", func(s *micro.Service) { micro.HandleFunc(s, "Any.Name", Greeter{}.Hello) })
	require.NotEmpty(t, svc.Address())
	require.Contains(t, svc.ID(), "greeter-")
	caller := start(t, "caller", none)
	require.Empty(t, caller.Address())
	rsp, err := client.Call[Greeting](t.Context(), caller.Client(), "greeter", "Any.Name", &Hello{"Ada"})
	require.NoError(t, err)
	require.Equal(t, "Hello, Ada", rsp.Message)
}

func TestDo(t *testing.T) {
	svc := micro.New("caller", inMemory()...)
	err := svc.Do(func(ctx context.Context) error {
		require.True(t, svc.Ready())
		return errors.New("had enough")
	})
	require.EqualError(t, err, "had enough")
	require.False(t, svc.Ready())

	help := micro.New("caller", inMemory(micro.WithArgs("--help"))...)
	require.NoError(t, help.Do(func(context.Context) error { panic("not called") }))
	require.ErrorIs(t, micro.New("caller", inMemory(micro.WithArgs("--help"))...).Start(t.Context()), micro.ErrHelp)
}

// TestListensOnThisMachineOnly looks at all that a service registers with the registry of this machine.
func TestListensOnThisMachineOnly(t *testing.T) {
	store := memory.NewStore()
	reg := store.Open()
	defer reg.Close()
	start(t, "greeter", func(s *micro.Service) {
		s.Handle(Greeter{})
		s.Subscribe("topic", func(context.Context, *Hello) error { return nil })
	}, micro.WithRegistry(reg), micro.WithSetting("registry", ""), micro.WithSetting("transport", "tcp"), micro.WithSetting("broker", "direct"))
	for _, name := range []string{"greeter", "_direct"} {
		found, err := reg.GetService(name)
		require.NoError(t, err)
		for _, n := range found[0].Nodes {
			require.True(t, strings.HasPrefix(n.Address, "127.0.0.1:"), "%s is at %s", name, n.Address)
		}
	}
}

// TestLoopbackIsAWarning registers an address that others find and cannot reach.
func TestLoopbackIsAWarning(t *testing.T) {
	reg := &failing{Registry: memory.NewStore().Open()} // not a registry of one machine, as far as it says
	defer reg.Registry.(*memory.Registry).Close()
	var log bytes.Buffer
	start(t, "greeter", func(s *micro.Service) { s.Handle(Greeter{}) }, micro.WithRegistry(reg), micro.WithSetting("registry", ""),
		micro.WithSetting("transport", "tcp"), micro.WithAddress("127.0.0.1:0"), micro.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	require.Contains(t, log.String(), "--advertise")
}

func TestMistakesAreToldTogether(t *testing.T) {
	svc := micro.New("", inMemory(micro.WithArgs("--register-ttl=soon", "--registery=consul"))...)
	svc.Handle(struct{}{})
	svc.Subscribe("topic", func(string) {})
	err := svc.Start(t.Context())
	require.Error(t, err)
	for _, part := range []string{"soon", "--registery", "topic", "handle struct {}"} {
		require.ErrorContains(t, err, part)
	}
	require.NoError(t, svc.Stop(t.Context()))
}

func TestBeforeStartAndAfterStop(t *testing.T) {
	svc := micro.New("idle", inMemory()...)
	require.False(t, svc.Ready())
	_, err := client.Call[Greeting](t.Context(), svc.Client(), "greeter", "Greeter.Hello", &Hello{})
	require.Equal(t, status.Unavailable, status.CodeOf(err))
	require.ErrorContains(t, err, "service idle is not running")
	require.ErrorContains(t, svc.Publish(t.Context(), "t", "x"), "service idle is not running")
	require.NoError(t, svc.Start(t.Context()))
	require.True(t, svc.Ready())
	require.ErrorContains(t, svc.Start(t.Context()), "started already")
	require.NoError(t, svc.Stop(t.Context()))
	require.False(t, svc.Ready())
	require.NoError(t, svc.Stop(t.Context()))
}

func TestHooksRunInOrder(t *testing.T) {
	var order []string
	hook := func(name string) func(context.Context) error {
		return func(context.Context) error { order = append(order, name); return nil }
	}
	svc := micro.New("hooked", inMemory(micro.AfterStop(hook("after stop")), micro.BeforeStop(hook("before stop")),
		micro.AfterStart(hook("after start")), micro.BeforeStart(hook("before start")), micro.BeforeStart(hook("before start 2")))...)
	require.NoError(t, svc.Start(t.Context()))
	require.NoError(t, svc.Stop(t.Context()))
	require.Equal(t, []string{"before start", "before start 2", "after start", "before stop", "after stop"}, order)
}

// TestHooksMayAsk has hooks ask the service itself, while it starts and while it stops.
func TestHooksMayAsk(t *testing.T) {
	var svc *micro.Service
	var address string
	var starting, stopping bool
	svc = micro.New("asked", inMemory(
		micro.AfterStart(func(context.Context) error { address, starting = svc.Address(), svc.Ready(); return nil }),
		micro.BeforeStop(func(context.Context) error { stopping = svc.Ready(); return nil }))...)
	svc.Handle(Greeter{})
	require.NoError(t, svc.Start(t.Context()))
	require.NoError(t, svc.Stop(t.Context()))
	require.NotEmpty(t, address)
	require.False(t, starting, "it is ready when all hooks are done")
	require.True(t, stopping, "it can still be called")
}

// TestFailedStartLeavesNothing fails at the last moment, when everything is up.
func TestFailedStartLeavesNothing(t *testing.T) {
	reg := memory.NewStore().Open()
	defer reg.Close()
	fails := func(context.Context) error { return errors.New("no coffee") }
	svc := micro.New("greeter", inMemory(micro.WithRegistry(reg), micro.WithSetting("registry", ""), micro.AfterStart(fails))...)
	svc.Handle(Greeter{})
	require.ErrorContains(t, svc.Start(t.Context()), "after start: no coffee")
	_, err := reg.GetService("greeter")
	require.ErrorIs(t, err, registry.ErrNotFound)
}

func TestInstancePassedIn(t *testing.T) {
	store := memory.NewStore()
	reg := store.Open()
	defer reg.Close()
	svc := micro.New("greeter", micro.WithArgs("--transport=memory", "--broker=memory", "--metadata=zone=a,rack=7"), micro.WithEnviron("MICRO_ID=one"),
		micro.WithRegistry(reg), micro.WithVersion("1.2.3"), micro.WithMetadata("zone", "b"), micro.WithLogger(slog.New(slog.DiscardHandler)))
	svc.Handle(Greeter{}, server.Idempotent("Greeter.Hello"))
	require.NoError(t, svc.Start(t.Context()))
	found, err := reg.GetService("greeter")
	require.NoError(t, err)
	require.Equal(t, "1.2.3", found[0].Version)
	require.Equal(t, "one", found[0].Nodes[0].ID)
	require.Equal(t, map[string]string{"zone": "a", "rack": "7"}, found[0].Nodes[0].Metadata, "the flag goes before the code")
	require.Equal(t, "Greeter.Hello", found[0].Endpoints[0].Name)
	require.Equal(t, "true", found[0].Endpoints[0].Metadata[registry.MetadataIdempotent])

	store.Wipe()
	require.Eventually(t, func() bool { _, err := reg.GetService("greeter"); return err == nil }, 5*time.Second, time.Millisecond,
		"a registration that the registry lost does not come back")
	require.NoError(t, svc.Stop(t.Context()))
	_, err = reg.GetService("greeter")
	require.ErrorIs(t, err, registry.ErrNotFound)
	require.NoError(t, reg.Register(found[0]), "the registry is not the service's to close")
}

// TestReadyFollowsTheRegistry has a registry that stops taking registrations.
func TestReadyFollowsTheRegistry(t *testing.T) {
	reg := &failing{Registry: memory.NewStore().Open()}
	defer reg.Registry.(*memory.Registry).Close()
	svc := micro.New("greeter", inMemory(micro.WithSetting("registry", ""), micro.WithRegistry(reg),
		micro.WithArgs("--register-ttl=60ms", "--register-interval=10ms"))...)
	svc.Handle(Greeter{})
	require.NoError(t, svc.Start(t.Context()))
	require.True(t, svc.Ready())
	reg.fail(true)
	require.Eventually(t, func() bool { return !svc.Ready() }, 5*time.Second, time.Millisecond)
	reg.fail(false)
	require.Eventually(t, svc.Ready, 5*time.Second, time.Millisecond)
	require.NoError(t, svc.Stop(t.Context()))
}

type failing struct {
	registry.Registry
	mu     sync.Mutex
	failed bool
}

func (f *failing) fail(yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = yes
}

func (f *failing) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	f.mu.Lock()
	failed := f.failed
	f.mu.Unlock()
	if failed {
		return errors.New("out of order")
	}
	return f.Registry.Register(s, opts...)
}

type slow struct{ begun, enough chan struct{} }

func (s slow) Wait(ctx context.Context, _ *Hello) (*Greeting, error) {
	close(s.begun)
	select {
	case <-s.enough:
		return &Greeting{"done"}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestStopIsBounded(t *testing.T) {
	h := slow{make(chan struct{}), make(chan struct{})}
	svc := micro.New("slow", inMemory(micro.WithArgs("--drain-timeout=500ms"))...)
	svc.Handle(h)
	require.NoError(t, svc.Start(t.Context()))
	caller := start(t, "caller", none)
	failed := make(chan error, 1)
	go func() {
		_, err := client.Call[Greeting](context.Background(), caller.Client(), "slow", "slow.Wait", &Hello{})
		failed <- err
	}()
	<-h.begun
	err := svc.Stop(t.Context())
	require.ErrorContains(t, err, "calls were still running")
	require.ErrorContains(t, err, "drain-timeout")
	require.Error(t, <-failed)
}

func TestOwnSettings(t *testing.T) {
	mine := struct {
		Language string `default:"en" help:"language of greetings"`
	}{}
	start(t, "greeter", none, micro.WithSection("greeter", &mine), micro.WithEnviron("MICRO_GREETER_LANGUAGE=eo"))
	require.Equal(t, "eo", mine.Language)
}

func TestSettingsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "micro.yaml")
	require.NoError(t, os.WriteFile(file, []byte("name: renamed\nregistry: memory\nbroker: {plugin: memory}\ntransport: memory\n"+
		"gateway: {address: ':80', tls: {cert: elsewhere.pem}}\ngateway-middleware: [router]\nmiddleware: {router: {file: x}}\n"), 0o600))
	svc := micro.New("greeter", micro.WithArgs("--config="+file), micro.WithEnviron(), micro.WithLogger(slog.New(slog.DiscardHandler)))
	svc.Handle(Greeter{})
	require.NoError(t, svc.Start(t.Context()))
	defer svc.Stop(context.Background())
	caller := start(t, "caller", none)
	_, err := client.Call[Greeting](t.Context(), caller.Client(), "renamed", "Greeter.Hello", &Hello{"Ada"})
	require.NoError(t, err)
}

func TestUnknownVariableIsAWarning(t *testing.T) {
	var log bytes.Buffer
	start(t, "greeter", none, micro.WithEnviron("MICRO_REGISTRI=consul"), micro.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	require.Contains(t, log.String(), "MICRO_REGISTRI")
}

func TestMiddleware(t *testing.T) {
	var order []string
	note := func(what string) { order = append(order, what) }
	start(t, "greeter", func(s *micro.Service) { s.Handle(Greeter{}) },
		micro.WithServerMiddleware(func(next server.HandlerFunc) server.HandlerFunc {
			return func(ctx context.Context, r *server.Request) (any, error) {
				note("server " + r.Endpoint)
				return next(ctx, r)
			}
		}))
	caller := start(t, "caller", none, micro.WithClientMiddleware(func(next client.Invoker) client.Invoker {
		return func(ctx context.Context, r *client.Request) error {
			note("client " + r.Service)
			return next(ctx, r)
		}
	}))
	_, err := client.Call[Greeting](t.Context(), caller.Client(), "greeter", "Greeter.Hello", &Hello{"Ada"})
	require.NoError(t, err)
	require.Equal(t, "client greeter server Greeter.Hello", strings.Join(order, " "))
}
