package direct

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/broker/brokertest"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/registry/local"
	memreg "github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/transport"
	"github.com/plugmicro/micro/transport/memory"
	"github.com/plugmicro/micro/transport/tcp"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		os.Exit(process(role))
	}
	goleak.VerifyTestMain(m)
}

var quiet = slog.New(slog.DiscardHandler)

// testConfig has limits that keep tests short.
var testConfig = Config{Buffer: 100, BufferSize: 4 << 20, Drain: 500 * time.Millisecond, Timeout: 3 * time.Second, Grace: 2 * time.Second}

func memoryTransport(t testing.TB) transport.Transport {
	tr, err := memory.NewPrivate(memory.Config{})
	require.NoError(t, err)
	return tr
}

func tcpTransport(t testing.TB) transport.Transport {
	tr, err := tcp.New(new(plugin.Env), tcp.Config{})
	require.NoError(t, err)
	return tr
}

// loopback makes brokers listen where nobody else comes.
func loopback(c Config) Config {
	c.Address = "127.0.0.1:0"
	return c
}

// run holds brokers to the contract that each have a registry of their own, as processes do.
func run(t *testing.T, tr transport.Transport, c Config, open func(testing.TB) registry.Registry) {
	brokertest.Run(t, brokertest.Harness{
		Open: func(t testing.TB) broker.Broker {
			b, err := Open(open(t), tr, c, quiet)
			require.NoError(t, err)
			return b
		},
		Kill: func(_ testing.TB, b broker.Broker) { kill(b.(*Broker)) },
	})
}

// kill lets b be found and reached no more, and nothing that its handlers do be acked. What is registered stays.
func kill(b *Broker) {
	b.listener.kill()
}

func TestConformanceInMemory(t *testing.T) {
	store := memreg.NewStore()
	run(t, memoryTransport(t), testConfig, func(testing.TB) registry.Registry { return store.Open() })
}

func TestConformanceOverTCP(t *testing.T) {
	store := memreg.NewStore()
	run(t, tcpTransport(t), loopback(testConfig), func(testing.TB) registry.Registry { return store.Open() })
}

func TestConformanceOnLocalRegistry(t *testing.T) {
	dir := t.TempDir()
	run(t, tcpTransport(t), loopback(testConfig), func(t testing.TB) registry.Registry {
		reg, err := local.Open(dir+"/registry", quiet)
		require.NoError(t, err)
		t.Cleanup(func() { reg.Close() }) // after the broker was closed
		return reg
	})
}
