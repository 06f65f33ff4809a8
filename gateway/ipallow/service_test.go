package ipallow_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/directory"
	"github.com/plugmicro/micro/gateway/ipallow"
	"github.com/plugmicro/micro/gateway/rpc"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	memreg "github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/transport/tcp"
)

type Accounts struct{}

type account struct{ ID int }

func (Accounts) Delete(context.Context, *account) (*account, error) { return &account{}, nil }

// TestAPathIsNoProtectionOfAService is what the package comment warns of, with a service and the way to it as they are.
func TestAPathIsNoProtectionOfAService(t *testing.T) {
	services := accounts(t)
	ways := map[string]string{ // path → body: all of them call Accounts.Delete
		"/accounts/delete":          `{}`,
		"/accounts/Accounts.Delete": `{}`,
		"/v1/rpc":                   `{"service": "accounts", "endpoint": "Accounts.Delete", "body": {}}`,
	}
	status := func(m gateway.Middleware, client, path, body string) int {
		r := httptest.NewRequest("POST", path, bytes.NewBufferString(body))
		r.Header.Set("Content-Type", "application/json")
		r = gateway.With(r, &gateway.Info{Host: "a", Client: netip.MustParseAddr(client)})
		w := httptest.NewRecorder()
		m.Handler(services).ServeHTTP(w, r)
		return w.Code
	}
	byPath := open(t, ipallow.Config{File: write(t, "routes: [{path: /accounts/delete, allow: [10.0.0.1]}]")})
	byService := open(t, ipallow.Config{File: write(t, "services: [{service: accounts, allow: [10.0.0.1]}]")})
	byEndpoint := open(t, ipallow.Config{File: write(t, "services: [{service: accounts, endpoint: Accounts.Delete, allow: [10.0.0.1]}]")})
	for path, body := range ways {
		want := http.StatusOK
		if path == "/accounts/delete" {
			want = http.StatusForbidden
		}
		require.Equal(t, want, status(byPath, "203.0.113.7", path, body), "by path: %s", path)
		for _, m := range []gateway.Middleware{byService, byEndpoint} {
			require.Equal(t, http.StatusForbidden, status(m, "203.0.113.7", path, body), "by service: %s", path)
			require.Equal(t, http.StatusOK, status(m, "10.0.0.1", path, body), "by service: %s", path)
		}
	}
}

// accounts starts the service, and what calls it.
func accounts(t *testing.T) http.Handler {
	quiet := slog.New(slog.DiscardHandler)
	tr, err := tcp.New(new(plugin.Env), tcp.Config{})
	require.NoError(t, err)
	s := server.New("accounts", server.Options{Logger: quiet})
	require.NoError(t, s.Handle(Accounts{}))
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	store := memreg.NewStore()
	require.NoError(t, store.Open().Register(&registry.Service{Name: "accounts", Version: "1", Endpoints: s.Endpoints(),
		Nodes: []*registry.Node{{ID: "accounts-1", Address: l.Addr()}}}))
	c := client.New(store.Open(), tr, client.Options{Logger: quiet})
	d := directory.Follow(store.Open(), quiet)
	require.Eventually(t, d.Ready, 10*time.Second, time.Millisecond)
	h := rpc.New(c, d, rpc.Options{Logger: quiet})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, h.Shutdown(ctx))
		for _, closer := range []io.Closer{d, c} {
			require.NoError(t, closer.Close())
		}
		require.NoError(t, s.Shutdown(ctx))
		require.NoError(t, <-served)
	})
	return h
}
