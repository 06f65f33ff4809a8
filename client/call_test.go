package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/internal/wire"
	"github.com/plugmicro/micro/metadata"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
	"github.com/plugmicro/micro/transport/tcp"
)

// everywhere runs a test over both transports.
func everywhere(t *testing.T, f func(t *testing.T, opts ...option)) {
	t.Run("memory", func(t *testing.T) { f(t) })
	t.Run("tcp", func(t *testing.T) { f(t, overTCP(tcp.Config{})) })
}

func TestCall(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...option) {
		w := newWorld(t, 1, opts...)
		ctx := metadata.With(t.Context(), "Tenant", "acme")
		rsp, err := w.call(ctx, "Greeter.Hello")
		require.NoError(t, err)
		require.Equal(t, &Greeting{"Hello, Ada", "node-0", "acme"}, rsp)
		rsp, err = w.call(t.Context(), "Greeter.Hello", client.Address(w.nodes[0].addr))
		require.NoError(t, err)
		require.Equal(t, "Hello, Ada", rsp.Message)
	})
}

func TestCodecs(t *testing.T) {
	w := newWorld(t, 0)
	n := w.startService("greeter", "proto", "")
	n.stop()
	s := server.New("proto", server.Options{})
	require.NoError(t, server.Func(s, "Upper", func(_ context.Context, v *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		return wrapperspb.String(v.Value + "!"), nil
	}))
	l, err := w.net.Listen(t.Context(), "")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() { require.NoError(t, s.Shutdown(context.Background())); require.NoError(t, <-served) }()
	for _, contentType := range []string{codec.Proto, codec.JSON} {
		rsp, err := client.Call[wrapperspb.StringValue](t.Context(), w.client, "proto", "Upper", wrapperspb.String("hi"),
			client.Address(l.Addr()), client.ContentType(contentType))
		require.NoError(t, err)
		require.Equal(t, "hi!", rsp.Value)
	}
	_, err = client.Call[struct{}](t.Context(), w.client, "proto", "Upper", &struct{}{}, client.Address(l.Addr()), client.ContentType("text/xml"))
	require.EqualError(t, err, `InvalidArgument: call proto Upper: unknown content type "text/xml": use application/json, application/protobuf or application/octet-stream`)
	_, err = client.Call[[]string](t.Context(), w.client, "proto", "Upper", wrapperspb.String("hi"), client.Address(l.Addr()), client.ContentType(codec.JSON))
	require.ErrorContains(t, err, "Internal: decode the answer of proto Upper into *[]string: json: ")
}

func TestErrorsSayWhatAndWhere(t *testing.T) {
	w := newWorld(t, 1)
	w.nodes[0].fail.Store(&status.Error{Code: status.NotFound, Message: "no such greeting"})
	_, err := w.hello()
	require.EqualError(t, err, "NotFound: no such greeting", "the endpoint's own answer, as it is")

	_, err = client.Call[Greeting](t.Context(), w.client, "nobody", "X.Y", &Hello{})
	require.EqualError(t, err, `Unavailable: no node of service "nobody" is known to registry memory`)
	_, err = w.hello(client.Where(client.Version("9")))
	require.EqualError(t, err, `Unavailable: no node of service "greeter" that the call allows is known to registry memory`)
	_, err = w.hello(client.Address("127.0.0.1:0"))
	require.EqualError(t, err, `Unavailable: call greeter Greeter.Hello at 127.0.0.1:0: dial 127.0.0.1:0: nobody listens`)
	_, err = w.call(t.Context(), "Greeter.Nope")
	require.EqualError(t, err, fmt.Sprintf(`Unimplemented: call greeter Greeter.Nope at %s: service "greeter" has no endpoint "Greeter.Nope"`, w.nodes[0].addr))

	hold := make(chan struct{})
	defer close(hold)
	w.nodes[0].fail.Store(nil)
	w.nodes[0].hold.Store(&hold)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = w.call(ctx, "Greeter.Hello")
	require.EqualError(t, err, fmt.Sprintf("Canceled: call greeter Greeter.Hello at %s: context canceled", w.nodes[0].addr))
}

