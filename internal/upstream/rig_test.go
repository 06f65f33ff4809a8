package upstream_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/internal/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start returns a Transport that is closed with the test.
func start(t *testing.T, o upstream.Options) *upstream.Transport {
	tr := upstream.New(o)
	t.Cleanup(func() { tr.Close() })
	return tr
}

// peer is the server's side of one connection, for scripts.
type peer struct {
	net.Conn
	br *bufio.Reader
	n  int // of the connection, from 1
}

// request reads a whole request; nil at the end of the connection.
func (p *peer) request() *http.Request {
	r, err := http.ReadRequest(p.br)
	if err != nil {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil
	}
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	return r
}

func (p *peer) say(s string) { io.WriteString(p, s) }

// reset closes the connection with an RST.
func (p *peer) reset() { p.Conn.(*net.TCPConn).SetLinger(0) }

// script answers connections with f, each in a goroutine, and closes them when it returns. It returns the URL.
func script(t testing.TB, f func(*peer)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var all sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	all.Go(func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			all.Go(func() {
				defer c.Close()
				f(&peer{Conn: c, br: bufio.NewReader(c), n: n})
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return "http://" + l.Addr().String()
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func newRequest(t testing.TB, method, url string, body io.Reader) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	require.NoError(t, err)
	req.Header.Set("User-Agent", "test")
	return req
}

// get sends a GET, and wants a response, whose body it returns.
func get(t testing.TB, tr http.RoundTripper, url string) string {
	return do(t, tr, newRequest(t, "GET", url, nil))
}

func do(t testing.TB, tr http.RoundTripper, req *http.Request) string {
	resp, err := tr.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(body)
}

// fails sends a request that must not be answered.
func fails(t testing.TB, tr http.RoundTripper, req *http.Request) *upstream.Error {
	resp, err := tr.RoundTrip(req)
	if err == nil {
		resp.Body.Close()
	}
	require.Error(t, err)
	var e *upstream.Error
	require.ErrorAs(t, err, &e)
	return e
}
