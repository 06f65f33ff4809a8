//go:build unix

package mdns

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/registry/registrytest"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// childEnv makes of the test binary a program that does one thing, so that it can be killed.
const childEnv = "MDNS_TEST_CHILD"

type job struct {
	Config  Config
	Service *registry.Service // nil: only open the registry
	TTL     time.Duration
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
	r, err := Open(j.Config, nil)
	if err != nil || j.Service == nil {
		return err
	}
	if _, err := registry.Keep(r, j.Service, j.TTL, 0, nil); err != nil {
		return err
	}
	registrytest.Ready()
	return nil
}

func command(t *testing.T, j job, before ...string) *exec.Cmd {
	text, err := json.Marshal(j)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	args := append(before, self)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	return cmd
}

func spawn(t *testing.T, j job) registrytest.Process {
	return registrytest.Start(t, command(t, j))
}

// private is a domain that nobody else uses; the multicast is that of the network.
func private() Config { return Config{Domain: strings.ToLower(rand.Text()[:10]) + ".local"} }

func needsMulticast(t *testing.T) {
	n, err := openNetwork(nil, slog.Default(), func([]byte) {})
	if err != nil {
		t.Skip(err)
	}
	n.close()
}

func open(t *testing.T, c Config) *Registry {
	t.Helper()
	r, err := Open(c, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func TestConformance(t *testing.T) {
	needsMulticast(t)
	registrytest.Run(t, func(t *testing.T) registrytest.Harness {
		c := private()
		return registrytest.Harness{
			Open:            func(t *testing.T) registry.Registry { return open(t, c) },
			LargestMetadata: 5000,
			Spawn: func(t *testing.T, s *registry.Service, ttl time.Duration) registrytest.Process {
				return spawn(t, job{Config: c, Service: s, TTL: ttl})
			},
		}
	})
}

func greeter(id string) *registry.Service {
	return &registry.Service{Name: "greeter", Version: "1", Nodes: []*registry.Node{{ID: id, Address: "192.0.2.1:80"}}}
}

func ids(t *testing.T, r *Registry) []string {
	services, err := r.GetService("greeter")
	if err != nil {
		require.ErrorIs(t, err, registry.ErrNotFound)
	}
	var ids []string
	for _, s := range services {
		for _, n := range s.Nodes {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

func sees(t *testing.T, r *Registry, want ...string) {
	t.Helper()
	require.Eventually(t, func() bool { return fmt.Sprint(ids(t, r)) == fmt.Sprint(want) }, 10*time.Second, 10*time.Millisecond)
}

// TestAnInterfaceByName uses the loopback interface, which does not say that it can multicast.
func TestAnInterfaceByName(t *testing.T) {
	c := private()
	c.Interface = []string{"lo"}
	one, err := Open(c, nil)
	if err != nil {
		t.Skip(err)
	}
	defer one.Close()
	two := open(t, c)
	require.NoError(t, one.Register(greeter("a")))
	sees(t, two, "a")
}

// TestWithoutTTL: others ask as the end comes near, and as long as they are answered the node lives.
func TestWithoutTTL(t *testing.T) {
	needsMulticast(t)
	c := private()
	c.TTL = 3 * time.Second
	one, two := open(t, c), open(t, c)
	require.NoError(t, one.Register(greeter("a")))
	sees(t, two, "a")
	w, err := two.Watch()
	require.NoError(t, err)
	p := spawn(t, job{Config: c, Service: greeter("killed")})
	result, err := w.Next()
	require.NoError(t, err)
	require.Equal(t, "killed", result.Service.Nodes[0].ID)
	<-time.After(2 * c.TTL)
	require.Equal(t, []string{"a", "killed"}, ids(t, two))
	p.Kill() // and nothing has happened before that
	result, err = w.Next()
	require.NoError(t, err)
	require.Equal(t, registry.Delete, result.Action)
	require.Equal(t, "killed", result.Service.Nodes[0].ID)
	require.Equal(t, []string{"a"}, ids(t, two))
}

func TestGoodbyeOnClose(t *testing.T) {
	needsMulticast(t)
	c := private()
	c.TTL = time.Hour
	one, two := open(t, c), open(t, c)
	require.NoError(t, one.Register(greeter("a")))
	sees(t, two, "a")
	require.NoError(t, one.Close())
	sees(t, two)
}

// TestALateComerFindsWhatWasThereBefore in its first look-up.
func TestALateComerFindsWhatWasThereBefore(t *testing.T) {
	needsMulticast(t)
	c := private()
	one := open(t, c)
	for i := range 20 {
		require.NoError(t, one.Register(greeter(fmt.Sprint(10+i))))
	}
	sees(t, one, ids(t, one)...)
	c.Timeout = 3 * time.Second
	require.Len(t, ids(t, open(t, c)), 20)
}

// TestOnlyRespondersOfThisLinkAreHeard: what comes from another port was not sent by a responder.
func TestOnlyRespondersOfThisLinkAreHeard(t *testing.T) {
	needsMulticast(t)
	c := private()
	r := open(t, c)
	w, err := r.Watch()
	require.NoError(t, err)
	packet := func(id string) []byte {
		e := &entry{label: label("greeter", id), service: greeter(id)}
		require.NoError(t, r.seal(e, time.Now().UnixNano()))
		p, err := r.names.response([]answer{{e, time.Minute}})
		require.NoError(t, err)
		return p
	}
	stranger, err := net.ListenPacket("udp4", ":0")
	require.NoError(t, err)
	defer stranger.Close()
	_, err = stranger.WriteTo(packet("foreign"), group4)
	require.NoError(t, err)
	require.NoError(t, r.net.send(packet("real")))
	result, err := w.Next()
	require.NoError(t, err)
	require.Equal(t, "real", result.Service.Nodes[0].ID)
	require.Equal(t, []string{"real"}, ids(t, r))
}

func TestAHostWithoutMulticast(t *testing.T) {
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("needs unshare, for a network namespace with nothing but the loopback interface")
	}
	flags := "-n"
	if os.Geteuid() != 0 {
		flags = "-rn"
	}
	if out, err := exec.Command(unshare, flags, "true").CombinedOutput(); err != nil {
		t.Skipf("unshare: %s", out)
	}
	out, err := command(t, job{}, unshare, flags).Output()
	require.Error(t, err)
	require.Equal(t, "registry mdns: this host has no multicast: no interface can (lo is down); "+
		"name an interface with --registry-interface, or use --registry=local, which needs no network\n", string(out))
	out, err = command(t, job{Config: Config{Interface: []string{"eth7"}}}, unshare, flags).Output()
	require.Error(t, err)
	require.Contains(t, string(out), "interface eth7 is not there or not up (lo is down)")
	require.Contains(t, string(out), "--registry=local")
}

func TestChoose(t *testing.T) {
	up := net.FlagUp
	all := []net.Interface{
		{Name: "lo", Flags: up | net.FlagLoopback | net.FlagMulticast},
		{Name: "eth0", Flags: up | net.FlagMulticast},
		{Name: "eth1", Flags: net.FlagMulticast},
		{Name: "wlan0", Flags: up | net.FlagMulticast},
		{Name: "tun0", Flags: up},
	}
	for _, test := range []struct {
		all   []net.Interface
		named []string
		want  string
		says  string
	}{
		{all: all, want: "eth0 wlan0"},
		{all: all, named: []string{"wlan0"}, want: "wlan0"},
		{all: all, named: []string{"lo", "tun0"}, want: "lo tun0"},
		{all: all, named: []string{"eth1"}, says: "interface eth1 is not there or not up"},
		{all: all, named: []string{"eth0", "eth9"}, want: "eth0", says: "interface eth9 is not there or not up"},
		{all: all[4:], says: "no interface can (tun0 has no multicast)"},
		{all: all[:1], says: "no interface can (lo is loopback)"},
		{all: nil, says: "this host has no multicast"},
	} {
		usable, err := choose(test.all, test.named)
		var got []string
		for _, ifi := range usable {
			got = append(got, ifi.Name)
		}
		require.Equal(t, test.want, strings.Join(got, " "))
		if test.says == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, test.says)
			require.ErrorContains(t, err, "--registry=local")
		}
	}
}

func TestWrongSettings(t *testing.T) {
	for says, c := range map[string]Config{
		"a..b is no domain": {Domain: "a..b"},
		"--registry-domain": {Domain: strings.Repeat("abcdefgh.", 20)},
		"--registry-ttl":    {TTL: time.Millisecond},
	} {
		_, err := Open(c, nil)
		require.ErrorContains(t, err, says)
	}
}
