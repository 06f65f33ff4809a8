package httpd

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway"
)

func TestAdmin(t *testing.T) {
	g := start(t)
	admin := "http://" + g.AdminAddr()
	require.Contains(t, g.get(admin+"/metrics").body, "go_goroutines")
	require.NotEmpty(t, g.metric("process_start_time_seconds"))
	require.NotEmpty(t, g.metric("micro_gateway_connections"))
	require.Contains(t, g.get(admin+"/openapi.json").body, `"openapi": "3.1`)
	page := g.get(admin + "/")
	require.Equal(t, http.StatusOK, page.status)
	require.Contains(t, page.header.Get("Content-Type"), "text/html")
	require.Equal(t, http.StatusNotFound, g.get(admin+"/debug/pprof/").status)
	for _, path := range []string{"/metrics", "/", "/debug/pprof/"} {
		a := g.get(g.url(path))
		require.Equal(t, http.StatusNotFound, a.status, "the public address has nothing of it")
	}

	g = start(t, withArgs("--gateway-admin-pprof"))
	require.Contains(t, g.get("http://"+g.AdminAddr()+"/debug/pprof/").body, "goroutine")

	g = start(t, withArgs("--gateway-admin-address=off"))
	require.Empty(t, g.AdminAddr())
}

func TestAdminIsGuarded(t *testing.T) {
	h := guard([]string{"Gateway.Internal"}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for name, c := range map[string]struct {
		method, host string
		header       map[string]string
		status       int
	}{
		"by address":                     {"GET", "127.0.0.1:8081", nil, 200},
		"by address of IPv6":             {"GET", "[::1]:8081", nil, 200},
		"by localhost":                   {"POST", "localhost:8081", nil, 200},
		"by a name of the settings":      {"GET", "gateway.internal", nil, 200},
		"by a name that was rebound":     {"GET", "evil.example.com:8081", nil, 403},
		"by a name that looks like ours": {"GET", "localhost.example.com", nil, 403},
		"by no name":                     {"GET", "", nil, 400},
		"by the page itself":             {"POST", "localhost", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 200},
		"by a bookmark":                  {"GET", "localhost", map[string]string{"Sec-Fetch-Site": "none"}, 200},
		"by a link":                      {"GET", "localhost", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200},
		"by a form of another site":      {"POST", "localhost", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403},
		"by a script of another site":    {"GET", "localhost", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403},
		"by another port":                {"GET", "localhost", map[string]string{"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403},
		"by an old browser":              {"POST", "localhost:8081", map[string]string{"Origin": "http://evil.example.com"}, 403},
		"by an old browser, from here":   {"POST", "localhost:8081", map[string]string{"Origin": "http://localhost:8081"}, 200},
		"by a WebSocket of another":      {"GET", "localhost", map[string]string{"Origin": "http://evil.example.com", "Upgrade": "websocket", "Connection": "Upgrade"}, 403},
		"by a sandbox":                   {"POST", "localhost", map[string]string{"Origin": "null"}, 403},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, "/metrics", nil)
			r.Host = c.host
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, c.status, w.Code, w.Body)
			require.Equal(t, "DENY", w.Header().Get("X-Frame-Options"))
		})
	}
}

// TestPageIsGuarded asks what the page's scripts ask, as pages of others could.
func TestPageIsGuarded(t *testing.T) {
	g := start(t)
	g.serveNumbers()
	admin := "http://" + g.AdminAddr()
	for name, c := range map[string]struct {
		header http.Header
		may    bool
	}{
		"no browser":                 {http.Header{}, true},
		"the page":                   {http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {admin}}, true},
		"the page, an old browser":   {http.Header{"Origin": {admin}}, true},
		"another site":               {http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"http://evil.example"}}, false},
		"another port":               {http.Header{"Sec-Fetch-Site": {"same-site"}, "Origin": {"http://127.0.0.1:1"}}, false},
		"another, an old browser":    {http.Header{"Origin": {"http://evil.example"}}, false},
		"a sandbox":                  {http.Header{"Origin": {"null"}}, false},
		"two origins":                {http.Header{"Origin": {admin, "http://evil.example"}}, false},
		"an origin as user":          {http.Header{"Origin": {"http://" + g.AdminAddr() + "@evil.example"}}, false},
		"an image":                   {http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"no-cors"}}, false},
		"no origin at all":           {http.Header{"Origin": {""}}, false},
		"a link, or another window":  {http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}}, false},
		"a form that opens a window": {http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Origin": {"null"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			for path, method := range map[string]string{
				"/call?service=numbers&endpoint=Numbers.Double": http.MethodPost, "/api/about": http.MethodGet, "/api/health?service=numbers": http.MethodGet,
			} {
				req, err := http.NewRequest(method, admin+path, strings.NewReader("{}"))
				require.NoError(t, err)
				req.Header = c.header.Clone()
				req.Header.Set("Content-Type", "application/json")
				a := g.do(req)
				require.Equal(t, c.may, a.status == http.StatusOK, "%s: %d %s", path, a.status, a.body)
				if !c.may {
					require.Equal(t, http.StatusForbidden, a.status)
				}
				require.Equal(t, "nosniff", a.header.Get("X-Content-Type-Options"))
			}
		})
	}
	for _, path := range []string{"/api/events?topic=x", "/api/services"} {
		req, err := http.NewRequest(http.MethodGet, admin+path, nil)
		require.NoError(t, err)
		req.Header.Set("Origin", "http://evil.example")
		require.Equal(t, http.StatusForbidden, g.do(req).status)
	}
}

func TestAdminThatOthersReachIsWarnedOf(t *testing.T) {
	require.NotContains(t, start(t).logs.String(), "reach the admin address")
	g := start(t, withArgs("--gateway-admin-address=:0"))
	require.Contains(t, g.logs.String(), "level=WARN")
	require.Contains(t, g.logs.String(), "others than this machine reach the admin address")
	_, port, err := net.SplitHostPort(g.AdminAddr())
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, g.get("http://127.0.0.1:"+port+"/healthz").status)
}

// counting is a middleware that counts.
type counting struct {
	prometheus.Counter
}

func (c counting) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.Inc()
		next.ServeHTTP(w, r)
	})
}

func TestMiddlewaresCount(t *testing.T) {
	var m gateway.Middleware = counting{prometheus.NewCounter(prometheus.CounterOpts{Name: "micro_gateway_test_total"})}
	g := start(t, withMiddleware(m))
	g.get(g.url("/x"))
	g.get(g.url("/x"))
	require.Equal(t, "2", g.metric("micro_gateway_test_total"))
}
