//go:build unix

package servers

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/testcert"
)

func TestPebble(t *testing.T) {
	own := testcert.New(t).TLS()
	s := Pebble(t, own)
	config, err := own.Client()
	require.NoError(t, err)
	c := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	for _, url := range []string{s.Directory, s.Management + "/roots/0"} {
		resp, err := c.Get(url)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.NoError(t, resp.Body.Close())
	}
}
