package router

import (
	"context"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/logtest"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// front is a gateway of this one middleware, on a real socket.
type front struct {
	*httptest.Server
	router *Router
	file   string
	log    *logtest.Buffer
	client *http.Client // whose connections are its own
}

// settings of a front.
type settings struct {
	Config
	reg  registry.Registry
	next http.HandlerFunc
	h2   bool
	seen func(*http.Request) // what is routed
	set  http.Header         // by other middlewares, on answers
}

func start(t testing.TB, routes string, change ...func(*settings)) *front {
	t.Helper()
	f := &front{file: filepath.Join(t.TempDir(), "routes.yaml"), log: new(logtest.Buffer)}
	s := settings{Config: Config{File: f.file, Timeout: 10 * time.Second, IdleTimeout: time.Minute}}
	s.next = func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no route", http.StatusTeapot) }
	for _, c := range change {
		c(&s)
	}
	f.write(t, routes)
	loader := plugin.NewLoader(plugin.Linked)
	if s.reg != nil {
		plugin.Provide(loader, s.reg)
	}
	loaded, err := loader.Load(nil)
	require.NoError(t, err)
	host := loaded.Open(t.Context(), slog.New(slog.NewTextHandler(f.log, nil)))
	t.Cleanup(func() { require.NoError(t, host.Close()) })
	f.router, err = open(host.Env(), s.Config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.router.Close()) })
	chain := f.router.Handler(s.next)
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info := &gateway.Info{ID: "id-7", Client: netip.MustParseAddr("203.0.113.9"), Secure: r.TLS != nil}
		r = gateway.With(r, info)
		maps.Copy(w.Header(), s.set)
		w.Header().Set("X-Request-Id", info.ID)
		host, err := gateway.Prepare(r)
		if err != nil {
			gateway.Fail(w, r, err)
			return
		}
		info.Host = host
		if s.seen != nil {
			s.seen(r)
		}
		chain.ServeHTTP(w, r)
	}))
	said := new(logtest.Buffer)
	f.Server.Config.ErrorLog = log.New(said, "", 0)
	t.Cleanup(func() { require.NotContains(t, said.String(), "panic") })
	if s.h2 {
		f.Server.EnableHTTP2 = true
		f.Server.StartTLS()
	} else {
		f.Server.Start()
	}
	t.Cleanup(f.Server.Close)
	f.client = f.Server.Client()
	f.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return f
}

func (f *front) write(t testing.TB, routes string) {
	require.NoError(t, os.WriteFile(f.file, []byte(routes), 0o600))
}

// reload puts other routes into use at once, without the file.
func (f *front) reload(t testing.TB, routes string) {
	require.NoError(t, f.router.load([]byte(routes)))
}

func (f *front) get(t testing.TB, path string) (*http.Response, string) {
	t.Helper()
	return f.do(t, http.MethodGet, path, nil)
}

func (f *front) do(t testing.TB, method, path string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, f.URL+path, body)
	require.NoError(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	res, err := f.client.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(text)
}

// counted is a counter of a way to end.
func (f *front) counted(route, upstream string, o outcome) float64 {
	return testutil.ToFloat64(f.router.metrics.requests.WithLabelValues(route, upstream, string(o)))
}

// serve is an upstream.
func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = silent
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// says answers with a word.
func says(word string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, word) }
}

// dial speaks to a server by hand.
func dial(t testing.TB, s *httptest.Server) net.Conn {
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return c
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, patience, 2*time.Millisecond, what)
}

// unused is an address at which nobody listens.
func unused(t testing.TB) string {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func replace(text string, pairs ...string) string { return strings.NewReplacer(pairs...).Replace(text) }
