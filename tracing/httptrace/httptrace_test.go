package httptrace_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/spantest"
	"github.com/plugmicro/micro/tracing/httptrace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// front serves as the gateway does: it knows the request, and its status in the end.
func front(t *testing.T, spans *spantest.Tracer, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info := &gateway.Info{Host: "shop.example", Secure: true, Client: netip.MustParseAddr("203.0.113.7")}
		r, span := httptrace.Start(spans, gateway.With(r, info))
		answer := httptest.NewRecorder()
		h(answer, r)
		w.WriteHeader(answer.Code)
		n, _ := w.Write(answer.Body.Bytes())
		span.End(answer.Code, int64(n), nil)
	}))
	t.Cleanup(s.Close)
	return s
}

func do(t *testing.T, method, url string, header ...string) string {
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	tr := &http.Transport{DisableKeepAlives: true}
	rsp, err := (&http.Client{Transport: tr}).Do(r)
	require.NoError(t, err)
	defer rsp.Body.Close()
	body, err := io.ReadAll(rsp.Body)
	require.NoError(t, err)
	return string(body)
}

func TestServed(t *testing.T) {
	spans := spantest.New()
	s := front(t, spans, func(w http.ResponseWriter, r *http.Request) {
		gateway.Of(r).Route = "orders"
		io.WriteString(w, "hello")
	})
	do(t, "POST", s.URL+"/orders/7?token=hunter2", "User-Agent", "curl/8", "Authorization", "Bearer hunter2",
		"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	span := spans.Wait(t, "POST orders server")
	require.Equal(t, "0af7651916cd43dd8448eb211c80319c", span.SpanContext.TraceID().String())
	require.Equal(t, "b7ad6b7169203331", span.Parent.SpanID().String())
	require.Equal(t, semconv.SchemaURL, span.InstrumentationScope.SchemaURL)
	got := map[string]string{}
	for _, a := range span.Attributes {
		got[string(a.Key)] = a.Value.String()
		require.NotContains(t, a.Value.String(), "hunter2")
	}
	require.Equal(t, map[string]string{
		string(semconv.HTTPRequestMethodKey):      "POST",
		string(semconv.HTTPResponseStatusCodeKey): "200",
		string(semconv.HTTPResponseBodySizeKey):   "5",
		string(semconv.HTTPRouteKey):              "orders",
		string(semconv.URLSchemeKey):              "https",
		string(semconv.URLPathKey):                "/orders/7",
		string(semconv.ServerAddressKey):          "shop.example",
		string(semconv.ServerPortKey):             mustPort(t, s.URL),
		string(semconv.ClientAddressKey):          "203.0.113.7",
		string(semconv.UserAgentOriginalKey):      "curl/8",
		string(semconv.NetworkProtocolVersionKey): "1.1",
	}, got)
	require.Equal(t, codes.Unset, span.Status.Code)
}

func mustPort(t *testing.T, of string) string {
	u, err := url.Parse(of)
	require.NoError(t, err)
	return u.Port()
}

func TestStatus(t *testing.T) {
	for status, failed := range map[int]bool{200: false, 304: false, 404: false, 429: false, 499: false, 500: true, 503: true} {
		spans := spantest.New()
		s := front(t, spans, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
		do(t, "GET", s.URL)
		span := spans.Wait(t, "GET server")
		require.Equal(t, failed, span.Status.Code == codes.Error, status)
		require.Equal(t, failed, span.Attribute("error.type") != "", status)
	}
}

// TestWhatStrangersSend makes no names of spans, and nothing fails by it.
func TestWhatStrangersSend(t *testing.T) {
	for name, header := range map[string][]string{
		"nonsense":  {"Traceparent", "nonsense"},
		"two lines": {"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		"long":      {"Traceparent", strings.Repeat("0", 8000), "User-Agent", strings.Repeat("x\xff", 8000)},
		"baggage":   {"Baggage", strings.Repeat("a=b,", 2000)},
	} {
		t.Run(name, func(t *testing.T) {
			spans := spantest.New()
			s := front(t, spans, func(http.ResponseWriter, *http.Request) {})
			do(t, "MADE-UP", s.URL+"/"+strings.Repeat("x", 5000), header...)
			span := spans.Wait(t, "HTTP server")
			require.Equal(t, "_OTHER", span.Attribute("http.request.method"))
			require.False(t, span.Parent.IsValid())
			for _, a := range span.Attributes {
				require.LessOrEqual(t, len(a.Value.String()), 1024)
			}
		})
	}
}

func TestSent(t *testing.T) {
	spans := spantest.New()
	var received http.Header
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		received = r.Header
		w.WriteHeader(http.StatusTeapot)
		_ = http.NewResponseController(w).Flush() // so that nobody knows how long it is
	}))
	t.Cleanup(upstream.Close)
	s := front(t, spans, func(w http.ResponseWriter, r *http.Request) {
		out, err := http.NewRequestWithContext(r.Context(), "PUT", upstream.URL+"/pot?token=hunter2", nil)
		require.NoError(t, err)
		out.Header.Set("Traceparent", "what the client sent")
		rsp, err := httptrace.Send(out, (&http.Transport{DisableKeepAlives: true}).RoundTrip)
		require.NoError(t, err)
		require.NoError(t, rsp.Body.Close())
		require.Equal(t, "what the client sent", out.Header.Get("Traceparent"), "the request itself is not changed")
		w.WriteHeader(rsp.StatusCode)
	})
	do(t, "GET", s.URL)
	served, sent := spans.Wait(t, "GET server"), spans.Wait(t, "PUT client")
	require.True(t, sent.ChildOf(served))
	require.Contains(t, received.Get("Traceparent"), sent.SpanContext.SpanID().String())
	require.Equal(t, upstream.URL+"/pot", sent.Attribute(string(semconv.URLFullKey)))
	require.Equal(t, "127.0.0.1", sent.Attribute(string(semconv.ServerAddressKey)))
	require.Equal(t, mustPort(t, upstream.URL), sent.Attribute(string(semconv.ServerPortKey)))
	require.Equal(t, "418", sent.Attribute(string(semconv.HTTPResponseStatusCodeKey)))
	require.Equal(t, codes.Error, sent.Status.Code, "to who asks it is one")
	require.Equal(t, codes.Unset, served.Status.Code)
	require.Empty(t, sent.Attribute(string(semconv.HTTPResponseBodySizeKey)))
}

