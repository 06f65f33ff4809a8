package router

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	_ "github.com/plugmicro/micro/defaults"
	"github.com/plugmicro/micro/gateway/httpd"
	"github.com/plugmicro/micro/plugin"
)

// TestInAGateway is the middleware as users have it: chosen and set by flags, in a whole gateway.
func TestInAGateway(t *testing.T) {
	up := serve(t, everything("one"))
	file := filepath.Join(t.TempDir(), "routes.yaml")
	require.NoError(t, os.WriteFile(file, []byte(to(up.URL)), 0o600))

	loader := plugin.NewLoader(plugin.Linked)
	var s httpd.Settings
	loader.Section(httpd.Section, &s)
	loader.Set("registry", "memory")
	require.NoError(t, loader.Parse([]string{
		"--gateway-address=127.0.0.1:0", "--gateway-admin-address=127.0.0.1:0", "--gateway-stop-delay=0s",
		"--gateway-middleware=router", "--middleware-router-file=" + file, "--middleware-router-only",
	}))
	loaded, err := loader.Load(nil)
	require.NoError(t, err)
	log := slog.New(slog.DiscardHandler)
	host := loaded.Open(context.Background(), log)
	g, err := httpd.Start(t.Context(), host, s, log)
	require.NoError(t, err)
	transport := new(http.Transport)
	defer func() {
		transport.CloseIdleConnections()
		require.NoError(t, g.Stop(context.Background()))
		require.NoError(t, host.Close())
	}()

	f := &front{client: &http.Client{Transport: transport}}
	f.Server = serve(t, nil) // for its URL alone
	f.URL = "http://" + g.Addr()
	var messages atomic.Int64
	for range 3 {
		require.NoError(t, f.onePlain(nil))
		require.NoError(t, f.oneEvents(nil))
		require.NoError(t, f.oneUpload(nil))
	}
	require.NoError(t, f.oneWebSocket(&messages)(nil))
	require.EqualValues(t, 2000, messages.Load())

	require.NoError(t, os.WriteFile(file, []byte("routes: [{name: gone, match: {path: /gone}, to: {respond: {status: 410}}}]"), 0o600))
	eventually(t, "the routes change", func() bool { res, _ := f.get(t, "/gone"); return res.StatusCode == http.StatusGone })
	res, _ := f.get(t, "/other")
	require.Equal(t, http.StatusNotFound, res.StatusCode)

	f.URL = "http://" + g.AdminAddr()
	res, text := f.get(t, "/metrics")
	require.Equal(t, 200, res.StatusCode)
	for _, want := range []string{`router_requests_total{outcome="answered",route="all",upstream="` + hostOf(up) + `"}`, `router_reloads_total{result="used"} 2`} {
		require.True(t, strings.Contains(text, "micro_gateway_"+want), want)
	}
}
