package upstream_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/upstream"
)

// closeCounter knows that it was closed.
type closeCounter struct {
	io.ReadCloser
	n atomic.Int32
}

func (c *closeCounter) Close() error {
	c.n.Add(1)
	return c.ReadCloser.Close()
}

func (c *closeCounter) wait(t testing.TB) {
	require.Eventually(t, func() bool { return c.n.Load() > 0 }, 5*time.Second, time.Millisecond, "the body was not closed")
}

func echo(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }

// TestFailures has servers that break off or say nonsense, on a new connection and on one that was kept.
func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		end   func(*peer)
		phase upstream.Phase
		is    error
	}{
		"closed":               {func(*peer) {}, upstream.Head, nil},
		"reset":                {func(p *peer) { p.reset() }, upstream.Head, nil},
		"closed in the head":   {func(p *peer) { p.say("HTTP/1.1 200 OK\r\nConte") }, upstream.Head, io.ErrUnexpectedEOF},
		"garbage":              {func(p *peer) { p.say("\x16\x03\x01 garbage\r\n\r\n") }, upstream.Head, nil},
		"status below 100":     {func(p *peer) { p.say("HTTP/1.1 099 What\r\nContent-Length: 0\r\n\r\n") }, upstream.Head, nil},
		"huge header":          {func(p *peer) { p.say("HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 1<<20)) }, upstream.Head, upstream.ErrHeadTooLarge},
		"endless headers":      {func(p *peer) { p.say("HTTP/1.1 200 OK\r\n"); p.flood("A: b\r\n") }, upstream.Head, upstream.ErrHeadTooLarge},
		"endless 1xx":          {func(p *peer) { p.flood("HTTP/1.1 102 Processing\r\n\r\n") }, upstream.Head, upstream.ErrHeadTooLarge},
		"closed in the body":   {func(p *peer) { p.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel") }, upstream.Body, io.ErrUnexpectedEOF},
		"reset in the body":    {func(p *peer) { p.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"); p.drained(); p.reset() }, upstream.Body, nil},
		"closed in a chunk":    {func(p *peer) { p.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel") }, upstream.Body, io.ErrUnexpectedEOF},
		"closed before a zero": {func(p *peer) { p.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n") }, upstream.Body, io.ErrUnexpectedEOF},
		"wrong chunk":          {func(p *peer) { p.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n") }, upstream.Body, nil},
	} {
		for _, kept := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", kept"}[kept], func(t *testing.T) {
				url := script(t, func(p *peer) {
					for first := kept; p.request() != nil; first = false {
						if !first {
							c.end(p)
							return
						}
						p.say(ok)
					}
				})
				tr := start(t, upstream.Options{})
				if kept {
					require.Equal(t, "ok", get(t, tr, url))
				}
				req := newRequest(t, "POST", url, strings.NewReader("hello"))
				resp, err := tr.RoundTrip(req)
				if c.phase == upstream.Body {
					require.NoError(t, err)
					_, err = io.ReadAll(resp.Body)
					require.NoError(t, resp.Body.Close())
				}
				var e *upstream.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, c.phase, e.Phase, "%v", e)
				require.True(t, e.Sent)
				require.Equal(t, strings.TrimPrefix(url, "http://"), e.Addr)
				if c.is != nil {
					require.ErrorIs(t, err, c.is)
				}
			})
		}
	}
}

// flood says it without end.
func (p *peer) flood(s string) {
	for {
		if _, err := io.WriteString(p, strings.Repeat(s, 1000)); err != nil {
			return
		}
	}
}

// trickle says it byte by byte, and then its last byte over and over.
func (p *peer) trickle(s string) {
	for i := 0; ; i = min(i+1, len(s)-1) {
		if _, err := p.Write([]byte{s[i]}); err != nil {
			return
		}
		p.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := p.br.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// drained waits until the other side has had time to read, for a reset throws away what it has not: until it sends something
// or a moment is over.
func (p *peer) drained() {
	p.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	p.br.ReadByte()
}

func TestErrorsOfDialing(t *testing.T) {
	url := script(t, nil)
	t.Run("refused", func(t *testing.T) {
		dead := httptest.NewServer(nil)
		dead.Close()
		req := newRequest(t, "POST", dead.URL, strings.NewReader("x"))
		body := &closeCounter{ReadCloser: req.Body}
		req.Body = body
		e := fails(t, start(t, upstream.Options{}), req)
		require.Equal(t, upstream.Dial, e.Phase)
		require.False(t, e.Sent)
		require.EqualValues(t, 1, body.n.Load())
		require.ErrorContains(t, e, "connecting to "+req.URL.Host)
	})
	t.Run("no such host", func(t *testing.T) {
		e := fails(t, start(t, upstream.Options{}), newRequest(t, "GET", "http://nowhere.invalid:80", nil))
		require.Equal(t, upstream.Dial, e.Phase)
	})
	t.Run("ended before", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("why")
		cancel(why)
		e := fails(t, start(t, upstream.Options{}), newRequest(t, "GET", url, nil).WithContext(ctx))
		require.Equal(t, upstream.Dial, e.Phase)
		require.ErrorIs(t, e, context.Canceled)
		require.ErrorIs(t, e, why)
	})
}

func TestContextEndsExchanges(t *testing.T) {
	url := script(t, func(p *peer) {
		r := p.request()
		if r == nil {
			return
		}
		switch r.URL.Path {
		case "/body":
			p.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
		case "/slow":
			p.trickle("HTTP/1.1 200 OK\r\nA: b")
		}
		p.br.ReadByte()
	})
	tr := start(t, upstream.Options{})
	for name, path := range map[string]string{"waiting for the head": "/", "in the head": "/slow"} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			e := fails(t, tr, newRequest(t, "GET", url+path, nil).WithContext(ctx))
			require.Equal(t, upstream.Head, e.Phase)
			require.ErrorIs(t, e, context.DeadlineExceeded)
			require.True(t, e.Sent)
		})
	}
	t.Run("in the body", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := tr.RoundTrip(newRequest(t, "GET", url+"/body", nil).WithContext(ctx))
		require.NoError(t, err)
		defer resp.Body.Close()
		_, err = io.ReadFull(resp.Body, make([]byte, 3))
		require.NoError(t, err)
		cancel()
		_, err = resp.Body.Read(make([]byte, 1))
		require.ErrorIs(t, err, context.Canceled)
		var e *upstream.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, upstream.Body, e.Phase)
	})
	t.Run("uploading", func(t *testing.T) {
		silent := script(t, func(p *peer) {
			b, _ := p.br.ReadByte()
			for ; b != 0; b, _ = p.br.ReadByte() {
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		pr, pw := io.Pipe()
		defer pw.Close()
		req := newRequest(t, "POST", silent, pr).WithContext(ctx)
		go func() {
			pw.Write([]byte("a")) // returns when it is read: the upload is on
			cancel()
		}()
		e := fails(t, tr, req)
		require.ErrorIs(t, e, context.Canceled)
		require.True(t, e.Sent)
	})
}

func TestBodyIsClosedWhileItIsRead(t *testing.T) {
	gone := make(chan struct{})
	url := script(t, func(p *peer) {
		if p.request() != nil {
			p.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
			p.br.ReadByte()
			close(gone)
		}
	})
	resp, err := start(t, upstream.Options{}).RoundTrip(newRequest(t, "GET", url, nil))
	require.NoError(t, err)
	failed := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(resp.Body)
		failed <- err
	}()
	require.NoError(t, resp.Body.Close())
	require.NoError(t, resp.Body.Close())
	require.Error(t, <-failed)
	<-gone
	_, err = resp.Body.Read(make([]byte, 1))
	require.ErrorIs(t, err, http.ErrBodyReadAfterClose)
}

// TestAnswerBeforeTheBodyWasSent has a server that reads no more than the head.
func TestAnswerBeforeTheBodyWasSent(t *testing.T) {
	answer := "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig"
	for name, end := range map[string]func(*peer){
		"and stays":  func(p *peer) { p.say(answer); p.br.ReadByte() },
		"and closes": func(p *peer) { p.say(answer) },
		"and resets": func(p *peer) { p.say(answer); p.drained(); p.reset() },
	} {
		t.Run(name, func(t *testing.T) {
			url := script(t, func(p *peer) {
				for {
					line, err := p.br.ReadString('\n')
					if err != nil {
						return
					}
					if line == "\r\n" {
						break
					}
				}
				end(p)
			})
			body := &closeCounter{ReadCloser: io.NopCloser(endless{})}
			resp, err := start(t, upstream.Options{}).RoundTrip(newRequest(t, "POST", url, body))
			require.NoError(t, err)
			require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, "big", string(text))
			resp.Body.Close()
			body.wait(t)
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestAnswerWhileTheBodyIsSent has both go on at once.
func TestAnswerWhileTheBodyIsSent(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		w.WriteHeader(200)
		rc.Flush()
		buf := make([]byte, 10)
		for {
			n, err := r.Body.Read(buf)
			w.Write(buf[:n])
			rc.Flush()
			if err != nil {
				return
			}
		}
	}))
	defer s.Close()
	tr := start(t, upstream.Options{})
	pr, pw := io.Pipe()
	resp, err := tr.RoundTrip(newRequest(t, "POST", s.URL, pr))
	require.NoError(t, err)
	defer resp.Body.Close()
	for _, word := range []string{"one", "two", "three"} {
		_, err := io.WriteString(pw, word)
		require.NoError(t, err)
		got := make([]byte, len(word))
		_, err = io.ReadFull(resp.Body, got)
		require.NoError(t, err)
		require.Equal(t, word, string(got))
	}
	pw.Close()
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Empty(t, rest)
}

func TestBodyOfRequestFails(t *testing.T) {
	why := errors.New("the client is gone")
	for name, length := range map[string]int64{"small": 10, "large": 1 << 20, "chunked": -1} {
		t.Run(name, func(t *testing.T) {
			whole := make(chan bool, 1)
			url := script(t, func(p *peer) { whole <- p.request() != nil })
			tr := start(t, upstream.Options{})
			req := newRequest(t, "POST", url, nil)
			body := &closeCounter{ReadCloser: io.NopCloser(io.MultiReader(strings.NewReader("hello"), failing{why}))}
			req.Body, req.ContentLength = body, length
			e := fails(t, tr, req)
			require.Equal(t, upstream.Request, e.Phase)
			require.ErrorIs(t, e, why)
			require.Equal(t, name != "small", e.Sent)
			body.wait(t)
			if e.Sent {
				require.False(t, <-whole, "the server took it for the whole")
			}
		})
	}
	t.Run("too long", func(t *testing.T) {
		req := newRequest(t, "POST", script(t, nil), nil)
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader("hello!")), 5
		e := fails(t, start(t, upstream.Options{}), req)
		require.Equal(t, upstream.Request, e.Phase)
		require.False(t, e.Sent)
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestContinue(t *testing.T) {
	const large = 100_000
	for name, c := range map[string]struct {
		say  string
		read bool
		want int
	}{
		"asked for":        {"HTTP/1.1 100 Continue\r\n\r\n", true, 200},
		"after others":     {"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", true, 200},
		"no word":          {"", true, 200},
		"refused":          {"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n", false, 417},
		"refused, with it": {"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno", false, 401},
	} {
		t.Run(name, func(t *testing.T) {
			url := script(t, func(p *peer) {
				for {
					r, err := http.ReadRequest(p.br)
					if err != nil {
						return
					}
					p.say(c.say)
					if n, _ := io.Copy(io.Discard, r.Body); !c.read || n < large {
						return
					}
					p.say(ok)
				}
			})
			tr := start(t, upstream.Options{})
			for _, length := range []int64{large, -1} {
				left := strings.NewReader(strings.Repeat("a", large))
				body := &closeCounter{ReadCloser: io.NopCloser(left)}
				req := newRequest(t, "POST", url, nil)
				req.Body, req.ContentLength = body, length
				req.Header.Set("Expect", "100-continue")
				resp, err := tr.RoundTrip(req)
				require.NoError(t, err)
				require.Equal(t, c.want, resp.StatusCode)
				resp.Body.Close()
				body.wait(t)
				require.Equal(t, c.read, left.Len() < large)
			}
		})
	}
}

func TestInformationalResponses(t *testing.T) {
	url := script(t, func(p *peer) {
		for p.request() != nil {
			p.say("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + ok)
		}
	})
	tr := start(t, upstream.Options{})
	require.Equal(t, "ok", get(t, tr, url))
	var seen []int
	var links []string
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		seen = append(seen, code)
		links = append(links, h.Get("Link"))
		return nil
	}}
	req := newRequest(t, "GET", url, nil)
	require.Equal(t, "ok", do(t, tr, req.WithContext(httptrace.WithClientTrace(t.Context(), trace))))
	require.Equal(t, []int{103, 102}, seen)
	require.Equal(t, []string{"a", ""}, links)

	no := errors.New("no")
	trace = &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { return no }}
	require.ErrorIs(t, fails(t, tr, req.WithContext(httptrace.WithClientTrace(t.Context(), trace))), no)
}

func TestTrailers(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Sum")
		io.Copy(w, r.Body)
		w.Header().Set("Sum", r.Trailer.Get("Sum"))
		w.Header().Set(http.TrailerPrefix+"More", "yes")
	}))
	defer s.Close()
	req := newRequest(t, "POST", s.URL, nil)
	req.Trailer = http.Header{"Sum": nil}
	req.Body = io.NopCloser(io.MultiReader(strings.NewReader("hello"), atEnd(func() { req.Trailer.Set("Sum", "7") })))
	resp, err := start(t, upstream.Options{}).RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, http.Header{"Sum": nil}, resp.Trailer)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "hello", string(body))
	require.Equal(t, http.Header{"Sum": {"7"}, "More": {"yes"}}, resp.Trailer)
}

// atEnd is called when it is read, and is the end.
type atEnd func()

func (f atEnd) Read([]byte) (int, error) { f(); return 0, io.EOF }

func TestSwitchingProtocols(t *testing.T) {
	url := script(t, func(p *peer) {
		r := p.request()
		if r == nil {
			return
		}
		p.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello")
		io.Copy(p, p.br)
	})
	ctx, cancel := context.WithCancel(t.Context())
	req := newRequest(t, "GET", url, nil).WithContext(ctx)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	tr := start(t, upstream.Options{})
	resp, err := tr.RoundTrip(req)
	require.NoError(t, err)
	cancel() // of the request, which is over
	rwc := resp.Body.(io.ReadWriteCloser)
	word := make([]byte, 5)
	for _, want := range []string{"hello", "again"} {
		_, err = io.ReadFull(rwc, word)
		require.NoError(t, err)
		require.Equal(t, want, string(word))
		_, err = io.WriteString(rwc, "again")
		require.NoError(t, err)
	}
	large := bytes.Repeat([]byte("x"), 1<<20)
	go rwc.(io.ReaderFrom).ReadFrom(bytes.NewReader(large))
	got := make([]byte, 5+len(large))
	_, err = io.ReadFull(rwc, got)
	require.NoError(t, err)
	require.Equal(t, string(large), string(got[5:]))
	require.NoError(t, rwc.(interface{ CloseWrite() error }).CloseWrite())
	rest, err := io.ReadAll(rwc)
	require.NoError(t, err)
	require.Empty(t, rest)
	require.NoError(t, rwc.Close())
	require.NoError(t, rwc.Close())
	require.Zero(t, tr.Hosts(), "nothing is kept of it")
}

// TestSwitchingWhileABodyIsSent has a server that switches although the request is not over: what comes cannot be both.
func TestSwitchingWhileABodyIsSent(t *testing.T) {
	url := script(t, func(p *peer) {
		p.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(io.Discard, p.br)
	})
	body := &closeCounter{ReadCloser: io.NopCloser(endless{})}
	req := newRequest(t, "POST", url, body)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp, err := start(t, upstream.Options{}).RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, http.NoBody, resp.Body)
	body.wait(t)
}