func TestTimeout(t *testing.T) {
	hold := make(chan struct{})
	w := newWorld(t, 1, with(func(o *client.Options) { o.Timeout = 50 * time.Millisecond }))
	defer close(hold)
	w.nodes[0].hold.Store(&hold)
	_, err := w.call(context.Background(), "Greeter.Hello")
	require.Equal(t, status.DeadlineExceeded, status.CodeOf(err))
	require.Regexp(t, "call greeter Greeter.Hello at .*(no answer in time|context deadline exceeded)|context deadline exceeded", err.Error())
}

// TestTimeoutIsForAllAttempts: retries share the time of the call.
func TestTimeoutIsForAllAttempts(t *testing.T) {
	w := newWorld(t, 3, with(func(o *client.Options) { o.Timeout = 100 * time.Millisecond }))
	for _, n := range w.nodes {
		w.net.blackhole(n.addr, true)
	}
	start := time.Now()
	_, err := w.call(context.Background(), "Greeter.Hello")
	require.Error(t, err)
	require.Less(t, time.Since(start), soon/2)
	_, err = client.Open[Hello, Greeting](context.Background(), w.client, "greeter", "Greeter.Chat")
	require.Equal(t, status.DeadlineExceeded, status.CodeOf(err))
}

func TestOneConnectionForAllCalls(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...option) {
		w := newWorld(t, 1, opts...)
		hold := make(chan struct{})
		w.nodes[0].hold.Store(&hold)
		var calls sync.WaitGroup
		for range 100 {
			calls.Go(func() {
				if _, err := w.hello(); err != nil {
					t.Error(err)
				}
			})
		}
		require.Eventually(t, func() bool { return w.client.InFlight() == 100 }, soon, time.Millisecond, "all at once")
		close(hold)
		calls.Wait()
		require.Equal(t, 1, w.net.dials)
		require.Zero(t, w.client.InFlight())
	})
}

func TestMiddleware(t *testing.T) {
	var seen []string
	note := func(name string) client.Middleware {
		return func(next client.Invoker) client.Invoker {
			return func(ctx context.Context, r *client.Request) error {
				seen = append(seen, fmt.Sprintf("%s %s %s stream=%v", name, r.Service, r.Endpoint, r.Stream))
				err := next(metadata.With(ctx, "tenant", name), r)
				if g, ok := r.Reply.(*Greeting); ok {
					seen = append(seen, name+" "+g.Message)
				}
				return err
			}
		}
	}
	refuse := func(next client.Invoker) client.Invoker {
		return func(ctx context.Context, r *client.Request) error {
			if r.Endpoint == "Greeter.Read" {
				return status.Errorf(status.Unauthenticated, "no token")
			}
			if r.Endpoint == "Greeter.Nothing" {
				return nil
			}
			return next(ctx, r)
		}
	}
	w := newWorld(t, 1)
	c := client.New(w.reg, w.net, client.Options{}, note("outer"), note("inner"), refuse)
	defer c.Close()
	rsp, err := client.Call[Greeting](t.Context(), c, "greeter", "Greeter.Hello", &Hello{"Ada"})
	require.NoError(t, err)
	require.Equal(t, "inner", rsp.Tenant, "what is added to the context travels")
	_, err = client.Call[Greeting](t.Context(), c, "greeter", "Greeter.Read", &Hello{})
	require.EqualError(t, err, "Unauthenticated: no token")
	st, err := client.Open[Hello, Greeting](t.Context(), c, "greeter", "Greeter.Chat")
	require.NoError(t, err)
	require.NoError(t, st.Close())
	_, err = client.Open[Hello, Greeting](t.Context(), c, "greeter", "Greeter.Nothing")
	require.ErrorContains(t, err, "a middleware answered for the service, which it cannot for streams")
	require.Equal(t, []string{
		"outer greeter Greeter.Hello stream=false", "inner greeter Greeter.Hello stream=false", "inner Hello, Ada", "outer Hello, Ada",
		"outer greeter Greeter.Read stream=false", "inner greeter Greeter.Read stream=false", "inner ", "outer ",
		"outer greeter Greeter.Chat stream=true", "inner greeter Greeter.Chat stream=true",
		"outer greeter Greeter.Nothing stream=true", "inner greeter Greeter.Nothing stream=true",
	}, seen)
}

