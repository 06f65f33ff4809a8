package tracing_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/broker"
	memorybroker "github.com/plugmicro/micro/broker/memory"
	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/internal/spantest"
	"github.com/plugmicro/micro/metadata"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	memoryregistry "github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/tracer"
	"github.com/plugmicro/micro/tracing"
	"github.com/plugmicro/micro/transport/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a service, and a client of it, that share a tracer.
type world struct {
	spans  *spantest.Tracer
	client *client.Client
	plain  *client.Client // one that is not traced
	reg    registry.Registry
	addr   string
}

const (
	soon = 10 * time.Second
	tick = time.Millisecond
)

type Hello struct{ Name string }

// Greeter is the service. It answers with the span that it sees, or as the request says.
type Greeter struct{ calls *client.Client }

func (g Greeter) Hello(ctx context.Context, req *Hello) (*string, error) {
	switch req.Name {
	case "panic":
		panic("as you say")
	case "unknown":
		return nil, errors.New("disk full")
	case "garbled":
		return nil, errors.New("disk \xfffull") // which OTLP's protobuf does not take
	case "missing":
		return nil, status.Errorf(status.NotFound, "no such greeting%s", strings.Repeat("!", 500))
	case "next":
		return client.Call[string](ctx, g.calls, "greeter", "Greeter.Hello", &Hello{"Ada"})
	}
	own := trace.SpanFromContext(ctx).SpanContext().SpanID().String()
	return &own, nil
}

func (g Greeter) Chat(ctx context.Context, both *server.Stream[Hello, string]) error {
	for req, err := range both.All() {
		if err != nil {
			return err
		}
		if req.Name == "fail" {
			return status.Errorf(status.DataLoss, "as you say")
		}
		rsp, err := g.Hello(ctx, req)
		if err != nil {
			return err
		}
		if err := both.Send(rsp); err != nil {
			return err
		}
	}
	return nil
}

func newWorld(t testing.TB, spans *spantest.Tracer) *world {
	w := newWorldOf(t, spans)
	w.spans = spans
	return w
}

// newWorldOf makes one with any tracer, or none.
func newWorldOf(t testing.TB, by tracer.Tracer) *world {
	log := slog.New(slog.DiscardHandler)
	reg := memoryregistry.NewStore().Open()
	tr, err := tcp.New(&plugin.Env{}, tcp.Config{})
	require.NoError(t, err)
	w := &world{reg: reg, client: client.New(reg, tr, client.Options{Logger: log}), plain: client.New(reg, tr, client.Options{Logger: log})}
	if by != nil {
		w.client.Use(tracing.Client(by))
	}
	s := server.New("greeter", server.Options{Logger: log})
	if by != nil {
		s.Use(tracing.Server(by))
	}
	require.NoError(t, s.Handle(Greeter{w.client}))
	require.NoError(t, server.Func(s, "Echo", func(_ context.Context, req *[]byte) (*[]byte, error) { return req, nil }))
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	w.addr = l.Addr()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	w.register(t, l.Addr())
	t.Cleanup(func() {
		require.NoError(t, w.client.Close())
		require.NoError(t, w.plain.Close())
		require.NoError(t, s.Shutdown(context.Background()))
		require.NoError(t, <-served)
	})
	return w
}

func (w *world) register(t testing.TB, addr string) {
	require.NoError(t, w.reg.Register(&registry.Service{Name: "greeter", Nodes: []*registry.Node{{ID: addr, Address: addr}}}))
}

func (w *world) hello(ctx context.Context, name string) (*string, error) {
	return client.Call[string](ctx, w.client, "greeter", "Greeter.Hello", &Hello{name})
}

const (
	helloClient = "greeter/Greeter.Hello client"
	helloServer = "greeter/Greeter.Hello server"
	chatClient  = "greeter/Greeter.Chat client"
	chatServer  = "greeter/Greeter.Chat server"
)

