package router

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/registry/memory"
)

func hostOf(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }

// TestClientGoneWhileSending ends the request at the server, is counted and told once.
func TestClientGoneWhileSending(t *testing.T) {
	began, ended := make(chan struct{}), make(chan error, 1)
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 1000))
		close(began)
		_, err := io.Copy(io.Discard, r.Body)
		ended <- err
	})
	f := start(t, to(up.URL))
	c := dial(t, f.Server)
	_, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n%s", strings.Repeat("x", 2000))
	require.NoError(t, err)
	<-began
	require.NoError(t, c.Close())
	require.Error(t, <-ended, "the server is not told of a whole body")
	eventually(t, "it is counted", func() bool { return f.counted("all", hostOf(up), clientGone) == 1 })
	eventually(t, "it is told", func() bool { return strings.Contains(f.log.String(), "why=client_gone") })
	require.Equal(t, 1, strings.Count(f.log.String(), "\n"))
}

// TestClientGoneWhileReading ends a stream that would have no end.
func TestClientGoneWhileReading(t *testing.T) {
	ended := make(chan struct{})
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		for {
			if _, err := w.Write(make([]byte, 10000)); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	})
	f := start(t, to(up.URL))
	c := dial(t, f.Server)
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	require.NoError(t, err)
	_, err = io.ReadFull(c, make([]byte, 5000))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	<-ended
	eventually(t, "it is counted", func() bool { return f.counted("all", hostOf(up), clientGone) == 1 })
}

// TestClientGoneWhileWaiting has a server that does not answer.
func TestClientGoneWhileWaiting(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(ended)
	})
	f := start(t, to(up.URL))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		r, _ := http.NewRequestWithContext(ctx, "GET", f.URL, nil)
		res, err := f.client.Do(r)
		if err == nil {
			res.Body.Close()
		}
		done <- err
	}()
	<-began
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	<-ended
	eventually(t, "it is counted", func() bool { return f.counted("all", hostOf(up), clientGone) == 1 })
	require.Zero(t, f.router.table.Load().routes[0].targets[0].pool.states()["failing"])
}

// TestServerKilledInTheMiddle cuts the answer for the client, whatever its framing.
func TestServerKilledInTheMiddle(t *testing.T) {
	for name, length := range map[string]string{"with a length": "Content-Length: 1000", "in chunks": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello"} {
		t.Run(name, func(t *testing.T) {
			up := serve(t, func(w http.ResponseWriter, r *http.Request) {
				c, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					return
				}
				defer c.Close()
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n%s\r\n\r\nhello", length)
			})
			f := start(t, to(up.URL))
			r, err := http.NewRequestWithContext(t.Context(), "GET", f.URL, nil)
			require.NoError(t, err)
			res, err := f.client.Do(r)
			if err == nil {
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			require.Error(t, err, "an answer that was cut does not look whole")
			eventually(t, "it is counted", func() bool { return f.counted("all", hostOf(up), broken) == 1 })
			require.Contains(t, f.log.String(), "why=upstream_broken")
			require.Equal(t, 1, strings.Count(f.log.String(), "\n"))
		})
	}
}

func TestTimeouts(t *testing.T) {
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stall" {
			_, _ = io.WriteString(w, "some")
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	})
	f := start(t, to(up.URL, "timeout: 100ms", "idle_timeout: 100ms"))
	res, body := f.get(t, "/silent")
	require.Equal(t, http.StatusGatewayTimeout, res.StatusCode)
	require.Contains(t, body, "there was no answer within 100ms")
	require.Equal(t, 1.0, f.counted("all", hostOf(up), silentUpstream))

	r, err := http.NewRequestWithContext(t.Context(), "GET", f.URL+"/stall", nil)
	require.NoError(t, err)
	res, err = f.client.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	_, err = io.ReadAll(res.Body)
	require.Error(t, err)
	eventually(t, "it is counted", func() bool { return f.counted("all", hostOf(up), stalled) == 1 })
}

