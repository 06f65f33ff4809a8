package router

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/netip"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/testcert"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/registry/memory"
)

// to is one route to a URL, with more lines of the route.
func to(url string, lines ...string) string {
	return "routes:\n- name: all\n  to: {url: '" + url + "'}\n  " + strings.Join(lines, "\n  ") + "\n"
}

func TestServersSeeTheClientThatTheGatewayFound(t *testing.T) {
	got := make(chan *http.Request, 1)
	up := serve(t, func(_ http.ResponseWriter, r *http.Request) { got <- r })
	f := start(t, to(up.URL))
	f.do(t, "GET", "/x?a=%3B&b", nil, "Host", "Shop.Example.com:81", "X-Forwarded-For", "1.1.1.1", "X-Forwarded-For", "2.2.2.2", "X-Real-IP", "1.1.1.1",
		"Forwarded", "for=1.1.1.1", "True-Client-IP", "1.1.1.1", "X-Forwarded-Proto", "https", "X-Forwarded-Prefix", "/evil",
		"X-Forwarded-Host", "evil", "Te", "trailers, gzip", "Keep-Alive", "timeout=5", "Proxy-Authorization", "Basic x", "X-Other", "stays", "User-Agent", "")
	r := <-got
	require.Equal(t, "shop.example.com:81", r.Host)
	require.Equal(t, "/x?a=%3B&b", r.RequestURI)
	r.Header.Del("Accept-Encoding")
	require.Equal(t, http.Header{
		"X-Forwarded-For": {"203.0.113.9"}, "X-Real-Ip": {"203.0.113.9"}, "X-Forwarded-Proto": {"http"},
		"X-Forwarded-Host": {"shop.example.com:81"}, "Forwarded": {`for=203.0.113.9;host="shop.example.com:81";proto=http`},
		"X-Request-Id": {"id-7"}, "X-Other": {"stays"}, "Te": {"trailers"},
	}, r.Header)

	require.Equal(t, `"[2001:db8::1]";`, string(appendNode(nil, netip.MustParseAddr("2001:db8::1"), "2001:db8::1")))
	require.Equal(t, "a.b", string(appendHost(nil, "a.b")))
}

func TestHeadersAndHostAreChanged(t *testing.T) {
	got := make(chan *http.Request, 1)
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "secret/1.0")
		w.Header().Set("Keep-Alive", "timeout=1")
		w.Header().Set("X-Request-Id", "its own")
		w.Header().Set("Vary", "Cookie")
		got <- r
	})
	change := `request_headers: {remove: [cookie], set: {x-a: "1"}, add: {X-B: "2"}}
  response_headers: {remove: [Server], set: {X-C: "3"}, add: {Vary: Accept}}`
	f := start(t, to(up.URL+"/base", change, "rewrite: {host: inner.example}"))
	res, _ := f.do(t, "GET", "/x%20y;z", nil, "Cookie", "a=b", "X-A", "0", "X-B", "1")
	r := <-got
	require.Equal(t, "inner.example", r.Host)
	require.Equal(t, "/base/x%20y%3Bz", r.RequestURI)
	require.Empty(t, r.Header["Cookie"])
	require.Equal(t, []string{"1"}, r.Header["X-A"])
	require.Equal(t, []string{"1", "2"}, r.Header["X-B"])
	require.Empty(t, res.Header["Server"])
	require.Empty(t, res.Header["Keep-Alive"])
	require.Equal(t, []string{"3"}, res.Header["X-C"])
	require.Equal(t, []string{"Cookie", "Accept"}, res.Header["Vary"])
	require.Equal(t, []string{"id-7"}, res.Header["X-Request-Id"])

	f.reload(t, to(up.URL, `rewrite: {host: "{upstream}"}`))
	f.get(t, "/")
	require.Equal(t, strings.TrimPrefix(up.URL, "http://"), (<-got).Host)
}

