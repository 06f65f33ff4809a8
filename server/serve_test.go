package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/internal/wire"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
	"github.com/plugmicro/micro/transport/tcp"
)

type Math struct{}

type Number struct{ N int }

func (Math) Double(_ context.Context, n *Number) (*Number, error) { return &Number{2 * n.N}, nil }

func (Math) Count(_ context.Context, n *Number, out *server.Sender[Number]) error {
	for i := range n.N {
		if err := out.Send(&Number{i}); err != nil {
			return err
		}
	}
	return nil
}

func (Math) Sum(_ context.Context, in *server.Receiver[Number]) (*Number, error) {
	total := new(Number)
	for n, err := range in.All() {
		if err != nil {
			return nil, err
		}
		total.N += n.N
	}
	return total, nil
}

func (Math) Running(_ context.Context, both *server.Stream[Number, Number]) error {
	total := 0
	for n, err := range both.All() {
		if err != nil {
			return err
		}
		total += n.N
		if err := both.Send(&Number{total}); err != nil {
			return err
		}
	}
	return nil
}

func TestAllForms(t *testing.T) {
	for name, tr := range map[string]transport.Transport{"memory": nil, "tcp": tcpTransport(t, tcp.Config{})} {
		t.Run(name, func(t *testing.T) {
			r := serve(t, tr, server.Options{}, handles(Math{}))

			n, err := call[Number](t, r, "Math.Double", &Number{21})
			require.NoError(t, err)
			require.Equal(t, 42, n.N)

			count := openStream[Number, Number](t, r, "Math.Count")
			require.NoError(t, count.Send(&Number{1000}))
			require.NoError(t, count.CloseSend())
			next := 0
			for n, err := range count.All() {
				require.NoError(t, err)
				require.Equal(t, next, n.N)
				next++
			}
			require.Equal(t, 1000, next)

			sum := openStream[Number, Number](t, r, "Math.Sum")
			for i := range 1000 {
				require.NoError(t, sum.Send(&Number{i}))
			}
			require.NoError(t, sum.CloseSend())
			n, err = sum.Recv()
			require.NoError(t, err)
			require.Equal(t, 499500, n.N)
			_, err = sum.Recv()
			require.Equal(t, io.EOF, err)

			running := openStream[Number, Number](t, r, "Math.Running")
			for i, want := range []int{0, 1, 3, 6, 10} {
				require.NoError(t, running.Send(&Number{i}))
				n, err := running.Recv()
				require.NoError(t, err)
				require.Equal(t, want, n.N)
			}
			require.NoError(t, running.CloseSend())
			_, err = running.Recv()
			require.Equal(t, io.EOF, err)
		})
	}
}

func TestWhatCannotBeCalled(t *testing.T) {
	r := serve(t, nil, server.Options{}, handles(Math{}))
	_, err := call[Number](t, r, "Math.Triple", &Number{})
	require.EqualError(t, err, fmt.Sprintf(`Unimplemented: call test Math.Triple at %s: service "test" has no endpoint "Math.Triple"`, r.addr))
	_, err = call[Number](t, r, "Math.Sum", &Number{})
	require.ErrorContains(t, err, `endpoint "Math.Sum" of service "test" is a stream of requests`)
	_, err = client.Open[Number, Number](t.Context(), r.client, "test", "Math.Double", client.Address(r.addr))
	require.ErrorContains(t, err, `endpoint "Math.Double" of service "test" is a call, not a stream`)
	_, err = client.Call[Number](t.Context(), r.client, "other", "Math.Double", &Number{}, client.Address(r.addr))
	require.ErrorContains(t, err, `this address is service "test" now, not "other"`)
	require.Equal(t, status.Unavailable, status.CodeOf(err))
	_, err = call[Number](t, r, "Math.Double", &[]string{"no number"})
	require.Equal(t, status.InvalidArgument, status.CodeOf(err))
	require.ErrorContains(t, err, "decode the request of Math.Double: json: cannot unmarshal array")

	raw := codec.Raw("1")
	_, err = client.Call[codec.Raw](t.Context(), r.client, "test", "Math.Double", &raw, client.Address(r.addr), client.ContentType(codec.Proto))
	require.ErrorContains(t, err, ": decode the request of Math.Double: its type is no protobuf message: use application/json")
	for _, endpoint := range []string{"Math.Count", "Math.Sum", "Math.Running"} {
		wrong := openStream[codec.Raw, codec.Raw](t, r, endpoint)
		require.NoError(t, wrong.Send(&raw))
		_, err = wrong.Recv()
		require.EqualError(t, err, "InvalidArgument: decode the request of "+endpoint+": json: cannot unmarshal number into Go value of type server_test.Number")
	}

	empty := openStream[Number, Number](t, r, "Math.Count")
	require.NoError(t, empty.CloseSend())
	_, err = empty.Recv()
	require.EqualError(t, err, "InvalidArgument: the stream ended before its request")
}