func TestSentToNobody(t *testing.T) {
	spans := spantest.New()
	refused := errors.New("connection refused")
	s := front(t, spans, func(_ http.ResponseWriter, r *http.Request) {
		_, err := httptrace.Send(r.Clone(r.Context()), func(*http.Request) (*http.Response, error) { return nil, refused })
		require.Equal(t, refused, err)
	})
	do(t, "GET", s.URL)
	sent := spans.Wait(t, "GET client")
	require.Equal(t, "connection refused", sent.Status.Description)
	require.Empty(t, sent.Attribute(string(semconv.HTTPResponseStatusCodeKey)))
}

func TestSend(t *testing.T) {
	spans := spantest.New()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("Traceparent"))
	}))
	t.Cleanup(upstream.Close)
	var failed error
	s := front(t, spans, func(w http.ResponseWriter, r *http.Request) {
		tr := &http.Transport{DisableKeepAlives: true}
		for _, url := range []string{upstream.URL, "http://127.0.0.1:1"} {
			out, err := http.NewRequestWithContext(r.Context(), "GET", url, nil)
			require.NoError(t, err)
			rsp, err := httptrace.Send(out, tr.RoundTrip)
			if err != nil {
				failed = err
				continue
			}
			io.Copy(w, rsp.Body)
			rsp.Body.Close()
		}
	})
	received := do(t, "GET", s.URL)
	spans.Wait(t, "GET server")
	sent := spans.Ended()
	require.Equal(t, []string{"GET client", "GET client", "GET server"}, spans.Labels())
	require.Contains(t, received, sent[0].SpanContext.SpanID().String())
	require.Equal(t, "200", sent[0].Attribute(string(semconv.HTTPResponseStatusCodeKey)))
	require.Equal(t, "55", sent[0].Attribute(string(semconv.HTTPResponseBodySizeKey)))
	require.Error(t, failed)
	require.Equal(t, failed.Error(), sent[1].Status.Description)

	plain, err := http.NewRequestWithContext(t.Context(), "GET", upstream.URL, nil)
	require.NoError(t, err)
	rsp, err := httptrace.Send(plain, (&http.Transport{DisableKeepAlives: true}).RoundTrip)
	require.NoError(t, err)
	require.Zero(t, rsp.ContentLength, "without tracing nothing is added")
	rsp.Body.Close()
}

func TestUnsampled(t *testing.T) {
	spans := spantest.New(sdktrace.WithSampler(sdktrace.NeverSample()))
	var header http.Header
	s := front(t, spans, func(_ http.ResponseWriter, r *http.Request) {
		_, err := httptrace.Send(r, func(out *http.Request) (*http.Response, error) {
			header = out.Header
			return new(http.Response), nil
		})
		require.NoError(t, err)
	})
	do(t, "GET", s.URL)
	require.Regexp(t, "-00$", header.Get("Traceparent"), "the others are told")
	require.Empty(t, spans.Ended())
}

func TestWithoutATracer(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	same, span := httptrace.Start(nil, r)
	require.Same(t, r, same)
	answer := new(http.Response)
	roundTrip := func(out *http.Request) (*http.Response, error) { same = out; return answer, nil }
	rsp, err := httptrace.Send(r, roundTrip)
	require.NoError(t, err)
	require.Same(t, answer, rsp)
	require.Same(t, r, same)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		r, span := httptrace.Start(nil, r)
		_, _ = httptrace.Send(r, roundTrip)
		span.End(200, 0, nil)
	}))
	require.Empty(t, span.TraceID())
	require.Empty(t, r.Header)
}
