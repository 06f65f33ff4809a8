//go:build unix

package kafka

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/broker/brokertest"
	"github.com/plugmicro/micro/internal/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// testConfig has limits that keep tests short.
func testConfig(addr string) Config {
	return Config{
		Address: []string{addr}, Timeout: 10 * time.Second, Session: 3 * time.Second, Drain: 2 * time.Second,
		Buffer: 100, BufferSize: 4 << 20, Partitions: 4,
	}
}

func open(t testing.TB, c Config) *Broker {
	b, err := newBroker(context.Background(), c, quiet)
	require.NoError(t, err)
	return b
}

// lines are those of all brokers of a run.
type lines struct {
	server *servers.KafkaServer
	mu     sync.Mutex
	of     map[broker.Broker]*servers.Proxy
}

// open returns a broker whose every connection goes through a proxy of its own.
func (l *lines) open(t testing.TB, c Config) *Broker {
	proxy, err := servers.NewProxy(l.server.Addr)
	require.NoError(t, err)
	t.Cleanup(proxy.Close)
	b := open(t, c)
	b.cluster.conns.dialer = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, proxy.Addr())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of[b] = proxy
	return b
}

func (l *lines) proxy(b broker.Broker) *servers.Proxy {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of[b]
}

func TestConformance(t *testing.T) {
	server := servers.Kafka(t)
	l := &lines{server: server, of: map[broker.Broker]*servers.Proxy{}}
	brokertest.Run(t, brokertest.Harness{
		Backend: "Kafka " + server.Version,
		Open:    func(t testing.TB) broker.Broker { return l.open(t, testConfig(server.Addr)) },
		Restart: func(t testing.TB) { server.Restart(t) },
		Pause:   func(t testing.TB) func() { return server.Pause(t) },
		Kill:    func(t testing.TB, b broker.Broker) { kill(b.(*Broker)) },
		Partition: func(t testing.TB, b broker.Broker) func() {
			l.proxy(b).Blackhole()
			return l.proxy(b).Heal
		},
	})
}

// kill cuts b off for good, with no goodbye.
func kill(b *Broker) {
	for _, s := range b.subs.Seal() {
		if m, ok := s.(*member); ok {
			m.conns.close()
		}
	}
	b.cluster.conns.close()
}

// subscribe returns what arrives.
func subscribe(t *testing.T, b broker.Broker, topic string, opts ...broker.SubscribeOption) <-chan *broker.Message {
	t.Helper()
	got := make(chan *broker.Message, 100_000)
	_, err := b.Subscribe(t.Context(), topic, func(_ context.Context, m *broker.Message) error {
		got <- m
		return nil
	}, opts...)
	require.NoError(t, err)
	return got
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(30 * time.Second):
		require.FailNow(t, "timeout")
		panic("unreachable")
	}
}
