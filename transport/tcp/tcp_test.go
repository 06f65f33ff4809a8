package tcp

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/internal/testcert"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/transport"
	"github.com/plugmicro/micro/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// spawn is nil where the system has no signals.
var spawn func(testing.TB) transporttest.Process

func TestConformance(t *testing.T) {
	settings, theirs := testcert.New(t).TLS(), testcert.New(t)
	stranger := theirs.TLS()
	stranger.CA = settings.CA
	refused := func(configs map[string]Config) map[string]func(testing.TB) (transport.Transport, error) {
		all := map[string]func(testing.TB) (transport.Transport, error){}
		for wrong, c := range configs {
			all[wrong] = func(testing.TB) (transport.Transport, error) { return New(new(plugin.Env), c) }
		}
		return all
	}
	for _, tc := range []struct {
		name        string
		config      Config
		connections int // handshakes take their time
		spawn       func(testing.TB) transporttest.Process
		refused     map[string]Config
	}{
		{"plain", Config{}, 1000, spawn, nil},
		{"TLS", Config{TLS: settings}, 300, nil, map[string]Config{
			"no TLS": {}, "the listener's authority is unknown": {TLS: plugin.TLS{CA: theirs.File}},
		}},
		{"mutual TLS", Config{TLS: settings, TLSMutual: true}, 300, nil, map[string]Config{
			"no TLS": {}, "no certificate": {TLS: plugin.TLS{CA: settings.CA}}, "the certificate of a stranger": {TLS: stranger},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			transporttest.Run(t, transporttest.Harness{
				Open:        func(t testing.TB) transport.Transport { return open(t, tc.config) },
				Address:     "127.0.0.1:0",
				Connections: tc.connections,
				Refused:     refused(tc.refused),
				Kill:        func(_ testing.TB, c transport.Conn) { c.(*conn).raw.Close() },
				Spawn:       tc.spawn,
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
