package gateway_test

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway"
)

func TestPath(t *testing.T) {
	for in, want := range map[string]string{ // what is forwarded; "" is refused
		"/":                       "/",
		"/greeter/hello":          "/greeter/hello",
		"/greeter/hello/":         "/greeter/hello/",
		"/Greeter/Hello":          "/Greeter/Hello",
		"//greeter///hello":       "/greeter/hello",
		"/greeter/./hello":        "/greeter/hello",
		"/a/../greeter/hello":     "/greeter/hello",
		"/a/%2e%2e/greeter":       "/greeter",
		"/a/%2E./greeter":         "/greeter",
		"/a/..":                   "/",
		"/a/b/..":                 "/a/",
		"/a/b/.":                  "/a/b/",
		"/%61dmin":                "/admin",
		"/a%20b":                  "/a%20b",
		"/a%252fb":                "/a%252fb",
		"/a%252e%252e/b":          "/a%252e%252e/b",
		"/caf%C3%A9":              "/caf%C3%A9",
		"/a%3fb":                  "/a%3Fb",
		"/a;b":                    "/a%3Bb",
		"/a%3bb":                  "/a%3Bb",
		"/a/..;/admin":            "/a/..%3B/admin",
		"/.well-known/x":          "/.well-known/x",
		"/...":                    "/...",
		"/a%2fb":                  "",
		"/a%2Fb":                  "",
		"/a/..%2f..%2fadmin":      "",
		"/a%5cb":                  "",
		`/a\b`:                    "",
		"/..":                     "",
		"/../admin":               "",
		"/a/../../admin":          "",
		"/%2e%2e/admin":           "",
		"/a%00b":                  "",
		"/a%0d%0aHost:%20x":       "",
		"/a%ff":                   "",
		"/a%c0%af":                "",
		"http://other.example/a":  "/a",
		"http://other.example/..": "",
	} {
		t.Run(in, func(t *testing.T) {
			r := request(t, in)
			_, err := gateway.Prepare(r)
			if want == "" {
				require.Equal(t, http.StatusBadRequest, gateway.ProblemOf(err).Status)
				return
			}
			require.NoError(t, err)
			require.Equal(t, want, r.URL.EscapedPath())
			decoded, err := url.PathUnescape(want)
			require.NoError(t, err)
			require.Equal(t, decoded, r.URL.Path, "what is routed is what is forwarded")
		})
	}
}

func request(t testing.TB, target string) *http.Request {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: a\r\n\r\n")))
	require.NoError(t, err)
	return r
}

func TestHost(t *testing.T) {
	for in, want := range map[string][2]string{
		"api.example.com":        {"api.example.com", "api.example.com"},
		"API.Example.com:8080":   {"api.example.com:8080", "api.example.com"},
		"api.example.com.":       {"api.example.com", "api.example.com"},
		"api.example.com.:80":    {"api.example.com:80", "api.example.com"},
		"[::1]:8080":             {"[::1]:8080", "::1"},
		"[0:0::1]":               {"[0:0::1]", "::1"},
		"127.0.0.1:1":            {"127.0.0.1:1", "127.0.0.1"},
		"a_b":                    {"a_b", "a_b"},
		"":                       {},
		".":                      {},
		"a..b":                   {},
		"a:b":                    {},
		"a/b":                    {},
		"user@a":                 {},
		"[::1":                   {},
		"[fe80::1%25eth0]":       {},
		"::1":                    {},
		"a b":                    {},
		"a,b":                    {},
		strings.Repeat("a", 300): {},
	} {
		t.Run(in, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Host = in
			host, err := gateway.Prepare(r)
			if want[0] == "" {
				require.Equal(t, http.StatusBadRequest, gateway.ProblemOf(err).Status)
				return
			}
			require.NoError(t, err)
			require.Equal(t, want, [2]string{r.Host, host})
		})
	}
}

