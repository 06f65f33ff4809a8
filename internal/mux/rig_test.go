package mux_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/internal/wire"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
	"github.com/plugmicro/micro/transport/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is how long a test waits for what must happen.
const soon = 10 * time.Second

// handler answers by endpoint. What it does not have is refused.
type handler map[string]func(*mux.Call)

func (h handler) Find(service, endpoint []byte, stream bool) (any, *mux.Error) {
	f := h[string(endpoint)]
	if f == nil {
		return nil, &mux.Error{NotRun: true, Status: status.Error{Code: status.Unimplemented, Message: "no " + string(endpoint)}}
	}
	return f, nil
}

func (h handler) Serve(c *mux.Call) { c.Target.(func(*mux.Call))(c) }

func echo(c *mux.Call) { c.Reply(c.Body.B) }

// rig is both sides of one connection.
type rig struct {
	*mux.Client
	server *mux.Server
	ended  chan error // what Run of the server returned
}

func connect(t testing.TB, h mux.Handler, client, server mux.Options) *rig {
	tr, l := listen(t)
	return connectOver(t, tr, l, h, client, server)
}

func connectOver(t testing.TB, tr transport.Transport, l transport.Listener, h mux.Handler, client, server mux.Options) *rig {
	r := &rig{ended: make(chan error, 1)}
	accepted := make(chan *mux.Server, 1)
	workers := mux.NewWorkers()
	go func() {
		conn, err := l.Accept(context.Background())
		if err != nil {
			r.ended <- err
			return
		}
		s, err := mux.Accept(context.Background(), conn, h, workers, server)
		if err != nil {
			r.ended <- err
			return
		}
		accepted <- s
		r.ended <- s.Run()
	}()
	var err error
	r.Client, err = mux.Dial(t.Context(), tr, l.Addr(), client)
	require.NoError(t, err)
	r.server = <-accepted
	t.Cleanup(func() {
		r.Client.Close()
		<-r.server.Closed()
		workers.Close()
	})
	return r
}

func listen(t testing.TB) (transport.Transport, transport.Listener) {
	tr, err := memory.NewPrivate(memory.Config{})
	require.NoError(t, err)
	l, err := tr.Listen(t.Context(), "")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return tr, l
}

func request(endpoint string, body string) *mux.Request {
	return &mux.Request{Service: "test", Endpoint: endpoint, Codec: codec.For([]byte{}), Body: []byte(body), Timeout: soon}
}

// call makes a call and returns the answer as text.
func (r *rig) call(t testing.TB, ctx context.Context, endpoint, body string) (string, error) {
	b, err := r.Call(ctx, request(endpoint, body))
	if err != nil {
		return "", err
	}
	defer b.Release()
	return string(b.B), nil
}

// failure is err as what the package promises it to be.
func failure(t testing.TB, err error) *mux.Error {
	t.Helper()
	var e *mux.Error
	require.ErrorAs(t, err, &e)
	return e
}

// raw is a peer that is none of ours, and does what a test makes it do.
type raw struct {
	t testing.TB
	transport.Conn
}

// rawClient connects raw to a server with h, and says hello.
func rawClient(t testing.TB, h handler, opts mux.Options) (*raw, *mux.Server, chan error) {
	tr, l := listen(t)
	servers, ended := make(chan *mux.Server, 1), make(chan error, 1)
	workers := mux.NewWorkers()
	go func() {
		conn, err := l.Accept(context.Background())
		if err != nil {
			ended <- err
			return
		}
		s, err := mux.Accept(context.Background(), conn, h, workers, opts)
		if err != nil {
			ended <- err
			return
		}
		servers <- s
		ended <- s.Run()
	}()
	conn, err := tr.Dial(t.Context(), l.Addr())
	require.NoError(t, err)
	r := &raw{t, conn}
	r.hello()
	s := <-servers
	t.Cleanup(func() {
		conn.Close()
		<-s.Closed()
		workers.Close()
	})
	return r, s, ended
}

// rawServer connects a client to raw, which says hello.
func rawServer(t testing.TB, opts mux.Options) (*raw, *mux.Client) {
	tr, l := listen(t)
	conns := make(chan transport.Conn, 1)
	go func() {
		conn, err := l.Accept(context.Background())
		if err == nil {
			conn.Send(context.Background(), wire.AppendHello(nil, wire.Settings{MaxMessage: 1 << 20, MaxCalls: 10_000, Window: 1000}))
			conn.Recv(context.Background())
		}
		conns <- conn
	}()
	c, err := mux.Dial(t.Context(), tr, l.Addr(), opts)
	require.NoError(t, err)
	conn := <-conns
	t.Cleanup(func() {
		conn.Close()
		c.Close()
		<-c.Closed()
	})
	return &raw{t, conn}, c
}

func (r *raw) hello() {
	r.send(wire.AppendHello(nil, wire.Settings{MaxMessage: 1 << 20, MaxCalls: 1, Window: 1000}))
	_, err := wire.ParseHello(r.recv())
	require.NoError(r.t, err)
}

func (r *raw) send(frame []byte) {
	r.t.Helper()
	require.NoError(r.t, r.Send(r.t.Context(), frame))
}

func (r *raw) recv() []byte {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), soon)
	defer cancel()
	msg, err := r.Recv(ctx)
	require.NoError(r.t, err)
	return append([]byte(nil), msg...)
}

// sendCall begins a call, or a stream.
func (r *raw) sendCall(c wire.Call, body string) {
	r.t.Helper()
	c.ContentType = []byte(codec.Bytes)
	r.send(append(wire.AppendCall(nil, &c), body...))
}

func (r *raw) recvError() wire.Failure {
	r.t.Helper()
	msg := r.recv()
	require.Equal(r.t, wire.Error, wire.Type(msg[0]), "got %x", msg)
	f, err := wire.ParseError(msg)
	require.NoError(r.t, err)
	return f
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
