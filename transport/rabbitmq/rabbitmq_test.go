//go:build unix

package rabbitmq

import (
	"context"
	"fmt"
	"os"
	"os/exec"
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

// nothingLeft waits until the server has no queue and no connection.
func (r *rig) nothingLeft(t testing.TB) {
	require.Eventually(t, func() bool { return len(r.Queues(t))+r.Connections(t) == 0 }, 30*time.Second, 50*time.Millisecond)
}

func (r *rig) harness(t testing.TB) transporttest.Harness {
	refused := func(change func(*Config)) func(testing.TB) (transport.Transport, error) {
		return func(testing.TB) (transport.Transport, error) {
			c := config(r.Addr)
			change(&c)
			return New(new(plugin.Env), c)
		}
	}
	return transporttest.Harness{
		Open:    func(t testing.TB) transport.Transport { return r.open(t) },
		Backend: "RabbitMQ " + r.Eval(t, "rabbit_misc:version()"),
		Timeout: time.Minute,
		Left:    func(t testing.TB) int { return len(r.Queues(t)) + r.Connections(t) },
		Refused: map[string]func(testing.TB) (transport.Transport, error){
			"password":     refused(func(c *Config) { c.User, c.Password = "guest", plugin.NewSecret("wrong") }),
			"virtual host": refused(func(c *Config) { c.VHost = "missing" }),
			"TLS":          refused(func(c *Config) { c.TLS.Insecure = true }),
		},
		Kill:    func(_ testing.TB, c transport.Conn) { r.proxy(c.(*conn).link.transport).Cut() },
		Spawn:   r.spawn,
		Restart: func(t testing.TB) { r.Restart(t) },
		Pause:   func(t testing.TB) func() { return r.Pause(t) },
		Partition: func(_ testing.TB, tr transport.Transport) func() {
			p := r.proxy(tr)
			p.Blackhole()
			return p.Heal
		},
	}
}

// echoProcess in the environment makes the test binary a service at that RabbitMQ, which sends back what it receives.
const echoProcess = "MICRO_RABBITMQ_TEST_ECHO"

func init() {
	server := os.Getenv(echoProcess)
	if server == "" {
		return
	}
	tr, err := New(new(plugin.Env), config(server))
	if err != nil {
		panic(err)
	}
	l, err := tr.Listen(context.Background(), "")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	transporttest.Echo(l)
	os.Exit(1)
}

func (r *rig) spawn(t testing.TB) transporttest.Process {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), echoProcess+"="+r.Addr)
	return transporttest.Start(t, cmd)
}

func TestConformance(t *testing.T) {
	r := newRig(t)
	transporttest.Run(t, r.harness(t))
	r.nothingLeft(t)
}
