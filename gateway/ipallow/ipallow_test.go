package ipallow_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/clientip"
	"github.com/plugmicro/micro/gateway/ipallow"
	"github.com/plugmicro/micro/internal/logtest"
	"github.com/plugmicro/micro/plugin"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, c ipallow.Config) gateway.Middleware {
	m, err := ipallow.New(new(plugin.Env), c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.(io.Closer).Close()) })
	return m
}

func write(t testing.TB, text string) string {
	file := filepath.Join(t.TempDir(), "lists.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// calls is the end of the chain, where it is known which endpoint is called.
var calls = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	service, endpoint, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if err := gateway.Of(r).Admit(service, endpoint); err != nil {
		gateway.Fail(w, r, err)
	}
})

// ask sends a request of client, who may be nobody, through m.
func ask(m gateway.Middleware, client, host, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", path, nil)
	addr, _ := netip.ParseAddr(client)
	r = gateway.With(r, &gateway.Info{ID: "7", Host: host, Client: addr})
	w := httptest.NewRecorder()
	m.Handler(calls).ServeHTTP(w, r)
	return w
}

func passes(m gateway.Middleware, client, host, path string) bool {
	return ask(m, client, host, path).Code == http.StatusOK
}

func TestLists(t *testing.T) {
	for name, c := range map[string]struct {
		config ipallow.Config
		yes    string
		no     string
	}{
		"allow":           {ipallow.Config{Allow: []string{"192.0.2.0/24", "2001:db8::1"}}, "192.0.2.0 192.0.2.255 2001:db8::1 ::ffff:192.0.2.1", "192.0.3.0 2001:db8::2 nobody ::192.0.2.1"},
		"deny":            {ipallow.Config{Deny: []string{"192.0.2.0/24", "fe80::/10"}}, "192.0.3.0 2001:db8::2", "192.0.2.1 ::ffff:192.0.2.1 fe80::1 fe80::1%eth0 nobody"},
		"deny wins":       {ipallow.Config{Allow: []string{"10.0.0.1"}, Deny: []string{"10.0.0.0/8"}}, "", "10.0.0.1 10.0.0.2 192.0.2.1 nobody"},
		"a hole":          {ipallow.Config{Allow: []string{"10.0.0.0/8"}, Deny: []string{"10.0.0.0/24"}}, "10.0.1.1", "10.0.0.1"},
		"all":             {ipallow.Config{Allow: []string{"0.0.0.0/0", "::/0"}}, "192.0.2.1 2001:db8::1", "nobody"},
		"all of IPv6":     {ipallow.Config{Allow: []string{"::/0"}}, "2001:db8::1", "192.0.2.1 ::ffff:192.0.2.1 nobody"},
		"all of IPv6 not": {ipallow.Config{Deny: []string{"::/0"}}, "192.0.2.1 ::ffff:192.0.2.1", "2001:db8::1 nobody"},
		"v4 in v6":        {ipallow.Config{Allow: []string{"::ffff:10.0.0.0/104"}}, "10.0.0.1 ::ffff:10.0.0.1", "11.0.0.1 nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, c.config)
			file := open(t, ipallow.Config{File: write(t, line("allow", c.config.Allow)+line("deny", c.config.Deny))})
			for _, client := range strings.Fields(c.yes) {
				require.True(t, passes(m, client, "a", "/x"), client)
				require.True(t, passes(file, client, "a", "/x"), client)
			}
			for _, client := range strings.Fields(c.no) {
				require.False(t, passes(m, client, "a", "/x"), client)
				require.False(t, passes(file, client, "a", "/x"), client)
			}
		})
	}
}

func line(key string, prefixes []string) string {
	if prefixes == nil {
		return ""
	}
	return key + `: ["` + strings.Join(prefixes, `", "`) + "\"]\n"
}

func TestListsOfSettingsAndFileAreOne(t *testing.T) {
	m := open(t, ipallow.Config{Allow: []string{"10.0.0.0/24"}, Deny: []string{"10.0.1.1"}, File: write(t, "allow: [10.0.1.0/24]\ndeny: [10.0.0.1]\n")})
	require.True(t, passes(m, "10.0.0.2", "a", "/"))
	require.True(t, passes(m, "10.0.1.2", "a", "/"))
	require.False(t, passes(m, "10.0.0.1", "a", "/"))
	require.False(t, passes(m, "10.0.1.1", "a", "/"))
	require.False(t, passes(m, "10.0.2.1", "a", "/"))
}