// TestTricks holds that what a server gets is what was routed, for all that could be read in two ways.
func TestTricks(t *testing.T) {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s|%s|%s|%s|%v", r.URL.Path, r.Header.Get("X-Routed"), r.Host, r.Header.Get("Upgrade"), r.ProtoMajor)
	}))
	up.Config.Protocols = &protocols
	up.Start()
	t.Cleanup(up.Close)
	routed := func(r *http.Request) { r.Header.Set("X-Routed", url.PathEscape(r.URL.Path)) }
	f := start(t, "routes:\n- {name: admin, match: {prefix: /admin}, to: {respond: {status: 403}}}\n"+
		"- {name: host, match: {host: admin.example}, to: {respond: {status: 403}}}\n- {name: all, to: {url: '"+up.URL+"'}}\n",
		func(s *settings) { s.seen = routed })

	const malformed, isAdmin = "400", "403"
	want := map[string]string{ // or the path that is routed and forwarded
		"/x?/../admin": "/x", "///": "/", "/caf%C3%A9": "/café", "/x%3f/admin": "/x?/admin", "/x%23/admin": "/x#/admin",
		"/admin;x=1": "/admin;x=1", "/admin;/x": "/admin;/x", "/x/..;/admin": "/x/..;/admin", "/;/admin": "/;/admin",
		"/ADMIN": "/ADMIN", "/Admin": "/Admin", "/admin%20": "/admin ", "/admin.": "/admin.",
		"/admin%252fx": "/admin%2fx", "/x/%252e%252e/admin": "/x/%2e%2e/admin",
	}
	for _, target := range []string{
		"/admin", "/admin/", "//admin", "/./admin", "/x/../admin", "/x/%2e%2e/admin", "/x/%2E./admin", "/%61dmin", "/%61%64min/x", "/x//..//admin",
		"http://other/admin", "/a/b/../../admin", "/x#/../admin",
	} {
		want[target] = isAdmin
	}
	for _, target := range []string{
		"/admin%2fx", "/x%2f..%2fadmin", "/..%2fadmin", "/../admin", "/%2e%2e/admin", "/x/..%5cadmin", `/x\..\admin`, "/admin%00", "/admin%0d%0a",
		"/%u0061dmin", "/%c0%ae%c0%ae/admin", "*", "admin", "?", "/admin?x=1;y=2",
	} {
		want[target] = malformed
	}
	for target, want := range want {
		t.Run(target, func(t *testing.T) {
			res, body := raw(t, f, "GET "+target+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			if want == malformed || want == isAdmin {
				require.Equal(t, want, strconv.Itoa(res.StatusCode))
				return
			}
			require.Equal(t, 200, res.StatusCode)
			forwarded, routed, _ := strings.Cut(body, "|")
			routed, _, _ = strings.Cut(routed, "|")
			require.Equal(t, want, forwarded)
			require.Equal(t, url.PathEscape(want), routed)
		})
	}

	h2c := "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
	for name, c := range map[string]struct {
		request string
		status  int
		body    string
	}{
		"an upgrade to h2c":     {"GET /x HTTP/1.1\r\nHost: a\r\n" + h2c + "\r\n", 200, "/x|%2Fx|a||1"},
		"hidden":                {"GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", 200, "/x|%2Fx|a||1"},
		"a WebSocket of old":    {"GET /x HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 200, "/x|%2Fx|a||1"},
		"two hosts":             {"GET /x HTTP/1.1\r\nHost: a\r\nHost: admin.example\r\n\r\n", 400, ""},
		"no host":               {"GET /x HTTP/1.1\r\n\r\n", 400, ""},
		"the host in the URL":   {"GET http://admin.example/x HTTP/1.1\r\nHost: a\r\n\r\n", 403, ""},
		"that of another case":  {"GET /x HTTP/1.1\r\nHost: ADMIN.Example.\r\n\r\n", 403, ""},
		"a host with a path":    {"GET /x HTTP/1.1\r\nHost: a/admin\r\n\r\n", 400, ""},
		"a length and chunks":   {"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n", 200, "/x|%2Fx|a||1"},
		"two lengths":           {"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400, ""},
		"CONNECT":               {"CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n", 405, ""},
		"a connection's header": {"GET /x HTTP/1.1\r\nHost: a\r\nConnection: X-Key\r\nX-Key: 1\r\n\r\n", 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			res, body := raw(t, f, c.request)
			require.Equal(t, c.status, res.StatusCode)
			if c.body != "" {
				require.Equal(t, c.body, body)
			}
		})
	}
}

// raw sends what no client would.
func raw(t *testing.T, f *front, request string) (*http.Response, string) {
	c := dial(t, f.Server)
	_, err := io.WriteString(c, request)
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(body)
}

func TestBodiesPassWhole(t *testing.T) {
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sink" {
			_, _ = io.Copy(io.Discard, r.Body)
			return
		}
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		_, _ = io.Copy(w, r.Body)
	})
	f := start(t, to(up.URL, "max_body: 4MiB"))
	for _, size := range []int{0, 1, replayable, replayable + 1, 3 << 20} {
		body := make([]byte, size)
		_, _ = rand.Read(body)
		res, got := f.do(t, "POST", "/", bytes.NewReader(body))
		require.Equal(t, 200, res.StatusCode)
		require.True(t, string(body) == got)
		require.Equal(t, fmt.Sprint(size), res.Header.Get("X-Length"))
		res, got = f.do(t, "POST", "/", io.MultiReader(bytes.NewReader(body))) // of unknown length
		require.Equal(t, 200, res.StatusCode)
		require.True(t, string(body) == got)
	}
	res, _ := f.do(t, "POST", "/sink", bytes.NewReader(make([]byte, 5<<20)))
	require.Equal(t, http.StatusRequestEntityTooLarge, res.StatusCode)
	res, _ = f.do(t, "POST", "/sink", io.MultiReader(bytes.NewReader(make([]byte, 4<<20+1))))
	require.Equal(t, http.StatusRequestEntityTooLarge, res.StatusCode)
	require.Equal(t, 2.0, f.counted("all", strings.TrimPrefix(up.URL, "http://"), tooLarge))
}