// TestSlowUploadIsNoTimeout: the time that a client takes is not the server's.
func TestSlowUploadIsNoTimeout(t *testing.T) {
	up := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	f := start(t, to(up.URL, "timeout: 200ms", "idle_timeout: 1s"))
	pr, pw := io.Pipe()
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for range 10 {
			<-tick.C
			_, _ = pw.Write([]byte("x"))
		}
		pw.Close()
	}()
	res, _ := f.do(t, "POST", "/", pr)
	require.Equal(t, 200, res.StatusCode)

	pr, pw = io.Pipe()
	defer pw.Close()
	r, err := http.NewRequestWithContext(t.Context(), "POST", f.URL, pr)
	require.NoError(t, err)
	res, err = f.client.Do(r)
	if err == nil { // or the connection is cut while the client waits with its body
		res.Body.Close()
		require.Equal(t, http.StatusRequestTimeout, res.StatusCode)
	}
	eventually(t, "it is counted", func() bool { return f.counted("all", hostOf(up), clientSlow) == 1 })
}

// TestRetries: what happened to a request shows at the server.
func TestRetries(t *testing.T) {
	var asked atomic.Int32
	flaky := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if n := asked.Add(1); n%2 == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(append([]byte("answer "), body...))
	})
	f := start(t, to(flaky.URL, "retries: {attempts: 1, on: [503]}"))
	for _, c := range []struct {
		method, body string
		header       []string
		status       int
		asked        int32
	}{
		{"GET", "", nil, 200, 2},
		{"POST", "x", nil, 503, 1},
		{"POST", "x", []string{"Idempotency-Key", "7"}, 200, 2},
		{"PUT", strings.Repeat("x", replayable+1), []string{"Idempotency-Key", "7"}, 503, 1},
		{"DELETE", "", nil, 503, 1},
	} {
		asked.Store(0)
		res, body := f.do(t, c.method, "/", strings.NewReader(c.body), c.header...)
		require.Equal(t, c.status, res.StatusCode, c.method)
		require.Equal(t, c.asked, asked.Load(), c.method)
		if c.status == 200 {
			require.Equal(t, "answer "+c.body, body)
		}
	}
	require.Equal(t, 2.0, testutil.ToFloat64(f.router.metrics.retries.WithLabelValues("all", hostOf(flaky))))
}

// TestNobodyNotices when one of two servers is away: what was sent to it had not begun.
func TestNobodyNotices(t *testing.T) {
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	})
	f := start(t, "routes: [{name: all, to: {url: ['http://"+unused(t)+"', '"+up.URL+"']}}]")
	for i := range 30 {
		for _, size := range []int{0, 10, replayable + 1} {
			want := strings.Repeat("x", size)
			res, body := f.do(t, "POST", "/", strings.NewReader(want))
			require.Equal(t, 200, res.StatusCode, "%d %d", i, size)
			require.True(t, want == body)
		}
	}
	pool := f.router.table.Load().routes[0].targets[0].pool
	require.Equal(t, map[string]int{"up": 1, "failing": 1, "unhealthy": 0}, pool.states())
}

func TestRetriesHaveABudget(t *testing.T) {
	var asked atomic.Int32
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	f := start(t, to(up.URL, "retries: {attempts: 10, on: [503]}"))
	const n = 200
	for range n {
		f.get(t, "/")
	}
	require.LessOrEqual(t, int(asked.Load()), n+n/retryCost+10)
	require.Greater(t, int(asked.Load()), n)
}