func TestRoutes(t *testing.T) {
	m := open(t, ipallow.Config{File: write(t, `
allow: [10.0.0.0/8]
deny: [10.6.6.6]
routes:
  - path: /admin/
    allow: [10.0.0.1, 10.6.6.6]
  - path: /admin/logs
    deny: [10.0.0.2]
  - path: /admin/stats
    allow: [10.0.0.3]
  - host: "*.example.com"
    allow: [192.0.2.0/24]
  - host: "*.internal.example.com"
    path: /open
    allow: ["0.0.0.0/0"]
  - host: www.example.com
    path: /news
    allow: [198.51.100.0/24]
  - host: "[::1]"
    allow: ["::1"]
  - host: 2001:db8::1
    allow: ["::1"]
`)})
	for _, c := range []struct {
		client, host, path string
		want               bool
	}{
		{"10.0.0.9", "a", "/", true},
		{"192.0.2.1", "a", "/", false},
		{"10.6.6.6", "a", "/", false},
		{"10.0.0.1", "a", "/admin", true},
		{"10.0.0.1", "a", "/admin/x", true},
		{"10.0.0.9", "a", "/admin", false},
		{"10.0.0.9", "a", "/administer", true}, // borders of segments count
		{"10.6.6.6", "a", "/admin", false},     // deny of all wins over allow of a route
		{"10.0.0.1", "a", "/admin/logs", true}, // no allow list of its own: that of /admin
		{"10.0.0.9", "a", "/admin/logs", false},
		{"10.0.0.3", "a", "/admin/stats/x", true},
		{"10.0.0.1", "a", "/admin/stats", false},
		{"192.0.2.1", "x.example.com", "/", true},
		{"10.0.0.1", "x.example.com", "/", false},
		{"192.0.2.1", "x.example.com", "/admin", true}, // the host comes before the path
		{"203.0.113.1", "x.internal.example.com", "/open", true},
		{"203.0.113.1", "x.internal.example.com", "/", false},
		{"192.0.2.1", "www.example.com", "/", true},
		{"198.51.100.1", "www.example.com", "/news/today", true},
		{"192.0.2.1", "www.example.com", "/news", false},
		{"::1", "::1", "/", true},
		{"10.0.0.1", "::1", "/", false},
		{"::1", "2001:db8::1", "/", true},
		{"10.0.0.1", "2001:db8::1", "/", false},
	} {
		require.Equal(t, c.want, passes(m, c.client, c.host, c.path), "%v", c)
	}
}

// TestDenyListsOfRoutesAddUp: a route that matches less exactly still denies.
func TestDenyListsOfRoutesAddUp(t *testing.T) {
	m := open(t, ipallow.Config{File: write(t, `
routes:
  - path: /a
    deny: [10.0.0.1]
  - path: /a/b
    allow: [10.0.0.0/24]
  - host: x
    deny: [10.0.0.2]
`)})
	require.False(t, passes(m, "10.0.0.1", "y", "/a/b"))
	require.False(t, passes(m, "10.0.0.2", "x", "/a/b"))
	require.True(t, passes(m, "10.0.0.2", "y", "/a/b"))
	require.True(t, passes(m, "10.0.0.3", "x", "/a/b"))
	require.False(t, passes(m, "10.0.1.1", "x", "/a/b"))
	require.True(t, passes(m, "10.0.1.1", "x", "/c"))
	require.False(t, passes(m, "nobody", "x", "/c"))
}

