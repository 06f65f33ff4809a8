package clientip_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway/clientip"
	"github.com/plugmicro/micro/internal/logtest"
)

func header(t testing.TB, h *proxyproto.Header) string {
	b, err := h.Format()
	require.NoError(t, err)
	return string(b)
}

func tcp(addr string) *net.TCPAddr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)) }

// v2 has a TLV, too.
func v2(t testing.TB, protocol proxyproto.AddressFamilyAndProtocol, src, dst net.Addr) string {
	h := &proxyproto.Header{Version: 2, Command: proxyproto.PROXY, TransportProtocol: protocol, SourceAddr: src, DestinationAddr: dst}
	require.NoError(t, h.SetTLVs([]proxyproto.TLV{{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte("example.com")}}))
	return header(t, h)
}

const closed = "closed"

func proxyForms(t testing.TB) map[string]struct{ header, want string } {
	unixAddr := func(name string) net.Addr { return &net.UnixAddr{Net: "unix", Name: name} }
	good := v2(t, proxyproto.TCPv4, tcp("203.0.113.7:1"), tcp("192.0.2.1:80"))
	local := header(t, &proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC})
	return map[string]struct{ header, want string }{
		"v1, IPv4":                    {"PROXY TCP4 203.0.113.7 192.0.2.1 1 80\r\n", "203.0.113.7"},
		"v1, IPv6":                    {"PROXY TCP6 2001:db8::7 2001:db8::1 1 80\r\n", "2001:db8::7"},
		"v1, IPv4 in IPv6":            {"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.1 1 80\r\n", "203.0.113.7"},
		"v2, IPv4":                    {good, "203.0.113.7"},
		"v2, IPv6":                    {v2(t, proxyproto.TCPv6, tcp("[2001:db8::7]:1"), tcp("[2001:db8::1]:80")), "2001:db8::7"},
		"v2, LOCAL":                   {local, "127.0.0.1"},
		"v1, UNKNOWN":                 {"PROXY UNKNOWN\r\n", refused},
		"v1, UNKNOWN with addresses":  {"PROXY UNKNOWN 10.0.0.1 10.0.0.2 1 80\r\n", refused},
		"v2, a Unix socket":           {v2(t, proxyproto.UnixStream, unixAddr("10.0.0.1:80"), unixAddr("10.0.0.2:80")), refused},
		"v2, UDP":                     {v2(t, proxyproto.UDPv4, &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}, &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 80}), refused},
		"none":                        {"", closed},
		"twice":                       {good + good, bad},
		"v1, no line end":             {"PROXY TCP4 203.0.113.7 192.0.2.1 1 80\n", closed},
		"v1, lower case":              {"proxy TCP4 203.0.113.7 192.0.2.1 1 80\r\n", closed},
		"v1, two spaces":              {"PROXY TCP4  203.0.113.7 192.0.2.1 1 80\r\n", closed},
		"v1, octal":                   {"PROXY TCP4 012.0.0.1 192.0.2.1 1 80\r\n", closed},
		"v1, a zone":                  {"PROXY TCP6 fe80::1%eth0 2001:db8::1 1 80\r\n", closed},
		"v1, the other family":        {"PROXY TCP4 2001:db8::7 2001:db8::1 1 80\r\n", closed},
		"v1, UDP":                     {"PROXY UDP4 203.0.113.7 192.0.2.1 1 80\r\n", closed},
		"v1, a port too high":         {"PROXY TCP4 203.0.113.7 192.0.2.1 70000 80\r\n", closed},
		"v1, more than is":            {"PROXY TCP4 203.0.113.7 192.0.2.1 1 80 x\r\n", closed},
		"v1, too long":                {"PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n", closed},
		"v2, an unknown version":      {good[:12] + "\x31" + good[13:], closed},
		"v2, an unknown command":      {good[:12] + "\x2f" + good[13:], closed},
		"v2, an unknown family":       {good[:13] + "\x13" + good[14:], closed},
		"v2, no family":               {good[:13] + "\x00" + good[14:], closed},
		"v2, too short for addresses": {good[:14] + "\x00\x04" + good[16:], closed},
		"v2, a length of 64 KiB":      {good[:14] + "\xff\xff" + good[16:], closed},
		"v2, half of the signature":   {good[:6], closed},
		"junk":                        {"\x16\x03\x01\x02", closed},
	}
}

func TestProxyProtocolOfATrustedPeer(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, l, clientip.Settings{TrustedProxies: []string{"127.0.0.0/8"}, ProxyProtocol: true})
	for name, c := range proxyForms(t) {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, ask(t, dial(t, l), c.header+get("X-Forwarded-For: 10.0.0.1", "X-Forwarded-Proto: https")))
		})
	}
}

// TestProxyProtocolOfAnybodyElse is refused, and an address in it is never believed.
func TestProxyProtocolOfAnybodyElse(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, l, clientip.Settings{TrustedProxies: []string{"10.0.0.0/8"}, ProxyProtocol: true, ClientHeader: "x-forwarded-for"})
	for name, c := range proxyForms(t) {
		t.Run(name, func(t *testing.T) {
			got := ask(t, dial(t, l), c.header+get("X-Forwarded-For: 10.0.0.1"))
			if name == "none" {
				require.Equal(t, "127.0.0.1", got)
				return
			}
			require.Contains(t, []string{closed, bad}, got)
		})
	}
}