// TestBreaker opens after failures, answers at once while it is open, and closes when a try succeeds.
func TestBreaker(t *testing.T) {
	var broken atomic.Bool
	var asked atomic.Int32
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if broken.Load() {
			w.WriteHeader(500)
		}
	})
	f := start(t, "upstreams: {shop: {url: '"+up.URL+"', breaker: {failures: 3, open: 150ms, statuses: [500]}}}\nroutes: [{name: all, to: {upstream: shop}}]")
	broken.Store(true)
	for range 3 {
		res, _ := f.get(t, "/")
		require.Equal(t, 500, res.StatusCode)
	}
	res, body := f.get(t, "/")
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	require.Equal(t, "1", res.Header.Get("Retry-After"))
	require.Contains(t, body, "no server can take the request now")
	require.EqualValues(t, 3, asked.Load())
	broken.Store(false)
	eventually(t, "it closes", func() bool { res, _ := f.get(t, "/"); return res.StatusCode == 200 })
	require.Equal(t, 1.0, testutil.ToFloat64(f.router.metrics.ejections.WithLabelValues("shop", "failures")))
	require.Contains(t, f.log.String(), "the server fails")
	require.Contains(t, f.log.String(), "the server answers again")
}

// TestClientsOpenNoCircuit: a server is not left out for what its clients do.
func TestClientsOpenNoCircuit(t *testing.T) {
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "up")
	})
	f := start(t, "upstreams: {shop: {url: '"+up.URL+"', breaker: {failures: 1, open: 1h}}}\n"+
		"routes: [{name: all, idle_timeout: 100ms, max_body: 100B, to: {upstream: shop}}]")
	for o, do := range map[outcome]func(net.Conn){
		clientGone: func(c net.Conn) { c.Close() },
		clientSlow: func(net.Conn) {},
		tooLarge:   func(c net.Conn) { fmt.Fprintf(c, "c8\r\n%s\r\n", strings.Repeat("x", 200)) },
	} {
		t.Run(string(o), func(t *testing.T) {
			c := dial(t, f.Server)
			_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
			require.NoError(t, err)
			do(c)
			eventually(t, "it is counted", func() bool { return f.counted("all", "shop", o) == 1 })
			res, body := f.get(t, "/")
			require.Equal(t, "200 up", fmt.Sprint(res.StatusCode, " ", body))
		})
	}
	require.Zero(t, f.router.table.Load().routes[0].targets[0].pool.states()["failing"])
}

// TestHealth leaves out a server whose checks fail; if all fail, they are asked all the same.
func TestHealth(t *testing.T) {
	var sick [2]atomic.Bool
	up := make([]*httptest.Server, 2)
	for i := range up {
		up[i] = serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/base/healthz" && sick[i].Load() {
				w.WriteHeader(500)
				return
			}
			fmt.Fprint(w, i)
		})
	}
	f := start(t, fmt.Sprintf("upstreams: {shop: {url: ['%s/base', '%s/base'], health: {path: /healthz, interval: 10ms, up: 2, down: 2}}}\nroutes: [{name: all, to: {upstream: shop}}]", up[0].URL, up[1].URL))
	pool := f.router.table.Load().routes[0].targets[0].pool
	answers := func() map[string]int {
		got := make(map[string]int)
		for range 10 {
			_, body := f.get(t, "/")
			got[body]++
		}
		return got
	}
	require.Equal(t, map[string]int{"0": 5, "1": 5}, answers())
	sick[0].Store(true)
	eventually(t, "it is left out", func() bool { return pool.states()["unhealthy"] == 1 })
	require.Equal(t, map[string]int{"1": 10}, answers())
	sick[1].Store(true)
	eventually(t, "all are down", func() bool { return pool.states()["unhealthy"] == 2 })
	require.Equal(t, map[string]int{"0": 5, "1": 5}, answers())
	sick[0].Store(false)
	eventually(t, "it is back", func() bool { return pool.states()["up"] == 1 })
	require.Equal(t, map[string]int{"0": 10}, answers())
	require.Equal(t, 2.0, testutil.ToFloat64(f.router.metrics.ejections.WithLabelValues("shop", "health")))
}

