package server_test

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/plugin"
	memreg "github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/transport"
	"github.com/plugmicro/micro/transport/memory"
	"github.com/plugmicro/micro/transport/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is how long a test waits for what must happen.
const soon = 10 * time.Second

// rig is a server that runs, and a client for it.
type rig struct {
	server    *server.Server
	transport transport.Transport
	addr      string
	client    *client.Client
	log       *logged
}

// serve starts a server; the empty transport means memory.
func serve(t testing.TB, tr transport.Transport, opts server.Options, setup func(*server.Server) error) *rig {
	t.Helper()
	if tr == nil {
		var err error
		tr, err = memory.NewPrivate(memory.Config{})
		require.NoError(t, err)
	}
	r := &rig{transport: tr, log: new(logged)}
	opts.Logger = slog.New(slog.NewTextHandler(r.log, nil))
	r.server = server.New("test", opts)
	require.NoError(t, setup(r.server))
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	r.addr = l.Addr()
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(l) }()
	r.client = client.New(memreg.NewStore().Open(), tr, client.Options{})
	t.Cleanup(func() {
		require.NoError(t, r.client.Close())
		require.NoError(t, r.server.Shutdown(context.Background()))
		require.NoError(t, <-served)
	})
	return r
}

func handles(v any, opts ...server.HandleOption) func(*server.Server) error {
	return func(s *server.Server) error { return s.Handle(v, opts...) }
}

func tcpTransport(t testing.TB, c tcp.Config) transport.Transport {
	tr, err := tcp.New(&plugin.Env{}, c)
	require.NoError(t, err)
	return tr
}

func call[Rsp, Req any](t testing.TB, r *rig, endpoint string, req *Req) (*Rsp, error) {
	return client.Call[Rsp](t.Context(), r.client, "test", endpoint, req, client.Address(r.addr))
}

func openStream[Req, Rsp any](t testing.TB, r *rig, endpoint string) *client.Stream[Req, Rsp] {
	t.Helper()
	st, err := client.Open[Req, Rsp](t.Context(), r.client, "test", endpoint, client.Address(r.addr))
	require.NoError(t, err)
	t.Cleanup(func() { st.Close() })
	return st
}

// logged is what the server logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