// TestProxyProtocolAndHeader: a load balancer before proxies of HTTP.
func TestProxyProtocolAndHeader(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, l, clientip.Settings{TrustedProxies: []string{"127.0.0.1", "10.0.0.0/8"}, ProxyProtocol: true, ClientHeader: "x-forwarded-for"})
	for _, c := range []struct{ header, want string }{
		{"PROXY TCP4 10.1.1.1 192.0.2.1 1 80\r\n", "203.0.113.7 secure"},
		{"PROXY TCP4 192.0.2.9 192.0.2.1 1 80\r\n", "192.0.2.9"}, // no proxy of ours: what it says is its own affair
		{"PROXY UNKNOWN\r\n", refused},
	} {
		require.Equal(t, c.want, ask(t, dial(t, l), c.header+get("X-Forwarded-For: 10.9.9.9, 203.0.113.7", "X-Forwarded-Proto: https")), c.header)
	}
}

func TestProxyProtocolOnAUnixSocket(t *testing.T) {
	for _, c := range []struct {
		trusted      string
		header, want string
	}{
		{"unix", "PROXY TCP4 203.0.113.7 192.0.2.1 1 80\r\n", "203.0.113.7"},
		{"unix", "PROXY UNKNOWN\r\n", refused},
		{"unix", "", closed},
		{"0.0.0.0/0", "PROXY TCP4 203.0.113.7 192.0.2.1 1 80\r\n", closed},
		{"0.0.0.0/0", "", refused},
	} {
		l := listen(t, "unix", filepath.Join(t.TempDir(), "s"))
		serve(t, l, clientip.Settings{TrustedProxies: []string{c.trusted}, ProxyProtocol: true})
		require.Equal(t, c.want, ask(t, dial(t, l), c.header+get()), "%q", c)
	}
}

// pipes are connections from 127.0.0.1 inside of a bubble, whose clock stands still while there is something to do.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

// local is a connection whose peer is at 127.0.0.1.
type local struct{ net.Conn }

func (local) RemoteAddr() net.Addr { return tcp("127.0.0.1:1") }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- local{server}
	return client
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.once.Do(func() { close(p.done) }); return nil }
func (*pipes) Addr() net.Addr { return tcp("127.0.0.1:80") }

// TestSlowProxyHeader: who does not send it keeps nobody else waiting, and is cut off after 5 seconds.
func TestSlowProxyHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		serve(t, l, clientip.Settings{TrustedProxies: []string{"127.0.0.1"}, ProxyProtocol: true})
		start := time.Now()
		var slow []net.Conn
		for _, part := range []string{"", "P", "PROXY", "PROXY TCP4 203.0.113.7", "\r\n\r\n\x00", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01"} {
			conn := l.dial()
			defer conn.Close()
			if part != "" {
				_, err := io.WriteString(conn, part)
				require.NoError(t, err)
			}
			slow = append(slow, conn)
		}
		require.Equal(t, "203.0.113.7", ask(t, l.dial(), "PROXY TCP4 203.0.113.7 192.0.2.1 1 80\r\n"+get()))
		require.Zero(t, time.Since(start))
		for _, conn := range slow {
			_, err := conn.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF)
			require.Equal(t, 5*time.Second, time.Since(start))
		}
	})
}

// TestTLSAboveTheHeader, with HTTP/2.
func TestTLSAboveTheHeader(t *testing.T) {
	who, err := clientip.New(clientip.Settings{TrustedProxies: []string{"127.0.0.1"}, ProxyProtocol: true})
	require.NoError(t, err)
	l := listen(t, "tcp", "127.0.0.1:0")
	srv := httptest.NewUnstartedServer(answer(who))
	require.NoError(t, srv.Listener.Close())
	srv.Listener, srv.EnableHTTP2 = who.Listener(l), true
	srv.StartTLS()
	defer srv.Close()
	client := srv.Client()
	client.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
		conn := dial(t, l)
		_, err := io.WriteString(conn, v2(t, proxyproto.TCPv6, tcp("[2001:db8::7]:1"), tcp("[2001:db8::1]:443")))
		return conn, err
	}
	resp, err := client.Get(srv.URL)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "2001:db8::7 secure", string(body))
	require.Equal(t, 2, resp.ProtoMajor)
}

func TestRefusedHeadersAreLogged(t *testing.T) {
	who, err := clientip.New(clientip.Settings{TrustedProxies: []string{"127.0.0.1"}, ProxyProtocol: true})
	require.NoError(t, err)
	var out logtest.Buffer
	who.Log = slog.New(slog.NewTextHandler(&out, nil))
	l := listen(t, "tcp", "127.0.0.1:0")
	srv := &http.Server{Handler: answer(who)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(who.Listener(l)) }()
	for range 20 {
		require.Equal(t, closed, ask(t, dial(t, l), get()))
	}
	require.NoError(t, srv.Close())
	<-done
	require.Equal(t, 1, strings.Count(out.String(), "connection refused"), "strangers must not fill the log")
	require.Contains(t, out.String(), "peer=127.0.0.1:")
	require.Contains(t, out.String(), "signature not present")
}

func TestWithoutProxyProtocolTheListenerIsAsItWas(t *testing.T) {
	who, err := clientip.New(clientip.Settings{})
	require.NoError(t, err)
	l := listen(t, "tcp", "127.0.0.1:0")
	defer l.Close()
	require.Equal(t, l, who.Listener(l))
}