// TestServicesByTheirHTTPAddress follows a registry: nodes that come, go, and say where they listen for HTTP.
func TestServicesByTheirHTTPAddress(t *testing.T) {
	store := memory.NewStore()
	reg := store.Open()
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	one, two, three := serve(t, says("one")), serve(t, says("two")), serve(t, says("three"))
	node := func(id, address string, metadata map[string]string) *registry.Node {
		return &registry.Node{ID: id, Address: address, Metadata: metadata}
	}
	require.NoError(t, reg.Register(&registry.Service{Name: "shop", Version: "1", Nodes: []*registry.Node{node("a", hostOf(one), nil)}}))
	f := start(t, "routes:\n- {name: two, match: {path: /two}, to: {service_http: shop, version: '2'}}\n- {name: all, to: {service_http: shop}}",
		func(s *settings) { s.reg = reg })
	_, body := f.get(t, "/")
	require.Equal(t, "one", body)
	res, _ := f.get(t, "/two")
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)

	require.NoError(t, reg.Register(&registry.Service{Name: "shop", Version: "2", Nodes: []*registry.Node{
		node("b", "10.0.0.1:1", map[string]string{"http": hostOf(two)}), node("c", "127.0.0.1:1", map[string]string{"http": three.URL}),
		node("d", "/run/socket?", nil),
	}}))
	eventually(t, "they are seen", func() bool { return f.router.table.Load().routes[0].targets[0].pool.states()["up"] == 2 })
	got := make(map[string]int)
	for range 4 {
		_, body := f.get(t, "/two")
		got[body]++
	}
	require.Equal(t, map[string]int{"two": 2, "three": 2}, got)
	require.Contains(t, f.log.String(), "a node of the service has no HTTP address")

	require.NoError(t, reg.Deregister(&registry.Service{Name: "shop", Nodes: []*registry.Node{node("a", "", nil), node("b", "", nil), node("d", "", nil)}}))
	eventually(t, "they are gone", func() bool { return len(f.router.table.Load().routes[1].targets[0].pool.current()) == 1 })
	_, body = f.get(t, "/")
	require.Equal(t, "three", body)
}

// TestMirror holds that copies are whole, and that a mirror which hangs costs nothing.
func TestMirror(t *testing.T) {
	up := serve(t, says("answer"))
	copies, release := make(chan string, 1000), make(chan struct{})
	shadow := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		copies <- fmt.Sprint(r.Method, r.Host, r.RequestURI, len(body), r.Header.Get("X-A"))
		<-release
	})
	f := start(t, to(up.URL, "rewrite: {strip_prefix: /api}", "request_headers: {set: {X-A: b}}", "match: {prefix: /api}", "mirror: {url: '"+shadow.URL+"/m', max_body: 32KiB}"))
	post := func(size int) {
		_, body := f.do(t, "POST", "/api/x?y", strings.NewReader(strings.Repeat("x", size)), "Host", "h")
		require.Equal(t, "answer", body)
	}
	post(10)
	require.Equal(t, "POSTh/m/x?y10b", <-copies)
	post(20000)
	post(40000)
	result := func(name string) float64 {
		return testutil.ToFloat64(f.router.metrics.mirrors.WithLabelValues("all", name))
	}
	require.Equal(t, 1.0, result("too_large"))
	for range maxMirrored + 10 {
		post(0)
	}
	require.GreaterOrEqual(t, result("dropped"), 10.0)
	close(release)
	eventually(t, "all that was taken arrives", func() bool { return result("sent") == maxMirrored })

	mi := &mirror{fraction: 0.1}
	due := 0
	for range 1000 {
		if mi.due() {
			due++
		}
	}
	require.InDelta(t, 100, due, 1)
}