func TestQuery(t *testing.T) {
	for q, ok := range map[string]bool{
		"": true, "a=1&b=2": true, "a=%3B": true, "a=1;b=2": false, "a=%zz": false, "a=%4": false, "a=%": false, "a=b c": false,
		"a=b#": false, "a=b#&c=d": false, "a=%23": true,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.RawQuery = q
		_, err := gateway.Prepare(r)
		require.Equal(t, ok, err == nil, q)
	}
}

func TestHeaders(t *testing.T) {
	for name, c := range map[string]struct {
		in, want http.Header // nil is refused
	}{
		"underscores":               {http.Header{"X_forwarded_for": {"1.1.1.1"}, "A": {"b"}}, http.Header{"A": {"b"}}},
		"an upgrade to h2c":         {http.Header{"Upgrade": {"h2c"}, "Connection": {"Upgrade, HTTP2-Settings"}, "Http2-Settings": {"x"}}, http.Header{}},
		"settings alone":            {http.Header{"Http2-Settings": {"x"}}, http.Header{}},
		"h2c hidden behind another": {http.Header{"Upgrade": {"websocket, h2c"}, "Connection": {"upgrade"}}, http.Header{}},
		"h2c in a second line":      {http.Header{"Upgrade": {"websocket", "h2c"}, "Connection": {"upgrade"}}, http.Header{}},
		"a WebSocket":               {http.Header{"Upgrade": {"WebSocket"}, "Connection": {"Upgrade"}}, http.Header{"Upgrade": {"WebSocket"}, "Connection": {"Upgrade"}}},
		"a header taken away":       {http.Header{"X-Forwarded-For": {"1.1.1.1"}, "Connection": {"close, x-forwarded-for"}}, nil},
		"an empty line before":      {http.Header{"X-User": {"", "bob"}, "Connection": {"x-user"}}, nil},
		"credentials taken away":    {http.Header{"Authorization": {"Basic x"}, "Connection": {"Authorization"}}, nil},
		"keep-alive":                {http.Header{"Connection": {"keep-alive, foo"}}, http.Header{"Connection": {"keep-alive, foo"}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header = c.in
			_, err := gateway.Prepare(r)
			if c.want == nil {
				require.Equal(t, http.StatusBadRequest, gateway.ProblemOf(err).Status)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, r.Header)
		})
	}
	r := httptest.NewRequest("CONNECT", "/", nil)
	_, err := gateway.Prepare(r)
	require.Equal(t, http.StatusMethodNotAllowed, gateway.ProblemOf(err).Status)
}

func TestHasPrefix(t *testing.T) {
	require.True(t, gateway.HasPrefix("/api", "/api"))
	require.True(t, gateway.HasPrefix("/api/x", "/api"))
	require.True(t, gateway.HasPrefix("/api/x", "/api/"))
	require.True(t, gateway.HasPrefix("/x", "/"))
	require.False(t, gateway.HasPrefix("/apis", "/api"))
	require.False(t, gateway.HasPrefix("/API", "/api"))
}

func TestCheckPaths(t *testing.T) {
	require.NoError(t, gateway.CheckPaths("public", []string{"/", "/a", "/a/b/", "/ä b"}))
	err := gateway.CheckPaths("public", []string{"a", "/a/../b", "//a"})
	require.ErrorContains(t, err, `public: "a" must begin with a slash`)
	require.ErrorContains(t, err, `"/a/../b"`)
	require.ErrorContains(t, err, `"//a"`)
	require.True(t, gateway.IsBelow("/b/c", []string{"/a", "/b"}))
	require.False(t, gateway.IsBelow("/c", []string{"/a", "/b"}))
}

// TestIsPublic: a body can name any endpoint, those behind other paths included.
func TestIsPublic(t *testing.T) {
	for _, c := range []struct {
		path   string
		public []string
		want   bool
	}{
		{"/a/b", []string{"/a"}, true},
		{"/b", []string{"/a"}, false},
		{"/v1/greeter/hello", []string{"/v1"}, true},
		{"/v1/rpc", []string{"/v1"}, false},
		{"/v1/rpc/", []string{"/v1/"}, false},
		{"/v1/rpc", []string{"/v1", "/v1/rpc"}, true},
		{"/v1/rpc", []string{"/"}, true},
		{"/v1/rpcs", []string{"/v1"}, true},
	} {
		require.Equal(t, c.want, gateway.IsPublic(c.path, c.public), "%s %q", c.path, c.public)
	}
}

