//go:build !unix

package suite

import (
	"os/exec"
	"testing"
)

// killed is in the error of waiting for a process that was.
const killed = "exit status"

func signals(testing.TB, *exec.Cmd) (stop, resume func()) { return nil, nil }
