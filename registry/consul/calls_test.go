//go:build unix

package consul

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/internal/servers"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/transport/memory"
)

type echo struct{ Text string }

// testCalls has calls served from what is known: the registry is silent, and they cost what they cost before.
func testCalls(t *testing.T, s *servers.Server, _ foreign) {
	tr, err := memory.NewPrivate(memory.Config{})
	require.NoError(t, err)
	l, err := tr.Listen(t.Context(), "")
	require.NoError(t, err)
	service := server.New("calls", server.Options{})
	require.NoError(t, server.Func(service, "Echo", func(_ context.Context, m *echo) (*echo, error) { return m, nil }))
	served := make(chan error, 1)
	go func() { served <- service.Serve(l) }()
	proxy, err := servers.NewProxy(s.Addr)
	require.NoError(t, err)
	defer proxy.Close()
	reg := open(t, settings(proxy.Addr()))
	require.NoError(t, reg.Register(&registry.Service{Name: "calls", Nodes: []*registry.Node{{ID: "calls-1", Address: l.Addr()}}}))
	c := client.New(reg, tr, client.Options{})
	call := func() {
		_, err := client.Call[echo](t.Context(), c, "calls", "Echo", &echo{"hello"})
		require.NoError(t, err)
	}

	call()
	proxy.Blackhole()
	for range 1000 {
		call()
	}
	proxy.Heal()

	require.NoError(t, reg.Deregister(&registry.Service{Name: "calls", Nodes: []*registry.Node{{ID: "calls-1", Address: l.Addr()}}}))
	require.NoError(t, c.Close())
	require.NoError(t, service.Shutdown(context.Background()))
	require.NoError(t, <-served)
}
