package xray

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	memorybroker "github.com/plugmicro/micro/broker/memory"
	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	memoryregistry "github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/tracing"
	"github.com/plugmicro/micro/tracing/httptrace"
	"github.com/plugmicro/micro/transport/tcp"
)

type order struct{ Item string }

// shop publishes what is ordered.
type shop struct{ broker broker.Broker }

func (s *shop) Order(ctx context.Context, o *order) (*order, error) {
	if o.Item == "" {
		return nil, status.Errorf(status.NotFound, "no such item")
	}
	return o, s.broker.Publish(ctx, "orders", &broker.Message{Body: []byte(o.Item)})
}

// TestOneTrace runs from an HTTP request through a call and a message to its handler.
func TestOneTrace(t *testing.T) {
	d := newDaemon(t)
	c := Config{Sampling: "local", Daemon: d.address}
	tr := openTracer(t, c)
	log := slog.New(slog.DiscardHandler)
	lastly := make(chan string, 1)
	plain, err := memorybroker.New(&plugin.Env{}, memorybroker.Config{})
	require.NoError(t, err)
	defer plain.Close()
	b := tracing.Broker(tr, plain)
	_, err = b.Subscribe(t.Context(), "orders", func(ctx context.Context, _ *broker.Message) error {
		tr.Inject(ctx, func(_, value string) { lastly <- value })
		return nil
	})
	require.NoError(t, err)

	overTCP, err := tcp.New(&plugin.Env{}, tcp.Config{})
	require.NoError(t, err)
	s := server.New("shop", server.Options{Logger: log})
	s.Use(tracing.Server(tr))
	require.NoError(t, s.Handle(&shop{b}))
	l, err := overTCP.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	reg := memoryregistry.NewStore().Open()
	require.NoError(t, reg.Register(&registry.Service{Name: "shop", Nodes: []*registry.Node{{ID: "1", Address: l.Addr()}}}))
	calls := client.New(reg, overTCP, client.Options{Logger: log})
	calls.Use(tracing.Client(tr))
	defer func() {
		require.NoError(t, calls.Close())
		require.NoError(t, s.Shutdown(context.Background()))
		require.NoError(t, <-served)
	}()

	request := func(item string, answer int) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/shop/order", nil)
		r.Header.Set(headerName, root+";"+parent+";Sampled=1;Lineage=a:1")
		r, span := httptrace.Start(tr, gateway.With(r, &gateway.Info{Route: "/shop/order"}))
		_, _ = client.Call[order](r.Context(), calls, "shop", "shop.Order", &order{item})
		span.End(answer, -1, nil)
	}
	get := func(n int) map[string]map[string]any { // by what was done
		documents := make(map[string]map[string]any)
		for range n {
			got := d.next()
			require.Equal(t, "1-5759e988-bd862e3fe1be46a994272793", got["trace_id"])
			kind, _ := got["type"].(string)
			documents[got["annotations"].(map[string]any)["operation"].(string)+kind] = got
		}
		return documents
	}

	request("pen", 200)
	got := get(5)
	chain := []string{"POST /shop/order", "shop/shop.Ordersubsegment", "shop/shop.Order", "publish orderssubsegment", "process orders"}
	above := "53995c3f42cd8ad8"
	for _, name := range chain {
		require.Contains(t, got, name)
		require.Equal(t, above, got[name]["parent_id"], name)
		above = got[name]["id"].(string)
	}
	want{"name": "shop", "namespace": "remote"}.in(t, got[chain[1]])
	want{"name": "orders", "namespace": "remote"}.in(t, got[chain[3]])
	require.Equal(t, root+";Parent="+above+";Sampled=1;Lineage=a:1", <-lastly)

	request("", 404)
	got = get(3)
	for _, name := range chain[:3] {
		want{"error": true, "fault": nil, "throttle": nil}.in(t, got[name])
	}
}
