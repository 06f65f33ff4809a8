package router

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestInformationalAnswersTakeNothingAway of what was set for the final answer, and say nothing of it.
func TestInformationalAnswersTakeNothingAway(t *testing.T) {
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hints" {
			for range 2 {
				w.Header().Set("Link", "</a.css>")
				w.WriteHeader(http.StatusEarlyHints)
				w.Header().Del("Link")
			}
		}
		_, _ = io.Copy(w, r.Body)
	})
	set := http.Header{"Access-Control-Allow-Origin": {"https://a"}, "Vary": {"Origin"}, "Ratelimit": {"x"}, "Connection": {"close"}}
	f := start(t, to(up.URL), func(s *settings) { s.set = set })
	for path, request := range map[string]string{
		"/hints":    "GET /hints HTTP/1.1\r\nHost: a\r\n\r\n",
		"/continue": "POST /continue HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
	} {
		t.Run(path, func(t *testing.T) {
			c := dial(t, f.Server)
			_, err := io.WriteString(c, request+"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
			require.NoError(t, err)
			br := bufio.NewReader(c)
			told := 0
			res, err := http.ReadResponse(br, nil)
			for ; err == nil && res.StatusCode < 200; res, err = http.ReadResponse(br, nil) {
				told++
				require.Empty(t, res.Header["Vary"])
				require.Equal(t, res.StatusCode == 103, res.Header.Get("Link") != "")
			}
			require.NoError(t, err)
			require.NotZero(t, told)
			require.Equal(t, 200, res.StatusCode)
			require.Empty(t, res.Header["Link"])
			require.Equal(t, []string{"id-7"}, res.Header["X-Request-Id"])
			for name, values := range set {
				if name != "Connection" {
					require.Equal(t, values, res.Header[name], name)
				}
			}
			require.True(t, res.Close)
			_, err = io.Copy(io.Discard, res.Body)
			require.NoError(t, err)
			_, err = br.ReadByte()
			require.Error(t, err, "the connection is closed")
		})
	}
}

// hinting is an upstream that says this before it answers.
func hinting(t *testing.T, head string) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, head+"\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
	}).URL
}

// TestInformationalAnswersAreNotForOldClients: those of HTTP/1.0 would take them for the answer.
func TestInformationalAnswersAreNotForOldClients(t *testing.T) {
	for name, head := range map[string]string{"asked for": "HTTP/1.1 103 Early Hints\r\nLink: </a.css>", "by the way": "HTTP/1.1 100 Continue"} {
		t.Run(name, func(t *testing.T) {
			f := start(t, to(hinting(t, head)))
			for request, status := range map[string]int{
				"GET / HTTP/1.0\r\nHost: a\r\n\r\n":                                                                                200,
				"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n":                                                      200,
				"POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("x", 20000): 200,
				"GET / HTTP/1.1\r\nHost: a\r\n\r\n":                                                                                1,
			} {
				c := dial(t, f.Server)
				_, err := io.WriteString(c, request)
				require.NoError(t, err)
				res, err := http.ReadResponse(bufio.NewReader(c), nil)
				require.NoError(t, err)
				if status == 1 {
					require.Less(t, res.StatusCode, 200, request)
				} else {
					require.Equal(t, status, res.StatusCode, request)
				}
			}
		})
	}
}

// TestHeadersOfInformationalAnswers: what is of the upstream's connection stays there, which clients of HTTP/2 would end the
// request for, and what the route changes is changed.
func TestHeadersOfInformationalAnswers(t *testing.T) {
	up := hinting(t, "HTTP/1.1 103 Early Hints\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: a\r\nProxy-Connection: a\r\nUpgrade: h2c\r\n"+
		"Transfer-Encoding: chunked\r\nServer: internal-7\r\nSet-Cookie: a=b\r\nLink: </a.css>")
	own := func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range []string{"Server", "Set-Cookie"} {
			w.Header().Set(name, "internal-7")
		}
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.WriteHeader(http.StatusOK)
	}
	changes := "response_headers: {remove: [Set-Cookie], set: {Server: gateway, X-New: a}, add: {Link: </b.css>}}"
	for _, target := range []string{"{url: '" + up + "'}", "{service: greeter, endpoint: Greeter.Hello}"} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprint(target[1:5], " h2 ", h2), func(t *testing.T) {
				f := start(t, "routes: [{name: all, "+changes+", to: "+target+"}]", func(s *settings) { s.h2, s.next = h2, own })
				var hints []http.Header
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
					h.Del("X-Request-Id") // which this front has set
					hints = append(hints, http.Header(h))
					return nil
				}})
				r, err := http.NewRequestWithContext(ctx, "GET", f.URL, nil)
				require.NoError(t, err)
				res, err := f.client.Do(r)
				require.NoError(t, err)
				defer res.Body.Close()
				require.Equal(t, h2, res.ProtoMajor == 2)
				require.Equal(t, []http.Header{{"Server": {"gateway"}, "Link": {"</a.css>"}}}, hints)
				require.Equal(t, []string{"a"}, res.Header["X-New"])
				require.Equal(t, []string{"</b.css>"}, res.Header["Link"])
				require.Empty(t, res.Header["Set-Cookie"])
			})
		}
	}
}

