package upstream_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/upstream"
)

// numbered answers with the number of the connection.
func numbered(p *peer) {
	for p.request() != nil {
		p.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", p.n))
	}
}

func TestConnectionsAreKept(t *testing.T) {
	url := script(t, numbered)
	tr := start(t, upstream.Options{})
	for range 10 {
		require.Equal(t, "1", get(t, tr, url))
		require.Equal(t, "1", do(t, tr, newRequest(t, "POST", url, strings.NewReader("hello"))))
		require.Equal(t, "1", do(t, tr, newRequest(t, "POST", url, strings.NewReader(strings.Repeat("a", 100_000)))))
		require.Equal(t, "1", do(t, tr, newRequest(t, "POST", url, io.LimitReader(endless{}, 100_000))))
	}
	tr.CloseIdleConnections()
	require.Equal(t, "2", get(t, tr, url))
	tr.Close()
	require.Equal(t, "3", get(t, tr, url))
	require.Equal(t, "4", get(t, tr, url))
}

// TestWhatIsNotKept has answers after which a connection must not be used.
func TestWhatIsNotKept(t *testing.T) {
	for name, c := range map[string]struct {
		method, answer string
	}{
		"close":              {"GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"},
		"HTTP/1.0":           {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		"more than its body": {"GET", ok + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"},
		"one byte more":      {"GET", ok + "x"},
		"a body of HEAD":     {"HEAD", ok},
		"a body of 204":      {"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok"},
		"after the chunks":   {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"},
		"101 to nobody":      {"GET", "HTTP/1.1 101 Switching Protocols\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			url := script(t, func(p *peer) {
				for p.request() != nil {
					if p.n > 1 {
						p.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfresh")
						continue
					}
					p.say(c.answer)
				}
			})
			tr := start(t, upstream.Options{})
			do(t, tr, newRequest(t, c.method, url, nil))
			require.Equal(t, "fresh", do(t, tr, newRequest(t, "POST", url, strings.NewReader("x"))))
		})
	}
	t.Run("the request says close", func(t *testing.T) {
		url := script(t, numbered)
		tr := start(t, upstream.Options{})
		req := newRequest(t, "GET", url, nil)
		req.Close = true
		require.Equal(t, "1", do(t, tr, req))
		require.Equal(t, "2", get(t, tr, url))
	})
	t.Run("closed early", func(t *testing.T) {
		url := script(t, func(p *peer) {
			for p.request() != nil {
				p.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n%d", p.n))
				if p.n == 2 {
					p.say(strings.Repeat(" ", 99999))
				}
			}
		})
		tr := start(t, upstream.Options{})
		resp, err := tr.RoundTrip(newRequest(t, "GET", url, nil))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, "2", strings.TrimSpace(get(t, tr, url)))
	})
	t.Run("closed early, but all is here", func(t *testing.T) {
		url := script(t, numbered)
		tr := start(t, upstream.Options{})
		for range 3 {
			resp, err := tr.RoundTrip(newRequest(t, "GET", url, nil))
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
		}
		require.Equal(t, "1", get(t, tr, url))
	})
}