func TestServices(t *testing.T) {
	m := open(t, ipallow.Config{File: write(t, `
allow: [10.0.0.0/8, 192.0.2.0/24]
services:
  - service: accounts
    allow: [10.0.0.0/8]
    deny: [10.6.6.6]
  - service: accounts
    endpoint: Accounts.Balance
    allow: [192.0.2.0/24, 10.6.6.6]
  - service: ledger
    endpoint: Ledger.Write
    allow: [10.0.0.1]
`)})
	for _, c := range []struct {
		client, path string
		want         bool
	}{
		{"10.0.0.1", "/accounts/Accounts.Delete", true},
		{"192.0.2.1", "/accounts/Accounts.Delete", false},
		{"192.0.2.1", "/accounts/Accounts.Balance", true},
		{"10.0.0.1", "/accounts/Accounts.Balance", false},
		{"10.6.6.6", "/accounts/Accounts.Balance", false},
		{"192.0.2.1", "/greeter/Greeter.Hello", true},
		{"10.0.0.1", "/accounts", false}, // the endpoint is not known: it might be Accounts.Balance
		{"192.0.2.1", "/accounts", false},
		{"10.0.0.1", "/ledger", true},
		{"10.0.0.2", "/ledger", false},
		{"10.0.0.1", "/ledger/Ledger.Read", true},
		{"192.0.2.1", "/ledger/Ledger.Read", true},
		{"203.0.113.7", "/greeter/Greeter.Hello", false}, // who may not call anything may not call that
	} {
		require.Equal(t, c.want, passes(m, c.client, "a", c.path), "%v", c)
	}
}

func TestRefusalTellsNothing(t *testing.T) {
	m := open(t, ipallow.Config{File: write(t, "deny: [10.0.0.0/8]\nservices: [{service: accounts, allow: [192.0.2.0/24]}]")})
	for client, path := range map[string]string{"10.0.0.1": "/", "203.0.113.7": "/accounts/X", "nobody": "/"} {
		w := ask(m, client, "a", path)
		require.Equal(t, http.StatusForbidden, w.Code)
		require.JSONEq(t, `{"title":"Forbidden","status":403,"code":"PermissionDenied","detail":"this is not allowed from the address that the request comes from","request_id":"7"}`, w.Body.String())
	}
}

