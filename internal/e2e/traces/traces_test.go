// Package traces follows one request through several processes, by what they send to a receiver of spans.
package traces

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/plugmicro/micro"
	"github.com/plugmicro/micro/broker"
	_ "github.com/plugmicro/micro/broker/kafka"
	_ "github.com/plugmicro/micro/broker/rabbitmq"
	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/gateway/httpd"
	"github.com/plugmicro/micro/internal/otlptest"
	"github.com/plugmicro/micro/internal/servers"
	"github.com/plugmicro/micro/server"
	_ "github.com/plugmicro/micro/tracer/otlp"
)

// TestMain lets the test binary be the processes.
func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv("TRACES_ROLE")]
	if !ok {
		os.Exit(m.Run())
	}
	if err := role(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var roles = map[string]func() error{"gateway": func() error { return httpd.Run() }, "shop": shop, "stock": stock, "billing": billing}

type (
	order struct{ Item string }
	item  struct{ Left int }
	done  struct{}
)

// Shop takes orders.
type Shop struct{ svc *micro.Service }

// Order looks at the stock, and publishes.
func (s Shop) Order(ctx context.Context, o *order) (*done, error) {
	st, err := client.Open[order, item](ctx, s.svc.Client(), "stock", "Stock.Watch")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(st.Send(o), st.CloseSend()); err != nil {
		return nil, err
	}
	for _, err := range st.All() {
		if err != nil {
			return nil, err
		}
	}
	return &done{}, s.svc.Publish(ctx, "orders", o)
}

// Note is called by who handled the order.
func (s Shop) Note(context.Context, *order) (*done, error) { return &done{}, nil }

func shop() error {
	svc := micro.New("shop")
	svc.Handle(Shop{svc})
	return svc.Run()
}

// Stock knows what is left.
type Stock struct{}

// Watch says it, twice.
func (Stock) Watch(_ context.Context, _ *order, out *server.Sender[item]) error {
	return errors.Join(out.Send(&item{2}), out.Send(&item{1}))
}

func stock() error {
	svc := micro.New("stock")
	svc.Handle(Stock{})
	return svc.Run()
}

func billing() error {
	svc := micro.New("billing")
	svc.Subscribe("orders", func(ctx context.Context, o *order) error {
		_, err := client.Call[done](ctx, svc.Client(), "shop", "Shop.Note", o)
		return err
	}, broker.Group("billing"))
	return svc.Run()
}

// process is one that runs until the end of the test.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	out  bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) printed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

func start(t *testing.T, env []string, role string) *process {
	p := &process{t: t, cmd: exec.Command(os.Args[0]), done: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), "TRACES_ROLE="+role), env...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	require.NoError(t, p.cmd.Start())
	go func() { defer close(p.done); p.cmd.Wait() }()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("%s printed:\n%s", role, p.printed())
		}
	})
	return p
}

// prints waits for a line and returns what follows text in it.
func (p *process) prints(text string) string {
	p.t.Helper()
	var rest string
	require.Eventually(p.t, func() bool {
		_, after, ok := strings.Cut(p.printed(), text)
		line, _, whole := strings.Cut(after, "\n")
		rest = line
		return ok && whole
	}, time.Minute, 5*time.Millisecond, text)
	return rest
}

func (p *process) stop() {
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	<-p.done
	require.Zero(p.t, p.cmd.ProcessState.ExitCode(), p.printed())
}

// want is the trace of one order: each span with its parent's line, by indentation.
const want = `
gateway: POST shop Shop.Order (server)
  gateway: shop/Shop.Order (client)
    shop: shop/Shop.Order (server)
      shop: stock/Stock.Watch (client)
        stock: stock/Stock.Watch (server)
      shop: publish orders (producer)
        billing: process orders (consumer)
          billing: shop/Shop.Note (client)
            shop: shop/Shop.Note (server)
`

// TestOneTrace orders once, and looks at what all processes sent.
func TestOneTrace(t *testing.T) {
	for name, broker := range map[string]func(t *testing.T) []string{
		"direct": func(*testing.T) []string { return nil },
		"kafka": func(t *testing.T) []string {
			return []string{"MICRO_BROKER=kafka", "MICRO_BROKER_ADDRESS=" + servers.Kafka(t).Addr}
		},
		"rabbitmq": func(t *testing.T) []string {
			return []string{"MICRO_BROKER=rabbitmq", "MICRO_BROKER_ADDRESS=" + servers.RabbitMQ(t).Addr}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for protocol, receiver := range map[string]*otlptest.Receiver{"http": otlptest.Listen(t, "http", "", nil), "grpc": otlptest.Listen(t, "grpc", "", nil)} {
				if name != "direct" && protocol == "grpc" {
					continue // once is enough
				}
				env := append(broker(t), "MICRO_REGISTRY_DIR="+filepath.Join(t.TempDir(), "registry"), "MICRO_TRACER=otlp",
					"MICRO_TRACER_PROTOCOL="+protocol, "MICRO_TRACER_ENDPOINT="+receiver.Addr)
				stock, shop, billing := start(t, env, "stock"), start(t, env, "shop"), start(t, env, "billing")
				stock.prints("INFO serving")
				shop.prints("INFO serving")
				// It knows of those that were there before it: of others it hears a moment later.
				gateway := start(t, append(env, "MICRO_GATEWAY_ADDRESS=127.0.0.1:0", "MICRO_GATEWAY_ADMIN_ADDRESS=off"), "gateway")
				billing.prints("INFO subscribed")
				addr, _, _ := strings.Cut(gateway.prints("the gateway serves address="), " ")
				rsp, err := http.Post("http://"+addr+"/shop/shop/order", "application/json", strings.NewReader(`{"Item":"book"}`))
				require.NoError(t, err)
				io.Copy(io.Discard, rsp.Body)
				rsp.Body.Close()
				require.Equal(t, http.StatusOK, rsp.StatusCode)
				require.Eventually(t, func() bool { return len(receiver.Spans()) >= 9 }, time.Minute, 10*time.Millisecond)
				for _, p := range []*process{stock, shop, billing, gateway} {
					p.stop()
				}
				require.Equal(t, strings.TrimSpace(want), strings.TrimSpace(tree(t, receiver.Spans())))
			}
		})
	}
}

// tree draws the spans of one trace; siblings in the order in which they began.
func tree(t *testing.T, spans []otlptest.Span) string {
	slices.SortFunc(spans, func(a, b otlptest.Span) int { return cmp.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano) })
	var b strings.Builder
	var draw func(parent, indent string)
	draw = func(parent, indent string) {
		for _, s := range spans {
			require.Equal(t, hex.EncodeToString(spans[0].TraceId), hex.EncodeToString(s.TraceId), s.Name)
			if hex.EncodeToString(s.ParentSpanId) != parent {
				continue
			}
			kind := strings.ToLower(strings.TrimPrefix(tracepb.Span_SpanKind_name[int32(s.Kind)], "SPAN_KIND_"))
			fmt.Fprintf(&b, "%s%s: %s (%s)\n", indent, s.Service, s.Name, kind)
			draw(hex.EncodeToString(s.SpanId), indent+"  ")
		}
	}
	draw("", "")
	return b.String()
}