// TestWhatWaitsOnAnIdleConnection has a server that says something that was not asked for, or closes, while a connection
// is idle: a POST is sent on another, and the server's words reach nobody.
func TestWhatWaitsOnAnIdleConnection(t *testing.T) {
	for name, late := range map[string]func(*peer){
		"a response": func(p *peer) { p.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen") },
		"a byte":     func(p *peer) { p.say("x") },
		"a timeout":  func(p *peer) { p.say("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n") },
		"the end":    func(*peer) {},
		"a reset":    func(p *peer) { p.reset() },
	} {
		t.Run(name, func(t *testing.T) {
			said, speak := make(chan struct{}), make(chan struct{})
			url := script(t, func(p *peer) {
				for p.request() != nil {
					p.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", p.n))
					if p.n == 1 {
						<-speak
						late(p)
						p.Close()
						close(said)
						return
					}
				}
			})
			tr := start(t, upstream.Options{})
			require.Equal(t, "1", get(t, tr, url))
			close(speak)
			<-said
			require.Equal(t, "2", do(t, tr, newRequest(t, "POST", url, io.LimitReader(endless{}, 10))))
		})
	}
}

// TestRepeated has a server that closes a kept connection in the moment in which a request comes on it.
func TestRepeated(t *testing.T) {
	replayable := func() io.Reader { return bytes.NewReader(make([]byte, 50_000)) }
	stream := func() io.Reader { return io.LimitReader(endless{}, 50_000) }
	for name, c := range map[string]struct {
		method string
		body   func() io.Reader
		header string
		say    string // before it closes
		again  bool
	}{
		"GET":                           {"GET", nil, "", "", true},
		"HEAD":                          {"HEAD", nil, "", "", true},
		"OPTIONS":                       {"OPTIONS", nil, "", "", true},
		"POST":                          {"POST", nil, "", "", false},
		"DELETE":                        {"DELETE", nil, "", "", false},
		"POST with a key":               {"POST", nil, "Idempotency-Key", "", true},
		"POST with a key and a body":    {"POST", replayable, "Idempotency-Key", "", true},
		"POST with a key and a stream":  {"POST", stream, "X-Idempotency-Key", "", false},
		"GET with a body":               {"GET", replayable, "", "", true},
		"GET with a stream":             {"GET", stream, "", "", false},
		"GET that is answered a little": {"GET", nil, "", "H", false},
		"GET that is answered with 1xx": {"GET", nil, "", "HTTP/1.1 102 Processing\r\n\r\n", false},
		"GET with a small unknown body": {"GET", func() io.Reader { return strings.NewReader("x") }, "", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int32
			url := script(t, func(p *peer) {
				for n := 0; p.request() != nil; n++ {
					requests.Add(1)
					if p.n == 1 && n == 1 {
						p.say(c.say)
						return
					}
					p.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			})
			tr := start(t, upstream.Options{})
			get(t, tr, url)
			var body io.Reader
			if c.body != nil {
				body = c.body()
			}
			req := newRequest(t, c.method, url, body)
			if c.header != "" {
				req.Header.Set(c.header, "7")
			}
			if !c.again {
				e := fails(t, tr, req)
				require.Equal(t, upstream.Head, e.Phase)
				require.True(t, e.Sent)
				require.EqualValues(t, 2, requests.Load())
				return
			}
			do(t, tr, req)
			require.EqualValues(t, 3, requests.Load())
		})
	}
	t.Run("but once", func(t *testing.T) {
		var conns atomic.Int32
		url := script(t, func(p *peer) {
			if conns.Add(1); p.n == 1 && p.request() != nil {
				p.say(ok)
			}
			p.request()
		})
		tr := start(t, upstream.Options{})
		get(t, tr, url)
		fails(t, tr, newRequest(t, "GET", url, nil))
		require.EqualValues(t, 2, conns.Load())
	})
	t.Run("on a new connection, though there is a kept one", func(t *testing.T) {
		arrived, end := make(chan struct{}), make(chan struct{})
		url := script(t, func(p *peer) {
			for n := 1; p.request() != nil; n++ {
				if p.n == 1 && n == 2 {
					close(arrived)
					<-end
					return
				}
				p.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", p.n))
			}
		})
		tr := start(t, upstream.Options{})
		require.Equal(t, "1", get(t, tr, url))
		var all sync.WaitGroup
		all.Go(func() { require.Equal(t, "3", get(t, tr, url)) })
		<-arrived
		require.Equal(t, "2", get(t, tr, url))
		close(end)
		all.Wait()
	})
	t.Run("in vain", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		done := make(chan struct{})
		go func() {
			defer close(done)
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			l.Close()
			p := &peer{Conn: c, br: bufio.NewReader(c)}
			p.request()
			p.say(ok)
			p.request()
		}()
		tr := start(t, upstream.Options{})
		get(t, tr, "http://"+l.Addr().String())
		e := fails(t, tr, newRequest(t, "GET", "http://"+l.Addr().String(), nil))
		require.Equal(t, upstream.Dial, e.Phase)
		require.True(t, e.Sent)
		<-done
	})
	t.Run("not after the end of its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var requests atomic.Int32
		url := script(t, func(p *peer) {
			for p.request() != nil {
				if requests.Add(1) == 1 {
					p.say(ok)
				} else {
					cancel()
				}
			}
		})
		tr := start(t, upstream.Options{})
		get(t, tr, url)
		require.ErrorIs(t, fails(t, tr, newRequest(t, "GET", url, nil).WithContext(ctx)), context.Canceled)
		require.EqualValues(t, 2, requests.Load())
	})
}

