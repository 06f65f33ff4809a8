package tcp

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/transport"
	"github.com/plugmicro/micro/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	settings := newAuthority(t).settings()
	for _, tc := range []struct {
		name        string
		config      Config
		connections int // handshakes take their time
	}{
		{"plain", Config{}, 1000},
		{"TLS", Config{TLS: settings}, 300},
		{"mutual TLS", Config{TLS: settings, TLSMutual: true}, 300},
	} {
		t.Run(tc.name, func(t *testing.T) {
			transporttest.Run(t, transporttest.Harness{
				Open:        func(t testing.TB) transport.Transport { return open(t, tc.config) },
				Address:     "127.0.0.1:0",
				Connections: tc.connections,
				Kill:        func(_ testing.TB, c transport.Conn) { c.(*conn).raw.Close() },
			})
		})
	}
}

// A relay in between stands for the network and its faults.
func TestConformanceThroughRelay(t *testing.T) {
	network := &relays{}
	transporttest.Run(t, transporttest.Harness{
		Open:        func(t testing.TB) transport.Transport { return &relayed{open(t, Config{}).(*Transport), network} },
		Address:     "127.0.0.1:0",
		Messages:    1000,
		Connections: 100,
		Restart:     func(t testing.TB) { network.cut(t)() },
		Pause:       func(testing.TB) func() { return network.pause() },
		Partition:   func(t testing.TB, _ transport.Transport) func() { return network.cut(t) },
	})
}

func open(t testing.TB, c Config) transport.Transport {
	tr, err := New(new(plugin.Env), c)
	require.NoError(t, err)
	return tr
}