// TestTrailersThatServersCouldTakeForHeaders are not passed on, nor are such that were not announced.
func TestTrailersThatServersCouldTakeForHeaders(t *testing.T) {
	got := make(chan http.Header, 1)
	up := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- r.Trailer
	})
	f := start(t, to(up.URL, "request_headers: {set: {X-Set: a}, add: {X-Add: a}, remove: [X-Gone]}"), func(s *settings) {
		s.seen = func(r *http.Request) { delete(r.Trailer, "X-Internal") }
	})
	names := []string{"X-Internal", "Traceparent", "tracestate", "Baggage", "X-Amzn-Trace-Id", "X-Sum", "Host", "X-Forwarded-For", "x-forwarded-new", "X-Real-Ip", "Forwarded", "X_Foo", "Authorization", "Cookie", "X-Set", "X-Add", "X-Gone",
		"X-Here", "X-Request-Id", "Connection", "If-Match", "Te", "Expect"}
	for range 6 {
		res, _ := raw(t, f, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Here: yes\r\nTransfer-Encoding: chunked\r\nTrailer: "+strings.Join(names, ",")+"\r\n\r\n1\r\nx\r\n0\r\n"+
			strings.Join(names, ": 42\r\n")+": 42\r\nX-Late: 1\r\nContent-Length: 7\r\n\r\n")
		require.Equal(t, 200, res.StatusCode)
		require.Equal(t, http.Header{"X-Sum": {"42"}}, <-got)
	}
}

// TestTrailersOfAnswers bring back nothing of what the route changes, announced or not.
func TestTrailersOfAnswers(t *testing.T) {
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum, X-Gone")
		_, _ = io.WriteString(w, "x")
		for _, name := range []string{"X-Sum", "X-Gone", http.TrailerPrefix + "X-Set", http.TrailerPrefix + "X-Late"} {
			w.Header().Set(name, "7")
		}
	})
	f := start(t, to(up.URL, "response_headers: {set: {X-Set: a}, remove: [X-Gone]}"))
	res, body := f.get(t, "/")
	require.Equal(t, "x", body)
	require.Equal(t, "a", res.Header.Get("X-Set"))
	require.Equal(t, http.Header{"X-Sum": {"7"}, "X-Late": {"7"}}, res.Trailer)
}

// TestWhatCannotBeSentIsNotTheServersFault: whoever sends it must not take the server away from others.
func TestWhatCannotBeSentIsNotTheServersFault(t *testing.T) {
	up := serve(t, says("fine"))
	f := start(t, to(up.URL), func(s *settings) { s.h2 = true })
	config := f.client.Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos, config.ServerName = []string{"h2"}, "example.com"
	c := tls.Client(dial(t, f.Server), config)
	_, err := io.WriteString(c, http2.ClientPreface)
	require.NoError(t, err)
	framer := http2.NewFramer(c, c)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	require.NoError(t, framer.WriteSettings())
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for i := range 10 {
		head.Reset()
		for _, h := range [][2]string{{":method", "GE(T"}, {":scheme", "https"}, {":authority", "a"}, {":path", "/"}} {
			require.NoError(t, enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
		}
		require.NoError(t, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true}))
		for {
			frame, err := framer.ReadFrame()
			require.NoError(t, err)
			if h, ok := frame.(*http2.MetaHeadersFrame); ok {
				require.Equal(t, "400", h.PseudoValue("status"))
				break
			}
		}
	}
	res, _ := f.get(t, "/")
	require.Equal(t, 200, res.StatusCode)
}

