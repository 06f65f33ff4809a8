package clientip_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway/clientip"
)

// FuzzNobodyLies holds that whatever a client writes into the header, in the line that its proxy goes on with or in
// others, the client is the one that the proxy wrote behind it, or unknown.
func FuzzNobodyLies(f *testing.F) {
	for _, s := range []string{"10.9.9.9", "10.9.9.9,", `for=10.9.9.9;a="`, `for=10.9.9.9;a="\`, `for="10.9.9.9";`, "unknown", "[", "10.0.0.1, ,", "\t", `for=10.9.9.9;host="a\",for=x`, "::1%", strings.Repeat("10.0.0.1,", 31)} {
		f.Add(s, s)
	}
	resolvers := map[string]*clientip.Resolver{}
	for _, header := range []string{"x-forwarded-for", "forwarded"} {
		who, err := clientip.New(clientip.Settings{TrustedProxies: []string{"10.0.0.0/8"}, ClientHeader: header})
		require.NoError(f, err)
		resolvers[header] = who
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		for header, written := range map[string][]string{
			"x-forwarded-for": {"203.0.113.7", "2001:db8::7", "[2001:db8::7]:80", "203.0.113.7, 10.0.0.1"},
			"forwarded":       {"for=203.0.113.7", `for="[2001:db8::7]:80";proto=http;host="a"`, `for=203.0.113.7;by="[::1]", for=10.0.0.1`},
		} {
			for _, w := range written {
				for _, lines := range [][]string{{first, second + ", " + w}, {first + "," + w}, {first, second, w}} {
					r := httptest.NewRequest("GET", "/", nil)
					r.RemoteAddr = "10.1.1.1:80"
					for _, line := range lines {
						r.Header.Add(header, line)
					}
					client, secure, err := resolvers[header].Client(r)
					if err != nil {
						require.False(t, client.IsValid())
						continue
					}
					require.Contains(t, []string{"203.0.113.7", "2001:db8::7"}, client.String(), "%s: %q", header, lines)
					require.False(t, secure)
				}
			}
		}
	})
}

// FuzzXForwardedFor compares with the shortest way to write it.
func FuzzXForwardedFor(f *testing.F) {
	f.Add("192.0.2.1, 10.0.0.1", "::ffff:10.0.0.1")
	f.Add("", "[2001:db8::1]:80 , 10.0.0.1:1")
	who, err := clientip.New(clientip.Settings{TrustedProxies: []string{"10.0.0.0/8"}, ClientHeader: "x-forwarded-for"})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, first, second string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = "10.1.1.1:80"
		r.Header["X-Forwarded-For"] = []string{first, second}
		client, _, err := who.Client(r)
		want := naive(first + "," + second)
		require.Equal(t, want, client)
		require.Equal(t, want.IsValid(), err == nil)
	})
}

func naive(list string) (client netip.Addr) {
	hops := strings.Split(list, ",")
	if len(hops) > 32 {
		return netip.Addr{}
	}
	for i := range hops {
		hop := strings.Trim(hops[len(hops)-1-i], " \t")
		client, _ = netip.ParseAddr(hop)
		if p, err := netip.ParseAddrPort(hop); err == nil {
			client = p.Addr()
		}
		if len(hop) > 2 && hop[0] == '[' && hop[len(hop)-1] == ']' && strings.Contains(hop, ":") {
			client, _ = netip.ParseAddr(hop[1 : len(hop)-1])
		}
		if client.Zone() != "" {
			return netip.Addr{}
		}
		if client = client.Unmap(); !client.IsValid() || !netip.MustParsePrefix("10.0.0.0/8").Contains(client) {
			return client
		}
	}
	return client
}

func FuzzParsePrefix(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "::ffff:10.0.0.0/104", "fe80::%a/10", "::/0", "1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := clientip.ParsePrefix(text)
		if err != nil {
			return
		}
		require.Equal(t, p.Masked(), p)
		require.False(t, p.Addr().Is4In6())
		require.Empty(t, p.Addr().Zone())
		again, err := clientip.ParsePrefix(p.String())
		require.NoError(t, err)
		require.Equal(t, p, again)
	})
}

// FuzzProxyHeader holds that an untrusted peer is never taken for another, and that what follows a header that is refused
// is not read.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 10.9.9.9 192.0.2.1 1 80\r\nGET"))
	f.Add([]byte("PROXY UNKNOWN\r\nGET"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x0a\x09\x09\x09\xc0\x00\x02\x01\x00\x01\x00\x50GET"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00GET"))
	f.Add(append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8"), make([]byte, 220)...))
	who, err := clientip.New(clientip.Settings{TrustedProxies: []string{"10.0.0.0/8"}, ProxyProtocol: true})
	require.NoError(f, err)
	who.Log = slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, peer := range []string{"10.1.1.1:80", "203.0.113.7:80"} {
			c, err := who.Listener(&one{&said{Reader: bytes.NewReader(data), peer: tcp(peer)}}).Accept()
			require.NoError(t, err)
			remote := c.RemoteAddr().String()
			read, err := io.ReadAll(c)
			if peer[0] == '2' {
				require.Equal(t, peer, remote)
				require.True(t, err != nil || bytes.Equal(read, data), "a header is refused, not skipped")
				continue
			}
			if err != nil {
				require.Equal(t, peer, remote)
				require.Empty(t, read)
			} else if remote != "unknown" {
				_, err := netip.ParseAddrPort(remote)
				require.NoError(t, err)
				require.Less(t, len(read), max(len(data), 1))
			}
		}
	})
}

// one is a listener of one connection.
type one struct{ net.Conn }

func (o *one) Accept() (net.Conn, error) { return o.Conn, nil }
func (o *one) Addr() net.Addr            { return o.LocalAddr() }

// said is a connection whose peer said all that it will.
type said struct {
	*bytes.Reader
	peer net.Addr
}

func (s *said) Read(b []byte) (int, error)       { return s.Reader.Read(b) }
func (s *said) Write(b []byte) (int, error)      { return len(b), nil }
func (s *said) Close() error                     { return nil }
func (s *said) LocalAddr() net.Addr              { return tcp("192.0.2.1:80") }
func (s *said) RemoteAddr() net.Addr             { return s.peer }
func (s *said) SetDeadline(time.Time) error      { return nil }
func (s *said) SetReadDeadline(time.Time) error  { return nil }
func (s *said) SetWriteDeadline(time.Time) error { return nil }
