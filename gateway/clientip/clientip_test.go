package clientip_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/gateway/clientip"
	"github.com/plugmicro/micro/plugin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSettings(t *testing.T) {
	for name, c := range map[string]struct {
		s    clientip.Settings
		want []string // in the error; none: it is right
	}{
		"nothing set":         {clientip.Settings{}, nil},
		"none":                {clientip.Settings{ClientHeader: "none"}, nil},
		"all":                 {clientip.Settings{TrustedProxies: []string{"10.0.0.0/8", "::1", "unix"}, ClientHeader: "forwarded", ProxyProtocol: true}, nil},
		"header, no proxies":  {clientip.Settings{ClientHeader: "forwarded"}, []string{"client-header is forwarded", "trusted-proxies"}},
		"PROXY, no proxies":   {clientip.Settings{ProxyProtocol: true}, []string{"proxy-protocol is on", "trusted-proxies"}},
		"proxies, not how":    {clientip.Settings{TrustedProxies: []string{"unix"}}, []string{"client-header, proxy-protocol"}},
		"an unknown header":   {clientip.Settings{TrustedProxies: []string{"::1"}, ClientHeader: "X-Forwarded-For"}, []string{`"X-Forwarded-For" is unknown`, "x-forwarded-for, forwarded"}},
		"several are wrong":   {clientip.Settings{TrustedProxies: []string{"ten", "10.0.0.1/8"}, ClientHeader: "x"}, []string{`"ten"`, "write 10.0.0.0/8", `"x" is unknown`}},
		"everybody of a kind": {clientip.Settings{TrustedProxies: []string{"0.0.0.0/0"}, ClientHeader: "x-real-ip"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.s.Validate()
			if c.want == nil {
				require.NoError(t, err)
				return
			}
			for _, text := range c.want {
				require.ErrorContains(t, err, text)
			}
		})
	}
}

// gate is how a gateway has them.
type gate struct {
	Listen string `default:":8080"`
	clientip.Settings
}

func TestSettingsAreOptionsOfTheGateway(t *testing.T) {
	var g gate
	l := plugin.NewLoader(plugin.NewCatalog())
	l.Section("gateway", &g)
	require.NoError(t, l.Parse([]string{"--gateway-trusted-proxies=10.0.0.0/8,unix", "--gateway-client-header=forwarded", "--gateway-proxy-protocol"}))
	_, err := l.Load(nil)
	require.NoError(t, err)
	require.Equal(t, clientip.Settings{TrustedProxies: []string{"10.0.0.0/8", "unix"}, ClientHeader: "forwarded", ProxyProtocol: true}, g.Settings)

	l = plugin.NewLoader(plugin.NewCatalog())
	l.Section("gateway", new(gate))
	require.NoError(t, l.Parse([]string{"--gateway-client-header=forwarded"}))
	_, err = l.Load(nil)
	require.ErrorContains(t, err, "trusted-proxies")
}

// answer is what a server says of its client: the address, " secure" if it is, or "refused".
func answer(who *clientip.Resolver) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client, secure, err := who.Client(r)
		switch {
		case err != nil && client.IsValid():
			_, _ = io.WriteString(w, "an error with a client")
		case err != nil:
			_, _ = io.WriteString(w, "refused")
		case secure:
			_, _ = io.WriteString(w, client.String()+" secure")
		default:
			_, _ = io.WriteString(w, client.String())
		}
	})
}

// serve runs a real server, because it is net/http that decides what a line of a header is.
func serve(t testing.TB, l net.Listener, s clientip.Settings) {
	who, err := clientip.New(s)
	require.NoError(t, err)
	who.Log = slog.New(slog.DiscardHandler)
	srv := &http.Server{Handler: answer(who), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(who.Listener(l)) }()
	t.Cleanup(func() { require.NoError(t, srv.Close()); <-done })
}

func listen(t testing.TB, network, addr string) net.Listener {
	l, err := net.Listen(network, addr)
	require.NoError(t, err)
	return l
}