func TestMatchHost(t *testing.T) {
	require.True(t, gateway.MatchHost("a.example.com", "a.example.com"))
	require.True(t, gateway.MatchHost("a.example.com", "*.example.com"))
	require.True(t, gateway.MatchHost("b.a.example.com", "*.example.com"))
	require.True(t, gateway.MatchHost("anything", "*"))
	require.False(t, gateway.MatchHost("example.com", "*.example.com"))
	require.False(t, gateway.MatchHost("aexample.com", "*.example.com"))
	require.False(t, gateway.MatchHost("1.2.3.4", "*.4"))
}

func TestCheckHost(t *testing.T) {
	for pattern, want := range map[string]string{
		"*": "*", "example.com": "example.com", "a_b": "a_b", "*.example.com": "*.example.com", "192.0.2.1": "192.0.2.1",
		"2001:db8::1": "2001:db8::1", "[2001:db8::1]": "2001:db8::1", "::ffff:192.0.2.1": "::ffff:192.0.2.1",
	} {
		got, err := gateway.CheckHost(pattern)
		require.NoError(t, err, pattern)
		require.Equal(t, want, got)
		if strings.HasPrefix(got, "*") {
			continue
		}
		for _, header := range []string{got, "[" + got + "]"} {
			r := request(t, "/")
			r.Host = header
			if host, err := gateway.Prepare(r); err == nil {
				require.True(t, gateway.MatchHost(host, got), "%s takes the header %s", pattern, header)
			}
		}
	}
	for pattern, want := range map[string]string{
		"": "is no host", "A.example.com": "is no host", "example.com.": "is no host", "a:80": "is no host", "[::1]:80": "is no host",
		"*.": "is no host", "*example.com": "is no host", "a.*": "is no host", "*.*": "is no host", "*.[::1]": "is no host", "*.::1": "is no host",
		"0:0::1": "write ::1", "[0:0::1]": "write ::1", "2001:DB8::1": "write 2001:db8::1", "fe80::1%eth0": "write fe80::1", "[192.0.2.1]": "write 192.0.2.1",
		"[::1": "write ::1", "::1]": "write ::1",
	} {
		_, err := gateway.CheckHost(pattern)
		require.ErrorContains(t, err, want, pattern)
	}
}

// FuzzPrepare holds that the normal form is one: it is what a server behind reads from what is forwarded, and preparing it
// again changes nothing.
func FuzzPrepare(f *testing.F) {
	for _, s := range []string{"/a/../b", "/%2e%2e/a", "/a%2fb", "/a;b/..;/c", "//a", "/a%252f", "/ä", "http://x/y", "/a?b=%3B", "*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: a\r\n\r\n")))
		if err != nil {
			return
		}
		if _, err := gateway.Prepare(r); err != nil {
			return
		}
		p := r.URL.Path
		require.True(t, strings.HasPrefix(p, "/"))
		require.NotContains(t, p, "//")
		require.NotContains(t, p+"/", "/../")
		require.NotContains(t, p+"/", "/./")
		forwarded := request(t, r.URL.RequestURI())
		require.Equal(t, p, forwarded.URL.Path)
		_, err = gateway.Prepare(forwarded)
		require.NoError(t, err)
		require.Equal(t, p, forwarded.URL.Path)
		require.Equal(t, r.URL.RequestURI(), forwarded.URL.RequestURI())
	})
}

func BenchmarkPrepare(b *testing.B) {
	r := httptest.NewRequest("POST", "/greeter/hello", nil)
	r.Host = "localhost:8080"
	r.Header = http.Header{"Content-Type": {"application/json"}, "User-Agent": {"x"}, "Accept": {"*/*"}}
	for b.Loop() {
		if _, err := gateway.Prepare(r); err != nil {
			b.Fatal(err)
		}
	}
}
