package httpd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/testcert"
)

func TestChainIsInOrder(t *testing.T) {
	var order []string
	named := func(name string) gateway.Middleware {
		return gateway.Func(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				order = append(order, name)
				next.ServeHTTP(w, r)
			})
		})
	}
	g := start(t, withMiddleware(named("first")), withMiddleware(named("second")), withHandler(ok))
	require.Equal(t, "GET /x ", g.get(g.url("/x")).body)
	require.Equal(t, []string{"first", "second"}, order)
}

func TestInfo(t *testing.T) {
	infos := make(chan gateway.Info, 1)
	g := start(t, withHandler(func(_ http.ResponseWriter, r *http.Request) { infos <- *gateway.Of(r) }))
	req, err := http.NewRequest(http.MethodGet, g.url("//a/../b"), nil)
	require.NoError(t, err)
	req.Host = "API.example.com:8080"
	g.do(req)
	info := <-infos
	require.Equal(t, "api.example.com", info.Host)
	require.Equal(t, "127.0.0.1", info.Client.String())
	require.False(t, info.Secure)
	require.WithinDuration(t, time.Now(), info.Start, soon)
}

func TestRequestID(t *testing.T) {
	seen := make(chan string, 1)
	g := start(t, withHandler(func(w http.ResponseWriter, r *http.Request) {
		seen <- gateway.Of(r).ID
		gateway.Fail(w, r, gateway.NewProblem(http.StatusTeapot, "no coffee"))
	}))
	own := regexp.MustCompile(`^[0-9a-f]{32}$`)
	for sent, kept := range map[string]bool{
		"": false, "a-b_c.d:1/2=3+4": true, strings.Repeat("a", 128): true, strings.Repeat("a", 129): false, "a b": false,
		"a\tb": false, `a"b`: false, "ä": false, "a=b\x7f": false,
	} {
		req, err := http.NewRequest(http.MethodGet, g.url("/"), nil)
		require.NoError(t, err)
		if !strings.Contains(sent, "\x7f") {
			req.Header.Set("X-Request-Id", sent)
		}
		a := g.do(req)
		id := <-seen
		require.Equal(t, kept, id == sent, "%q", sent)
		require.True(t, kept || own.MatchString(id), id)
		require.Equal(t, []string{id}, a.header["X-Request-Id"])
		var p gateway.Problem
		require.NoError(t, json.Unmarshal([]byte(a.body), &p))
		require.Equal(t, id, p.ID)
	}
	req, err := http.NewRequest(http.MethodGet, g.url("/"), nil)
	require.NoError(t, err)
	req.Header["X-Request-Id"] = []string{"a", "b"}
	g.do(req)
	require.Regexp(t, own, <-seen, "of two none is taken")
	ids := make(map[string]bool)
	for range 10_000 {
		ids[newID()] = true
	}
	require.Len(t, ids, 10_000)
}

