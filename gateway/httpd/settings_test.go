package httpd

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/testcert"
	"github.com/plugmicro/micro/plugin"
)

func TestDefaults(t *testing.T) {
	s, _, err := load(t, &setup{})
	require.NoError(t, err)
	require.Empty(t, s.Address)
	require.Equal(t, "127.0.0.1:8081", s.AdminAddress)
	require.Equal(t, plugin.Size(4<<20), s.MaxBody)
	require.Equal(t, plugin.Size(64<<10), s.MaxHeader)
	require.Equal(t, 10*time.Second, s.HeaderTimeout)
	require.Equal(t, []string{"*"}, s.Services)
	require.True(t, s.AccessLog)
	require.False(t, s.H2C)
}

func TestSettingsThatAreWrong(t *testing.T) {
	own := testcert.New(t).TLS()
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"an address without a port":     {[]string{"--gateway-address=example.com"}, `address "example.com": want HOST:PORT, :PORT or unix:PATH`},
		"a port that is none":           {[]string{"--gateway-admin-address=:99999"}, `admin-address ":99999": there is no port "99999"`},
		"a socket without a path":       {[]string{"--gateway-address=unix:"}, `address "unix:": want unix:PATH`},
		"a certificate without a key":   {[]string{"--gateway-tls-cert=" + own.Cert}, "its key is missing"},
		"TLS without a certificate":     {[]string{"--gateway-tls-enable"}, "needs a certificate: set tls-cert and tls-key, or acme-hosts"},
		"mutual TLS without CA":         {[]string{"--gateway-tls-cert=" + own.Cert, "--gateway-tls-key=" + own.Key, "--gateway-tls-mutual"}, "tls-mutual and tls-ca go together"},
		"a CA that nobody is asked for": {[]string{"--gateway-tls-cert=" + own.Cert, "--gateway-tls-key=" + own.Key, "--gateway-tls-ca=" + own.CA}, "tls-mutual and tls-ca go together"},
		"what is for clients":           {[]string{"--gateway-tls-cert=" + own.Cert, "--gateway-tls-key=" + own.Key, "--gateway-tls-insecure"}, "are for clients"},
		"two certificates":              {[]string{"--gateway-tls-cert=" + own.Cert, "--gateway-tls-key=" + own.Key, "--gateway-acme-hosts=a.example.com"}, "leave one"},
		"a redirect to nowhere":         {[]string{"--gateway-redirect-address=:80"}, "there is no TLS"},
		"ACME for a wildcard":           {[]string{"--gateway-acme-hosts=*.example.com"}, `no certificate can be got for "*.example.com"`},
		"ACME for an address":           {[]string{"--gateway-acme-hosts=10.0.0.1"}, "no address"},
		"ACME for one word":             {[]string{"--gateway-acme-hosts=localhost"}, "want a name such as"},
		"ACME without TLS":              {[]string{"--gateway-acme-hosts=a.example.com", "--gateway-acme-directory=http://a/dir"}, "begins with https://"},
		"no time":                       {[]string{"--gateway-idle-timeout=0s"}, "idle-timeout 0s: want more than 0"},
		"a delay that is too long":      {[]string{"--gateway-stop-delay=30s"}, "stop-delay 30s"},
		"no connections":                {[]string{"--gateway-max-connections=0"}, "max-connections 0"},
		"no bodies":                     {[]string{"--gateway-max-body=0"}, "max-body"},
		"no heads":                      {[]string{"--gateway-max-header=10"}, "max-header"},
		"calls that take too long":      {[]string{"--gateway-call-timeout=1h"}, "call-timeout 1h0m0s is longer than max-call-timeout 5m0s"},
		"no services":                   {[]string{"--gateway-services="}, "services: it is empty, which could mean all or none: name those"},
		"a star in a name":              {[]string{"--gateway-services=shop,a*b"}, `services "a*b": want a name, or the beginning of names and one * at its end`},
		"two stars":                     {[]string{"--gateway-services=a**"}, `services "a**": want a name`},
		"proxies that say nothing":      {[]string{"--gateway-trusted-proxies=10.0.0.0/8"}, "client-header"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := load(t, &setup{args: c.args})
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "flag --gateway-", "it says where it came from")
		})
	}
}

func TestCacheFolder(t *testing.T) {
	t.Setenv("HOME", "/home/ada")
	t.Setenv("XDG_CACHE_HOME", "")
	folder, err := ACME{}.cacheFolder()
	require.NoError(t, err)
	require.Equal(t, "/home/ada/.cache/micro/acme", folder)
	folder, err = ACME{Cache: "/var/lib/acme"}.cacheFolder()
	require.NoError(t, err)
	require.Equal(t, "/var/lib/acme", folder)
	t.Setenv("HOME", "")
	_, err = ACME{}.cacheFolder()
	require.ErrorContains(t, err, "acme-cache")
}

func TestPublicAddress(t *testing.T) {
	for _, c := range []struct {
		set        string
		oneMachine bool
		address    string
		unset      bool
	}{
		{"", true, "127.0.0.1:8080", true},
		{"", false, ":8080", false},
		{":8080", true, ":8080", false},
		{"127.0.0.1:8080", true, "127.0.0.1:8080", false},
		{"unix:/run/gateway.sock", false, "unix:/run/gateway.sock", false},
	} {
		address, unset := (&Settings{Address: c.set}).publicAddress(c.oneMachine)
		require.Equal(t, c.address, address, c)
		require.Equal(t, c.unset, unset, c)
	}
}
