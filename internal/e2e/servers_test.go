package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/servers"
)

// How long after its server is back calls and publishing may go on failing, and the first event may take: the members of
// a group that was cut off may have to be found dead first.
const (
	recovery = 10 * time.Second
	delivery = 30 * time.Second
)

// linked builds programs as a user does who has copied plugins.go.example next to main.go: not a line of them is changed.
func linked(t *testing.T, programs ...string) (dir string) {
	dir = t.TempDir()
	example, err := os.ReadFile(filepath.Join(servers.Root(), "plugins.go.example"))
	require.NoError(t, err)
	plugins := filepath.Join(dir, "plugins.go")
	require.NoError(t, os.WriteFile(plugins, []byte(strings.ReplaceAll(string(example), "//import", "import")), 0o600))
	replace := map[string]string{}
	args := []string{"build", "-o", dir, "-overlay", filepath.Join(dir, "overlay.json")}
	for _, p := range programs {
		folder := filepath.Join(servers.Root(), p)
		replace[filepath.Join(folder, "plugins.go")] = plugins
		args = append(args, folder)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dir
}

// server is one that can be killed.
type server interface {
	Kill(testing.TB)
	Start(testing.TB)
}

// infrastructure is the servers of one test, and the processes that use them.
type infrastructure struct {
	t        *testing.T
	machine  *machine
	greeter  *process
	log      string // of caller and subscriber
	services []*process
}

// startTraffic starts the greeter, its caller and a subscriber, with the same way to choose the plugins.
func startTraffic(t *testing.T, binaries string, env, flags []string) *infrastructure {
	f := &infrastructure{t: t, machine: &machine{t: t}, log: filepath.Join(t.TempDir(), "log")}
	start := func(name, program string, vars ...string) *process {
		p := f.machine.start(append(vars, env...), filepath.Join(binaries, program), flags...)
		f.services = append(f.services, p)
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("what %s printed:\n%s", name, last(p.out.String(), 4000))
			}
		})
		return p
	}
	f.greeter = start("the greeter", "greeter")
	f.greeter.prints("INFO serving")
	start("the subscriber", "traffic", "TRAFFIC_LOG="+f.log, "TRAFFIC_ROLE=subscriber").prints("INFO subscribed")
	start("the caller", "traffic", "TRAFFIC_LOG="+f.log)
	f.flows(time.Now(), time.Minute, "called", "published", "event")
	return f
}

func last(s string, n int) string { return s[max(0, len(s)-n):] }

// note is a line of the log.
type note struct {
	at         time.Time
	what, text string
}

func (f *infrastructure) notes() []note {
	data, err := os.ReadFile(f.log)
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(f.t, err)
	var notes []note
	for line := range strings.Lines(string(data)) {
		if !strings.HasSuffix(line, "\n") {
			break // it is being written
		}
		parts := strings.SplitN(strings.TrimSpace(line), " ", 3)
		ms, err := strconv.ParseInt(parts[0], 10, 64)
		require.NoError(f.t, err, line)
		n := note{at: time.UnixMilli(ms), what: parts[1]}
		if len(parts) == 3 {
			n.text = parts[2]
		}
		notes = append(notes, n)
	}
	return notes
}

// flows waits until each of what has been noted once since the time given, and tells how long that took.
func (f *infrastructure) flows(since time.Time, within time.Duration, what ...string) (took time.Duration) {
	f.t.Helper()
	ok := false
	for deadline := time.Now().Add(within); !ok && time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		took, ok = f.flow(since, what)
	}
	require.True(f.t, ok, "%v do not all come within %s; the last notes: %v", what, within, f.lastNotes(5))
	return took
}

func (f *infrastructure) flow(since time.Time, what []string) (took time.Duration, ok bool) {
	missing := slices.Clone(what)
	for _, n := range f.notes() {
		if i := slices.Index(missing, n.what); i >= 0 && n.at.After(since) {
			missing = slices.Delete(missing, i, i+1)
			took = max(took, n.at.Sub(since))
		}
	}
	return took, len(missing) == 0
}

func (f *infrastructure) lastNotes(n int) []note {
	notes := f.notes()
	return notes[max(0, len(notes)-n):]
}

