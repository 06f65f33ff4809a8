package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGreeterExample(t *testing.T) {
	m := newMachine(t)
	greeter, subscriber := m.start(nil, "greeter"), m.start(nil, "subscriber")
	greeter.prints("INFO subscribed")
	subscriber.prints("INFO subscribed")
	out, errs, code := m.run("client")
	require.Zero(t, code, errs)
	require.Equal(t, "Hello, Ada\n", out)
	subscriber.prints("Greetings to Ada")
	greeter.prints("INFO greeting name=Ada")
	for _, p := range []*process{greeter, subscriber} {
		p.stop()
		require.Zero(t, p.cmd.ProcessState.ExitCode(), p.out.String())
		require.Contains(t, p.out.String(), "INFO stopped")
	}
}

func TestStreamsExample(t *testing.T) {
	m := newMachine(t)
	m.start(nil, "streams").prints("INFO serving")
	out, errs, code := m.run("streams", "client")
	require.Zero(t, code, errs)
	require.Equal(t, "count 1\ncount 2\ncount 3\nsum 10\nsquare 1\nsquare 4\nsquare 9\n", out)
}

func TestCustomRegistryExample(t *testing.T) {
	cmd := exec.Command(filepath.Join(binaries, "custom-registry")) // without the directory of another registry
	out, err := cmd.Output()
	require.NoError(t, err)
	require.Equal(t, "It is twelve o'clock\n", string(out))
}

func TestHelpStartsNothing(t *testing.T) {
	m := newMachine(t)
	out, errs, code := m.run("greeter", "--help")
	require.Zero(t, code, errs)
	require.Contains(t, out+errs, "--drain-timeout")
	require.NotContains(t, out+errs, "serving")
}
