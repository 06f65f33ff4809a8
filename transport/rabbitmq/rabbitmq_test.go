//go:build unix

package rabbitmq

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/internal/amqp"
	"github.com/plugmicro/micro/internal/servers"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/transport"
	"github.com/plugmicro/micro/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a server with a proxy for each transport.
type rig struct {
	*servers.RabbitServer
	mu      sync.Mutex
	proxies map[transport.Transport]*servers.Proxy
}

func newRig(t testing.TB, config ...string) *rig {
	return &rig{RabbitServer: servers.RabbitMQ(t, config...), proxies: map[transport.Transport]*servers.Proxy{}}
}

// config is for tests: faults are noticed soon.
func config(addr string) Config {
	return Config{Config: amqp.Config{Address: []string{addr}, Heartbeat: 2 * time.Second}, KeepAlive: time.Second}
}

func open(t testing.TB, c Config) *Transport {
	tr, err := New(new(plugin.Env), c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tr.(*Transport).Close()) })
	return tr.(*Transport)
}

// open returns a transport with a proxy of its own.
func (r *rig) open(t testing.TB) *Transport {
	p, err := servers.NewProxy(r.Addr)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	tr := open(t, config(p.Addr()))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.proxies[tr] = p
	return tr
}

func (r *rig) proxy(tr transport.Transport) *servers.Proxy {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proxies[tr]
}

// noQueues waits until the server has none.
func (r *rig) noQueues(t testing.TB) {
	require.Eventually(t, func() bool { return len(r.Queues(t)) == 0 }, 30*time.Second, 50*time.Millisecond, "%v", r.Queues(t))
}

func (r *rig) harness() transporttest.Harness {
	return transporttest.Harness{
		Open:    func(t testing.TB) transport.Transport { return r.open(t) },
		Timeout: time.Minute,
		Kill:    func(_ testing.TB, c transport.Conn) { r.proxy(c.(*conn).link.transport).Cut() },
		Restart: func(t testing.TB) { r.Restart(t) },
		Pause:   func(t testing.TB) func() { return r.Pause(t) },
		Partition: func(_ testing.TB, tr transport.Transport) func() {
			p := r.proxy(tr)
			p.Blackhole()
			return p.Heal
		},
	}
}

func TestConformance(t *testing.T) {
	slog.SetLogLoggerLevel(slog.LevelError)
	r := newRig(t)
	transporttest.Run(t, r.harness())
	r.noQueues(t)
	require.Zero(t, r.Connections(t))
}
