package upstream_test

import (
	"bufio"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/upstream"
)

// proxyTo is httputil.ReverseProxy before target. It returns its address.
func proxyTo(t *testing.T, target string) string {
	to, err := url.Parse(target)
	require.NoError(t, err)
	s := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport:    start(t, upstream.Options{}),
		ErrorLog:     log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	})
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestReverseProxyUpgrades(t *testing.T) {
	addr := proxyTo(t, script(t, func(p *peer) {
		if p.request() == nil {
			return
		}
		p.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
		io.Copy(p, p.br)
	}))
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	require.NoError(t, err)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	_, err = io.WriteString(c, "and back")
	require.NoError(t, err)
	got := make([]byte, len("helloand back"))
	_, err = io.ReadFull(br, got)
	require.NoError(t, err)
	require.Equal(t, "helloand back", string(got))
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	_, err = br.ReadByte()
	require.ErrorIs(t, err, io.EOF)
}

func TestReverseProxyStreams(t *testing.T) {
	next := make(chan string)
	gone := make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusEarlyHints)
		for {
			http.NewResponseController(w).Flush()
			select {
			case s := <-next:
				io.WriteString(w, s)
			case <-r.Context().Done():
				return
			}
		}
	}))
	defer backend.Close()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+proxyTo(t, backend.URL), nil)
	require.NoError(t, err)
	resp, err := start(t, upstream.Options{}).RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	for _, s := range []string{"data: 1\n\n", "data: 2\n\n"} {
		next <- s
		got := make([]byte, len(s))
		_, err := io.ReadFull(resp.Body, got)
		require.NoError(t, err)
		require.Equal(t, s, string(got))
	}
	cancel()
	<-gone // a client that goes ends what is behind the proxy
}

// TestReverseProxyWhoseClientGoes has clients go amid their uploads: what is behind must not take a part for the whole.
func TestReverseProxyWhoseClientGoes(t *testing.T) {
	for name, framing := range map[string]string{
		"length": "Content-Length: 100000\r\n\r\nhello",
		"small":  "Content-Length: 100\r\n\r\nhello",
		"chunks": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			whole := make(chan bool, 1)
			addr := proxyTo(t, script(t, func(p *peer) { whole <- p.request() != nil }))
			c, err := net.Dial("tcp", addr)
			require.NoError(t, err)
			_, err = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\n"+framing)
			require.NoError(t, err)
			require.NoError(t, c.(*net.TCPConn).CloseWrite())
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			require.NoError(t, err)
			require.Equal(t, http.StatusBadGateway, resp.StatusCode)
			require.NoError(t, c.Close())
			if name != "small" {
				require.False(t, <-whole)
			}
			require.Empty(t, whole)
		})
	}
}
