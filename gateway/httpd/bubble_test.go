package httpd

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/transport"
)

// bubble is a gateway whose connections are pipes, in a bubble of synctest: time passes when nobody has anything to do.
type bubble struct {
	*Gateway
	t       *testing.T
	clients map[string]*http.Client // by protocol
	dialled chan net.Conn
	closed  chan struct{}
	slow    time.Duration // how long the services take for a call
}

// inBubble runs f, for which a minute takes no time. A nil h is services, of which there is Numbers: its streams, and calls that
// are answered with their request.
func inBubble(t *testing.T, h http.Handler, f func(*testing.T, *bubble), args ...string) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		b := &bubble{Gateway: bare(t, log, args...), t: t, clients: make(map[string]*http.Client),
			dialled: make(chan net.Conn), closed: make(chan struct{})}
		if b.chain = h; h == nil {
			b.chain = b.services(args)
		}
		s := b.server(t.Context(), b)
		s.Protocols.SetUnencryptedHTTP2(true)
		served := make(chan error)
		go func() { served <- s.Serve(b) }()
		defer func() {
			require.NoError(t, s.Close())
			require.ErrorIs(t, <-served, http.ErrServerClosed)
		}()
		for name, set := range map[string]func(*http.Protocols, bool){"HTTP/1.1": (*http.Protocols).SetHTTP1, "HTTP/2.0": (*http.Protocols).SetUnencryptedHTTP2} {
			protocols := new(http.Protocols)
			set(protocols, true)
			transport := &http.Transport{Protocols: protocols, DialContext: func(context.Context, string, string) (net.Conn, error) { return b.dial(), nil }}
			defer transport.CloseIdleConnections()
			b.clients[name] = &http.Client{Transport: transport}
		}
		f(t, b)
	})
}

// services is the end of the chain, over a transport that is in the bubble, too.
func (b *bubble) services(args []string) http.Handler {
	settings, loaded, err := load(b.t, &setup{args: append(args, "--transport=memory")})
	require.NoError(b.t, err)
	host := loaded.Open(context.Background(), b.log)
	backend, err := newBackend(host, settings, b.log)
	require.NoError(b.t, err)
	tr, err := plugin.Open[transport.Transport](host)
	require.NoError(b.t, err)
	s := server.New("numbers", server.Options{Logger: b.log})
	require.NoError(b.t, s.Handle(Numbers{}))
	l, err := tr.Listen(b.t.Context(), "")
	require.NoError(b.t, err)
	go s.Serve(l) //nolint:errcheck // it ends with Shutdown
	require.NoError(b.t, backend.registry.Register(&registry.Service{Name: "numbers", Version: "1", Endpoints: s.Endpoints(),
		Nodes: []*registry.Node{{ID: "1", Address: l.Addr()}}}))
	b.t.Cleanup(func() {
		require.NoError(b.t, backend.Close())
		require.NoError(b.t, s.Shutdown(context.Background()))
		require.NoError(b.t, host.Close())
	})
	backend.client.Use(func(next client.Invoker) client.Invoker {
		return func(ctx context.Context, r *client.Request) error {
			if r.Stream {
				return next(ctx, r)
			}
			select {
			case <-time.After(b.slow):
			case <-ctx.Done():
				return ctx.Err()
			}
			*r.Reply.(*codec.Raw) = slices.Clone(*r.Body.(*codec.Raw)) // calls reuse channels, which no other bubble may have made
			return nil
		}
	})
	synctest.Wait()
	require.NotNil(b.t, backend.directory.Service("numbers"))
	return backend
}

// dial connects.
func (b *bubble) dial() net.Conn {
	near, far := net.Pipe()
	b.dialled <- fromHere{far}
	return near
}

// fromHere is a connection of an address that is one.
type fromHere struct{ net.Conn }

func (fromHere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711} }