func TestMiddlewareThatComesLater(t *testing.T) {
	w := newWorld(t, 1)
	var seen []string
	note := func(name string) client.Middleware {
		return func(next client.Invoker) client.Invoker {
			return func(ctx context.Context, r *client.Request) error {
				seen = append(seen, name)
				return next(ctx, r)
			}
		}
	}
	c := client.New(w.reg, w.net, client.Options{})
	defer c.Close()
	call := func() []string {
		seen = nil
		_, err := client.Call[Greeting](t.Context(), c, "greeter", "Greeter.Hello", &Hello{"Ada"})
		require.NoError(t, err)
		return seen
	}
	require.Empty(t, call())
	c.Use()
	require.Empty(t, call())
	c.Use(note("c"))
	require.Equal(t, []string{"c"}, call())
	c.Use(note("a"), note("b"))
	require.Equal(t, []string{"a", "b", "c"}, call())
}

// log is a client.Observer that writes everything down.
type log struct {
	mu    sync.Mutex
	lines []string
	ended chan struct{}
}

// observed is a client of w whose requests are written down.
func observed(w *world) (*client.Client, *log) {
	l := &log{ended: make(chan struct{}, 1)}
	c := client.New(w.reg, w.net, client.Options{Logger: slog.New(slog.DiscardHandler)}, func(next client.Invoker) client.Invoker {
		return func(ctx context.Context, r *client.Request) error {
			r.Observe(l)
			return next(ctx, r)
		}
	})
	w.t.Cleanup(func() { require.NoError(w.t, c.Close()) })
	return c, l
}

func (l *log) Attempt(address string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprint("attempt at ", address, ": ", status.CodeOf(err)))
}

func (l *log) End(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprint("end: ", status.CodeOf(err)))
	l.ended <- struct{}{}
}

// take returns what was written down since the last time.
func (l *log) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.lines = nil }()
	return l.lines
}

func TestObserverOfCalls(t *testing.T) {
	w := newWorld(t, 2)
	c, l := observed(w)
	gone, there := w.nodes[0].addr, w.nodes[1].addr
	w.nodes[0].stop()
	first := true
	goneFirst := client.Where(func(n *client.Node) bool {
		defer func() { first = first && n.Address == gone }()
		return n.Address == gone || !first
	})
	_, err := client.Call[Greeting](t.Context(), c, "greeter", "Greeter.Hello", &Hello{"Ada"}, goneFirst)
	require.NoError(t, err)
	require.Equal(t, []string{"attempt at " + gone + ": Unavailable", "attempt at " + there + ": OK"}, l.take())
	w.nodes[1].fail.Store(&status.Error{Code: status.NotFound})
	_, err = client.Call[Greeting](t.Context(), c, "greeter", "Greeter.Hello", &Hello{"Ada"}, client.Address(there))
	require.Error(t, err)
	require.Equal(t, []string{"attempt at " + there + ": NotFound"}, l.take())
}