func TestCall(t *testing.T) {
	w := newWorld(t, spantest.New())
	seen, err := w.hello(t.Context(), "Ada")
	require.NoError(t, err)
	called, served := w.spans.Wait(t, helloClient), w.spans.Wait(t, helloServer)
	require.True(t, served.ChildOf(called))
	require.True(t, served.Parent.IsRemote())
	require.Equal(t, served.SpanContext.SpanID().String(), *seen, "the handler's context has the span")
	host, port, _ := strings.Cut(w.addr, ":")
	for _, s := range []spantest.Span{called, served} {
		require.Equal(t, "micro", s.Attribute(string(semconv.RPCSystemKey)))
		require.Equal(t, "greeter", s.Attribute(string(semconv.RPCServiceKey)))
		require.Equal(t, "Greeter.Hello", s.Attribute(string(semconv.RPCMethodKey)))
		require.Equal(t, "OK", s.Attribute("rpc.response.status_code"))
		require.Equal(t, codes.Unset, s.Status.Code)
		require.Equal(t, semconv.SchemaURL, s.InstrumentationScope.SchemaURL)
	}
	require.Equal(t, host, called.Attribute(string(semconv.ServerAddressKey)))
	require.Equal(t, port, called.Attribute(string(semconv.ServerPortKey)))
	require.Equal(t, "127.0.0.1", served.Attribute(string(semconv.NetworkPeerAddressKey)))
	require.NotEmpty(t, served.Attribute(string(semconv.NetworkPeerPortKey)))
	require.Empty(t, called.Events)
}

func TestCallOfAHandlerIsPartOfTheTrace(t *testing.T) {
	w := newWorld(t, spantest.New())
	_, err := w.hello(t.Context(), "next")
	require.NoError(t, err)
	w.spans.Wait(t, helloServer)
	require.Eventually(t, func() bool { return len(w.spans.Ended()) == 4 }, soon, tick)
	spans := w.spans.Ended()
	for _, s := range spans {
		require.Equal(t, spans[0].SpanContext.TraceID(), s.SpanContext.TraceID())
	}
	last := spans[3]
	require.False(t, last.Parent.IsValid(), "the first call began the trace, and ended last: %v", w.spans.Labels())
}

func TestErrorsOfCalls(t *testing.T) {
	for _, tt := range []struct{ name, code, serverType, serverMessage string }{
		{"missing", "NotFound", "", ""}, // the caller's mistake is no failure of the server
		{"unknown", "Unknown", "_OTHER", "disk full"},
		{"garbled", "Unknown", "_OTHER", "disk full"},
		{"panic", "Unknown", "panic", "panic"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, spantest.New())
			_, err := w.hello(t.Context(), tt.name)
			require.Error(t, err)
			called, served := w.spans.Wait(t, helloClient), w.spans.Wait(t, helloServer)
			require.Equal(t, codes.Error, called.Status.Code)
			require.NotEmpty(t, called.Attribute("error.type"))
			require.LessOrEqual(t, len(called.Status.Description), 256)
			require.True(t, utf8.ValidString(called.Status.Description))
			require.Equal(t, tt.serverType != "", served.Status.Code == codes.Error)
			require.Equal(t, tt.serverMessage, served.Status.Description)
			require.Equal(t, tt.serverType, served.Attribute("error.type"))
			require.Equal(t, tt.code, served.Attribute("rpc.response.status_code"))
		})
	}
	w := newWorld(t, spantest.New())
	_, err := client.Call[string](t.Context(), w.client, "nobody", "X.Y", &Hello{})
	require.Error(t, err)
	called := w.spans.Wait(t, "nobody/X.Y client")
	require.Equal(t, "Unavailable", called.Attribute("rpc.response.status_code"))
	require.Equal(t, "Unavailable", called.Attribute("error.type"))
	require.Empty(t, called.Attribute("server.address"))
}

func TestAttemptsAreEvents(t *testing.T) {
	w := newWorld(t, spantest.New())
	first := true
	down := "127.0.0.1:1" // nobody listens
	w.register(t, down)
	_, err := client.Call[string](t.Context(), w.client, "greeter", "Greeter.Hello", &Hello{"Ada"}, client.Where(func(n *client.Node) bool {
		defer func() { first = first && n.Address == down }()
		return n.Address == down || !first
	}))
	require.NoError(t, err)
	called := w.spans.Wait(t, helloClient)
	require.Len(t, called.Events, 1)
	require.Equal(t, "attempt failed", called.Events[0].Name)
	require.Equal(t, "1", called.EventAttribute(0, "server.port"))
	require.Equal(t, "Unavailable", called.EventAttribute(0, "rpc.response.status_code"))
	require.Equal(t, "OK", called.Attribute("rpc.response.status_code"))
	require.Equal(t, codes.Unset, called.Status.Code)
}

