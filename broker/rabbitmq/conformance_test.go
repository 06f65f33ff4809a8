//go:build unix

package rabbitmq

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/broker/brokertest"
	"github.com/plugmicro/micro/internal/amqp"
	"github.com/plugmicro/micro/internal/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func testConfig(addr string) Config {
	return Config{Config: amqp.Config{Address: []string{addr}, Timeout: 5 * time.Second}, Drain: time.Second}
}

func openAt(t testing.TB, addr string) *Broker {
	t.Helper()
	b, err := open(context.Background(), testConfig(addr), quiet)
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// proxies are those before the brokers of a run: each is cut off alone.
type proxies struct {
	server *servers.RabbitServer
	once   sync.Once
	mu     sync.Mutex
	of     map[broker.Broker]*servers.Proxy
}

func (p *proxies) open(t testing.TB) broker.Broker {
	proxy, err := servers.NewProxy(p.server.Addr)
	require.NoError(t, err)
	t.Cleanup(proxy.Close)
	c := testConfig(proxy.Addr())
	c.Heartbeat = time.Second // silence is soon noticed; the other tests know none, and a busy machine can be silent for a while
	b, err := open(context.Background(), c, quiet)
	require.NoError(t, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of[b] = proxy
	return b
}

func (p *proxies) before(b broker.Broker) *servers.Proxy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of[b]
}

// tidy deletes, once, what the groups of the tests before have left: hundreds of queues take a while to restart.
func (p *proxies) tidy(t testing.TB) {
	p.once.Do(func() {
		p.server.Eval(t, `[rabbit_amqqueue:delete(Q, false, false, <<"test">>) || Q <- rabbit_amqqueue:list(<<"/">>), {ok, 0, 0} =:= rabbit_amqqueue:stat(Q)], ""`)
	})
}

func TestConformance(t *testing.T) {
	p := &proxies{server: servers.RabbitMQ(t), of: map[broker.Broker]*servers.Proxy{}}
	brokertest.Run(t, brokertest.Harness{
		Backend: "RabbitMQ 3.10.8",
		Open:    p.open,
		Restart: func(t testing.TB) {
			p.tidy(t)
			p.server.Restart(t)
		},
		Kill:  func(t testing.TB, b broker.Broker) { p.before(b).Cut() },
		Pause: func(t testing.TB) func() { return p.server.Pause(t) },
		Partition: func(t testing.TB, b broker.Broker) func() {
			p.before(b).Blackhole()
			return p.before(b).Heal
		},
	})
}