func TestTrailersAndEarlyHints(t *testing.T) {
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Set("Trailer", "X-Known")
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
		w.Header().Set("X-Known", r.Trailer.Get("X-Sum"))
		w.Header().Set(http.TrailerPrefix+"X-Late", "late")
	})
	f := start(t, to(up.URL))
	var hints []string
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hints = append(hints, fmt.Sprint(code, h.Get("Link")))
		return nil
	}}
	r, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "POST", f.URL, io.MultiReader(strings.NewReader("body")))
	require.NoError(t, err)
	r.Trailer = http.Header{"X-Sum": {"42"}}
	res, err := f.client.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, "body", string(body))
	require.Equal(t, []string{"103</a.css>"}, hints)
	require.Empty(t, res.Header["Link"])
	require.Equal(t, "42", res.Trailer.Get("X-Known"))
	require.Equal(t, "late", res.Trailer.Get("X-Late"))
}

// TestExpect has the server decide whether a body is sent at all.
func TestExpect(t *testing.T) {
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.Copy(w, r.Body)
	})
	f := start(t, to(up.URL))
	send := func(path string) (*bufio.Reader, *http.Response, net.Conn) {
		c := dial(t, f.Server)
		_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", path)
		require.NoError(t, err)
		br := bufio.NewReader(c)
		res, err := http.ReadResponse(br, nil)
		require.NoError(t, err)
		return br, res, c
	}
	_, res, _ := send("/no")
	require.Equal(t, http.StatusUnauthorized, res.StatusCode)
	br, res, c := send("/yes")
	require.Equal(t, http.StatusContinue, res.StatusCode)
	_, err := io.WriteString(c, "hello")
	require.NoError(t, err)
	for res.StatusCode == http.StatusContinue {
		res, err = http.ReadResponse(br, nil)
		require.NoError(t, err)
	}
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, "hello", string(body))
}

// TestEventsPassAtOnce waits for each event before the next one is sent.
func TestEventsPassAtOnce(t *testing.T) {
	next := make(chan string)
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		for event := range next {
			fmt.Fprintf(w, "data: %s\n\n", event)
			_ = http.NewResponseController(w).Flush()
		}
	})
	f := start(t, to(up.URL))
	r, err := http.NewRequestWithContext(t.Context(), "GET", f.URL, nil)
	require.NoError(t, err)
	res, err := f.client.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	br := bufio.NewReader(res.Body)
	for i := range 20 {
		next <- fmt.Sprint(i)
		line, err := br.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("data: %d\n", i), line)
		_, err = br.ReadString('\n')
		require.NoError(t, err)
	}
	close(next)
	_, err = br.ReadByte()
	require.ErrorIs(t, err, io.EOF)
}

func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, msg, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if c.Write(r.Context(), kind, msg) != nil {
			return
		}
	}
}