func TestSettings(t *testing.T) {
	for name, c := range map[string]struct {
		config ipallow.Config
		want   string
	}{
		"nothing":        {ipallow.Config{}, "there is no list"},
		"an empty allow": {ipallow.Config{Allow: []string{}, Deny: []string{"10.0.0.1"}}, "allow is an empty list"},
		"an empty deny":  {ipallow.Config{Deny: []string{}, Allow: []string{"10.0.0.1"}}, "deny is an empty list"},
		"a wrong allow":  {ipallow.Config{Allow: []string{"10.0.0.1/8"}}, `allow: "10.0.0.1/8" has bits set behind its length: write 10.0.0.0/8`},
		"a wrong deny":   {ipallow.Config{Deny: []string{"ten"}}, `deny: "ten" is no address`},
		"no file":        {ipallow.Config{File: "/does/not/exist"}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ipallow.New(new(plugin.Env), c.config)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// TestFilesThatAreRefused with the line that is to be changed.
func TestFilesThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                              ":1: it is empty",
		"# nothing\n":                   ":1: it is empty",
		"---\n":                         ":",
		"{}":                            ":1: it has no list",
		"[10.0.0.1]":                    ":1: a mapping is wanted",
		"allow:\n":                      ":1: the list is empty",
		"deny: [10.0.0.1]\nallow: []\n": ":2: the list is empty",
		"allow: [10.0.0.1]\ndeny:\n":    ":2: the list is empty",
		"allow: 10.0.0.1":               ":1: a list is wanted",
		"allow:\n  - 10.0.0.1\n  - 10.0.0.0/33\n":                                             ":3: \"10.0.0.0/33\" is no prefix",
		"allow:\n  - 10.0.0.1\n  -\n":                                                         ":3: \"\" is no address",
		"allow: [10.0.0.1, 10.0.0.2.3]":                                                       "\"10.0.0.2.3\" is no address",
		"allow: [[10.0.0.1]]":                                                                 ":1: an address or a prefix is wanted",
		"allow: [10.0.0.1/8]":                                                                 "write 10.0.0.0/8",
		"allow: [{2001: db8}]":                                                                "put one of IPv6 into quotes",
		"allow: [10.0.0.1]\nalow: [10.0.0.2]":                                                 ":2: unknown key \"alow\"",
		"allow: [10.0.0.1]\nallow: [10.0.0.2]":                                                ":2: \"allow\" is there twice",
		"allow: [10.0.0.1]\n---\nallow: [10.0.0.2]":                                           ":2: a file has one document",
		"allow: [10.0.0.1\n":                                                                  ":1: did not find",
		"\tallow: [10.0.0.1]":                                                                 ":1: found character",
		"allow: &a [10.0.0.1]\ndeny: *a":                                                      ":2: aliases are not supported",
		"routes: [{path: /a}]":                                                                ":1: it has no list",
		"routes: [{allow: [10.0.0.1]}]":                                                       ":1: a route has a host, a path or both",
		"routes:\n  - path:\n    allow: [10.0.0.1]":                                           ":2: a plain value is wanted",
		"routes: [{path: a, allow: [10.0.0.1]}]":                                              "must begin with a slash",
		"routes: [{path: /a/../b, allow: [10.0.0.1]}]":                                        "no request has the path",
		"routes: [{path: /a%20b/%2fc, allow: [10.0.0.1]}]\nx: 1":                              "unknown key",
		"routes: [{host: A.example.com, allow: [10.0.0.1]}]":                                  "is no host",
		"routes: [{host: 'a.example.com:80', allow: [10.0.0.1]}]":                             "is no host",
		"routes: [{host: '*example.com', allow: [10.0.0.1]}]":                                 "is no host",
		"routes: [{host: a.*, allow: [10.0.0.1]}]":                                            "is no host",
		"routes: [{host: '*.A', allow: [10.0.0.1]}]":                                          "is no host",
		"routes: [{host: '*.[::1]', allow: [10.0.0.1]}]":                                      "is no host",
		"routes: [{host: '[::1]', allow: [10.0.0.1]},\n {host: '::1', deny: [10.0.0.1]}]":     ":2: the route ::1/ is there twice",
		"routes: [{path: /a, allow: [10.0.0.1], method: GET}]":                                "unknown key \"method\"",
		"routes: [{path: /a, allow: [10.0.0.1]},\n {host: '*', path: /a/, deny: [10.0.0.1]}]": ":2: the route /a is there twice",
		"services: [{allow: [10.0.0.1]}]":                                                     "the name of the service is missing",
		"services: [{service: ~, allow: [10.0.0.1]}]":                                         "a plain value is wanted",
		"services: [{service: a, endpoint: '', allow: [10.0.0.1]}]":                           "a name is wanted",
		"services: [{service: a}]":                                                            "it has no list",
		"services: [{service: a, deny: []}]":                                                  "the list is empty",
		"services: [{service: a, deny: [10.0.0.1]},\n {service: a, allow: [10.0.0.2]}]":       ":2: the service a is there twice",
	} {
		t.Run(text, func(t *testing.T) {
			file := write(t, text)
			_, err := ipallow.New(new(plugin.Env), ipallow.Config{File: file, Allow: []string{"10.0.0.9"}})
			require.ErrorContains(t, err, want)
			require.ErrorContains(t, err, file)
		})
	}
	_, err := ipallow.New(new(plugin.Env), ipallow.Config{File: write(t, "allow: ["+strings.Repeat("x,", 100)+"]")})
	require.ErrorContains(t, err, "and 80 more")
}

// TestReload: what is wrong keeps what was good.
func TestReload(t *testing.T) {
	file := write(t, "allow: [10.0.0.1]")
	m := open(t, ipallow.Config{File: file})
	require.True(t, passes(m, "10.0.0.1", "a", "/"))
	put := func(text string) {
		require.NoError(t, os.WriteFile(file+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
	}
	put("allow: [10.0.0.2]\nservices: [{service: accounts, deny: [10.0.0.2]}]")
	require.Eventually(t, func() bool { return passes(m, "10.0.0.2", "a", "/x") }, 10*time.Second, time.Millisecond)
	require.False(t, passes(m, "10.0.0.1", "a", "/"))
	require.False(t, passes(m, "10.0.0.2", "a", "/accounts/X"))

	var log logtest.Buffer
	file = write(t, "allow: [10.0.0.1]")
	l := plugin.NewLoader(plugin.Linked)
	require.NoError(t, l.Parse([]string{"--gateway-middleware=ipwhitelist", "--middleware-ipwhitelist-file=" + file}))
	s, err := l.Load(nil)
	require.NoError(t, err)
	host := s.Open(t.Context(), slog.New(slog.NewTextHandler(&log, nil)))
	defer func() { require.NoError(t, host.Close()) }()
	all, err := plugin.OpenAll[gateway.Middleware](host)
	require.NoError(t, err)
	for _, wrong := range []string{"allow: []", "", "allow: [10.0.0.0/8", "allow: [all]"} {
		put(wrong)
		require.Eventually(t, func() bool { return strings.Contains(log.String(), "not used") }, 10*time.Second, time.Millisecond)
		require.True(t, passes(all[0], "10.0.0.1", "a", "/"), wrong)
		require.False(t, passes(all[0], "10.0.0.2", "a", "/"), wrong)
		log.Reset()
	}
	require.NoError(t, os.Remove(file))
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "not used") }, 10*time.Second, time.Millisecond)
	require.False(t, passes(all[0], "10.0.0.2", "a", "/"))
	put("allow: [10.0.0.2]")
	require.Eventually(t, func() bool { return passes(all[0], "10.0.0.2", "a", "/") }, 10*time.Second, time.Millisecond)
}

