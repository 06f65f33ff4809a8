//go:build unix

package consul

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/plugmicro/micro/internal/servers"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/registry/registrytest"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// childEnv makes of the test binary a program that keeps a service registered, so that it can be killed.
const childEnv = "CONSUL_TEST_CHILD"

type job struct {
	Address string
	Service *registry.Service
	TTL     time.Duration

	Interval time.Duration // between refreshes; 0: as Keep has it
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		if err := child(text); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func child(text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	r, err := Open(settings(j.Address), nil)
	if err != nil {
		return err
	}
	if _, err := registry.Keep(r, j.Service, j.TTL, j.Interval, nil); err != nil {
		return err
	}
	registrytest.Ready()
	return nil
}

func spawn(t *testing.T, j job) registrytest.Process {
	text, err := json.Marshal(j)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	return registrytest.Start(t, cmd)
}

// settings are the defaults, for the given agents.
func settings(address ...string) Config {
	return Config{
		Address: address, Timeout: 2 * time.Second, Consistency: "default",
		Check: "ttl", CheckInterval: time.Second, DeregisterCritical: time.Minute,
	}
}

func open(t *testing.T, c Config) *Registry {
	r, err := Open(c, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// neighbour is another process at the agent, as there is on any host. Without one, and if the agent was told something at
// the wrong moment of its full synchronization, the agent keeps it to itself for up to 30 s that a TTL has passed
// (retryFailInterval in Consul's agent/ae): every refresh, of whatever service, makes it tell.
func neighbour(t *testing.T, server *servers.Server) {
	spawn(t, job{Address: server.Addr, Service: greeter("neighbour", "a"), TTL: time.Minute, Interval: 300 * time.Millisecond})
}

func TestConformance(t *testing.T) {
	server := servers.Consul(t)
	neighbour(t, server)
	registrytest.Run(t, func(*testing.T) registrytest.Harness {
		proxies := make(map[registry.Registry]*servers.Proxy)
		return registrytest.Harness{
			Backend:         "Consul " + servers.ConsulVersion,
			LargestMetadata: 30_000,
			Open: func(t *testing.T) registry.Registry {
				proxy, err := servers.NewProxy(server.Addr)
				require.NoError(t, err)
				t.Cleanup(proxy.Close)
				r, err := Open(settings(proxy.Addr()), nil)
				require.NoError(t, err)
				proxies[r] = proxy
				return r
			},
			Wipe:    func(t *testing.T) { server.Wipe(t) },
			Restart: func(t *testing.T) { server.Restart(t) },
			Pause:   func(t *testing.T) func() { return server.Pause(t) },
			Cut: func(t *testing.T, r registry.Registry) func() {
				proxies[r].Blackhole()
				return proxies[r].Heal
			},
			Spawn: func(t *testing.T, s *registry.Service, ttl time.Duration) registrytest.Process {
				return spawn(t, job{Address: server.Addr, Service: s, TTL: ttl})
			},
		}
	})
}
