//go:build unix

package suite

import (
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// killed is in the error of waiting for a process that was.
const killed = "killed"

func signals(t testing.TB, cmd *exec.Cmd) (stop, resume func()) {
	return func() { require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP)) },
		func() { require.NoError(t, cmd.Process.Signal(syscall.SIGCONT)) }
}