// ask sends bytes as they are, and returns the body of the answer, or the status if it is not 200, or "closed".
func ask(t testing.TB, conn net.Conn, raw string) string {
	t.Helper()
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	if _, err := io.WriteString(conn, raw); err != nil {
		return "closed"
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		return "closed"
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	if resp.StatusCode != http.StatusOK {
		return strconv.Itoa(resp.StatusCode)
	}
	return string(body)
}

func get(lines ...string) string {
	return "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Join(append(lines, "Connection: close"), "\r\n") + "\r\n\r\n"
}

func dial(t testing.TB, l net.Listener) net.Conn {
	conn, err := net.Dial(l.Addr().Network(), l.Addr().String())
	require.NoError(t, err)
	return conn
}

const (
	refused = "refused"
	bad     = "400"
)

// forms are the forms of X-Forwarded-For that have been ways round a list. The peer, 127.0.0.1, is trusted, and so is 10.0.0.0/8.
var forms = map[string]struct {
	lines []string
	want  string
}{
	"one":                        {[]string{"X-Forwarded-For: 203.0.113.7"}, "203.0.113.7"},
	"the leftmost is a lie":      {[]string{"X-Forwarded-For: 10.9.9.9, 203.0.113.7"}, "203.0.113.7"},
	"through trusted proxies":    {[]string{"X-Forwarded-For: 192.0.2.1, 203.0.113.7, 10.1.1.1, 10.2.2.2"}, "203.0.113.7"},
	"all are trusted":            {[]string{"X-Forwarded-For: 10.3.3.3,10.1.1.1"}, "10.3.3.3"},
	"two lines":                  {[]string{"X-Forwarded-For: 10.9.9.9", "X-Forwarded-For: 203.0.113.7"}, "203.0.113.7"},
	"two lines, mixed case":      {[]string{"x-forwarded-for: 10.9.9.9", "X-FORWARDED-FOR: 203.0.113.7"}, "203.0.113.7"},
	"lines of several":           {[]string{"X-Forwarded-For: 10.9.9.9, 203.0.113.7", "X-Forwarded-For: 10.1.1.1"}, "203.0.113.7"},
	"junk that nobody relies on": {[]string{"X-Forwarded-For: unknown, \"<script>, 203.0.113.7"}, "203.0.113.7"},
	"with a port":                {[]string{"X-Forwarded-For: 203.0.113.7:4711"}, "203.0.113.7"},
	"v6":                         {[]string{"X-Forwarded-For: 2001:db8::7"}, "2001:db8::7"},
	"v6 written long":            {[]string{"X-Forwarded-For: 2001:0DB8:0000::0007"}, "2001:db8::7"},
	"v6 in brackets":             {[]string{"X-Forwarded-For: [2001:db8::7]"}, "2001:db8::7"},
	"v6 with a port":             {[]string{"X-Forwarded-For: [2001:db8::7]:4711"}, "2001:db8::7"},
	"v4 in v6":                   {[]string{"X-Forwarded-For: ::ffff:203.0.113.7"}, "203.0.113.7"},
	"v4 in v6, hexadecimal":      {[]string{"X-Forwarded-For: ::ffff:cb00:7107"}, "203.0.113.7"},
	"v4 in v6, with a port":      {[]string{"X-Forwarded-For: [::ffff:203.0.113.7]:80"}, "203.0.113.7"},
	"a trusted one as v4 in v6":  {[]string{"X-Forwarded-For: 203.0.113.7, ::ffff:10.1.1.1"}, "203.0.113.7"},
	"tabs":                       {[]string{"X-Forwarded-For:\t10.9.9.9\t,\t203.0.113.7\t"}, "203.0.113.7"},

	"missing":                     {nil, refused},
	"of the other name":           {[]string{"X_Forwarded_For: 203.0.113.7"}, refused},
	"of the other name, too":      {[]string{"X_Forwarded_For: 10.9.9.9", "X-Forwarded-For: 203.0.113.7"}, "203.0.113.7"},
	"other headers":               {[]string{"X-Real-IP: 10.9.9.9", "Forwarded: for=10.9.9.9", "X-Forwarded-For: 203.0.113.7", "True-Client-IP: 10.9.9.9"}, "203.0.113.7"},
	"other headers only":          {[]string{"X-Real-IP: 10.9.9.9", "Forwarded: for=10.9.9.9"}, refused},
	"empty":                       {[]string{"X-Forwarded-For:"}, refused},
	"an empty line after":         {[]string{"X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: "}, refused},
	"a comma at the end":          {[]string{"X-Forwarded-For: 203.0.113.7,"}, refused},
	"a comma and spaces":          {[]string{"X-Forwarded-For: 203.0.113.7, \t "}, refused},
	"a hole":                      {[]string{"X-Forwarded-For: 203.0.113.7,,10.1.1.1"}, refused},
	"unknown":                     {[]string{"X-Forwarded-For: 203.0.113.7, unknown"}, refused},
	"obfuscated":                  {[]string{"X-Forwarded-For: _hidden"}, refused},
	"a name":                      {[]string{"X-Forwarded-For: localhost"}, refused},
	"a zone":                      {[]string{"X-Forwarded-For: fe80::1%eth0"}, refused},
	"a zone in brackets":          {[]string{"X-Forwarded-For: [fe80::1%eth0]:80"}, refused},
	"a zone with an address":      {[]string{"X-Forwarded-For: ::1%10.9.9.9"}, refused},
	"a tab within":                {[]string{"X-Forwarded-For: 203.0.113.7\t10.1.1.1"}, refused},
	"spaces for commas":           {[]string{"X-Forwarded-For: 203.0.113.7 10.1.1.1"}, refused},
	"decimal":                     {[]string{"X-Forwarded-For: 167772161"}, refused},
	"octal":                       {[]string{"X-Forwarded-For: 012.0.0.1"}, refused},
	"octal digits":                {[]string{"X-Forwarded-For: 10.0.0.08"}, refused},
	"hexadecimal":                 {[]string{"X-Forwarded-For: 0x0a000001"}, refused},
	"hexadecimal, dotted":         {[]string{"X-Forwarded-For: 0xa.0.0.1"}, refused},
	"short":                       {[]string{"X-Forwarded-For: 10.1"}, refused},
	"a prefix":                    {[]string{"X-Forwarded-For: 10.0.0.0/8"}, refused},
	"in quotes":                   {[]string{`X-Forwarded-For: "203.0.113.7"`}, refused},
	"a port that is none":         {[]string{"X-Forwarded-For: 203.0.113.7:port"}, refused},
	"a port too high":             {[]string{"X-Forwarded-For: 203.0.113.7:70000"}, refused},
	"no port":                     {[]string{"X-Forwarded-For: 203.0.113.7:"}, refused},
	"v4 in brackets":              {[]string{"X-Forwarded-For: [203.0.113.7]"}, refused},
	"a broken bracket":            {[]string{"X-Forwarded-For: [2001:db8::7"}, refused},
	"a digit of another alphabet": {[]string{"X-Forwarded-For: 10.0.0.١"}, refused},
	"33 hops":                     {[]string{"X-Forwarded-For: 203.0.113.7" + strings.Repeat(", 10.1.1.1", 32)}, refused},
	"32 hops":                     {[]string{"X-Forwarded-For: 203.0.113.7" + strings.Repeat(", 10.1.1.1", 31)}, "203.0.113.7"},
	"10,000 hops":                 {[]string{"X-Forwarded-For: " + strings.Repeat("10.1.1.1,", 10000) + "203.0.113.7"}, refused},
	"33 lines":                    {strings.Split(strings.Repeat("X-Forwarded-For: 10.1.1.1\n", 32)+"X-Forwarded-For: 203.0.113.7", "\n"), refused},

	"folded":                {[]string{"X-Forwarded-For: 10.9.9.9,", " 203.0.113.7"}, "203.0.113.7"}, // net/http unfolds it
	"a space in the name":   {[]string{"X-Forwarded-For : 10.9.9.9"}, bad},
	"a zero byte":           {[]string{"X-Forwarded-For: 203.0.113.7\x00"}, bad},
	"a line feed by itself": {[]string{"X-Other: a\nX-Forwarded-For: 203.0.113.7"}, "203.0.113.7"}, // a line to net/http, so it is one here
}

func TestXForwardedFor(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, l, clientip.Settings{TrustedProxies: []string{"127.0.0.1", "10.0.0.0/8"}, ClientHeader: "x-forwarded-for"})
	for name, c := range forms {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, ask(t, dial(t, l), get(c.lines...))) })
	}
}