// TestOptions: an option that is there and empty is no permission for everybody.
func TestOptions(t *testing.T) {
	load := func(args ...string) error {
		l := plugin.NewLoader(plugin.Linked)
		require.NoError(t, l.Parse(append([]string{"--gateway-middleware=ipallow"}, args...)))
		_, err := l.Load(nil)
		return err
	}
	require.NoError(t, load("--middleware-ipallow-allow=10.0.0.1,2001:db8::/32", "--middleware-ipallow-deny=10.0.0.1", "--middleware-ipallow-dry-run"))
	require.ErrorContains(t, load(), "there is no list")
	require.ErrorContains(t, load("--middleware-ipallow-deny=10.0.0.1", "--middleware-ipallow-allow="), "allow is an empty list")
	require.ErrorContains(t, load("--middleware-ipallow-deny=10.0.0.1", "--middleware-ipallow-allow=,"), "allow is an empty list")
	require.ErrorContains(t, load("--middleware-ipallow-allow=10.0.0.1/8"), "10.0.0.0/8")
	require.ErrorContains(t, load("--middleware-ipwhitelist-allow=10.0.0.1"), "ipwhitelist")
}

func TestDryRun(t *testing.T) {
	var log logtest.Buffer
	l := plugin.NewLoader(plugin.Linked)
	file := write(t, "services: [{service: accounts, deny: [10.0.0.2]}]")
	require.NoError(t, l.Parse([]string{"--gateway-middleware=ipallow", "--middleware-ipallow-dry-run", "--middleware-ipallow-allow=10.0.0.1,10.0.0.2", "--middleware-ipallow-file=" + file}))
	s, err := l.Load(nil)
	require.NoError(t, err)
	host := s.Open(t.Context(), slog.New(slog.NewTextHandler(&log, nil)))
	defer func() { require.NoError(t, host.Close()) }()
	all, err := plugin.OpenAll[gateway.Middleware](host)
	require.NoError(t, err)
	m := all[0]
	for _, client := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "nobody"} {
		require.True(t, passes(m, client, "a", "/accounts/X"), client)
	}
	require.Contains(t, log.String(), `msg="request would be refused" plugin=middleware/ipallow client=10.0.0.3 list=all request_id=7`)
	require.Contains(t, log.String(), `client=unknown list="client unknown"`)
	require.Contains(t, log.String(), `client=10.0.0.2 list="service accounts"`)
	require.Equal(t, 3, strings.Count(log.String(), "WARN"), "strangers must not fill the log")
	require.NoError(t, testutil.CollectAndCompare(m.(prometheus.Collector), strings.NewReader(`
# HELP micro_gateway_ipallow_requests_total Requests by the list that decided, and what it did: allowed, denied, or would_deny in a dry run.
# TYPE micro_gateway_ipallow_requests_total counter
micro_gateway_ipallow_requests_total{did="allowed",list="all",plugin="ipallow"} 2
micro_gateway_ipallow_requests_total{did="allowed",list="client unknown",plugin="ipallow"} 0
micro_gateway_ipallow_requests_total{did="allowed",list="service accounts",plugin="ipallow"} 3
micro_gateway_ipallow_requests_total{did="would_deny",list="all",plugin="ipallow"} 2
micro_gateway_ipallow_requests_total{did="would_deny",list="client unknown",plugin="ipallow"} 1
micro_gateway_ipallow_requests_total{did="would_deny",list="service accounts",plugin="ipallow"} 1
`)))
}