// answersAtOnce is an upstream that does not wait for bodies.
func answersAtOnce(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				br := bufio.NewReader(c)
				for line := ""; line != "\r\n"; {
					if line, err = br.ReadString('\n'); err != nil {
						return
					}
				}
				_, _ = io.WriteString(c, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
				_, _ = io.Copy(io.Discard, br)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// TestAnswersBeforeTheRequestHasEnded: what a client still sends is never taken for a request, and it can read the answer and a
// clean end.
func TestAnswersBeforeTheRequestHasEnded(t *testing.T) {
	silent := serve(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	f := start(t, fmt.Sprintf(`upstreams: {away: {url: 'http://%s', breaker: {failures: 1000}}}
routes:
- {name: early, match: {path: /early}, to: {url: '%s'}}
- {name: idle, match: {path: /idle}, idle_timeout: 100ms, to: {url: '%s'}}
- {name: away, match: {path: /away}, to: {upstream: away}}
- {name: large, match: {path: /large}, max_body: 1KiB, to: {url: '%s'}}
- {name: redirect, match: {path: /redirect}, to: {redirect: {to: /x}}}
- {name: respond, match: {path: /respond}, to: {respond: {status: 410}}}
`, unused(t), answersAtOnce(t), silent.URL, silent.URL))
	type sent struct {
		head  string
		first int
		rest  string
	}
	const size = 100_000
	forms := map[string]sent{
		"a length":     {fmt.Sprintf("Content-Length: %d", size), 1, ""},
		"a good part":  {fmt.Sprintf("Content-Length: %d", size), 60_000, ""},
		"chunks":       {"Transfer-Encoding: chunked", 1, "\r\n0\r\n\r\n"},
		"an expecting": {fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d", size), 1, ""},
	}
	for path, status := range map[string]int{"/early": 401, "/idle": 408, "/away": 502, "/large": 413, "/redirect": 302, "/respond": 410} {
		for name, form := range forms {
			t.Run(path+" "+name, func(t *testing.T) {
				t.Parallel()
				c := dial(t, f.Server)
				first, rest := strings.Repeat("x", form.first), strings.Repeat("x", size-form.first)+form.rest
				if form.rest != "" {
					first = fmt.Sprintf("%x\r\n", size) + first
				}
				_, err := io.WriteString(c, "POST "+path+" HTTP/1.1\r\nHost: a\r\n"+form.head+"\r\n\r\n"+first)
				require.NoError(t, err)
				br := bufio.NewReader(c)
				waits := status < 400 || status == 410 || path == "/large" // net/http reads on before it answers
				next := rest + "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
				if waits {
					_, _ = io.WriteString(c, next)
				}
				res, err := http.ReadResponse(br, nil)
				for ; err == nil && res.StatusCode == http.StatusContinue; res, err = http.ReadResponse(br, nil) {
				}
				require.NoError(t, err)
				require.Equal(t, status, res.StatusCode)
				_, err = io.Copy(io.Discard, res.Body)
				require.NoError(t, err)
				if !waits {
					require.True(t, res.Close, "the connection is closed")
					_, err = io.WriteString(c, next)
					require.NoError(t, err)
				}
				if res.Close {
					_, err = br.ReadByte()
					require.ErrorIs(t, err, io.EOF)
					return
				}
				res, err = http.ReadResponse(br, nil)
				require.NoError(t, err)
				require.Equal(t, http.StatusTeapot, res.StatusCode, "the next request is answered")
			})
		}
	}
}

// TestBodyThatComesTooSlowly, however small it is.
func TestBodyThatComesTooSlowly(t *testing.T) {
	up := serve(t, says("fine"))
	f := start(t, to(up.URL, "idle_timeout: 100ms"))
	for _, size := range []int{10, replayable, replayable + 1} {
		c := dial(t, f.Server)
		_, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\nx", size)
		require.NoError(t, err)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(t, err)
		if size > replayable && res.StatusCode == 200 {
			continue // it did not wait for the body
		}
		require.Equal(t, http.StatusRequestTimeout, res.StatusCode)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Contains(t, string(body), "nothing of the body came for 100ms")
		require.True(t, res.Close)
	}
}