type Panics struct{}

type explosive struct{ Text string }

func (explosive) MarshalJSON() ([]byte, error) { panic("cannot be encoded") }

func (Panics) Call(context.Context, *Number) (*Number, error) { panic("at the disco") }
func (Panics) Nil(_ context.Context, n *Number) (*Number, error) {
	var none *Number
	return &Number{none.N}, nil
}
func (Panics) Stream(context.Context, *server.Stream[Number, Number]) error { panic("in a stream") }
func (Panics) Encode(context.Context, *Number) (*explosive, error)          { return &explosive{}, nil }
func (Panics) Send(_ context.Context, _ *Number, out *server.Sender[explosive]) error {
	return out.Send(&explosive{})
}
func (Panics) Nothing(context.Context, *Number) (*Number, error) { return nil, nil }

func TestPanicsAreErrors(t *testing.T) {
	r := serve(t, nil, server.Options{}, func(s *server.Server) error {
		s.Use(func(next server.HandlerFunc) server.HandlerFunc {
			return func(ctx context.Context, req *server.Request) (any, error) {
				if req.Endpoint == "Panics.Call" && req.Body.(*Number).N == 1 {
					panic("in middleware")
				}
				return next(ctx, req)
			}
		})
		return errors.Join(s.Handle(Panics{}), s.Handle(Math{}), server.Func(s, "Func", Panics{}.Nothing))
	})
	for endpoint, message := range map[string]string{
		"Panics.Call":    "panic in Panics.Call: the log of the service says more",
		"Panics.Nil":     "panic in Panics.Nil: the log of the service says more",
		"Panics.Encode":  "panic in Panics.Encode: the log of the service says more",
		"Panics.Nothing": "the handler returned neither an answer nor an error",
		"Func":           "the handler returned neither an answer nor an error",
	} {
		_, err := call[Number](t, r, endpoint, &Number{})
		require.EqualError(t, err, "Internal: "+message)
	}
	_, err := call[Number](t, r, "Panics.Call", &Number{1})
	require.EqualError(t, err, "Internal: panic in Panics.Call: the log of the service says more")
	for _, endpoint := range []string{"Panics.Stream", "Panics.Send"} {
		st := openStream[Number, Number](t, r, endpoint)
		st.Send(&Number{})
		_, err = st.Recv()
		require.Equal(t, status.Internal, status.CodeOf(err))
		require.ErrorContains(t, err, "panic in "+endpoint)
	}
	require.Contains(t, r.log.String(), "handler panicked")
	require.Contains(t, r.log.String(), "serve_test.go", "with the stack")
	n, err := call[Number](t, r, "Math.Double", &Number{1})
	require.NoError(t, err, "the server goes on")
	require.Equal(t, 2, n.N)
}

// TestErrorsWithoutACodeAreLogged: their callers may not be told what is in them.
func TestErrorsWithoutACodeAreLogged(t *testing.T) {
	fails := func(_ context.Context, n *Number) (*Number, error) {
		if n.N == 0 {
			return nil, status.Errorf(status.NotFound, "no such number")
		}
		return nil, errors.New("disk full")
	}
	r := serve(t, nil, server.Options{}, func(s *server.Server) error { return server.Func(s, "Fails", fails) })
	_, err := call[Number](t, r, "Fails", &Number{})
	require.EqualError(t, err, "NotFound: no such number")
	require.NotContains(t, r.log.String(), "handler failed")
	_, err = call[Number](t, r, "Fails", &Number{1})
	require.EqualError(t, err, "Unknown: disk full")
	require.Contains(t, r.log.String(), `msg="handler failed" endpoint=Fails error="disk full"`)
}