func TestStream(t *testing.T) {
	for _, tt := range []struct {
		name           string
		end            func(*client.Stream[Hello, string])
		client, server string // codes
		failed         bool
	}{
		{"to the last answer", func(st *client.Stream[Hello, string]) {
			require.NoError(t, st.CloseSend())
			_, err := st.Recv()
			require.ErrorIs(t, err, io.EOF)
		}, "OK", "OK", false},
		{"closed by the caller", func(st *client.Stream[Hello, string]) { require.NoError(t, st.Close()) }, "OK", "Canceled", false},
		{"failed", func(st *client.Stream[Hello, string]) {
			require.NoError(t, st.Send(&Hello{"fail"}))
			_, err := st.Recv()
			require.Error(t, err)
		}, "DataLoss", "DataLoss", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, spantest.New())
			st, err := client.Open[Hello, string](t.Context(), w.client, "greeter", "Greeter.Chat")
			require.NoError(t, err)
			require.NoError(t, st.Send(&Hello{"next"}))
			_, err = st.Recv()
			require.NoError(t, err)
			inner := w.spans.Wait(t, helloServer)
			require.NotContains(t, w.spans.Labels(), chatClient, "the stream lives, and so do its spans")
			require.NotContains(t, w.spans.Labels(), chatServer)
			tt.end(st)
			opened, served := w.spans.Wait(t, chatClient), w.spans.Wait(t, chatServer)
			require.True(t, served.ChildOf(opened))
			require.Equal(t, opened.SpanContext.TraceID(), inner.SpanContext.TraceID())
			require.Equal(t, tt.client, opened.Attribute("rpc.response.status_code"))
			require.Equal(t, tt.server, served.Attribute("rpc.response.status_code"))
			require.Equal(t, tt.failed, opened.Status.Code == codes.Error)
			require.Equal(t, tt.failed, served.Status.Code == codes.Error)
			require.False(t, opened.EndTime.Before(inner.EndTime))
		})
	}
	w := newWorld(t, spantest.New())
	_, err := client.Open[Hello, string](t.Context(), w.client, "greeter", "Greeter.Nope")
	require.Error(t, err)
	require.Equal(t, "Unimplemented", w.spans.Wait(t, "greeter/Greeter.Nope client").Attribute("rpc.response.status_code"))
}

// TestUnsampled: nothing is recorded, and the others are told so.
func TestUnsampled(t *testing.T) {
	w := newWorld(t, spantest.New(sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample()))))
	seen, err := w.hello(t.Context(), "next")
	require.NoError(t, err)
	require.NotEqual(t, strings.Repeat("0", 16), *seen, "the context travels all the same")
	st, err := client.Open[Hello, string](t.Context(), w.client, "greeter", "Greeter.Chat")
	require.NoError(t, err)
	require.NoError(t, st.Close())
	require.Empty(t, w.spans.Ended())
}

func TestStrangersMetadata(t *testing.T) {
	w := newWorld(t, spantest.New())
	for _, v := range []string{"", "nonsense", "00-zz-zz-01", strings.Repeat("0", 1000), "00-" + strings.Repeat("f", 32) + "-" + strings.Repeat("f", 16) + "-01-extra"} {
		w.spans.Reset()
		_, err := client.Call[string](metadata.With(t.Context(), "Traceparent", v), w.plain, "greeter", "Greeter.Hello", &Hello{"Ada"})
		require.NoError(t, err)
		require.False(t, w.spans.Wait(t, helloServer).Parent.IsValid(), v)
	}
}