func TestWebSocket(t *testing.T) {
	up := serve(t, echoWebSocket)
	f := start(t, to(up.URL, "response_headers: {set: {X-Seen: 'yes'}}"))
	c, res, err := websocket.Dial(t.Context(), f.URL, nil)
	require.NoError(t, err)
	require.Equal(t, "yes", res.Header.Get("X-Seen"))
	for i := range 50 {
		msg := strings.Repeat("x", i*50)
		require.NoError(t, c.Write(t.Context(), websocket.MessageText, []byte(msg)))
		_, got, err := c.Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, msg, string(got))
	}
	require.NoError(t, c.Close(websocket.StatusNormalClosure, "done"))
	eventually(t, "the end is counted", func() bool { return f.counted("all", strings.TrimPrefix(up.URL, "http://"), answered) == 1 })
}

// tunnelServer answers with 101, and hands over the connection.
func tunnelServer(t *testing.T, protocol string, then func(net.Conn, *bufio.Reader)) *httptest.Server {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		c, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n")
		then(c, brw.Reader)
	})
}

// TestTunnelThatNobodyAskedFor is refused, and does not stay open.
func TestTunnelThatNobodyAskedFor(t *testing.T) {
	ended := make(chan error, 1)
	up := tunnelServer(t, "foo", func(_ net.Conn, br *bufio.Reader) {
		_, err := br.ReadByte()
		ended <- err
	})
	f := start(t, to(up.URL))
	for name, header := range map[string]string{"none": "X-A: b", "another": "Connection: Upgrade\r\nUpgrade: websocket"} {
		t.Run(name, func(t *testing.T) {
			res, body := raw(t, f, "GET / HTTP/1.1\r\nHost: a\r\n"+header+"\r\n\r\n")
			require.Equal(t, 502, res.StatusCode)
			require.Contains(t, body, "an answer that cannot be passed on")
			select {
			case err := <-ended:
				require.Error(t, err)
			case <-time.After(patience):
				t.Fatal("the connection stays open")
			}
		})
	}
	require.Equal(t, 2.0, f.counted("all", hostOf(up), broken))
}

func openTunnel(t *testing.T, f *front) (*net.TCPConn, *bufio.Reader) {
	c := dial(t, f.Server)
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	require.NoError(t, err)
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
	return c.(*net.TCPConn), br
}

// TestHalfClose has each side end its direction first, and still hear the other.
func TestHalfClose(t *testing.T) {
	up := tunnelServer(t, "websocket", func(c net.Conn, br *bufio.Reader) {
		all, _ := io.ReadAll(br)
		_, _ = c.Write(append([]byte("you said "), all...))
	})
	f := start(t, to(up.URL))
	c, br := openTunnel(t, f)
	_, err := io.WriteString(c, "this")
	require.NoError(t, err)
	require.NoError(t, c.CloseWrite())
	all, err := io.ReadAll(br)
	require.NoError(t, err)
	require.Equal(t, "you said this", string(all))

	heard := make(chan string, 1)
	up = tunnelServer(t, "websocket", func(c net.Conn, br *bufio.Reader) {
		_, _ = io.WriteString(c, "bye")
		_ = c.(*net.TCPConn).CloseWrite()
		all, _ := io.ReadAll(br)
		heard <- string(all)
	})
	f.reload(t, to(up.URL))
	c, br = openTunnel(t, f)
	all, err = io.ReadAll(br)
	require.NoError(t, err)
	require.Equal(t, "bye", string(all))
	_, err = io.WriteString(c, "that")
	require.NoError(t, err)
	require.NoError(t, c.CloseWrite())
	require.Equal(t, "that", <-heard)
}

// TestTunnelIsIdle only if nothing moves, in either direction, for the whole time.
func TestTunnelIsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		ours, theirs := net.Pipe()
		defer theirs.Close()
		defer ours.Close()
		const idle = time.Minute
		x := &exchange{route: &route{idle: idle}, cancel: cancel}
		x.timer = time.AfterFunc(time.Hour, x.expire)
		x.wait(errStalled, idle, true)
		body := &tunnelBody{ReadWriteCloser: ours, x: x}
		for i := range 10 {
			time.Sleep(idle - 1)
			move, other := body.Write, theirs.Read
			if i%2 == 1 {
				move, other = body.Read, theirs.Write
			}
			go func() { _, _ = other([]byte("x")) }()
			_, err := move([]byte("x"))
			require.NoError(t, err)
			require.NoError(t, ctx.Err())
		}
		time.Sleep(idle - 1)
		require.NoError(t, ctx.Err())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.ErrorIs(t, context.Cause(ctx), errStalled)
	})
}