func TestMiddleware(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprintf(format, args...))
	}
	outer := func(next server.HandlerFunc) server.HandlerFunc {
		return func(ctx context.Context, req *server.Request) (any, error) {
			note("%s %s stream=%v body=%v", req.Service, req.Endpoint, req.Stream, req.Body)
			rsp, err := next(ctx, req)
			note("answer=%v err=%v", rsp, err)
			return rsp, err
		}
	}
	inner := func(next server.HandlerFunc) server.HandlerFunc {
		return func(ctx context.Context, req *server.Request) (any, error) {
			if req.Peer == "" {
				return nil, errors.New("no peer")
			}
			if n, ok := req.Body.(*Number); ok && n.N < 0 {
				return nil, status.Errorf(status.PermissionDenied, "not below zero")
			}
			return next(ctx, req)
		}
	}
	r := serve(t, nil, server.Options{}, func(s *server.Server) error {
		s.Use(outer)
		s.Use(inner)
		return s.Handle(Math{})
	})
	_, err := call[Number](t, r, "Math.Double", &Number{1})
	require.NoError(t, err)
	_, err = call[Number](t, r, "Math.Double", &Number{-1})
	require.EqualError(t, err, "PermissionDenied: not below zero")
	st := openStream[Number, Number](t, r, "Math.Running")
	require.NoError(t, st.CloseSend())
	_, err = st.Recv()
	require.Equal(t, io.EOF, err)
	require.Equal(t, []string{
		"test Math.Double stream=false body=&{1}", "answer=&{2} err=<nil>",
		"test Math.Double stream=false body=&{-1}", "answer=<nil> err=PermissionDenied: not below zero",
		"test Math.Running stream=true body=<nil>", "answer=<nil> err=<nil>",
	}, seen)
}

// waiter has an endpoint that runs until it is released.
type waiter struct{ running, release chan struct{} }

func newWaiter() *waiter { return &waiter{make(chan struct{}, 10), make(chan struct{})} }

func (w *waiter) Call(ctx context.Context, n *Number) (*Number, error) {
	w.running <- struct{}{}
	select {
	case <-w.release:
		return n, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w *waiter) Stream(ctx context.Context, both *server.Stream[Number, Number]) error {
	w.running <- struct{}{}
	_, err := both.Recv()
	return err
}

func TestShutdownWaitsForCalls(t *testing.T) {
	w := newWaiter()
	r := serve(t, tcpTransport(t, tcp.Config{}), server.Options{}, handles(w))
	answered := make(chan error, 1)
	go func() {
		_, err := client.Call[Number](context.Background(), r.client, "test", "waiter.Call", &Number{}, client.Address(r.addr))
		answered <- err
	}()
	<-w.running
	down := make(chan error, 1)
	go func() { down <- r.server.Shutdown(context.Background()) }()
	require.Eventually(t, func() bool {
		_, err := r.transport.Dial(context.Background(), r.addr)
		return errors.Is(err, transport.ErrUnreachable)
	}, soon, time.Millisecond, "nobody listens any more")
	select {
	case <-down:
		t.Fatal("did not wait")
	default:
	}
	close(w.release)
	require.NoError(t, <-answered)
	require.NoError(t, <-down)
	require.NoError(t, r.server.Shutdown(t.Context()), "again")

	l, err := r.transport.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, r.server.Serve(l))
	_, err = r.transport.Dial(t.Context(), l.Addr())
	require.ErrorIs(t, err, transport.ErrUnreachable)
}

func TestShutdownCutsOff(t *testing.T) {
	w := newWaiter()
	r := serve(t, nil, server.Options{}, handles(w))
	st := openStream[Number, Number](t, r, "waiter.Stream")
	<-w.running
	ended := make(chan error, 1)
	go func() {
		_, err := call[Number](t, r, "waiter.Call", &Number{})
		ended <- err
	}()
	<-w.running
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("30s passed"))
	require.EqualError(t, r.server.Shutdown(ctx), "shut down: calls were still running, and were cut off: 30s passed")
	require.Equal(t, status.Unavailable, status.CodeOf(<-ended))
	_, err := st.Recv()
	require.Equal(t, status.Unavailable, status.CodeOf(err))
}

