package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// seconds is how long the load lasts.
func seconds(n int) time.Duration {
	if testing.Short() {
		n /= 4
	}
	return time.Duration(n) * time.Second
}

func startWorkers(m *machine, dir string, n int) []*process {
	workers := make([]*process, n)
	for i := range workers {
		workers[i] = startWorker(m, dir, i)
	}
	m.waitNodes("worker", n)
	return workers
}

func startWorker(m *machine, dir string, i int) *process {
	return m.start([]string{"WORKER_LOG=" + filepath.Join(dir, fmt.Sprintf("%d.log", i))}, "worker")
}

// address is where a worker serves, from its log.
func (p *process) address() string {
	p.prints("INFO serving")
	_, rest, _ := strings.Cut(p.out.String(), "address=")
	address, _, _ := strings.Cut(rest, " ")
	return address
}

// TestKilledProcesses kills five of ten workers under load: only calls that were on a killed one may fail, those that may
// be retried do not, and no other is run twice.
func TestKilledProcesses(t *testing.T) {
	m, dir := newMachine(t), t.TempDir()
	workers := startWorkers(m, dir, 10)
	svc := m.service()
	l := startLoad(svc.Client(), 32)
	const kills = 5
	killed := ""
	for _, w := range workers[:kills] {
		<-time.After(seconds(20) / (kills + 1)) // the load goes on meanwhile
		killed += w.address() + " "
		w.signal(syscall.SIGKILL)
	}
	<-time.After(seconds(20) / (kills + 1))
	l.end()

	for _, f := range l.failures {
		require.Equal(t, "Work.Once", f.endpoint, "a call that may be retried failed: %v", f.err)
		require.Contains(t, f.err.Error(), "connection lost", "a call failed that was not in flight")
		_, rest, _ := strings.Cut(f.err.Error(), " at ")
		address, _, _ := strings.Cut(rest, ": ")
		require.Contains(t, killed, address, "a call failed on a process that lives: %v", f.err)
	}
	require.LessOrEqual(t, len(l.failures), 16*kills, "more calls failed than can be in flight")
	for name, n := range runs(t, dir, "once") {
		require.Equal(t, 1, n, "call %s was run more than once", name)
	}
	m.waitNodes("worker", 10-kills)
	t.Logf("%d calls, %d were in flight on a killed process and failed", l.calls, len(l.failures))
}

// TestRollingRestart replaces all workers under load, and no call fails.
func TestRollingRestart(t *testing.T) {
	m, dir := newMachine(t), t.TempDir()
	workers := startWorkers(m, dir, 10)
	svc := m.service()
	l := startLoad(svc.Client(), 32)
	for i, w := range workers {
		startWorker(m, dir, 10+i).prints("INFO serving")
		w.stop()
		require.Equal(t, 0, w.cmd.ProcessState.ExitCode(), w.out.String())
	}
	l.end()
	require.Empty(t, l.failures)
	for name, n := range runs(t, dir, "once") {
		require.Equal(t, 1, n, "call %s was run more than once", name)
	}
	t.Logf("%d calls", l.calls)
}

// TestRegistryWiped takes the registry's directory away: services come back by themselves, calls go on all the time.
func TestRegistryWiped(t *testing.T) {
	m, dir := newMachine(t), t.TempDir()
	startWorkers(m, dir, 2)
	svc := m.service()
	l := startLoad(svc.Client(), 4)
	require.Eventually(t, func() bool { return l.made() > 100 }, 20*time.Second, time.Millisecond, "the services know each other")
	require.NoError(t, os.RemoveAll(m.dir))
	m.waitNodes("worker", 2)
	l.end()
	require.Empty(t, l.failures)
}

// TestStopWaitsForCalls answers a call that runs before the process ends.
func TestStopWaitsForCalls(t *testing.T) {
	m, dir := newMachine(t), t.TempDir()
	w := startWorkers(m, dir, 1)[0]
	svc := m.service()
	l := &load{}
	l.all.Go(func() { l.call(svc.Client(), "Work.Slow", "slow") })
	require.Eventually(t, func() bool { return runs(t, dir, "begun")["slow"] == 1 }, 5*time.Second, time.Millisecond)
	w.stop()
	l.all.Wait()
	require.Empty(t, l.failures)
	require.Equal(t, map[string]int{"slow": 1}, runs(t, dir, "slow"))
}