// TestMirrorsAreGuarded: what a client may not ask a service, it cannot have sent there as a copy.
func TestMirrorsAreGuarded(t *testing.T) {
	reg := memory.NewStore().Open()
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	up := serve(t, says("up"))
	copies := make(chan string, 10)
	accounts := serve(t, func(_ http.ResponseWriter, r *http.Request) { copies <- r.URL.Path })
	require.NoError(t, reg.Register(&registry.Service{Name: "accounts", Nodes: []*registry.Node{{ID: "a", Address: hostOf(accounts)}}}))
	f := start(t, replace(`upstreams: {named: {service_http: accounts}}
routes:
- {name: place, match: {prefix: /place}, mirror: {service_http: accounts}, to: {url: 'UP'}}
- {name: name, match: {prefix: /name}, mirror: {upstream: named}, to: {url: 'UP'}}
`, "UP", up.URL), func(s *settings) {
		s.reg = reg
		s.seen = func(r *http.Request) {
			path := r.URL.Path
			gateway.Of(r).Guard(func(service, _ string) error {
				if service == "accounts" && strings.HasSuffix(path, "/no") {
					return gateway.NewProblem(403, "not %s", service)
				}
				return nil
			})
		}
	})
	for _, route := range []string{"place", "name"} {
		for _, path := range []string{"/no", "/yes"} {
			_, body := f.do(t, "POST", "/"+route+path, strings.NewReader("x"))
			require.Equal(t, "up", body)
		}
		require.Equal(t, "/"+route+"/yes", <-copies)
		result := func(name string) float64 {
			return testutil.ToFloat64(f.router.metrics.mirrors.WithLabelValues(route, name))
		}
		eventually(t, "both are counted", func() bool { return result("refused") == 1 && result("sent") == 1 })
	}
	f.router.work.Wait()
	require.Empty(t, copies)
}

// TestWhetherItCanHaveRun is said of requests that had no answer: only if there was no connection in any attempt.
func TestWhetherItCanHaveRun(t *testing.T) {
	closes := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			c.Close()
		}
	})
	away := unused(t)
	for name, c := range map[string]struct {
		to     string
		unsent bool
	}{
		"no connection":                 {"url: 'http://" + away + "'", true},
		"no connection for TLS":         {"url: 'https://" + away + "'", true},
		"no answer":                     {"url: '" + closes.URL + "'", false},
		"no answer, then no connection": {"url: ['http://" + away + "', '" + closes.URL + "']", false}, // the second comes first
		"a last answer":                 {"url: '" + lastAnswer(t) + "'", false},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, "routes: [{name: all, retries: {attempts: 1}, to: {"+c.to+"}}]")
			r := func() (*http.Response, string) { return f.do(t, "POST", "/", nil, "Idempotency-Key", "7") }
			if strings.HasPrefix(c.to, "url: 'https") {
				r = func() (*http.Response, string) { return f.do(t, "POST", "/", strings.NewReader("x")) }
			}
			res, body := r()
			for res.StatusCode == 200 {
				res, body = r()
			}
			require.Equal(t, 502, res.StatusCode)
			require.Equal(t, c.unsent, strings.Contains(body, "no connection to the server behind; the request was not sent"), body)
			require.Equal(t, !c.unsent, strings.Contains(body, "gave no answer"), body)
			require.NotContains(t, body, "127.0.0.1")
		})
	}
}

// lastAnswer is a server that answers one request, reads a second on that connection, and is gone.
func lastAnswer(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		br := bufio.NewReader(c)
		if _, err = http.ReadRequest(br); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			_, _ = http.ReadRequest(br)
		}
		l.Close()
	}()
	return "http://" + l.Addr().String()
}

func TestReloadOfTheFile(t *testing.T) {
	one, two := serve(t, says("one")), serve(t, says("two"))
	f := start(t, to(one.URL))
	_, body := f.get(t, "/")
	require.Equal(t, "one", body)
	f.write(t, to("ftp://x"))
	eventually(t, "it is refused", func() bool { return strings.Contains(f.log.String(), f.file+":3: ftp://x is no URL") })
	_, body = f.get(t, "/")
	require.Equal(t, "one", body)
	require.NoError(t, os.WriteFile(f.file+".new", []byte(to(two.URL)), 0o600))
	require.NoError(t, os.Rename(f.file+".new", f.file))
	eventually(t, "it is in use", func() bool { _, body := f.get(t, "/"); return body == "two" })
	require.Equal(t, 1.0, testutil.ToFloat64(f.router.metrics.reloads.WithLabelValues("refused")))
	require.Equal(t, 2.0, testutil.ToFloat64(f.router.metrics.reloads.WithLabelValues("used")))
}

func TestWrongFileAtStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.yaml")
	_, err := New(new(plugin.Env), Config{File: file, Timeout: 1, IdleTimeout: 1})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(file, []byte("routes: [{}]"), 0o600))
	_, err = New(new(plugin.Env), Config{File: file, Timeout: 1, IdleTimeout: 1})
	require.ErrorContains(t, err, file+":1: the route has no name")
	require.NoError(t, os.WriteFile(file, []byte("routes: [{name: a, to: {service_http: b}}]"), 0o600))
	_, err = New(new(plugin.Env), Config{File: file, Timeout: 1, IdleTimeout: 1})
	require.ErrorContains(t, err, "no siblings")
}

func TestMetrics(t *testing.T) {
	up := serve(t, says("x"))
	f := start(t, to(up.URL))
	f.get(t, "/")
	reg := prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(f.router))
	n, err := testutil.GatherAndCount(reg)
	require.NoError(t, err)
	require.Equal(t, 6, n)
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// TestEachUpstreamTellsItsFirstFailure: that one fails must not hide why another does, and what clients do hides neither.
func TestEachUpstreamTellsItsFirstFailure(t *testing.T) {
	one, two := unused(t), unused(t)
	silent := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	f := start(t, replace(`
upstreams: {late: {url: "LATE"}}
routes:
- {name: one, match: {prefix: /one}, to: {url: "http://ONE"}}
- {name: two, match: {prefix: /two}, to: {url: "http://TWO"}}
- {name: late, match: {prefix: /late}, timeout: 50ms, to: {upstream: late}}
- {name: small, match: {prefix: /small}, max_body: 1B, to: {upstream: late}}
`, "ONE", one, "TWO", two, "LATE", silent.URL))
	f.do(t, "POST", "/small", strings.NewReader("ab"))
	for _, path := range []string{"/one", "/one", "/two", "/late", "/two"} {
		f.get(t, path)
	}
	lines := strings.Split(strings.TrimSpace(f.log.String()), "\n")
	require.Len(t, lines, 4, "one for each upstream and outcome")
	for i, want := range [][]string{
		{"why=too_large", "route=small", "upstream=late", `phase="reading the request"`},
		{"why=unreachable", "route=one", "upstream=" + one, "phase=connecting", "connection refused"},
		{"why=unreachable", "route=two", "upstream=" + two, "phase=connecting", "connection refused"},
		{"why=timeout", "route=late", "upstream=late", `phase="waiting for the answer"`, "did not answer in time"},
	} {
		for _, part := range append(want, "request_id=id-7", "error=") {
			require.Contains(t, lines[i], part)
		}
	}
}

// unreadable is a registry that is away.
type unreadable struct{ registry.Registry }

func (unreadable) ListServices() ([]*registry.Service, error) { return nil, io.ErrUnexpectedEOF }

// TestRegistryThatIsAway keeps a router waiting for a moment, and not one that is to stop.
func TestRegistryThatIsAway(t *testing.T) {
	for name, c := range map[string]struct{ stop, want time.Duration }{
		"a moment":          {time.Hour, 2 * time.Second},
		"it is to stop now": {time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				loader := plugin.NewLoader(plugin.Linked)
				plugin.Provide[registry.Registry](loader, unreadable{memory.NewStore().Open()})
				loaded, err := loader.Load(nil)
				require.NoError(t, err)
				host := loaded.Open(t.Context(), slog.New(slog.DiscardHandler))
				doc, err := parse("routes.yaml", []byte("routes: [{name: all, to: {service_http: shop}}]"), Config{})
				require.NoError(t, err)
				m := &Router{env: host.Env(), log: slog.New(slog.DiscardHandler)}
				m.ctx, m.cancel = context.WithTimeout(t.Context(), c.stop)
				defer m.cancel()
				begun := time.Now()
				require.NoError(t, m.follow(doc))
				require.Equal(t, c.want, time.Since(begun))
				require.NoError(t, m.dir.Close())
				require.NoError(t, host.Close())
			})
		})
	}
}
