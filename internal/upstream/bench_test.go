package upstream_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/upstream"
)

// BenchmarkRoundTrip is 64 callers for each core against net/http's server, with small bodies.
func BenchmarkRoundTrip(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(echo))
	defer s.Close()
	for name, t := range transports() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(64)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					req, err := http.NewRequestWithContext(b.Context(), "POST", s.URL, bytes.NewReader(make([]byte, 64)))
					require.NoError(b, err)
					resp, err := t.RoundTrip(req)
					require.NoError(b, err)
					_, err = io.Copy(io.Discard, resp.Body)
					require.NoError(b, err)
					resp.Body.Close()
				}
			})
		})
	}
}

// BenchmarkReverseProxy is the same through httputil.ReverseProxy, whose client is the first of the two.
func BenchmarkReverseProxy(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(echo))
	defer s.Close()
	target, err := url.Parse(s.URL)
	require.NoError(b, err)
	for name, t := range transports() {
		b.Run(name, func(b *testing.B) {
			proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: t}
			b.ReportAllocs()
			b.SetParallelism(64)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					w := httptest.NewRecorder()
					r := httptest.NewRequestWithContext(b.Context(), "POST", "/", bytes.NewReader(make([]byte, 64)))
					proxy.ServeHTTP(w, r)
					require.Equal(b, http.StatusOK, w.Code)
				}
			})
		})
	}
}

func transports() map[string]http.RoundTripper {
	return map[string]http.RoundTripper{
		"upstream": upstream.New(upstream.Options{}),
		"net/http": &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true},
	}
}
