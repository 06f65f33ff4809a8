package suite

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNoLeaksToleratesAServerThatWasRestarted: what waits for it outlives the test.
func TestNoLeaksToleratesAServerThatWasRestarted(t *testing.T) {
	if os.Getenv("SUITE_TEST_CHILD") != "" {
		_, _ = os.Stdin.Read(make([]byte, 1))
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	server := exec.Command(self, "-test.run="+t.Name())
	server.Env = append(os.Environ(), "SUITE_TEST_CHILD=1")
	ends, err := server.StdinPipe()
	require.NoError(t, err)
	ended := make(chan struct{})
	t.Run("test", func(t *testing.T) {
		NoLeaks(t)
		require.NoError(t, server.Start())
		go func() { defer close(ended); _ = server.Wait() }()
	})
	require.NoError(t, ends.Close())
	<-ended
}
