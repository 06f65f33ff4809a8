package suite

import (
	"bufio"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Process is a process that Start started.
type Process struct {
	Kill           func() // as kill -9 does
	Stop, Continue func() // as SIGSTOP and SIGCONT do; nil if the system has none
}

// Start starts cmd and returns the first line that it writes. It is killed when the test ends, if it was not before, and
// fails the test if it ended by itself. Its standard input is open for as long as this process lives.
func Start(t testing.TB, cmd *exec.Cmd) (line string, p Process) {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p.Kill = sync.OnceFunc(func() {
		require.NoError(t, cmd.Process.Kill())
		require.ErrorContains(t, cmd.Wait(), killed)
		_ = stdin.Close()
	})
	t.Cleanup(p.Kill)
	p.Stop, p.Continue = signals(t, cmd)
	line, err = bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err, "the process has ended, or its standard output has, before it wrote a line")
	return strings.TrimSpace(line), p
}