func TestObserverOfStreams(t *testing.T) {
	w := newWorld(t, 1)
	c, l := observed(w)
	ctx, cancel := context.WithCancel(t.Context())
	for _, tt := range []struct {
		name string
		end  func(*client.Stream[Hello, Greeting])
		want string
	}{
		{"the last answer", func(st *client.Stream[Hello, Greeting]) {
			require.NoError(t, st.CloseSend())
			_, err := st.Recv()
			require.ErrorIs(t, err, io.EOF)
		}, "OK"},
		{"closed by the caller", func(st *client.Stream[Hello, Greeting]) { require.NoError(t, st.Close()) }, "OK"},
		{"the endpoint's error", func(st *client.Stream[Hello, Greeting]) {
			require.NoError(t, st.Send(&Hello{"fail"}))
			_, err := st.Recv()
			require.Error(t, err)
		}, "DataLoss"},
		{"the connection", func(st *client.Stream[Hello, Greeting]) {
			w.net.cut(w.nodes[0].addr)
			_, err := st.Recv()
			require.Error(t, err)
		}, "Unavailable"},
		{"the context", func(*client.Stream[Hello, Greeting]) { cancel() }, "Canceled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st, err := client.Open[Hello, Greeting](ctx, c, "greeter", "Greeter.Chat")
			require.NoError(t, err)
			require.Equal(t, []string{"attempt at " + w.nodes[0].addr + ": OK"}, l.take(), "it is open")
			tt.end(st)
			<-l.ended
			require.NoError(t, st.Close())
			require.Equal(t, []string{"end: " + tt.want}, l.take(), "once")
		})
	}
	_, err := client.Open[Hello, Greeting](t.Context(), c, "greeter", "Greeter.Nope")
	require.Error(t, err)
	require.Equal(t, []string{"attempt at " + w.nodes[0].addr + ": Unimplemented"}, l.take(), "what was not opened does not end")
}

func TestStream(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...option) {
		w := newWorld(t, 2, opts...)
		st, err := client.Open[Hello, Greeting](t.Context(), w.client, "greeter", "Greeter.Chat")
		require.NoError(t, err)
		require.Equal(t, 1, w.client.InFlight(), "a balancer counts it")
		require.NoError(t, st.Send(&Hello{"Ada"}))
		rsp, err := st.Recv()
		require.NoError(t, err)
		require.Equal(t, "Hello, Ada", rsp.Message)
		require.NoError(t, st.CloseSend())
		for range st.All() {
			t.Fatal("nothing more was to come")
		}
		require.Zero(t, w.client.InFlight(), "received to its end, it needs no Close")
		require.NoError(t, st.Close())
		require.Zero(t, w.client.InFlight())
	})
}

func TestStreamErrors(t *testing.T) {
	w := newWorld(t, 1)
	addr := w.nodes[0].addr
	open := func(ctx context.Context) *client.Stream[Hello, Greeting] {
		st, err := client.Open[Hello, Greeting](ctx, w.client, "greeter", "Greeter.Chat")
		require.NoError(t, err)
		return st
	}
	st := open(t.Context())
	require.NoError(t, st.Send(&Hello{"fail"}))
	_, err := st.Recv()
	require.EqualError(t, err, "DataLoss: as you say", "the endpoint's own, as it is")

	ctx, cancel := context.WithCancel(t.Context())
	st = open(ctx)
	cancel()
	_, err = st.Recv()
	require.EqualError(t, err, fmt.Sprintf("Canceled: stream greeter Greeter.Chat at %s: context canceled", addr))
	require.Equal(t, status.Canceled, status.CodeOf(st.Send(&Hello{})))
	require.Eventually(t, func() bool { return w.client.InFlight() == 0 }, soon, time.Millisecond)

	st = open(t.Context())
	require.NoError(t, st.Close())
	_, err = st.Recv()
	require.EqualError(t, err, fmt.Sprintf("Canceled: stream greeter Greeter.Chat at %s: the stream was closed", addr))

	st = open(t.Context())
	w.nodes[0].kill()
	_, err = st.Recv()
	require.ErrorContains(t, err, fmt.Sprintf("Unavailable: stream greeter Greeter.Chat at %s: connection lost: ", addr))
	require.Zero(t, w.client.InFlight())
}