// TestIdleTunnel ends a WebSocket on which nothing moves.
func TestIdleTunnel(t *testing.T) {
	gone := make(chan struct{}, 1)
	up := tunnelServer(t, "websocket", func(c net.Conn, br *bufio.Reader) {
		_, _ = io.Copy(c, br)
		gone <- struct{}{}
	})
	f := start(t, to(up.URL, "idle_timeout: 300ms"))
	c, br := openTunnel(t, f)
	_, err := c.Write([]byte("x"))
	require.NoError(t, err)
	_, err = br.ReadByte()
	require.NoError(t, err)
	_, err = br.ReadByte()
	require.Error(t, err)
	<-gone
	eventually(t, "it is counted", func() bool { return f.counted("all", hostOf(up), stalled) == 1 })
}

// TestGuardsAreAskedForServices also if they are asked by HTTP.
func TestGuardsAreAskedForServices(t *testing.T) {
	reg := memory.NewStore().Open()
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	up := serve(t, says("up"))
	require.NoError(t, reg.Register(&registry.Service{Name: "shop", Nodes: []*registry.Node{{ID: "a", Address: hostOf(up)}}}))
	f := start(t, "routes: [{name: all, to: {service_http: shop}}]", func(s *settings) {
		s.reg = reg
		s.seen = func(r *http.Request) {
			gateway.Of(r).Guard(func(service, _ string) error {
				if r.URL.Path == "/no" {
					return gateway.NewProblem(403, "not %s", service)
				}
				return nil
			})
		}
	})
	res, body := f.get(t, "/no")
	require.Equal(t, 403, res.StatusCode)
	require.Contains(t, body, "not shop")
	_, body = f.get(t, "/yes")
	require.Equal(t, "up", body)
}

func TestAnswersOfTheRouterItself(t *testing.T) {
	var called *gateway.Info
	f := start(t, `routes:
- name: old
  match: {template: "/old/{id}/{rest...}"}
  response_headers: {set: {Cache-Control: no-store}}
  to: {redirect: {to: "https://{host}/new/{rest}/{id}", status: 308}}
- name: elsewhere
  match: {path: /elsewhere}
  to: {redirect: {to: "https://example.com", keep_query: false}}
- {name: robots, match: {path: /robots.txt}, to: {respond: {status: 203, headers: {X-A: b}, body: "no robots"}}}
- name: greet
  match: {template: "/greet/{name}"}
  request_headers: {set: {X-Who: router}}
  response_headers: {set: {X-By: router}}
  timeout: 3s
  to: {service: greeter, endpoint: Greeter.Hello, version: "2"}
- {name: climb, match: {regex: "/climb(?P<dots>.*)"}, rewrite: {path: "/{dots}/x"}, to: {url: "http://127.0.0.1:1"}}
`, func(s *settings) {
		s.next = func(w http.ResponseWriter, r *http.Request) {
			called = gateway.Of(r)
			fmt.Fprint(w, "next ", r.Header.Get("X-Who"))
		}
	})
	res, _ := f.get(t, "/old/a%20b/x/y?q=1")
	require.Equal(t, 308, res.StatusCode)
	require.Equal(t, "https://"+strings.TrimPrefix(f.URL, "http://")+"/new/x/y/a%20b?q=1", res.Header.Get("Location"))
	require.Equal(t, "no-store", res.Header.Get("Cache-Control"))
	res, _ = f.get(t, "/elsewhere?q=1")
	require.Equal(t, "https://example.com/", res.Header.Get("Location"))

	res, body := f.get(t, "/robots.txt")
	require.Equal(t, "203 b no robots", fmt.Sprint(res.StatusCode, " ", res.Header.Get("X-A"), " ", body))
	require.Equal(t, "text/plain; charset=utf-8", res.Header.Get("Content-Type"))
	res, body = f.do(t, "HEAD", "/robots.txt", nil)
	require.Equal(t, 203, res.StatusCode)
	require.Empty(t, body)

	res, body = f.get(t, "/greet/ada")
	require.Equal(t, "next router", body)
	require.Equal(t, "router", res.Header.Get("X-By"))
	require.Equal(t, &gateway.Target{Service: "greeter", Endpoint: "Greeter.Hello", Version: "2", Timeout: 3 * time.Second}, called.Target)
	require.Equal(t, map[string]string{"name": "ada"}, called.Params)
	require.Equal(t, "greet", called.Route)

	res, body = f.get(t, "/other")
	require.Equal(t, "next ", body)
	require.Nil(t, called.Target)
	require.Empty(t, called.Route)
	require.Equal(t, 200, res.StatusCode)

	res, _ = f.get(t, "/climb..")
	require.Equal(t, 400, res.StatusCode)

	f.router.config.Only = true
	res, body = f.get(t, "/other")
	require.Equal(t, 404, res.StatusCode)
	require.Contains(t, body, `"code":"NotFound"`)
}