// TestBothNamesAtOnce can be collected together.
func TestBothNamesAtOnce(t *testing.T) {
	l := plugin.NewLoader(plugin.Linked)
	require.NoError(t, l.Parse([]string{"--gateway-middleware=ipallow,ipwhitelist", "--middleware-ipallow-allow=10.0.0.0/8", "--middleware-ipwhitelist-deny=10.0.0.1"}))
	s, err := l.Load(nil)
	require.NoError(t, err)
	host := s.Open(t.Context(), nil)
	defer func() { require.NoError(t, host.Close()) }()
	all, err := plugin.OpenAll[gateway.Middleware](host)
	require.NoError(t, err)
	require.Len(t, all, 2)
	r := prometheus.NewPedanticRegistry()
	for _, m := range all {
		require.NoError(t, r.Register(m.(prometheus.Collector)))
	}
	_, err = r.Gather()
	require.NoError(t, err)
}

// gate is a server as the gateway is one: the client is found out, the request brought into its normal form, and m asked.
func gate(t testing.TB, s clientip.Settings, m gateway.Middleware) net.Listener {
	who, err := clientip.New(s)
	require.NoError(t, err)
	who.Log = slog.New(slog.DiscardHandler)
	chain := m.Handler(calls)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info := new(gateway.Info)
		r = gateway.With(r, info)
		var err error
		if info.Host, err = gateway.Prepare(r); err != nil {
			gateway.Fail(w, r, err)
			return
		}
		info.Client, info.Secure, _ = who.Client(r)
		chain.ServeHTTP(w, r)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(who.Listener(l)) }()
	t.Cleanup(func() { require.NoError(t, srv.Close()); <-done })
	return l
}

// send sends lines of a head as they are and returns the status of the answer; 0 if the connection is closed without one.
func send(t testing.TB, l net.Listener, before string, lines ...string) int {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	_, _ = io.WriteString(conn, before+"GET /accounts/X HTTP/1.1\r\nHost: a\r\n"+strings.Join(append(lines, "X-End: 1"), "\r\n")+"\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		return 0
	}
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

// lies are tried by a client, at 203.0.113.7, which is not allowed, to be taken for 10.9.9.9, which is. FOR stands for the header.
var lies = []string{
	"FOR: 10.9.9.9",
	"FOR: 10.9.9.9, 10.9.9.9",
	"FOR: 10.9.9.9,",
	"FOR: 10.9.9.9, \t",
	"FOR:\t10.9.9.9\t",
	"FOR: 10.9.9.9:80",
	"FOR: [::ffff:10.9.9.9]:80",
	"FOR: ::ffff:10.9.9.9",
	"FOR: ::ffff:a09:909",
	"FOR: ::1%10.9.9.9",
	"FOR: 10.9.9.9%eth0",
	"FOR: 168364297",
	"FOR: 012.011.011.011",
	"FOR: 0xa.9.9.9",
	"FOR: unknown",
	"FOR: _hidden, 10.9.9.9",
	"FOR: \"10.9.9.9\"",
	"FOR: for=10.9.9.9",
	"FOR: " + strings.Repeat("10.9.9.9,", 10000) + "10.9.9.9",
	"for: 10.9.9.9",
	"X_Forwarded_For: 10.9.9.9",
	"X-Forwarded_For: 10.9.9.9",
	"X-Real-IP: 10.9.9.9",
	"True-Client-IP: 10.9.9.9",
	"Client-IP: 10.9.9.9",
	"CF-Connecting-IP: 10.9.9.9",
	"Forwarded: for=10.9.9.9",
	"X-Original-Forwarded-For: 10.9.9.9",
	"Connection: X-Forwarded-For",
	"Connection: close, FOR",
	"Host: 10.9.9.9",
	"FOR : 10.9.9.9",
	"FOR: 10.9.9.9\n\tX: y",
}

// TestLies sends each lie to a gateway that trusts nobody, then through a proxy that appends what it sees to the last line,
// as a line of its own, or, as one does that obeys Connection, not at all.
func TestLies(t *testing.T) {
	for _, config := range []ipallow.Config{
		{Allow: []string{"10.0.0.0/8"}},
		{Deny: []string{"203.0.113.0/24", "127.0.0.1"}},
		{File: write(t, "services: [{service: accounts, allow: [10.0.0.0/8]}]")},
	} {
		m := open(t, config)
		alone := gate(t, clientip.Settings{TrustedProxies: []string{"192.0.2.1"}, ClientHeader: "x-forwarded-for"}, m)
		behind := gate(t, clientip.Settings{TrustedProxies: []string{"127.0.0.1"}, ClientHeader: "x-forwarded-for"}, m)
		for _, lie := range lies {
			lie = strings.ReplaceAll(lie, "FOR", "X-Forwarded-For")
			name := fmt.Sprintf("%.60q", lie)
			require.Contains(t, []int{403, 400}, send(t, alone, "", lie), name)
			require.Contains(t, []int{403, 400}, send(t, behind, "", lie, "X-Forwarded-For: 203.0.113.7"), name)
			if !strings.Contains(lie, "\n") && strings.HasPrefix(strings.ToLower(lie), "x-forwarded-for:") {
				require.Contains(t, []int{403, 400}, send(t, behind, "", lie+", 203.0.113.7"), name)
			}
		}
		require.Equal(t, 403, send(t, behind, ""), "the header is missing")
		require.Equal(t, 403, send(t, behind, "", "Connection: X-Forwarded-For"), "and was removed")
		require.Equal(t, 400, send(t, behind, "", "Connection: X-Forwarded-For", "X-Forwarded-For: 203.0.113.7"))
		require.Equal(t, 200, send(t, behind, "", "X-Forwarded-For: 203.0.113.7, 10.9.9.9"), "what a trusted proxy says is believed")
	}
}

// proxied are headers of the PROXY protocol, of both versions, that say src is the client.
func proxied(t *testing.T, src string) []string {
	var forms []string
	for _, version := range []byte{1, 2} {
		header := &proxyproto.Header{
			Version: version, Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4,
			SourceAddr:      net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(src), 1)),
			DestinationAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:80")),
		}
		data, err := header.Format()
		require.NoError(t, err)
		forms = append(forms, string(data))
	}
	return forms
}