// TestAnUntrustedPeerIsTheClient whatever it says.
func TestAnUntrustedPeerIsTheClient(t *testing.T) {
	for _, header := range []string{"x-forwarded-for", "forwarded", "x-real-ip"} {
		l := listen(t, "tcp", "127.0.0.1:0")
		serve(t, l, clientip.Settings{TrustedProxies: []string{"10.0.0.0/8"}, ClientHeader: header})
		for name, c := range forms {
			if c.want == bad {
				continue
			}
			t.Run(header+"/"+name, func(t *testing.T) {
				lines := append([]string{"X-Real-IP: 10.0.0.1", "Forwarded: for=10.0.0.1;proto=https", "X-Forwarded-Proto: https"}, c.lines...)
				require.Equal(t, "127.0.0.1", ask(t, dial(t, l), get(lines...)))
			})
		}
	}
}

func TestXRealIP(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, l, clientip.Settings{TrustedProxies: []string{"127.0.0.1", "10.0.0.0/8"}, ClientHeader: "x-real-ip"})
	for want, lines := range map[string][]string{
		"203.0.113.7":        {"X-Real-IP: 203.0.113.7"},
		"10.1.1.1":           {"X-Real-Ip: 10.1.1.1"},
		"2001:db8::7":        {"x-real-ip: [2001:db8::7]:80"},
		"203.0.113.8 secure": {"X-Real-IP: 203.0.113.8", "X-Forwarded-Proto: https"},
	} {
		require.Equal(t, want, ask(t, dial(t, l), get(lines...)))
	}
	for _, lines := range [][]string{
		nil,
		{"X-Real-IP:"},
		{"X-Real-IP: unknown"},
		{"X-Real-IP: 203.0.113.7, 10.1.1.1"},
		{"X-Real-IP: 203.0.113.7", "X-Real-IP: 203.0.113.7"},
		{"X_Real_IP: 203.0.113.7"},
		{"X-Forwarded-For: 203.0.113.7"},
	} {
		require.Equal(t, refused, ask(t, dial(t, l), get(lines...)), "%q", lines)
	}
}

