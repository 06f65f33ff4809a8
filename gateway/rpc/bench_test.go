package rpc_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway"
)

// sink is a ResponseWriter that costs nothing.
type sink struct {
	header http.Header
	status int
	n      int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(p []byte) (int, error) { s.n += len(p); return len(p), nil }

func (s *sink) SetReadDeadline(time.Time) error { return nil }

// body can be read again.
type body struct{ bytes.Reader }

func (*body) Close() error { return nil }

var small = []byte(`{"name":"Ada"}`)

func (w *world) request() (*http.Request, func()) {
	r := httptest.NewRequest("POST", "/greeter/hello", nil)
	b := &body{}
	r.Body, r.ContentLength = b, int64(len(small))
	r.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"*/*"}, "User-Agent": {"x"}}
	r = gateway.With(r, &gateway.Info{ID: "id-7", Client: netip.MustParseAddr("203.0.113.9")})
	return r, func() { b.Reset(small) }
}

// BenchmarkCall is the handler and the call, without the HTTP server.
func BenchmarkCall(b *testing.B) {
	w := newWorld(b)
	r, again := w.request()
	s := &sink{header: make(http.Header)}
	b.ReportAllocs()
	for b.Loop() {
		again()
		w.handler.ServeHTTP(s, r)
	}
	require.Zero(b, s.status)
}

// BenchmarkHTTP is all of it, over loopback, by a client in the same process.
func BenchmarkHTTP(b *testing.B) {
	w := newWorld(b)
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		c := &http.Client{Transport: &http.Transport{}}
		defer c.CloseIdleConnections()
		for pb.Next() {
			rsp, err := c.Post(w.http.URL+"/greeter/hello", "application/json", bytes.NewReader(small))
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, rsp.Body)
			rsp.Body.Close()
		}
	})
}

// TestAllocations counts those of the handler and of a whole call, on both sides.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	w := newWorld(t)
	r, again := w.request()
	s := &sink{header: make(http.Header)}
	serve := func() {
		again()
		w.handler.ServeHTTP(s, r)
	}
	serve()
	n := testing.AllocsPerRun(2000, serve)
	t.Logf("%v allocations", n)
	require.LessOrEqual(t, n, 30.0)
	require.Zero(t, s.status)
}