// TestMaxIdle has more requests under way at once than connections are kept: those that are over are closed.
func TestMaxIdle(t *testing.T) {
	const more = 3
	var under sync.WaitGroup
	under.Add(upstream.MaxIdle + more)
	closed := make(chan struct{}, upstream.MaxIdle+more)
	url := script(t, func(p *peer) {
		if p.request() != nil {
			under.Done()
			under.Wait()
			p.say(ok)
			p.request()
		}
		closed <- struct{}{}
	})
	tr := start(t, upstream.Options{})
	var all sync.WaitGroup
	for range upstream.MaxIdle + more {
		all.Go(func() { get(t, tr, url) })
	}
	all.Wait()
	for range more {
		<-closed
	}
	require.Equal(t, upstream.MaxIdle, tr.Idle(strings.TrimPrefix(url, "http://")))
}

// TestLateCancel has contexts end while their responses do: none of them may end what comes after on the connection.
func TestLateCancel(t *testing.T) {
	url := script(t, numbered)
	tr := start(t, upstream.Options{})
	for range 1000 {
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := tr.RoundTrip(newRequest(t, "GET", url, nil).WithContext(ctx))
		require.NoError(t, err)
		cancel() // what comes of it, comes in another goroutine
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		do(t, tr, newRequest(t, "POST", url, strings.NewReader("x")))
	}
}

func TestIdleTimeout(t *testing.T) {
	closed := make(chan int, 8)
	url := script(t, func(p *peer) {
		numbered(p)
		closed <- p.n
	})
	tr := start(t, upstream.Options{IdleTimeout: 30 * time.Millisecond})
	require.Equal(t, "1", get(t, tr, url))
	require.Equal(t, 1, <-closed)
	require.Equal(t, "2", get(t, tr, url))
	require.Equal(t, 2, <-closed)
	require.Eventually(t, func() bool { return tr.Hosts() == 0 }, 5*time.Second, time.Millisecond)
}

// TestLoad is a mixture of all, against net/http's server, whose answers tell that none is another's.
func TestLoad(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Id", r.Header.Get("Id"))
		switch r.URL.Path {
		case "/early":
			w.WriteHeader(http.StatusForbidden)
			return
		case "/close":
			w.Header().Set("Connection", "close")
		case "/hints":
			w.WriteHeader(http.StatusEarlyHints)
		case "/abort":
			panic(http.ErrAbortHandler)
		case "/slow":
			if _, err := io.Copy(io.Discard, r.Body); err != nil { // until then, the server does not look whether the client is there
				return
			}
			<-r.Context().Done()
			return
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			w.Write(body)
		}
	}))
	t.Cleanup(s.Close)
	tr := start(t, upstream.Options{})
	paths := []string{"/", "/", "/early", "/close", "/hints", "/abort", "/slow", "/"}
	var all sync.WaitGroup
	for worker := range 16 {
		all.Go(func() {
			for i := range 32 {
				id := fmt.Sprintf("%d-%d", worker, i)
				size := []int{0, 10, 20_000, 100_000}[i%4]
				path := paths[(worker+i)%len(paths)]
				text := strings.Repeat(id+" ", size/len(id+" "))
				var body io.Reader = strings.NewReader(text)
				if i%3 == 0 {
					body = struct{ io.Reader }{body}
				}
				ctx, cancel := context.WithCancel(t.Context())
				if path == "/slow" {
					time.AfterFunc(10*time.Millisecond, cancel)
				}
				req := newRequest(t, "POST", s.URL+path, body).WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{}))
				req.Header.Set("Id", id)
				resp, err := tr.RoundTrip(req)
				if err == nil {
					if resp.Header.Get("Id") != id {
						t.Errorf("%s got the answer of %s", id, resp.Header.Get("Id"))
					}
					var got []byte
					got, err = io.ReadAll(resp.Body)
					resp.Body.Close()
					if err == nil && path != "/early" && string(got) != text {
						t.Errorf("%s %s: got %d bytes, want %d", id, path, len(got), len(text))
					}
				}
				if (err != nil) != (path == "/abort" || path == "/slow") && path != "/early" {
					t.Errorf("%s %s: %v", id, path, err)
				}
				cancel()
			}
		})
	}
	all.Wait()
}
