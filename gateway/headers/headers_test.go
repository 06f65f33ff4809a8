package headers_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/headers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHeaders(t *testing.T) {
	c := headers.Config{
		RequestSet:  map[string]string{"x-tenant": "acme", "Cookie": ""},
		ResponseSet: map[string]string{"Server": "", "x-frame-options": "SAMEORIGIN"},
		Security:    true,
	}
	require.NoError(t, c.Validate())
	m, err := headers.New(nil, c)
	require.NoError(t, err)
	for name, answer := range map[string]func(w http.ResponseWriter){
		"head and body": func(w http.ResponseWriter) { w.WriteHeader(201); _, _ = io.WriteString(w, "x") },
		"body":          func(w http.ResponseWriter) { _, _ = io.WriteString(w, "x") },
		"nothing":       func(http.ResponseWriter) {},
		"flush":         func(w http.ResponseWriter) { w.(http.Flusher).Flush(); _, _ = io.WriteString(w, "x") },
		"hints first":   func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(200) },
	} {
		t.Run(name, func(t *testing.T) {
			chain := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Seen", r.Header.Get("X-Tenant")+r.Header.Get("Cookie"))
				w.Header().Set("Server", "secret 1.0")
				w.Header().Set("Referrer-Policy", "origin")
				answer(w)
			}))
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				chain.ServeHTTP(w, gateway.With(r, &gateway.Info{Secure: true}))
			}))
			defer srv.Close()
			r, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL, nil)
			require.NoError(t, err)
			r.Header.Set("X-Tenant", "forged")
			r.Header.Set("Cookie", "a=b")
			rsp, err := srv.Client().Do(r)
			require.NoError(t, err)
			defer rsp.Body.Close()
			got := rsp.Header
			require.Equal(t, "acme", got.Get("Seen"))
			require.Empty(t, got.Get("Server"))
			require.Equal(t, "SAMEORIGIN", got.Get("X-Frame-Options"), "what is set goes before what is recommended")
			require.Equal(t, "origin", got.Get("Referrer-Policy"), "what the service says goes before what is recommended")
			require.Equal(t, "nosniff", got.Get("X-Content-Type-Options"))
			require.Equal(t, "max-age=31536000", got.Get("Strict-Transport-Security"))
		})
	}
}

// TestHints: what is removed or replaced in answers does not come before them, either, and what is added does not come twice.
func TestHints(t *testing.T) {
	m, err := headers.New(nil, headers.Config{ResponseSet: map[string]string{"Server": "", "Via": "gateway", "X-New": "a"}, Security: true})
	require.NoError(t, err)
	srv := httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range map[string]string{"Server": "secret 1.0", "Via": "secret 2.0", "Link": "</a.css>"} {
			w.Header().Set(name, value)
		}
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Server", "secret 1.0")
	})))
	defer srv.Close()
	var hints []http.Header
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		hints = append(hints, http.Header(h))
		return nil
	}})
	r, err := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
	require.NoError(t, err)
	rsp, err := srv.Client().Do(r)
	require.NoError(t, err)
	defer rsp.Body.Close()
	require.Equal(t, []http.Header{{"Via": {"gateway"}, "Link": {"</a.css>"}}}, hints)
	require.Empty(t, rsp.Header["Server"])
	require.Equal(t, "a", rsp.Header.Get("X-New"))
	require.Equal(t, "DENY", rsp.Header.Get("X-Frame-Options"))
}

// TestTrailers bring back nothing of what was set or removed.
func TestTrailers(t *testing.T) {
	m, err := headers.New(nil, headers.Config{
		RequestSet:  map[string]string{"X-Internal": "", "X-Tenant": "acme"},
		ResponseSet: map[string]string{"Server": "", "X-Node": ""},
	})
	require.NoError(t, err)
	got := make(chan http.Header, 1)
	srv := httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		announced := maps.Clone(r.Trailer)
		_, _ = io.Copy(io.Discard, r.Body)
		got <- announced
		w.Header().Set("Trailer", "Server, X-Sum")
		_, _ = io.WriteString(w, "x")
		for _, name := range []string{"Server", "X-Sum", http.TrailerPrefix + "X-Node", http.TrailerPrefix + "X-Late"} {
			w.Header().Set(name, "7")
		}
	})))
	defer srv.Close()
	r, err := http.NewRequestWithContext(t.Context(), "POST", srv.URL, io.LimitReader(strings.NewReader("x"), 1))
	require.NoError(t, err)
	r.Trailer = http.Header{"X-Internal": {"1"}, "X-Tenant": {"1"}, "X-Sum": {"1"}}
	rsp, err := srv.Client().Do(r)
	require.NoError(t, err)
	defer rsp.Body.Close()
	require.Equal(t, http.Header{"X-Sum": nil}, <-got)
	_, err = io.Copy(io.Discard, rsp.Body)
	require.NoError(t, err)
	for name, want := range map[string]string{"Server": "", "X-Node": "", "X-Sum": "7", "X-Late": "7"} {
		require.Equal(t, want, rsp.Trailer.Get(name), name)
	}
}

func TestNoHSTSWithoutTLS(t *testing.T) {
	m, err := headers.New(nil, headers.Config{Security: true})
	require.NoError(t, err)
	w := httptest.NewRecorder()
	m.Handler(http.NotFoundHandler()).ServeHTTP(w, gateway.With(httptest.NewRequest("GET", "/", nil), &gateway.Info{}))
	require.Empty(t, w.Header().Get("Strict-Transport-Security"))
	require.Equal(t, "DENY", w.Header().Get("X-Frame-Options"))
}

func TestValidate(t *testing.T) {
	require.ErrorContains(t, (&headers.Config{}).Validate(), "nothing is to be set")
	err := (&headers.Config{RequestSet: map[string]string{"transfer-encoding": "chunked", "a b": "x"}, ResponseSet: map[string]string{"A": "x\ny"}}).Validate()
	require.ErrorContains(t, err, "request-set: transfer-encoding says how a message is read")
	require.ErrorContains(t, err, `request-set: "a b" is no name`)
	require.ErrorContains(t, err, "response-set: the value of A")
}