func TestLiesByPROXY(t *testing.T) {
	gates := func(m gateway.Middleware) (off, untrusted, trusted net.Listener) {
		return gate(t, clientip.Settings{}, m),
			gate(t, clientip.Settings{TrustedProxies: []string{"192.0.2.1"}, ProxyProtocol: true}, m),
			gate(t, clientip.Settings{TrustedProxies: []string{"127.0.0.1"}, ProxyProtocol: true}, m)
	}
	for name, config := range map[string]ipallow.Config{
		"allow":      {Allow: []string{"10.0.0.0/8", "127.0.0.1"}},
		"deny":       {Deny: []string{"203.0.113.0/24"}},
		"a route":    {File: write(t, "routes: [{path: /accounts, allow: [10.0.0.0/8, 127.0.0.1]}]")},
		"a service":  {File: write(t, "services: [{service: accounts, deny: [203.0.113.0/24]}]")},
		"a wildcard": {Allow: []string{"0.0.0.0/0"}, Deny: []string{"203.0.113.7"}},
	} {
		t.Run(name, func(t *testing.T) {
			off, untrusted, trusted := gates(open(t, config))
			good, denied := proxied(t, "10.9.9.9"), proxied(t, "203.0.113.7")
			for i := range good {
				for _, header := range []string{good[i], denied[i]} {
					require.Equal(t, 400, send(t, off, header))
					require.Equal(t, 0, send(t, untrusted, header))
					require.Equal(t, 400, send(t, trusted, header+good[0]))
				}
				require.Equal(t, 200, send(t, trusted, good[i]))
				require.Equal(t, 403, send(t, trusted, denied[i]))
				require.Equal(t, 403, send(t, trusted, denied[i], "X-Forwarded-For: 10.9.9.9"))
			}
			require.Equal(t, 0, send(t, trusted, ""), "without a header there is no client, though the proxy is allowed")
			require.Equal(t, 403, send(t, trusted, "PROXY UNKNOWN\r\n"), "nor with one that knows none")
		})
	}
}

