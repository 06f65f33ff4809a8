package httpd

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway"
)

const bothLengths = "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"

// TestConnectionThatMustEnd holds that what follows a body of which servers disagree where it ends is no request, whatever
// handlers do to the header of the answer.
func TestConnectionThatMustEnd(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(ok))
	defer upstream.Close()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	target, err := url.Parse(upstream.URL)
	require.NoError(t, err)
	handlers := map[string]http.HandlerFunc{
		"proxy": httputil.NewSingleHostReverseProxy(target).ServeHTTP, // clears the header at 100 Continue
		"write": func(w http.ResponseWriter, _ *http.Request) { clear(w.Header()); _, _ = io.WriteString(w, "x") },
		"bytes": func(w http.ResponseWriter, _ *http.Request) { clear(w.Header()); _, _ = w.Write([]byte("x")) },
		"flush": func(w http.ResponseWriter, _ *http.Request) { clear(w.Header()); w.(http.Flusher).Flush() },
		"empty": func(w http.ResponseWriter, _ *http.Request) { clear(w.Header()) },
		"keep": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "keep-alive")
			w.WriteHeader(http.StatusNoContent)
		},
		"hints": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			clear(w.Header())
			w.WriteHeader(http.StatusOK)
		},
		"refuse": func(w http.ResponseWriter, r *http.Request) {
			clear(w.Header())
			gateway.Fail(w, r, gateway.NewProblem(http.StatusForbidden, "no"))
		},
		"panic": func(w http.ResponseWriter, _ *http.Request) { clear(w.Header()); panic("on purpose") },
	}
	var smuggled atomic.Int32
	g := start(t, withHandler(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/smuggled" {
			smuggled.Add(1)
		}
		handlers[strings.TrimPrefix(r.URL.Path, "/")](w, r)
	}))
	paths := []string{"//a/%2f", "healthz"} // which no handler sees
	for path := range handlers {
		paths = append(paths, path)
	}
	for _, path := range paths {
		for head, request := range map[string]string{
			"both lengths":  "POST /%s HTTP/1.1\r\nHost: a\r\n" + bothLengths,
			"and an Expect": "POST /%s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n" + bothLengths,
			"by HTTP/1.0":   "POST /%s HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
		} {
			t.Run(path+" "+head, func(t *testing.T) {
				_, r := g.raw(fmt.Sprintf(request, path) + "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
				answers := 0
				for {
					resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodPost})
					if err != nil {
						break
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					if resp.StatusCode >= 200 {
						answers++
						require.True(t, resp.Close, "it says so")
					}
				}
				require.Equal(t, 1, answers)
				require.Zero(t, smuggled.Swap(0))
			})
		}
	}
}

// TestNamesOfOthers holds that a page whose name was made to lead here reaches nothing, as long as nobody has thought of the address.
func TestNamesOfOthers(t *testing.T) {
	ask := func(t *testing.T, b *bubble, request string) (status int, text string) {
		c := b.dial()
		defer c.Close()
		go func() { _, _ = io.WriteString(c, request) }()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}
	inBubble(t, http.HandlerFunc(ok), func(t *testing.T, b *bubble) {
		b.unset = true
		for host, want := range map[string]int{
			"127.0.0.1:19000": 200, "127.0.0.1": 200, "[::1]:8080": 200, "localhost": 200, "LocalHost.:8080": 200, "shop.localhost:8080": 200,
			"evil.example:19000": 421, "evil.example": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example": 421, "evillocalhost": 421, "0x7f.1.evil": 421,
		} {
			for _, request := range []string{
				"POST /x HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
				"GET /healthz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n",
				"GET http://%s/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
			} {
				status, body := ask(t, b, fmt.Sprintf(request, host))
				require.Equal(t, want, status, "%s %s", host, body)
				require.Equal(t, status == 421, strings.Contains(body, "--gateway-address"), "it says what to do")
			}
		}
	})
	inBubble(t, http.HandlerFunc(ok), func(t *testing.T, b *bubble) {
		status, _ := ask(t, b, "GET /x HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n\r\n")
		require.Equal(t, http.StatusOK, status, "who sets an address has thought of it")
	})
}

// TestAdminBehindAProxy holds that a proxy which can be made to ask the admin address, such as the gateway itself, opens it to nobody.
func TestAdminBehindAProxy(t *testing.T) {
	g := start(t)
	ask := func(header string) int {
		c, err := net.Dial("tcp", g.AdminAddr())
		require.NoError(t, err)
		defer c.Close()
		_, err = io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: 1.2.3.4\r\n"+header+"\r\nConnection: close\r\n\r\n")
		require.NoError(t, err)
		answer, err := io.ReadAll(c)
		require.NoError(t, err)
		var status int
		_, err = fmt.Sscanf(string(answer), "HTTP/1.1 %d", &status)
		require.NoError(t, err)
		require.Equal(t, status == http.StatusForbidden, strings.Contains(string(answer), "through a proxy"))
		return status
	}
	require.Equal(t, http.StatusOK, ask("X: y"))
	for _, header := range []string{"X-Forwarded-For: 192.0.2.1", "x-forwarded-host: a", "X-Forwarded-Proto: http", "Forwarded: for=192.0.2.1", "Via: 1.1 a", "Via:"} {
		require.Equal(t, http.StatusForbidden, ask(header), header)
	}
}

// TestHeadersAreCounted counts lines: those of one name, too.
func TestHeadersAreCounted(t *testing.T) {
	g := start(t, withHandler(ok))
	for lines, status := range map[int]int{maxHeaders: 200, maxHeaders + 1: 431, 16_000: 431} {
		_, r := g.raw("GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("A:\r\n", lines) + "\r\n")
		resp, err := http.ReadResponse(r, nil)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, status, resp.StatusCode, lines)
	}
}

// TestMalformedChunks holds that the client, which is there, is told that it is at fault.
func TestMalformedChunks(t *testing.T) {
	g := start(t, withHandler(ok))
	for _, chunks := range []string{"xyz\r\n", "+3\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "fffffffffffffffff\r\n", "3;a\nb\r\nabc\r\n", strings.Repeat("1", 5000) + "\r\n",
		"0\r\nno trailer\r\n\r\n"} {
		_, r := g.raw("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
		resp, err := http.ReadResponse(r, nil)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusBadRequest, resp.StatusCode, "%q %s", chunks, body)
		require.Contains(t, string(body), "chunks")
	}
	require.Equal(t, "0", g.metric("micro_gateway_client_gone_total"))
}
