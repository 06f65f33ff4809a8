package cors_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/cors"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(origins ...string) cors.Config {
	return cors.Config{Origins: origins, Methods: []string{"GET", "POST"}, Headers: []string{"Content-Type"}}
}

// ask returns the answer, and what the chain behind knew of the origin; asked says whether the request came there.
func ask(t *testing.T, c cors.Config, method, origin string, headers ...string) (h http.Header, asked, crossOrigin bool) {
	require.NoError(t, c.Validate())
	m, err := cors.New(nil, c)
	require.NoError(t, err)
	handler := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked, crossOrigin = true, gateway.Of(r).CrossOrigin
	}))
	r := gateway.With(httptest.NewRequest(method, "/greeter/hello", nil), &gateway.Info{})
	if origin != "" {
		r.Header.Set("Origin", origin)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w.Header(), asked, crossOrigin
}

func TestOrigins(t *testing.T) {
	for name, c := range map[string]struct {
		allowed, origin string
		ok              bool
	}{
		"the one":                {"https://shop.example.com", "https://shop.example.com", true},
		"another":                {"https://shop.example.com", "https://evil.example", false},
		"another scheme":         {"https://shop.example.com", "http://shop.example.com", false},
		"another port":           {"https://shop.example.com", "https://shop.example.com:444", false},
		"a longer name":          {"https://shop.example.com", "https://shop.example.com.evil.example", false},
		"below":                  {"https://*.example.com", "https://a.b.example.com", true},
		"below, but not with it": {"https://*.example.com", "https://example.com", false},
		"the end of a name":      {"https://*.example.com", "https://evilexample.com", false},
		"null":                   {"https://*.example.com", "null", false},
	} {
		t.Run(name, func(t *testing.T) {
			h, asked, crossOrigin := ask(t, config(c.allowed), "GET", c.origin)
			require.True(t, asked)
			require.Equal(t, c.ok, crossOrigin)
			require.Equal(t, c.ok, h.Get("Access-Control-Allow-Origin") == c.origin)
			require.Contains(t, h.Values("Vary"), "Origin")
		})
	}
	h, asked, crossOrigin := ask(t, config("https://shop.example.com"), "GET", "")
	require.True(t, asked)
	require.False(t, crossOrigin)
	require.Empty(t, h.Get("Access-Control-Allow-Origin"))
}

// TestVouching: without credentials, only what a page can have sent by fetch, and without them, is vouched for.
func TestVouching(t *testing.T) {
	const origin = "https://evil.example"
	for name, c := range map[string]struct {
		method  string
		headers []string
		ok      bool
	}{
		"fetch":                  {"GET", []string{"Sec-Fetch-Mode", "cors"}, true},
		"fetch with a token":     {"GET", []string{"Sec-Fetch-Mode", "cors", "Authorization", "Bearer x"}, true},
		"fetch that posts":       {"POST", []string{"Sec-Fetch-Mode", "cors"}, true},
		"a cookie":               {"GET", []string{"Sec-Fetch-Mode", "cors", "Cookie", "a=b"}, false},
		"a form":                 {"POST", []string{"Sec-Fetch-Mode", "navigate"}, false},
		"an image":               {"GET", []string{"Sec-Fetch-Mode", "no-cors"}, false},
		"a WebSocket":            {"GET", []string{"Sec-Fetch-Mode", "websocket", "Upgrade", "websocket"}, false},
		"a browser that says no": {"POST", nil, false},
		"with a password":        {"GET", []string{"Authorization", "Basic x"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, asked, crossOrigin := ask(t, config("*"), c.method, origin, c.headers...)
			require.True(t, asked)
			require.Equal(t, c.ok, crossOrigin)
			with := config(origin)
			with.Credentials = true
			_, _, crossOrigin = ask(t, with, c.method, origin, c.headers...)
			require.True(t, crossOrigin, "with credentials all of that is meant")
		})
	}
}

func TestPreflight(t *testing.T) {
	h, asked, _ := ask(t, config("https://shop.example.com"), "OPTIONS", "https://shop.example.com",
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type")
	require.False(t, asked, "it is answered here")
	require.Equal(t, "https://shop.example.com", h.Get("Access-Control-Allow-Origin"))
	require.Equal(t, "POST", h.Get("Access-Control-Allow-Methods"))
	require.Empty(t, h.Get("Access-Control-Allow-Credentials"))
	h, _, _ = ask(t, config("https://shop.example.com"), "OPTIONS", "https://shop.example.com", "Access-Control-Request-Method", "DELETE")
	require.Empty(t, h.Get("Access-Control-Allow-Methods"))
}

func TestValidate(t *testing.T) {
	c := config()
	require.ErrorContains(t, c.Validate(), "say who may")
	c = config("*")
	require.NoError(t, c.Validate())
	c.Credentials = true
	require.ErrorContains(t, c.Validate(), "any page act for its visitors")
	for _, wrong := range []string{"shop.example.com", "https://shop.example.com/", "https://", "null", "file://x", "https://a.*.com", "https://*example.com", "https://Shop.example.com", "https://a@b.example"} {
		c := config(wrong)
		require.ErrorContains(t, c.Validate(), "is no origin", wrong)
	}
}
