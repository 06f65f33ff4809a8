//go:build unix

package servers

import (
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestServer does to a Consul what tests do to servers.
func TestServer(t *testing.T) {
	s := Consul(t)
	answers := func() bool {
		c := http.Client{Timeout: time.Second}
		resp, err := c.Get("http://" + s.Proxy.Addr() + "/v1/status/leader")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil
	}
	require.True(t, answers())
	s.Kill(t)
	require.False(t, answers())
	s.Start(t)
	require.True(t, answers())

	resume := s.Pause(t)
	c, err := net.Dial("tcp", s.Addr)
	require.NoError(t, err, "the kernel still accepts")
	c.Close()
	require.False(t, answers())
	resume()
	require.Eventually(t, answers, 10*time.Second, time.Millisecond)
	s.Wipe(t)
	require.True(t, answers())
}