func TestPublishAndHandle(t *testing.T) {
	spans := spantest.New()
	b := tracing.Broker(spans, newBroker(t))
	handled := make(chan *broker.Message, 10)
	tries := 0
	_, err := b.Subscribe(t.Context(), "orders", func(ctx context.Context, m *broker.Message) error {
		handled <- m
		if tries++; tries == 1 {
			return errors.New("try again")
		}
		return nil
	}, broker.Group("stock"))
	require.NoError(t, err)
	m := &broker.Message{ID: "one", Header: map[string]string{"Tenant": "acme"}, Body: []byte("secret")}
	ctx, root := spans.Provider().Tracer("test").Start(t.Context(), "root")
	require.NoError(t, b.Publish(ctx, "orders", m))
	root.End()
	require.Equal(t, map[string]string{"Tenant": "acme"}, m.Header, "what is published belongs to the publisher")
	got := <-handled
	<-handled
	require.Equal(t, "acme", got.Header["Tenant"])

	published := spans.Wait(t, "publish orders producer")
	require.Equal(t, root.SpanContext().SpanID(), published.Parent.SpanID())
	require.Eventually(t, func() bool { return len(spans.Ended()) == 4 }, soon, tick)
	var tried []spantest.Span
	for _, s := range spans.Ended() {
		if s.Label() == "process orders consumer" {
			tried = append(tried, s)
		}
	}
	require.Len(t, tried, 2)
	require.Equal(t, codes.Error, tried[0].Status.Code)
	require.Equal(t, "try again", tried[0].Status.Description)
	require.Equal(t, codes.Unset, tried[1].Status.Code)
	for _, s := range append(tried, published) {
		require.Equal(t, "memory", s.Attribute(string(semconv.MessagingSystemKey)))
		require.Equal(t, "orders", s.Attribute(string(semconv.MessagingDestinationNameKey)))
		require.Equal(t, "one", s.Attribute(string(semconv.MessagingMessageIDKey)))
		require.Equal(t, "6", s.Attribute(string(semconv.MessagingMessageBodySizeKey)))
	}
	require.Equal(t, "publish", published.Attribute(string(semconv.MessagingOperationNameKey)))
	require.Equal(t, "send", published.Attribute(string(semconv.MessagingOperationTypeKey)))
	for _, s := range tried {
		require.True(t, s.ChildOf(published))
		require.Equal(t, "process", s.Attribute(string(semconv.MessagingOperationNameKey)))
		require.Equal(t, "process", s.Attribute(string(semconv.MessagingOperationTypeKey)))
		require.Equal(t, "stock", s.Attribute(string(semconv.MessagingConsumerGroupNameKey)))
	}
}

func TestPublishSeveral(t *testing.T) {
	spans := spantest.New()
	b := tracing.Broker(spans, newBroker(t))
	_, err := b.Subscribe(t.Context(), "orders", func(ctx context.Context, m *broker.Message) error { return nil })
	require.NoError(t, err)
	require.NoError(t, b.Publish(t.Context(), "orders", &broker.Message{Body: []byte("1")}, &broker.Message{Body: []byte("2")}))
	published := spans.Wait(t, "publish orders producer")
	require.Equal(t, "2", published.Attribute(string(semconv.MessagingBatchMessageCountKey)))
	require.Eventually(t, func() bool { return len(spans.Ended()) == 3 }, soon, tick)
	for _, s := range spans.Ended()[1:] {
		require.Equal(t, published.SpanContext.TraceID(), s.SpanContext.TraceID())
	}
}

// TestTracingFailsNothing: what the broker would take without tracing it takes with it, and what it refuses is refused.
func TestTracingFailsNothing(t *testing.T) {
	spans := spantest.New()
	inner := newBroker(t)
	b := tracing.Broker(spans, inner)
	require.Equal(t, broker.CapabilitiesOf(inner), broker.CapabilitiesOf(b))
	full := map[string]string{}
	for i := range broker.MaxHeaders {
		full[strings.Repeat("k", i+1)] = "v"
	}
	require.NoError(t, b.Publish(t.Context(), "orders", &broker.Message{Header: full}))
	large := map[string]string{"k": strings.Repeat("v", broker.MaxHeaderBytes-1)}
	require.NoError(t, b.Publish(t.Context(), "orders", &broker.Message{Header: large}))
	require.NoError(t, b.Publish(t.Context(), "orders"))

	spans.Reset()
	require.ErrorIs(t, b.Publish(t.Context(), "orders", nil), broker.ErrInvalid)
	require.Equal(t, codes.Error, spans.Wait(t, "publish orders producer").Status.Code)
	_, err := b.Subscribe(t.Context(), "orders", nil)
	require.ErrorIs(t, err, broker.ErrInvalid)
}

func TestHandlerThatPanics(t *testing.T) {
	spans := spantest.New()
	b := tracing.Broker(spans, newBroker(t))
	_, err := b.Subscribe(t.Context(), "orders", func(context.Context, *broker.Message) error { panic("as you say") },
		broker.Retry(broker.RetryPolicy{Attempts: 1}))
	require.NoError(t, err)
	require.NoError(t, b.Publish(t.Context(), "orders", &broker.Message{}))
	s := spans.Wait(t, "process orders consumer")
	require.Equal(t, "panic", s.Attribute("error.type"))
}

func newBroker(t *testing.T) broker.Broker {
	b, err := memorybroker.New(&plugin.Env{}, memorybroker.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}
