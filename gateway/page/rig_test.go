package page_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/broker"
	membroker "github.com/plugmicro/micro/broker/memory"
	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/directory"
	"github.com/plugmicro/micro/gateway/page"
	"github.com/plugmicro/micro/gateway/rpc"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	memreg "github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
	"github.com/plugmicro/micro/transport/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is how long a test waits for what must happen.
const soon = 20 * time.Second

// rig is a page over a real directory, real services, a real broker.
type rig struct {
	t         testing.TB
	reg       registry.Registry
	transport transport.Transport
	broker    broker.Broker
	page      *page.Page
	url       string
	serve     func() // again, at the same address
	hangUp    func() // what serve did
}

func newRig(t testing.TB, options ...func(*page.Options)) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	tr, err := tcp.New(&plugin.Env{}, tcp.Config{})
	require.NoError(t, err)
	b, err := membroker.New(&plugin.Env{}, membroker.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	r := &rig{t: t, reg: memreg.NewStore().Open(), transport: tr, broker: b}
	dir := directory.Follow(r.reg, log)
	t.Cleanup(func() { require.NoError(t, dir.Close()) })
	c := client.New(r.reg, tr, client.Options{Logger: log})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	calls := rpc.New(c, dir, rpc.Options{Logger: log})
	o := page.Options{
		Directory: dir,
		Call:      calls,
		Broker:    func() (broker.Broker, error) { return b, nil },
		Probe:     page.Dial(tr),
		Log:       log,
	}
	for _, option := range options {
		option(&o)
	}
	r.page, err = page.New(o)
	require.NoError(t, err)
	r.listen()
	t.Cleanup(func() {
		r.page.Close()
		require.NoError(t, calls.Shutdown(context.Background()))
		r.hangUp()
	})
	require.Eventually(t, dir.Ready, soon, time.Millisecond)
	return r
}

// listen serves as package httpd does, as far as the page needs it.
func (r *rig) listen() {
	h := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, err := gateway.Prepare(req); err != nil {
			gateway.Fail(w, req, err)
			return
		}
		r.page.ServeHTTP(w, gateway.With(req, &gateway.Info{ID: "7", Start: time.Now()}))
	})
	s := httptest.NewServer(h)
	addr := s.Listener.Addr().String()
	r.url = s.URL
	r.hangUp = func() {
		s.CloseClientConnections()
		s.Close()
	}
	r.serve = func() {
		s = httptest.NewUnstartedServer(h)
		require.NoError(r.t, s.Listener.Close())
		l, err := listenAgain(addr)
		require.NoError(r.t, err)
		s.Listener = l
		s.Start()
	}
}

// start runs a service, with as many nodes as asked for, and returns what stops it.
func (r *rig) start(name, version string, nodes int, handlers ...any) (stop func()) {
	r.t.Helper()
	var stops []func()
	for i := range nodes {
		s := server.New(name, server.Options{Logger: slog.New(slog.DiscardHandler)})
		for _, h := range handlers {
			var opts []server.HandleOption
			if _, ok := h.(Greeter); ok {
				opts = append(opts, server.Idempotent("Greeter.Hello"))
			}
			require.NoError(r.t, s.Handle(h, opts...))
		}
		l, err := r.transport.Listen(r.t.Context(), "127.0.0.1:0")
		require.NoError(r.t, err)
		go s.Serve(l) //nolint:errcheck // it ends with Shutdown
		entry := &registry.Service{
			Name: name, Version: version, Endpoints: s.Endpoints(),
			Nodes: []*registry.Node{{ID: fmt.Sprintf("%s-%s-%d", name, version, i), Address: l.Addr(), Metadata: map[string]string{"zone": fmt.Sprintf("eu-%d", i+1)}}},
		}
		require.NoError(r.t, r.reg.Register(entry))
		stopped := false
		stops = append(stops, func() {
			if stopped {
				return
			}
			stopped = true
			require.NoError(r.t, r.reg.Deregister(entry))
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = s.Shutdown(ctx) // streams are cut off
		})
	}
	stop = func() {
		for _, s := range stops {
			s()
		}
	}
	r.t.Cleanup(stop)
	return stop
}

// register enters a service that does not run.
func (r *rig) register(s *registry.Service) {
	r.t.Helper()
	if len(s.Nodes) == 0 {
		s.Nodes = []*registry.Node{{ID: s.Name + "-1", Address: "127.0.0.1:1"}}
	}
	require.NoError(r.t, r.reg.Register(s))
}

func (r *rig) publish(topic string, m *broker.Message) {
	r.t.Helper()
	require.NoError(r.t, r.broker.Publish(r.t.Context(), topic, m))
}

type Greeter struct{}

type HelloRequest struct {
	Name string `json:"name"`
}

type HelloResponse struct {
	Message string `json:"message"`
}

func (Greeter) Hello(_ context.Context, req *HelloRequest) (*HelloResponse, error) {
	if req.Name == "" {
		return nil, status.Errorf(status.InvalidArgument, "name is empty: whom to greet?")
	}
	return &HelloResponse{Message: "Hello, " + req.Name}, nil
}

type Orders struct{}

type Order struct {
	ID       int64             `json:"id"`
	Customer Customer          `json:"customer"`
	Lines    []Line            `json:"lines"`
	Paid     bool              `json:"paid"`
	Total    float64           `json:"total"`
	Labels   map[string]string `json:"labels"`
	Note     any               `json:"note"`
	Token    []byte            `json:"token"`
}

type Customer struct {
	Name    string   `json:"name"`
	Emails  []string `json:"emails"`
	Address struct {
		City string `json:"city"`
	} `json:"address"`
}

type Line struct {
	Article string `json:"article"`
	Count   int    `json:"count"`
}

// Place answers with what came.
func (Orders) Place(_ context.Context, o *Order) (*Order, error) { return o, nil }

type Numbers struct{}

type Number struct {
	Value int `json:"value"`
}

// Count answers with the numbers up to the one that is asked for, or without an end.
func (Numbers) Count(ctx context.Context, to *Number, out *server.Sender[Number]) error {
	for i := 1; to.Value == 0 || i <= to.Value; i++ {
		if err := out.Send(&Number{i}); err != nil {
			return err
		}
		if to.Value > 0 {
			continue
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if to.Value == 13 {
		return status.Errorf(status.FailedPrecondition, "13 brings bad luck")
	}
	return nil
}

func (Numbers) Sum(_ context.Context, in *server.Receiver[Number]) (*Number, error) {
	sum := 0
	for n, err := range in.All() {
		if err != nil {
			return nil, err
		}
		sum += n.Value
	}
	return &Number{sum}, nil
}

func (Numbers) Square(_ context.Context, both *server.Stream[Number, Number]) error {
	for n, err := range both.All() {
		if err != nil {
			return err
		}
		if err := both.Send(&Number{n.Value * n.Value}); err != nil {
			return err
		}
	}
	return nil
}
