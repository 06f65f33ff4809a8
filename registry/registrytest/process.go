package registrytest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/suite"
)

// Start is for Harness.Spawn: it starts cmd and returns when that has called Ready. The process ends with the test.
// The test binary itself can be the program, told by its environment:
//
//	func TestMain(m *testing.M) {
//		if text := os.Getenv("MY_TEST_CHILD"); text != "" {
//			keepRegistered(text) // with registry.Keep
//			registrytest.Ready()
//			os.Exit(0)
//		}
//		os.Exit(m.Run())
//	}
func Start(t testing.TB, cmd *exec.Cmd) Process {
	t.Helper()
	line, p := suite.Start(t, cmd)
	require.Equal(t, ready, line)
	return Process(p)
}

const ready = "ready"

// Ready has Start return in the process that called it, and waits until that is gone.
func Ready() {
	fmt.Println(ready)
	_, _ = io.Copy(io.Discard, os.Stdin)
}