func TestForwarded(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, l, clientip.Settings{TrustedProxies: []string{"127.0.0.1", "10.0.0.0/8", "2001:db8:1::/48"}, ClientHeader: "forwarded"})
	for value, want := range map[string]string{
		`for=203.0.113.7`:                                          "203.0.113.7",
		`For="203.0.113.7"`:                                        "203.0.113.7",
		`FOR=203.0.113.7;proto=https;by=10.0.0.1`:                  "203.0.113.7 secure",
		`proto=HTTPS ; for="203.0.113.7:4711" ; host="a,b;c\"d"`:   "203.0.113.7 secure",
		`for="[2001:db8::7]"`:                                      "2001:db8::7",
		`for="[2001:db8::7]:4711"`:                                 "2001:db8::7",
		`for="\2\0\3.0.113.7"`:                                     "203.0.113.7",
		`for="[::ffff:203.0.113.7]"`:                               "203.0.113.7",
		`for=10.9.9.9, for=203.0.113.7`:                            "203.0.113.7",
		`for=203.0.113.7, for=10.1.1.1,for="[2001:db8:1::1]:80"`:   "203.0.113.7",
		`for=203.0.113.7;proto=https, for=10.1.1.1;proto=http`:     "203.0.113.7 secure",
		`for=192.0.2.1;proto=https, for=203.0.113.7;proto=http`:    "203.0.113.7",
		`for=10.2.2.2, for=10.1.1.1`:                               "10.2.2.2",
		`for=unknown, for=203.0.113.7`:                             "203.0.113.7",
		`by=10.0.0.1, for=203.0.113.7`:                             "203.0.113.7",
		"for=203.0.113.7\t,\tfor=10.1.1.1":                         "203.0.113.7",
		`for=203.0.113.7` + strings.Repeat(`, for=10.1.1.1`, 31):   "203.0.113.7",
		`for=203.0.113.7` + strings.Repeat(`, for=10.1.1.1`, 32):   refused,
		strings.Repeat(`for=10.1.1.1,`, 10000) + `for=203.0.113.7`: refused,
		``:                                        refused,
		`,`:                                       refused,
		`203.0.113.7`:                             refused,
		`for=`:                                    refused,
		`for=""`:                                  refused,
		`for=unknown`:                             refused,
		`for=_hidden`:                             refused,
		`for="203.0.113.7:_port"`:                 refused,
		`for=203.0.113.7:80`:                      refused, // a colon is in no token
		`for=[2001:db8::7]`:                       refused,
		`for="2001:db8::7"`:                       refused,
		`for="[fe80::1%eth0]"`:                    refused,
		`for=203.0.113.7, by=10.0.0.1`:            refused,
		`for=203.0.113.7,`:                        refused,
		`, for=203.0.113.7`:                       refused,
		`for=203.0.113.7;`:                        refused,
		`for=203.0.113.7;;proto=http`:             refused,
		`for = 203.0.113.7`:                       refused,
		`for=10.9.9.9;for=203.0.113.7`:            refused,
		`for=203.0.113.7;proto=http;proto=https`:  refused,
		`for=203.0.113.7 proto=https`:             refused,
		`for="203.0.113.7`:                        refused,
		`for="203.0.113.7\`:                       refused,
		`for="203.0.113.7"x`:                      refused,
		`for=10.9.9.9;x=", for=203.0.113.7`:       refused, // the quote is the client's, and swallows what the proxy wrote
		`for=10.9.9.9;x=", for="[2001:db8::7]"`:   refused,
		`for=10.9.9.9;x="\", for="[2001:db8::7]"`: refused,
	} {
		t.Run(value, func(t *testing.T) { require.Equal(t, want, ask(t, dial(t, l), get("Forwarded: "+value))) })
	}
	require.Equal(t, "203.0.113.7", ask(t, dial(t, l), get("Forwarded: for=10.9.9.9", "forwarded: for=203.0.113.7")))
	require.Equal(t, refused, ask(t, dial(t, l), get(`Forwarded: for=10.9.9.9;x="`, `Forwarded: for="[2001:db8::7]"`)), "a string ends in its line")
	require.Equal(t, refused, ask(t, dial(t, l), get("Forwarded: for=203.0.113.7", "Forwarded:")))
	require.Equal(t, refused, ask(t, dial(t, l), get()))
}