func TestClose(t *testing.T) {
	w := newWorld(t, 2)
	hold := make(chan struct{})
	defer close(hold)
	w.nodes[0].hold.Store(&hold)
	w.nodes[1].hold.Store(&hold)
	ended := make(chan error, 1)
	go func() {
		_, err := w.call(context.Background(), "Greeter.Hello")
		ended <- err
	}()
	require.Eventually(t, func() bool { return w.client.InFlight() == 1 }, soon, time.Millisecond)
	require.NoError(t, w.client.Close())
	require.Equal(t, status.Unavailable, status.CodeOf(<-ended))
	require.NoError(t, w.client.Close(), "again")
	for _, opts := range [][]client.CallOption{nil, {client.Address(w.nodes[0].addr)}} {
		_, err := w.hello(opts...)
		require.EqualError(t, err, "Unavailable: the client is closed")
	}
	_, err := client.Call[Greeting](t.Context(), w.client, "other", "X", &Hello{})
	require.EqualError(t, err, "Unavailable: the client is closed")

	fresh := client.New(w.reg, w.net, client.Options{})
	require.NoError(t, fresh.Close())
	_, err = client.Call[Greeting](t.Context(), fresh, "greeter", "X", &Hello{})
	require.EqualError(t, err, "Unavailable: the client is closed")
}

// TestCloseWhileCalling: whatever calls do just then, they end and leave nothing behind.
func TestCloseWhileCalling(t *testing.T) {
	for range 30 {
		w := newWorld(t, 2)
		var calls sync.WaitGroup
		for range 8 {
			calls.Go(func() {
				for {
					if _, err := w.call(context.Background(), "Greeter.Read"); err != nil {
						return
					}
				}
			})
		}
		if w.net.live() == 0 {
			require.NoError(t, w.client.Close())
		}
		w.client.Close()
		calls.Wait()
	}
}

func TestLazy(t *testing.T) {
	w := newWorld(t, 1)
	opened := 0
	c := client.Lazy(func() (registry.Registry, transport.Transport, error) {
		if opened++; opened == 1 {
			return nil, nil, errors.New("not yet")
		}
		return w.reg, w.net, nil
	}, client.Options{})
	defer c.Close()
	require.Zero(t, opened)
	_, err := client.Call[Greeting](t.Context(), c, "greeter", "Greeter.Hello", &Hello{})
	require.EqualError(t, err, "Unavailable: not yet")
	for range 3 {
		_, err = client.Call[Greeting](t.Context(), c, "greeter", "Greeter.Hello", &Hello{})
		require.NoError(t, err)
	}
	require.Equal(t, 2, opened)
}

// TestStrangers: a registered address where something else answers is one clear error.
func TestStrangers(t *testing.T) {
	hello := string(frame(wire.AppendHello(nil, wire.Settings{MaxMessage: 1 << 20, MaxCalls: 10, Window: 1000})))
	for name, c := range map[string]struct {
		hello   string // what is sent first
		answer  string // to the call
		message string
	}{
		"HTTP":             {"HTTP/1.1 400 Bad Request\r\n\r\n", "", "not a micro peer: it looks like HTTP"},
		"redis":            {"-ERR unknown command\r\n", "", `not a micro peer: it sent "-ERR unknown command"`},
		"hangs up":         {"", "", "connection lost: unexpected EOF"},
		"cut in a message": {hello, "\x00\x00\x00\x64\x03\x01", "connection lost: unexpected EOF within a message"},
		"oversized":        {hello, "\x7f\xff\xff\xff", "message too large: 2147483647 bytes, the limit is 4194304"},
		"garbage":          {hello, "\x00\x00\x00\x01\xc8", "protocol broken by"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 0, overTCP(tcp.Config{}))
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			var served sync.WaitGroup
			served.Go(func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				io.ReadFull(conn, make([]byte, 4+wireHelloSize))
				io.WriteString(conn, c.hello)
				if c.answer != "" {
					conn.Read(make([]byte, 1000))
					io.WriteString(conn, c.answer)
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			_, err = w.call(ctx, "Greeter.Hello", client.Address(l.Addr().String()))
			require.ErrorContains(t, err, "Unavailable: call greeter Greeter.Hello at "+l.Addr().String())
			require.ErrorContains(t, err, c.message)
			l.Close()
			served.Wait()
		})
	}
}

// wireHelloSize is the size of what a client with the default settings says first.
var wireHelloSize = len(wire.AppendHello(nil, wire.Settings{MaxMessage: transport.DefaultMaxMessage, MaxCalls: mux.DefaultMaxCalls, Window: mux.DefaultWindow}))

func frame(b []byte) []byte {
	n := len(b)
	return append([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, b...)
}
