package router

import (
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAddressesAsHosts: one of IPv6 may be written with brackets and without.
func TestAddressesAsHosts(t *testing.T) {
	for _, host := range []string{"2001:db8::1", "'[2001:db8::1]'"} {
		doc, err := parse("f", []byte("routes: [{name: a, match: {host: "+host+"}, rewrite: {host: "+host+"}, to: {url: 'http://a'}}]"), Config{})
		require.NoError(t, err)
		rt := doc.routes[0]
		require.Equal(t, rt, newIndex(doc.routes).find(httptest.NewRequest("GET", "/", nil), "2001:db8::1", false))
		require.Equal(t, "[2001:db8::1]", rt.rewrite.host, "what a server sees")
	}
}
