package clientip_test

import (
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

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
