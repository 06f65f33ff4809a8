package httpd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	_ "github.com/plugmicro/micro/defaults"
	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/logtest"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds waiting for what must come.
const soon = 20 * time.Second

// running is a gateway of a test, on ports of its own, with a registry of its own.
type running struct {
	*Gateway
	t        testing.TB
	logs     *logtest.Buffer
	registry registry.Registry
	client   *http.Client
}

// setup is how the gateway of a test is made.
type setup struct {
	args        []string
	middlewares []gateway.Middleware
}

type change func(*setup)

func withArgs(args ...string) change { return func(s *setup) { s.args = append(s.args, args...) } }

// withHandler answers all requests that get past the gateway itself.
func withHandler(h http.HandlerFunc) change {
	return withMiddleware(gateway.Func(func(http.Handler) http.Handler { return h }))
}

func withMiddleware(m gateway.Middleware) change {
	return func(s *setup) { s.middlewares = append(s.middlewares, m) }
}

// load makes Settings of flags as the program does.
func load(t testing.TB, s *setup) (Settings, *plugin.Settings, error) {
	loader := plugin.NewLoader(plugin.Linked)
	var settings Settings
	loader.Section(Section, &settings)
	loader.Set("registry", "memory")
	for _, m := range s.middlewares {
		plugin.Provide(loader, m)
	}
	require.NoError(t, loader.Parse(s.args))
	loaded, err := loader.Load(nil)
	return settings, loaded, err
}

func start(t testing.TB, changes ...change) *running {
	t.Helper()
	s := &setup{args: []string{"--gateway-address=127.0.0.1:0", "--gateway-admin-address=127.0.0.1:0", "--gateway-stop-delay=0s"}}
	for _, c := range changes {
		c(s)
	}
	settings, loaded, err := load(t, s)
	require.NoError(t, err)
	r := &running{t: t, logs: new(logtest.Buffer), client: &http.Client{Transport: &http.Transport{}}}
	log := slog.New(slog.NewTextHandler(r.logs, nil))
	host := loaded.Open(context.Background(), log)
	r.Gateway, err = Start(t.Context(), host, settings, log)
	require.NoError(t, err)
	r.registry, err = plugin.Open[registry.Registry](host)
	require.NoError(t, err)
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		_ = r.Stop(context.Background()) // its errors are looked at where they count
		require.NoError(t, host.Close())
	})
	return r
}

func (r *running) url(path string) string {
	scheme := "http://"
	if r.settings.hasTLS() {
		scheme = "https://"
	}
	return scheme + r.Addr() + path
}

// trust has the client trust the authority of the gateway's certificate.
func (r *running) trust(own plugin.TLS) {
	config, err := own.Client()
	require.NoError(r.t, err)
	r.client.Transport = &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
}

type answer struct {
	status int
	header http.Header
	body   string
	proto  string
}

func (r *running) get(url string) answer {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, url, nil)
	require.NoError(r.t, err)
	return r.do(req)
}

func (r *running) do(req *http.Request) answer {
	r.t.Helper()
	resp, err := r.client.Do(req)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	return answer{resp.StatusCode, resp.Header, string(body), resp.Proto}
}

// metric is the value of a line of /metrics.
func (r *running) metric(name string) string {
	r.t.Helper()
	for line := range strings.Lines(r.get("http://" + r.AdminAddr() + "/metrics").body) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func (r *running) eventually(what string, f func() bool) {
	r.t.Helper()
	require.Eventually(r.t, f, soon, 2*time.Millisecond, what)
}

func (r *running) eventuallyLogs(text string) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return strings.Contains(r.logs.String(), text) }, soon, 2*time.Millisecond, "not logged: %s\n%s", text, r.logs)
}

// raw sends bytes as they are, and returns the connection.
func (r *running) raw(text string) (net.Conn, *bufio.Reader) {
	r.t.Helper()
	c, err := net.Dial("tcp", r.Addr())
	require.NoError(r.t, err)
	r.t.Cleanup(func() { c.Close() })
	require.NoError(r.t, c.SetDeadline(time.Now().Add(soon)))
	_, err = io.WriteString(c, text)
	require.NoError(r.t, err)
	return c, bufio.NewReader(c)
}

// ok answers with what it got, and reads the body.
func ok(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		gateway.Fail(w, r, err)
		return
	}
	fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, body)
}