func TestSecure(t *testing.T) {
	who, err := clientip.New(clientip.Settings{TrustedProxies: []string{"127.0.0.1"}, ClientHeader: "x-forwarded-for"})
	require.NoError(t, err)
	for name, c := range map[string]struct {
		protos []string
		tls    bool
		want   bool
	}{
		"a proxy without TLS":               {nil, false, false},
		"a proxy with TLS":                  {nil, true, true},
		"the client spoke TLS to it":        {[]string{"https"}, false, true},
		"the client of a WebSocket too":     {[]string{"WSS"}, false, true},
		"the client did not, but the proxy": {[]string{"http"}, true, false},
		"to both proxies":                   {[]string{"https, https"}, false, true},
		"not to the nearest":                {[]string{"https, http"}, false, false},
		"two lines":                         {[]string{"https", "http"}, false, false},
		"nonsense":                          {[]string{"httpsx"}, false, false},
		"nothing":                           {[]string{""}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			if c.tls {
				r = httptest.NewRequest("GET", "https://a/", nil)
			}
			r.RemoteAddr = "127.0.0.1:1"
			r.Header["X-Forwarded-For"] = []string{"203.0.113.7"}
			if c.protos != nil {
				r.Header["X-Forwarded-Proto"] = c.protos
			}
			_, secure, err := who.Client(r)
			require.NoError(t, err)
			require.Equal(t, c.want, secure)
		})
	}
}