// Accept implements net.Listener, as do Close and Addr.
func (b *bubble) Accept() (net.Conn, error) {
	select {
	case c := <-b.dialled:
		return c, nil
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

func (b *bubble) Close() error {
	close(b.closed)
	return nil
}

func (b *bubble) Addr() net.Addr { return &net.TCPAddr{} }

// send sends a request, and returns the answer and how long it took.
func (b *bubble) send(protocol, method, path string, body io.Reader) (answer, time.Duration) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, "http://localhost"+path, body)
	require.NoError(b.t, err)
	began := time.Now()
	resp, err := b.clients[protocol].Do(r)
	require.NoError(b.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(b.t, err)
	require.Equal(b.t, protocol, resp.Proto)
	return answer{resp.StatusCode, resp.Header, string(text), resp.Proto}, time.Since(began)
}

// dripping is a body whose parts come one by one, each after a pause.
type dripping struct {
	pause time.Duration
	parts []string
}

func (d *dripping) Read(p []byte) (int, error) {
	if len(d.parts) == 0 {
		return 0, io.EOF
	}
	time.Sleep(d.pause)
	part := d.parts[0]
	d.parts = d.parts[1:]
	return copy(p, part), nil
}

var protocols = []string{"HTTP/1.1", "HTTP/2.0"}

// silent is the default of --gateway-silent-timeout.
const silent = time.Minute

// TestBodiesThatGoOn: how long a whole body may take is not limited, for calls, for streams, and for what middlewares read.
func TestBodiesThatGoOn(t *testing.T) {
	digits := make([]string, 20)
	for i := range digits {
		digits[i] = "1"
	}
	for path, c := range map[string]struct {
		handler http.Handler
		body    *dripping
		want    string
	}{
		"/numbers/double": {nil, &dripping{25 * time.Second, append(append([]string{`{"value":`}, digits[:9]...), "}")}, `{"value":111111111}`},
		"/numbers/sum":    {nil, &dripping{25 * time.Second, strings.SplitAfter(strings.Repeat(`{"value":1}`, 20), "}")[:20]}, `{"value":20}`},
		"/x":              {http.HandlerFunc(ok), &dripping{25 * time.Second, digits}, "POST /x " + strings.Join(digits, "")},
	} {
		for _, protocol := range protocols {
			t.Run(path+" "+protocol, func(t *testing.T) {
				inBubble(t, c.handler, func(t *testing.T, b *bubble) {
					body := *c.body
					a, took := b.send(protocol, http.MethodPost, path, &body)
					require.Equal(t, http.StatusOK, a.status, a.body)
					require.Equal(t, c.want, a.body)
					require.Greater(t, took, 4*silent)
				})
			})
		}
	}
}

// TestBodiesThatStop: a client that sends nothing more of a body is told so.
func TestBodiesThatStop(t *testing.T) {
	for path, begin := range map[string]string{"/numbers/double": `{"value":`, "/numbers/sum": `{"value":1}`, "/x": "x"} {
		var h http.Handler
		if path == "/x" {
			h = http.HandlerFunc(ok)
		}
		for _, protocol := range protocols {
			t.Run(path+" "+protocol, func(t *testing.T) {
				inBubble(t, h, func(t *testing.T, b *bubble) {
					body, more := io.Pipe()
					defer more.Close()
					go func() { _, _ = io.WriteString(more, begin) }()
					a, took := b.send(protocol, http.MethodPost, path, body)
					require.Equal(t, http.StatusRequestTimeout, a.status, a.body)
					require.Contains(t, a.body, "nothing of the body came for 1m0s")
					require.Equal(t, silent, took)
				})
			})
		}
	}
}

// TestBodyThatIsReadLate: that nobody wanted more of it for a while is not its client's fault.
func TestBodyThatIsReadLate(t *testing.T) {
	late := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		part := make([]byte, 2)
		for range 3 {
			time.Sleep(2 * silent)
			_, err := io.ReadFull(r.Body, part)
			require.NoError(t, err)
			_, _ = w.Write(part)
		}
	})
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			inBubble(t, late, func(t *testing.T, b *bubble) {
				a, _ := b.send(protocol, http.MethodPost, "/x", strings.NewReader("abcdef"))
				require.Equal(t, "abcdef", a.body)
			})
		})
	}
}

// TestLongAnswers take longer than a client may be silent: it has nothing to send, and is not gone.
func TestLongAnswers(t *testing.T) {
	inParts := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		for range 3 {
			time.Sleep(3 * silent)
			require.NoError(t, r.Context().Err())
			_, err := io.WriteString(w, "x"+string(body))
			require.NoError(t, err)
			require.NoError(t, http.NewResponseController(w).Flush())
		}
	})
	for _, protocol := range protocols {
		for name, c := range map[string]struct {
			method string
			body   io.Reader
			want   string
		}{
			"no body":       {http.MethodGet, nil, "xxx"},
			"a body":        {http.MethodPost, strings.NewReader("y"), "xyxyxy"},
			"in chunks":     {http.MethodPost, &dripping{0, []string{"y"}}, "xyxyxy"},
			"an empty body": {http.MethodPost, nil, "xxx"},
		} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				inBubble(t, inParts, func(t *testing.T, b *bubble) {
					a, took := b.send(protocol, c.method, "/x", c.body)
					require.Equal(t, http.StatusOK, a.status)
					require.Equal(t, c.want, a.body)
					require.Equal(t, 9*silent, took)
				})
			})
		}
		t.Run("of a service "+protocol, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, b *bubble) {
				b.slow = 3 * silent
				a, took := b.send(protocol, http.MethodPost, "/numbers/double", strings.NewReader(`{"value":1}`))
				require.Equal(t, http.StatusOK, a.status, a.body)
				require.Equal(t, 3*silent, took)
			})
		})
	}
}
