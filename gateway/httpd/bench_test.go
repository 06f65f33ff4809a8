package httpd

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway"
)

// bare is a gateway without listeners: what it does to a request, and nothing else.
func bare(t testing.TB, log *slog.Logger, args ...string) *Gateway {
	s := &setup{args: args}
	settings, _, err := load(t, s)
	require.NoError(t, err)
	who, err := newResolver(settings, log)
	require.NoError(t, err)
	route := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gateway.Of(r).Route = "greeter Greeter.Hello"
		_, _ = w.Write(answered)
	})
	return &Gateway{settings: settings, log: log, who: who, metrics: newMetrics(), backend: &backend{}, chain: route}
}

var answered = []byte(`{"message":"Hello, Ada"}`)

// nowhere is a ResponseWriter that costs nothing.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header              { return n.header }
func (n *nowhere) Write(p []byte) (int, error)      { return len(p), nil }
func (n *nowhere) WriteHeader(int)                  {}
func (n *nowhere) SetReadDeadline(time.Time) error  { return nil }
func (n *nowhere) SetWriteDeadline(time.Time) error { return nil }

func request() *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/greeter/hello", strings.NewReader(`{"name":"Ada"}`))
	r.Host = "localhost:8080"
	r.RemoteAddr = "127.0.0.1:4711"
	r.Header = http.Header{"Content-Type": {"application/json"}, "User-Agent": {"wrk"}}
	return r.WithContext(context.WithValue(context.Background(), http.ServerContextKey, 1))
}

func serve(g *Gateway, n *nowhere, r *http.Request) {
	clear(n.header)
	body := r.Body
	g.ServeHTTP(n, r)
	r.Body = body
}

// TestAllocations bounds what every request pays: what is known of it, its id, and twice what carries it in the context.
func TestAllocations(t *testing.T) {
	for name, c := range map[string]struct {
		log  *slog.Logger
		most float64
	}{
		"without a log": {slog.New(slog.DiscardHandler), 5},
		"with a log":    {slog.New(slog.NewTextHandler(io.Discard, nil)), 9},
	} {
		t.Run(name, func(t *testing.T) {
			g, n, r := bare(t, c.log), &nowhere{http.Header{}}, request()
			serve(g, n, r)
			require.LessOrEqual(t, testing.AllocsPerRun(1000, func() { serve(g, n, r) }), c.most)
		})
	}
}

func BenchmarkServe(b *testing.B) {
	for name, log := range map[string]*slog.Logger{
		"no-log": slog.New(slog.DiscardHandler),
		"log":    slog.New(slog.NewTextHandler(io.Discard, nil)),
	} {
		b.Run(name, func(b *testing.B) {
			g, n, r := bare(b, log), &nowhere{http.Header{}}, request()
			b.ReportAllocs()
			for b.Loop() {
				serve(g, n, r)
			}
		})
	}
}