// FuzzFile holds that no file panics, and that one that is taken lets nobody pass whose address is not known.
func FuzzFile(f *testing.F) {
	for _, s := range []string{"allow: [10.0.0.1]", "routes: [{host: '*.a', path: /a, deny: ['::1']}]", "services: [{service: a, endpoint: b, allow: [10.0.0.0/8]}]", "deny: &a [1.1.1.1]\nallow: *a", "? [a]\n: b", "allow: !!set {a}"} {
		f.Add(s)
	}
	file := filepath.Join(f.TempDir(), "f")
	f.Fuzz(func(t *testing.T, text string) {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		m, err := ipallow.New(new(plugin.Env), ipallow.Config{File: file})
		if err != nil {
			return
		}
		defer m.(io.Closer).Close()
		require.False(t, passes(m, "nobody", "a", "/a/b"))
		require.Regexp(t, "allow|deny", text)
		passes(m, "10.0.0.1", "a", "/a/b")
	})
}

// many is a file with n prefixes of both kinds.
func many(t testing.TB, n int, more string) string {
	rnd := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	b.WriteString("allow:\n")
	for i := range n {
		var a [16]byte
		binary.BigEndian.PutUint64(a[:], 0x2000_0000_0000_0000|rnd.Uint64()>>3)
		p, err := netip.AddrFrom16(a).Prefix(29 + rnd.IntN(36))
		if i%2 == 0 {
			p, err = netip.AddrFrom4([4]byte(a[4:8])).Prefix(16 + rnd.IntN(17))
		}
		require.NoError(t, err)
		fmt.Fprintf(&b, "  - %s\n", p)
	}
	return write(t, b.String()+more)
}

// TestManyPrefixesTakeLittleMemory: what is kept of 100,000 prefixes, the file included, and what loading them allocates.
func TestManyPrefixesTakeLittleMemory(t *testing.T) {
	const n = 100_000
	file := many(t, n, "")
	heap := func() (m runtime.MemStats) {
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m
	}
	before := heap()
	m := open(t, ipallow.Config{File: file})
	after := heap()
	require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(n*200), "bytes that are kept")
	require.Less(t, after.Mallocs-before.Mallocs, uint64(n*100), "allocations")
	t.Logf("for each prefix: %d bytes kept, %d allocations", (int64(after.HeapAlloc)-int64(before.HeapAlloc))/n, (after.Mallocs-before.Mallocs)/n)
	require.False(t, passes(m, "nobody", "a", "/"))
	for _, client := range prefixes(t, 100) {
		require.True(t, passes(m, client.String(), "a", "/"))
	}
}

func BenchmarkLoading100000(b *testing.B) {
	file := many(b, 100_000, "")
	b.ReportAllocs()
	for b.Loop() {
		m, err := ipallow.New(new(plugin.Env), ipallow.Config{File: file})
		require.NoError(b, err)
		require.NoError(b, m.(io.Closer).Close())
	}
}

// BenchmarkRequest is what ipallow adds to a request: clients that are in the list and such that are not, in a dry run so
// that refusing is not measured.
func BenchmarkRequest(b *testing.B) {
	services := "services: [{service: accounts, allow: [10.0.0.0/8]}]\n"
	for _, c := range []struct {
		name string
		n    int
		more string
	}{{"1", 1, ""}, {"100000", 100_000, ""}, {"100000 and a service", 100_000, services}} {
		b.Run(c.name, func(b *testing.B) {
			m := open(b, ipallow.Config{File: many(b, c.n, c.more+"deny: [10.0.0.0/8]\n")})
			h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if err := gateway.Of(r).Admit("greeter", "Greeter.Hello"); err != nil {
					b.Fatal(err)
				}
			}))
			list := prefixes(b, c.n)
			r := httptest.NewRequest("POST", "/greeter/hello", nil)
			w := httptest.NewRecorder()
			info := new(gateway.Info)
			r = gateway.With(r, info)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				*info = gateway.Info{Host: "a", Client: list[i%len(list)]}
				h.ServeHTTP(w, r)
				i += 7919
			}
			require.Equal(b, http.StatusOK, w.Code)
		})
	}
}

// prefixes are addresses that are in what many writes.
func prefixes(t testing.TB, n int) []netip.Addr {
	data, err := os.ReadFile(many(t, n, ""))
	require.NoError(t, err)
	var list []netip.Addr
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "  - "); ok {
			if a := netip.MustParsePrefix(strings.TrimSpace(text)).Addr(); !netip.MustParsePrefix("10.0.0.0/8").Contains(a) {
				list = append(list, a)
			}
		}
	}
	return list
}