func TestHTTPS(t *testing.T) {
	ours := testcert.New(t)
	server, err := ours.TLS().Server()
	require.NoError(t, err)
	cert, err := server.GetCertificate(nil)
	require.NoError(t, err)
	server.Certificates = []tls.Certificate{*cert} // of httptest's own otherwise, for an address
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	up.TLS, up.EnableHTTP2, up.Config.ErrorLog = server, true, silent
	up.StartTLS()
	t.Cleanup(up.Close)
	f := start(t, to(up.URL), func(s *settings) { s.TLS = plugin.TLS{CA: ours.File} })
	_, body := f.get(t, "/")
	require.Equal(t, "HTTP/2.0", body)

	stranger := start(t, to(up.URL))
	res, body := stranger.get(t, "/")
	require.Equal(t, http.StatusBadGateway, res.StatusCode)
	require.NotContains(t, body, "127.0.0.1", "strangers are not told where upstreams are")
	require.Contains(t, stranger.log.String(), "certificate")
}

// TestConnectionsToHTTPSAreKept, all that were used at once: with net/http's own limit of 2 for a host nearly each request
// would pay for a handshake.
func TestConnectionsToHTTPSAreKept(t *testing.T) {
	const atOnce = 40
	var connections atomic.Int32
	var arrived sync.WaitGroup
	ours := testcert.New(t)
	config, err := ours.TLS().Server()
	require.NoError(t, err)
	cert, err := config.GetCertificate(nil)
	require.NoError(t, err)
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived.Done()
		arrived.Wait()
		fmt.Fprint(w, r.Proto)
	}))
	up.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"http/1.1"}}
	up.Config.ErrorLog = silent
	up.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	up.StartTLS()
	t.Cleanup(up.Close)
	f := start(t, to(up.URL), func(s *settings) { s.TLS = plugin.TLS{CA: ours.File} })
	for range 3 {
		arrived.Add(atOnce)
		var round sync.WaitGroup
		for range atOnce {
			round.Go(func() {
				text, err := f.fetch("GET", "/", nil)
				assert.NoError(t, err)
				assert.Equal(t, "HTTP/1.1", text)
			})
		}
		round.Wait()
		require.EqualValues(t, atOnce, connections.Load())
	}
}

func TestOverHTTP2(t *testing.T) {
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-T")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("X-T", "end")
	})
	f := start(t, to(up.URL), func(s *settings) { s.h2 = true })
	res, body := f.do(t, "POST", "/", io.MultiReader(strings.NewReader("hello")))
	require.Equal(t, 2, res.ProtoMajor)
	require.Equal(t, "hello", body)
	require.Equal(t, "end", res.Trailer.Get("X-T"))
}

// BenchmarkProxy compares with net/http/httputil.ReverseProxy. Both include the upstream, which is in the same process.
func BenchmarkProxy(b *testing.B) {
	up := serve(b, says("ok"))
	target, err := url.Parse(up.URL)
	require.NoError(b, err)
	tuned := &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true}
	b.Cleanup(tuned.CloseIdleConnections)
	for name, h := range map[string]http.Handler{
		"router":       start(b, to(up.URL)).router.Handler(http.NotFoundHandler()),
		"ReverseProxy": &httputil.ReverseProxy{Transport: tuned, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.SetXForwarded() }},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r := httptest.NewRequest("POST", "/x", nil)
				for pb.Next() {
					in := gateway.With(r, &gateway.Info{Host: "a", Client: netip.MustParseAddr("203.0.113.9")})
					in.Body, in.ContentLength = io.NopCloser(strings.NewReader(`{"name":"Ada"}`)), 14
					h.ServeHTTP(httptest.NewRecorder(), in)
				}
			})
		})
	}
}