// TestShutdownWhileConnecting: connections that come just then are neither forgotten nor waited for without end.
func TestShutdownWhileConnecting(t *testing.T) {
	for range 20 {
		r := serve(t, nil, server.Options{}, handles(Math{}))
		var dialers sync.WaitGroup
		for range 8 {
			dialers.Go(func() {
				conn, err := r.transport.Dial(context.Background(), r.addr)
				if err != nil {
					return
				}
				defer conn.Close()
				conn.Send(context.Background(), wire.AppendHello(nil, wire.Settings{}))
				for err == nil {
					_, err = conn.Recv(context.Background())
				}
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		r.server.Shutdown(ctx)
		cancel()
		dialers.Wait()
	}
}

func TestShutdownOfANewServer(t *testing.T) {
	require.NoError(t, server.New("test", server.Options{}).Shutdown(t.Context()))
}

// TestStrangers: whatever comes in over TCP, the server tells of it in one line, and goes on.
func TestStrangers(t *testing.T) {
	hello := string(wire.AppendHello(nil, wire.Settings{}))
	framed := func(frames ...string) string {
		var b strings.Builder
		for _, f := range frames {
			b.Write([]byte{byte(len(f) >> 24), byte(len(f) >> 16), byte(len(f) >> 8), byte(len(f))})
			b.WriteString(f)
		}
		return b.String()
	}
	for name, c := range map[string]struct {
		bytes string
		logs  string
	}{
		"HTTP":           {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not a micro peer: it looks like HTTP"},
		"TLS":            {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "it looks like TLS: set --transport-tls-cert"},
		"garbage":        {strings.Repeat("\xff\xfe", 100), "not a micro peer"},
		"text":           {"EHLO mail.example.com\r\n", "EHLO mail.example.com"},
		"a wrong hello":  {framed("\x01MACRO\x01"), "does not speak this version of micro's protocol"},
		"oversized":      {framed(hello) + "\x7f\xff\xff\xff", "message too large: 2147483647 bytes, the limit is 4194304"},
		"unknown frame":  {framed(hello, "\xc8"), "malformed frame: type 200 does not come from a caller"},
		"call cut off":   {framed(hello, "\x02\x01"), "malformed frame of type Call: it is cut off"},
		"slow message":   {framed(hello) + "\x00\x00\x00\x10half", ""},
		"ends in middle": {"\x00\x00\x00\x10half", "hello from"},
	} {
		t.Run(name, func(t *testing.T) {
			r := serve(t, tcpTransport(t, tcp.Config{Timeout: 100 * time.Millisecond}), server.Options{}, handles(Math{}))
			conn, err := net.Dial("tcp", r.addr)
			require.NoError(t, err)
			defer conn.Close()
			_, err = conn.Write([]byte(c.bytes))
			require.NoError(t, err)
			if name == "ends in middle" {
				require.NoError(t, conn.(*net.TCPConn).CloseWrite())
			}
			conn.SetReadDeadline(time.Now().Add(soon))
			_, err = io.Copy(io.Discard, conn)
			require.False(t, errors.Is(err, context.DeadlineExceeded), "the server hangs up")
			if c.logs != "" {
				require.Eventually(t, func() bool { return strings.Contains(r.log.String(), c.logs) }, soon, time.Millisecond, "%s", r.log)
				require.Equal(t, 1, strings.Count(r.log.String(), "\n"), "one line: %s", r.log)
			}
			n, err := call[Number](t, r, "Math.Double", &Number{21})
			require.NoError(t, err)
			require.Equal(t, 42, n.N)
		})
	}
}

// TestSlowLoris: connections that say nothing, or next to nothing, hold up nobody, and are closed.
func TestSlowLoris(t *testing.T) {
	r := serve(t, tcpTransport(t, tcp.Config{Timeout: 200 * time.Millisecond}), server.Options{}, handles(Math{}))
	var slow sync.WaitGroup
	for range 50 {
		conn, err := net.Dial("tcp", r.addr)
		require.NoError(t, err)
		slow.Go(func() {
			defer conn.Close()
			for b := byte(0); ; b = 1 { // one byte after the other of a message
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
				conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				if _, err := io.Copy(io.Discard, conn); err == nil || !errors.Is(err, net.ErrClosed) && !isTimeout(err) {
					return
				}
			}
		})
	}
	n, err := call[Number](t, r, "Math.Double", &Number{21})
	require.NoError(t, err)
	require.Equal(t, 42, n.N)
	slow.Wait()
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
