package recover_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/recover"
	"github.com/plugmicro/micro/plugin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRecover(t *testing.T) {
	long := strings.Repeat("/long", 1000)
	var log bytes.Buffer
	settings, err := plugin.NewLoader(plugin.NewCatalog()).Load(nil)
	require.NoError(t, err)
	host := settings.Open(t.Context(), slog.New(slog.NewTextHandler(&log, nil)))
	defer host.Close()
	m, err := recover.New(host.Env(), recover.Config{})
	require.NoError(t, err)
	chain := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/before" + long:
			w.Header().Set("Content-Length", "100")
			panic("before")
		case "/after":
			_, _ = io.WriteString(w, "the beginning")
			panic("after")
		case "/abort":
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "fine")
		require.NoError(t, http.NewResponseController(w).Flush())
	}))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		chain.ServeHTTP(w, gateway.With(r, &gateway.Info{ID: "id-7"}))
	}))
	defer srv.Close()
	c := srv.Client()

	rsp, err := c.Get(srv.URL + "/")
	require.NoError(t, err)
	require.NoError(t, rsp.Body.Close())
	require.Equal(t, 200, rsp.StatusCode)

	rsp, err = c.Get(srv.URL + "/before" + long)
	require.NoError(t, err)
	body, err := io.ReadAll(rsp.Body)
	require.NoError(t, err)
	require.NoError(t, rsp.Body.Close())
	require.Equal(t, 500, rsp.StatusCode)
	require.Contains(t, string(body), `"code":"Internal"`)
	require.NotContains(t, string(body), "before", "strangers are not told")

	rsp, err = c.Post(srv.URL+"/after", "", nil) // a GET is tried again by the client
	if err == nil {
		_, err = io.ReadAll(rsp.Body)
		require.NoError(t, rsp.Body.Close())
	}
	require.Error(t, err, "the answer does not look complete")
	_, err = c.Get(srv.URL + "/abort")
	require.Error(t, err)
	c.CloseIdleConnections()
	srv.Close()

	require.Equal(t, 2.0, testutil.ToFloat64(m.(prometheus.Collector)))
	require.Contains(t, log.String(), "panic=before")
	require.Contains(t, log.String(), "recover_test.go")
	require.Contains(t, log.String(), "path=/before/long/")
	require.NotContains(t, log.String(), long)
	require.Equal(t, 2, strings.Count(log.String(), "request_id=id-7"))
	var _ gateway.Middleware = m
}
