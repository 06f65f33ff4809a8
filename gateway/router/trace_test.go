package router

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/spantest"
	"github.com/plugmicro/micro/tracing/httptrace"
)

// TestAttemptsAreSpans sends a traced request to a server that answers on the second attempt: both are spans below that of
// the request, and each carries itself to the server.
func TestAttemptsAreSpans(t *testing.T) {
	var carried []string
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		carried = append(carried, r.Header.Get("Traceparent"))
		if len(carried) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(upstream.Close)
	f := start(t, `
routes:
- name: shop
  retries: {attempts: 3, on: [503]}
  to: {url: "`+upstream.URL+`"}
`)
	spans := spantest.New()
	chain := f.router.Handler(http.NotFoundHandler())
	r, span := httptrace.Start(spans, httptest.NewRequest("GET", "/a", nil))
	w := httptest.NewRecorder()
	chain.ServeHTTP(w, r)
	span.End(w.Code, 0, nil)
	require.Equal(t, 200, w.Code)
	require.Len(t, carried, 2)
	served := spans.Ended()[len(spans.Ended())-1]
	for i, attempt := range spans.Ended()[:2] {
		require.True(t, attempt.ChildOf(served))
		require.Contains(t, carried[i], strings.Join([]string{served.SpanContext.TraceID().String(), attempt.SpanContext.SpanID().String()}, "-"))
	}
}

// TestCopiesAreInNoTrace: neither is a copy a span, nor do those who get it belong to the trace of the request.
func TestCopiesAreInNoTrace(t *testing.T) {
	real := serve(t, func(w http.ResponseWriter, r *http.Request) { require.NotEmpty(t, r.Header.Get("Traceparent")) })
	copies := make(chan http.Header, 1)
	shadow := serve(t, func(_ http.ResponseWriter, r *http.Request) { copies <- r.Header })
	f := start(t, to(real.URL, "mirror: {url: '"+shadow.URL+"'}"))
	spans := spantest.New()
	r := httptest.NewRequest("GET", "/a", nil)
	r.Header.Set("Traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
	r.Header.Set("Tracestate", "a=b")
	r.Header.Set("X-Amzn-Trace-Id", "Root=1-01234567-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=1")
	r, span := httptrace.Start(spans, r)
	w := httptest.NewRecorder()
	f.router.Handler(http.NotFoundHandler()).ServeHTTP(w, r)
	span.End(w.Code, 0, nil)
	require.Equal(t, 200, w.Code)
	got := <-copies
	for _, name := range []string{"Traceparent", "Tracestate", "X-Amzn-Trace-Id"} {
		require.Empty(t, got.Get(name))
	}
	f.router.work.Wait()
	require.Equal(t, []string{"GET client", "GET server"}, spans.Labels())
}