// TestNobodyGuessesTypes: a type that was not said, or was taken away, is not made up out of what the body looks like.
func TestNobodyGuessesTypes(t *testing.T) {
	page := "<html><script>alert(1)</script>"
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = nil
		if r.URL.Path == "/typed" {
			w.Header().Set("Content-Type", "text/css")
		}
		_, _ = io.WriteString(w, page)
	})
	routes := replace(`
routes:
- {name: plain, match: {prefix: /plain}, to: {url: "UP"}}
- {name: typed, match: {path: /typed}, to: {url: "UP"}}
- {name: removed, match: {prefix: /removed}, rewrite: {path: /typed}, response_headers: {remove: [Content-Type]}, to: {url: "UP"}}
- {name: mirror, match: {prefix: /mirror}, mirror: {url: "UP"}, to: {url: "UP"}}
- {name: redirect, match: {prefix: /redirect}, to: {redirect: {to: /x}}}
- {name: respond, match: {path: /respond}, to: {respond: {body: "<html>"}}}
- {name: bare, match: {path: /bare}, response_headers: {remove: [Content-Type]}, to: {respond: {body: "<html>"}}}
- {name: empty, match: {path: /empty}, to: {respond: {status: 404}}}
- {name: service, match: {prefix: /service}, response_headers: {remove: [Content-Type]}, to: {service: a, endpoint: b}}
- {name: dead, match: {prefix: /dead}, to: {url: "http://DEAD"}}
`, "UP", up.URL, "DEAD", unused(t))
	for _, h2 := range []bool{false, true} {
		f := start(t, routes, func(s *settings) {
			s.h2 = h2
			s.next = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/css")
				_, _ = io.WriteString(w, page)
			}
		})
		for path, want := range map[string][]string{
			"/plain": nil, "/typed": {"text/css"}, "/removed": nil, "/mirror": nil, "/redirect": nil,
			"/respond": {"text/plain; charset=utf-8"}, "/bare": nil, "/empty": nil, "/service": nil,
			"/dead": {"application/problem+json"},
		} {
			for _, method := range []string{"GET", "HEAD"} {
				res, body := f.do(t, method, path, nil)
				require.Equal(t, want, res.Header["Content-Type"], "%s %s", method, path)
				require.NotEqual(t, method == "GET" && path != "/redirect" && path != "/empty", body == "", path)
			}
		}
	}
}

// canned is an upstream that costs little: it looks at no more of a request than whether the end of it is there.
func canned(b *testing.B, end string) string {
	l, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	require.NoError(b, err)
	var work sync.WaitGroup
	b.Cleanup(func() { l.Close(); work.Wait() })
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				buf, n := make([]byte, 4096), 0
				for {
					more, err := c.Read(buf[n:])
					if n += more; err != nil {
						return
					}
					if bytes.HasSuffix(buf[:n], []byte(end)) {
						n = 0
						_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
					}
				}
			})
		}
	})
	return "http://" + l.Addr().String()
}

type nowhere struct{ h http.Header }

func (n nowhere) Header() http.Header         { return n.h }
func (n nowhere) WriteHeader(int)             {}
func (n nowhere) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkOverhead is what the router does of a request: it passes it on, without what reads and answers it.
func BenchmarkOverhead(b *testing.B) {
	const ask = `{"name":"Ada"}`
	f := start(b, to(canned(b, ask)))
	res, _ := f.do(b, "POST", "/", strings.NewReader(ask))
	require.Equal(b, 200, res.StatusCode)
	h := f.router.Handler(http.NotFoundHandler())
	info := &gateway.Info{ID: "id-7", Client: netip.MustParseAddr("203.0.113.9"), Host: "127.0.0.1"}
	body, question := new(bytes.Reader), []byte(ask)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	r := gateway.With(httptest.NewRequestWithContext(ctx, "POST", "/api/v1/things/7", body), info)
	r.ContentLength, r.Body, r.Host = int64(len(question)), io.NopCloser(body), "127.0.0.1:8080"
	for name, value := range map[string]string{"User-Agent": "bench/1", "Accept": "*/*", "Content-Type": "application/json", "Content-Length": "14"} {
		r.Header.Set(name, value)
	}
	b.ReportAllocs()
	for b.Loop() {
		body.Reset(question)
		h.ServeHTTP(nowhere{make(http.Header)}, r)
	}
}