func TestPeersAreNormal(t *testing.T) {
	who, err := clientip.New(clientip.Settings{})
	require.NoError(t, err)
	for peer, want := range map[string]string{
		"192.0.2.1:80":           "192.0.2.1",
		"[::ffff:192.0.2.1]:80":  "192.0.2.1",
		"[fe80::1%eth0]:80":      "fe80::1",
		"[::ffff:1.2.3.4%lo]:80": "1.2.3.4",
		"[2001:db8::1]:80":       "2001:db8::1",
		"":                       "",
		"@":                      "",
		"unknown":                "",
		"192.0.2.1":              "",
		"192.0.2.1:http":         "",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = peer
		client, _, err := who.Client(r)
		if want == "" {
			require.Error(t, err, peer)
			require.False(t, client.IsValid())
			continue
		}
		require.NoError(t, err, peer)
		require.Equal(t, netip.MustParseAddr(want), client)
	}
}

// TestUnixPeers connects from sockets whose names look like addresses, as a local process may name them.
func TestUnixPeers(t *testing.T) {
	from := func(name, to string) net.Conn {
		conn, err := net.DialUnix("unix", &net.UnixAddr{Net: "unix", Name: name}, &net.UnixAddr{Net: "unix", Name: to})
		require.NoError(t, err)
		return conn
	}
	for name, c := range map[string]struct {
		trusted  []string
		header   string
		missing  string
		untold   string
		wantTold string
	}{
		"not trusted":           {nil, "", refused, refused, refused},
		"only a prefix trusted": {[]string{"10.0.0.0/8"}, "x-forwarded-for", refused, refused, refused},
		"trusted":               {[]string{"unix"}, "x-forwarded-for", refused, refused, "203.0.113.7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			l := listen(t, "unix", filepath.Join(t.TempDir(), "s"))
			serve(t, l, clientip.Settings{TrustedProxies: c.trusted, ClientHeader: c.header})
			to := l.Addr().String()
			require.Equal(t, c.missing, ask(t, from("", to), get()))
			require.Equal(t, c.untold, ask(t, from("10.0.0.1:80", to), get()))
			require.Equal(t, c.wantTold, ask(t, from("", to), get("X-Forwarded-For: 203.0.113.7")))
			require.Equal(t, c.wantTold, ask(t, from("192.0.2.1:80", to), get("X-Forwarded-For: 203.0.113.7")))
		})
	}
}

func TestNothingIsAllocated(t *testing.T) {
	for header, value := range map[string]string{"none": "", "x-forwarded-for": "192.0.2.1, 203.0.113.7, 10.0.0.1", "forwarded": `for="[2001:db8::7]";proto=https, for=10.0.0.1`} {
		who, r := known(t, header, value)
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if _, _, err := who.Client(r); err != nil {
				t.Fatal(err)
			}
		}), header)
	}
}

// known is a resolver and a request to ask it of.
func known(t testing.TB, header, value string) (*clientip.Resolver, *http.Request) {
	s := clientip.Settings{ClientHeader: header}
	if header != "none" {
		s.TrustedProxies = []string{"127.0.0.0/8", "10.0.0.0/8"}
	}
	who, err := clientip.New(s)
	require.NoError(t, err)
	r := httptest.NewRequest("GET", "/", nil)
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{})))
	r.RemoteAddr = "127.0.0.1:4711"
	r.Header.Set(header, value)
	return who, r
}

func BenchmarkClient(b *testing.B) {
	for _, c := range [][2]string{{"none", ""}, {"x-forwarded-for", "203.0.113.7"}, {"x-forwarded-for", "192.0.2.1, 203.0.113.7, 10.0.0.1"}, {"forwarded", `for="[2001:db8::7]";proto=https, for=10.0.0.1`}} {
		b.Run(c[0]+" "+c[1], func(b *testing.B) {
			who, r := known(b, c[0], c[1])
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := who.Client(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