// hurt kills a server, lets the traffic run into it, and starts it again.
func (f *infrastructure) hurt(name string, s server) {
	f.t.Helper()
	killed := time.Now()
	s.Kill(f.t)
	<-time.After(2 * time.Second) // the outage
	s.Start(f.t)
	back := time.Now()
	took := f.flows(back, recovery, "called", "published")
	events := f.flows(back, delivery, "event")
	failed := map[string]int{}
	for _, n := range f.notes() {
		if n.at.After(killed) {
			failed[n.what]++
		}
	}
	f.t.Logf("%s killed and started: calls and publishing go well %s after it serves again, the first event came after %s; meanwhile %d calls went well, %d failed; %d publishes went well, %d failed",
		name, took.Round(time.Millisecond), events.Round(time.Millisecond), failed["called"], failed["call-failed"], failed["published"], failed["publish-failed"])
}

// check stops everything in good order, and compares what was acknowledged with what arrived in each group.
func (f *infrastructure) check() {
	f.t.Helper()
	caller := f.services[2]
	caller.stop()
	published, events := map[string]bool{}, map[string]int{}
	arrived := func() bool {
		clear(published)
		clear(events)
		for _, n := range f.notes() {
			switch n.what {
			case "published":
				published[n.text] = true
			case "event":
				events[n.text]++
			}
		}
		greeted := greetings(f.greeter.out.String())
		for name := range published {
			if events[name] == 0 || !greeted[name] {
				return false
			}
		}
		return true
	}
	require.Eventually(f.t, arrived, time.Minute, 100*time.Millisecond, "an acknowledged event did not arrive in both groups")
	for _, p := range []*process{f.services[1], f.greeter} {
		p.stop()
	}
	twice := 0
	for _, n := range events {
		twice += n - 1
	}
	f.t.Logf("%d events acknowledged, all arrived; %d came twice", len(published), twice)
	for _, n := range f.notes() {
		if strings.HasSuffix(n.what, "-failed") {
			require.Regexp(f.t, clearError, n.text)
		}
	}
}

// clearError is what an error must say in an outage: who could not do it, with what.
var clearError = regexp.MustCompile(`kafka|rabbitmq|consul|greeter|canceled`)

var greeting = regexp.MustCompile(`greeting name=(\d+)`)

// greetings are the events that the greeter has printed.
func greetings(out string) map[string]bool {
	names := map[string]bool{}
	for _, m := range greeting.FindAllStringSubmatch(out, -1) {
		names[m[1]] = true
	}
	return names
}

// TestRealServers runs the greeter as it is on other infrastructure, chosen by flags and by the environment, and kills
// every server once under load: calls go on or fail with a clear error, all is well ten seconds after the server is, and
// no event is lost whose publishing was acknowledged.
func TestRealServers(t *testing.T) {
	binaries := linked(t, "examples/greeter", "internal/e2e/traffic")
	consul, kafka, rabbitmq := servers.Consul(t), servers.Kafka(t), servers.RabbitMQ(t)
	for _, test := range []struct {
		name       string
		env, flags []string
		hurt       []string
	}{
		{
			name: "flags",
			flags: []string{"--registry=consul", "--registry-address=" + consul.Addr, "--broker=kafka", "--broker-address=" + kafka.Addr,
				"--transport=rabbitmq", "--transport-address=" + rabbitmq.Addr},
			hurt: []string{"consul", "kafka", "rabbitmq"},
		},
		{
			name: "environment",
			env: []string{"MICRO_ADDRESS=127.0.0.1:0", "MICRO_REGISTRY=consul", "MICRO_REGISTRY_ADDRESS=" + consul.Addr, "MICRO_BROKER=rabbitmq",
				"MICRO_BROKER_ADDRESS=" + rabbitmq.Addr},
			hurt: []string{"consul", "rabbitmq"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := startTraffic(t, binaries, test.env, test.flags)
			all := map[string]server{"consul": consul, "kafka": kafka, "rabbitmq": rabbitmq}
			for _, name := range test.hurt {
				f.hurt(name, all[name])
			}
			f.check()
		})
	}
}