func TestRefusedBeforeTheChain(t *testing.T) {
	g := start(t, withArgs("--gateway-max-body=10"), withHandler(func(http.ResponseWriter, *http.Request) { t.Error("got through") }))
	many := strings.Repeat("X: 1\r\n", 3)
	for i := range 300 {
		many += "H" + strings.Repeat("x", i) + ": 1\r\n"
	}
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"an encoded slash":     {"GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"above the root":       {"GET /../etc HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"a proxy request":      {"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405},
		"a host that is none":  {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
		"no host":              {"GET / HTTP/1.1\r\n\r\n", 400},
		"no path":              {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"a semicolon":          {"GET /?a;b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"a header taken away":  {"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1\r\nConnection: x-forwarded-for\r\n\r\n", 400},
		"a body too large":     {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n", 413},
		"too many headers":     {"GET / HTTP/1.1\r\nHost: a\r\n" + many + "\r\n", 431},
		"too large a head":     {"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n", 431},
		"too long a path":      {"GET /" + strings.Repeat("x", 80<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", 431},
		"an unknown version":   {"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505},
		"HTTP/2 without TLS":   {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
		"what is no HTTP":      {"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400},
		"a method that is odd": {"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	} {
		t.Run(name, func(t *testing.T) {
			_, r := g.raw(c.request)
			resp, err := http.ReadResponse(r, nil)
			require.NoError(t, err)
			defer resp.Body.Close()
			require.Equal(t, c.status, resp.StatusCode)
		})
	}
}

// TestSmuggling holds that what servers read in different ways is refused, or read in the one way that the standard has.
func TestSmuggling(t *testing.T) {
	var requests atomic.Int32
	g := start(t, withHandler(func(w http.ResponseWriter, r *http.Request) { requests.Add(1); ok(w, r) }))
	for name, c := range map[string]struct {
		request string
		seen    int32 // how many requests the handler may see; the connection is closed otherwise
	}{
		"both lengths":              {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", 1},
		"two different lengths":     {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 0},
		"a list of lengths":         {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 4\r\n\r\nabcd", 0},
		"a length with a sign":      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 0},
		"a negative length":         {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nabc", 0},
		"a length with a unit":      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", 0},
		"a huge length":             {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nabc", 0},
		"an unknown coding":         {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 0},
		"a coding twice":            {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
		"chunked not last":          {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 0},
		"a coding behind a tab":     {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 0},
		"a space before the colon":  {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 0},
		"a coding with HTTP/1.0":    {"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", 1},
		"a space before a header":   {"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 0},
		"a carriage return alone":   {"GET / HTTP/1.1\r\nHost: a\r\nX: a\rContent-Length: 5\r\n\r\n", 0},
		"a zero byte":               {"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 0},
		"two hosts":                 {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 0},
		"a header without a name":   {"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 0},
		"a header without a colon":  {"GET / HTTP/1.1\r\nHost: a\r\nfoo\r\n\r\n", 0},
		"a chunk size with a sign":  {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", 1},
		"a chunk size that is huge": {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n", 1},
		"a chunk without its end":   {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", 1},
		"an LF alone in a chunk":    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			requests.Store(0)
			_, r := g.raw(c.request)
			for {
				resp, err := http.ReadResponse(r, nil)
				if err != nil { // the connection was closed: nothing that follows is a request
					break
				}
				body, _ := io.ReadAll(resp.Body)
				require.NotContains(t, string(body), "smuggled")
				require.True(t, resp.StatusCode >= 400 || resp.StatusCode == 200 && c.seen == 1, "%d %s", resp.StatusCode, body)
			}
			require.LessOrEqual(t, requests.Load(), c.seen)
		})
	}
}

// TestObsoleteFolding: what is folded is one value, as the standard has it, and no header of its own.
func TestObsoleteFolding(t *testing.T) {
	headers := make(chan http.Header, 1)
	g := start(t, withHandler(func(_ http.ResponseWriter, r *http.Request) { headers <- r.Header }))
	_, r := g.raw("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n Content-Length: 5\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		h := <-headers
		require.Equal(t, "a Content-Length: 5", h.Get("X"))
		require.Empty(t, h.Get("Content-Length"))
		return
	}
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)
}

func TestUpgradeToH2CIsNotHonoured(t *testing.T) {
	for _, args := range [][]string{nil, {"--gateway-h2c"}} {
		headers := make(chan http.Header, 1)
		g := start(t, withArgs(args...), withHandler(func(_ http.ResponseWriter, r *http.Request) { headers <- r.Header }))
		_, r := g.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
		resp, err := http.ReadResponse(r, nil)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.Equal(t, 1, resp.ProtoMajor)
		require.NotContains(t, <-headers, "Upgrade")
	}
}

func TestBodyThatIsTooLargeWithoutALength(t *testing.T) {
	g := start(t, withArgs("--gateway-max-body=10"), withHandler(ok))
	post := func(n int) answer {
		req, err := http.NewRequest(http.MethodPost, g.url("/"), io.MultiReader(strings.NewReader(strings.Repeat("a", n)))) // of unknown length
		require.NoError(t, err)
		return g.do(req)
	}
	require.Equal(t, http.StatusOK, post(10).status)
	a := post(11)
	require.Equal(t, http.StatusRequestEntityTooLarge, a.status)
	require.Contains(t, a.body, "larger than 10 bytes")
}

func TestSlowHeadIsCutOff(t *testing.T) {
	g := start(t, withArgs("--gateway-header-timeout=50ms"), withHandler(ok))
	_, r := g.raw("GET / HTTP/1.1\r\nHost: a\r\n")
	_, err := io.ReadAll(r)
	require.NoError(t, err, "the gateway closes it")
}

func TestSilentBodyIsGivenUp(t *testing.T) {
	g := start(t, withArgs("--gateway-silent-timeout=100ms"), withHandler(ok))
	_, r := g.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusRequestTimeout, resp.StatusCode)
	_, err = io.ReadAll(r)
	require.NoError(t, err, "and the gateway closes the connection")
	g.eventuallyLogs("status=408")
	require.NotContains(t, g.logs.String(), "client_gone")
}

// TestClientThatTakesNothing fills the connection.
func TestClientThatTakesNothing(t *testing.T) {
	failed := make(chan error, 1)
	g := start(t, withArgs("--gateway-silent-timeout=200ms"), withHandler(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				failed <- err
				return
			}
		}
	}))
	g.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	select {
	case err := <-failed:
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout())
	case <-time.After(soon):
		t.Fatal("is never given up")
	}
	g.eventuallyLogs("client_gone=true")
}

func TestPanic(t *testing.T) {
	g := start(t, withHandler(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/late":
			_, _ = io.WriteString(w, "some of it")
			w.(http.Flusher).Flush()
		case "/abort":
			panic(http.ErrAbortHandler)
		}
		panic("secret\nsauce")
	}))
	a := g.get(g.url("/early?token=abc"))
	require.Equal(t, http.StatusInternalServerError, a.status)
	require.NotContains(t, a.body, "secret")
	require.Contains(t, g.logs.String(), `panic="secret\nsauce"`)
	require.Contains(t, g.logs.String(), "handler_test.go", "the stack says where")
	require.NotContains(t, g.logs.String(), "abc")
	require.Equal(t, "1", g.metric("micro_gateway_panics_total"))

	resp, err := g.client.Get(g.url("/late"))
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	resp.Body.Close()
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "half an answer is not taken for a whole one")

	_, err = g.client.Get(g.url("/abort"))
	require.Error(t, err)
	require.Equal(t, "2", g.metric("micro_gateway_panics_total"), "to abort is none")
	require.Equal(t, `1`, g.metric(`micro_gateway_requests_total{code="200",method="GET",route="none"}`))
	require.Equal(t, `2`, g.metric(`micro_gateway_requests_total{code="500",method="GET",route="none"}`))
}

func TestClientThatIsGone(t *testing.T) {
	began := make(chan struct{})
	g := start(t, withHandler(func(w http.ResponseWriter, r *http.Request) {
		gateway.Of(r).Route = "slow"
		close(began)
		<-r.Context().Done()
		gateway.Fail(w, r, errors.New("nobody reads it"))
	}))
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url("/"), nil)
	require.NoError(t, err)
	go func() { <-began; cancel() }()
	_, err = g.client.Do(req)
	require.ErrorIs(t, err, context.Canceled)
	g.eventuallyLogs("client_gone=true")
	require.Equal(t, "1", g.metric("micro_gateway_client_gone_total"))
	require.Equal(t, "1", g.metric(`micro_gateway_requests_total{code="499",method="GET",route="slow"}`))
}

func TestClientThatGoesWhileItSends(t *testing.T) {
	began := make(chan struct{})
	g := start(t, withHandler(func(w http.ResponseWriter, r *http.Request) { close(began); ok(w, r) }))
	c, _ := g.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
	<-began
	require.NoError(t, c.Close())
	g.eventuallyLogs("client_gone=true")
	require.Contains(t, g.logs.String(), "received=3")
	require.Equal(t, "1", g.metric(`micro_gateway_requests_total{code="499",method="POST",route="none"}`))
	require.Equal(t, "1", g.metric("micro_gateway_client_gone_total"))
	require.Equal(t, "0", g.metric("micro_gateway_requests_in_flight"))
}

func TestHandlerThatWritesTooMuchIsNoClientThatIsGone(t *testing.T) {
	g := start(t, withHandler(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotModified)
		_, err := io.WriteString(w, "x")
		require.ErrorIs(t, err, http.ErrBodyNotAllowed)
	}))
	require.Equal(t, http.StatusNotModified, g.get(g.url("/")).status)
	require.Equal(t, "0", g.metric("micro_gateway_client_gone_total"))
}

// TestHTTP2 has the limits of HTTP/1.1, though its streams share a connection.
func TestHTTP2(t *testing.T) {
	const silent = 200 * time.Millisecond
	failed := make(chan error, 1)
	own := testcert.New(t).TLS()
	g := start(t, withArgs("--gateway-tls-cert="+own.Cert, "--gateway-tls-key="+own.Key, "--gateway-silent-timeout="+silent.String(), "--gateway-max-body=10"),
		withHandler(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/much":
				for {
					if _, err := w.Write(make([]byte, 1<<20)); err != nil {
						failed <- err
						return
					}
				}
			default:
				ok(w, r)
			}
		}))
	g.trust(own)
	resp, err := g.client.Get(g.url("/much"))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Error(t, <-failed, "who takes nothing is given up")
	g.eventuallyLogs("client_gone=true")

	body, more := io.Pipe()
	defer more.Close()
	go func() { _, _ = io.WriteString(more, "abc") }()
	req, err := http.NewRequest(http.MethodPost, g.url("/silent"), body)
	require.NoError(t, err)
	a := g.do(req)
	require.Equal(t, "HTTP/2.0", a.proto)
	require.Equal(t, http.StatusRequestTimeout, a.status, a.body)
	req, err = http.NewRequest(http.MethodPost, g.url("/large"), strings.NewReader("more than ten bytes"))
	require.NoError(t, err)
	require.Equal(t, http.StatusRequestEntityTooLarge, g.do(req).status)
	req, err = http.NewRequest(http.MethodGet, g.url("/"), nil)
	require.NoError(t, err)
	req.Header.Set("X", strings.Repeat("x", 80<<10))
	resp, err = g.client.Do(req)
	if err == nil { // Go's client knows the limit that the server announces
		defer resp.Body.Close()
		require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode)
	}
}

func TestAccessLog(t *testing.T) {
	g := start(t, withHandler(func(w http.ResponseWriter, r *http.Request) {
		gateway.Of(r).Route = "greeter"
		ok(w, r)
	}))
	req, err := http.NewRequest(http.MethodPost, g.url("/a%20b%E2%80%AE?password=secret"), strings.NewReader("hello"))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer secret")
	req.Header.Set("X-Request-Id", "the-id")
	g.do(req)
	g.eventuallyLogs("msg=request")
	log := g.logs.String()
	require.Regexp(t, `level=INFO msg=request method=POST host=127.0.0.1 path="/a b\\u202e" status=200 took=\S+ received=5 sent=\d+ client=127.0.0.1 route=greeter request_id=the-id\n`, log)
	require.NotContains(t, log, "secret")
	g.get(g.url("/healthz"))
	g.get(g.url("/readyz"))
	g.get(g.url("/" + strings.Repeat("%C3%A4", 1_000)))
	g.eventuallyLogs("path=/" + strings.Repeat("ä", 254) + "… status=200") // not half of a 255th
	require.NotContains(t, g.logs.String(), "healthz")
	require.NotContains(t, g.logs.String(), "readyz")
	require.Less(t, len(g.logs.String()), 5_000)

	quiet := start(t, withArgs("--gateway-access-log=false"), withHandler(ok))
	quiet.get(quiet.url("/"))
	require.NoError(t, quiet.Stop(t.Context()))
	require.NotContains(t, quiet.logs.String(), "msg=request")
}

func TestMetricsAreBounded(t *testing.T) {
	g := start(t, withHandler(func(w http.ResponseWriter, r *http.Request) { gateway.Of(r).Route = "x"; w.WriteHeader(999) }))
	for _, method := range []string{"BREW", "WHEN", "PROPFIND"} {
		req, err := http.NewRequest(method, g.url("/"), nil)
		require.NoError(t, err)
		g.do(req)
	}
	require.Equal(t, "3", g.metric(`micro_gateway_requests_total{code="0",method="other",route="x"}`))
	require.Equal(t, "3", g.metric(`micro_gateway_request_duration_seconds_count{route="x"}`))

	m := newMetrics()
	for i := range maxSeries + 10 {
		m.observe(label{fmt.Sprint(i), "GET", 200}, time.Millisecond)
	}
	require.Len(t, *m.series.Load(), maxSeries+1)
}

func TestHealth(t *testing.T) {
	g := start(t, withHandler(func(w http.ResponseWriter, r *http.Request) { gateway.Fail(w, r, gateway.NewProblem(403, "no")) }))
	for _, base := range []string{g.url(""), "http://" + g.AdminAddr()} {
		for _, path := range []string{"/healthz", "/readyz"} {
			require.Equal(t, "ok\n", g.get(base+path).body)
			resp, err := g.client.Post(base+path, "", nil)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode)
			require.Equal(t, "GET, HEAD", resp.Header.Get("Allow"))
		}
	}
	require.Equal(t, http.StatusForbidden, g.get(g.url("/openapi.json")).status, "who may see it is the middlewares' to decide")
	require.Equal(t, http.StatusOK, g.get("http://"+g.AdminAddr()+"/openapi.json").status)
}

// TestWriter holds that nothing of net/http's ResponseWriter is lost.
func TestWriter(t *testing.T) {
	g := start(t, withHandler(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hijack" {
			c, rw, err := w.(http.Hijacker).Hijack()
			require.NoError(t, err)
			defer c.Close()
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
			_ = rw.Flush()
			return
		}
		rc := http.NewResponseController(w)
		require.NoError(t, rc.EnableFullDuplex())
		require.NoError(t, rc.SetReadDeadline(time.Now().Add(soon)))
		require.NoError(t, rc.SetWriteDeadline(time.Now().Add(soon)))
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusAccepted)
		_, err := io.WriteString(w, "a")
		require.NoError(t, err)
		w.(http.Flusher).Flush()
		require.NoError(t, rc.Flush())
	}))
	a := g.get(g.url("/"))
	require.Equal(t, http.StatusAccepted, a.status)
	require.Equal(t, "a", a.body)

	c, r := g.raw("GET /hijack HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	rest, err := io.ReadAll(bufio.NewReader(io.MultiReader(r, c)))
	require.NoError(t, err)
	require.Equal(t, "hello", string(rest))
	g.eventuallyLogs("status=101")
	require.Equal(t, `1`, g.metric(`micro_gateway_requests_total{code="202",method="GET",route="none"}`))
}
