//go:build unix

package httpd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/servers"
	"github.com/plugmicro/micro/internal/testcert"
	"github.com/plugmicro/micro/plugin"
)

// authority is a real one, and what is needed to look at it.
type authority struct {
	*servers.PebbleServer
	own   plugin.TLS
	roots *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	a := &authority{own: testcert.New(t).TLS(), roots: x509.NewCertPool()}
	a.PebbleServer = servers.Pebble(t, a.own)
	config, err := a.own.Client()
	require.NoError(t, err)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	resp, err := client.Get(a.Management + "/roots/0")
	require.NoError(t, err)
	defer resp.Body.Close()
	root, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.True(t, a.roots.AppendCertsFromPEM(root))
	return a
}

func (a *authority) args(cache string, more ...string) change {
	return withArgs(append([]string{"--gateway-address=" + a.TLSAddr, "--gateway-acme-hosts=api.example.com,WWW.example.com", "--gateway-acme-email=ada@example.com",
		"--gateway-acme-cache=" + cache, "--gateway-acme-directory=" + a.Directory, "--gateway-acme-ca=" + a.own.CA}, more...)...)
}

// shown is the certificate that the gateway shows, verified.
func (a *authority) shown(g *running, name string) (*x509.Certificate, error) {
	c, err := tls.Dial("tcp", g.Addr(), &tls.Config{ServerName: name, RootCAs: a.roots, NextProtos: []string{"h2"}})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if c.ConnectionState().NegotiatedProtocol != "h2" {
		return nil, errors.New("no HTTP/2")
	}
	return c.ConnectionState().PeerCertificates[0], nil
}

// TestACME gets certificates by tls-alpn-01: nothing but the TLS listener can answer the authority.
func TestACME(t *testing.T) {
	a := newAuthority(t)
	cache := filepath.Join(t.TempDir(), "acme")
	g := start(t, a.args(cache), withHandler(ok))
	g.eventuallyLogs(`msg="the certificate is there" host=api.example.com`) // before anybody asks
	g.eventuallyLogs(`msg="the certificate is there" host=www.example.com`)
	first, err := a.shown(g, "api.example.com")
	require.NoError(t, err)
	_, err = a.shown(g, "www.example.com")
	require.NoError(t, err)
	_, err = a.shown(g, "other.example.com")
	require.Error(t, err, "only for names of the settings")

	g.client.Transport = &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{ServerName: "api.example.com", RootCAs: a.roots}}
	require.Equal(t, "GET /x ", g.get(g.url("/x")).body)
	g.client.CloseIdleConnections()
	require.NoError(t, g.Stop(t.Context()))

	info, err := os.Stat(cache)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	a.Stop(t)
	g = start(t, a.args(cache))
	g.eventuallyLogs(`host=www.example.com`)
	again, err := a.shown(g, "api.example.com")
	require.NoError(t, err)
	require.Equal(t, first.SerialNumber, again.SerialNumber, "it was kept, and works without the authority")
}

// TestACMEWithMutualTLS: the authority that asks has no certificate of ours.
func TestACMEWithMutualTLS(t *testing.T) {
	a := newAuthority(t)
	g := start(t, a.args(t.TempDir(), "--gateway-tls-ca="+a.own.CA, "--gateway-tls-mutual"), withHandler(ok))
	g.eventuallyLogs(`msg="the certificate is there" host=www.example.com`)
	g.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{ServerName: "api.example.com", RootCAs: a.roots}}
	_, err := g.client.Get(g.url("/"))
	require.Error(t, err)
	config, err := a.own.Client()
	require.NoError(t, err)
	g.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{ServerName: "api.example.com", RootCAs: a.roots, GetClientCertificate: config.GetClientCertificate}}
	require.Equal(t, http.StatusOK, g.get(g.url("/")).status)
}

// TestACMEByHTTP has the gateway listen where the authority does not ask for tls-alpn-01.
func TestACMEByHTTP(t *testing.T) {
	a := newAuthority(t)
	g := start(t, a.args(t.TempDir(), "--gateway-redirect-address="+a.HTTPAddr, "--gateway-address=127.0.0.1:0"))
	g.eventuallyLogs(`msg="the certificate is there" host=www.example.com`)
	_, err := a.shown(g, "api.example.com")
	require.NoError(t, err)
}

func TestACMEFails(t *testing.T) {
	a := newAuthority(t)
	g := start(t, a.args(t.TempDir(), "--gateway-address=127.0.0.1:0")) // where nobody asks
	g.eventuallyLogs(`msg="no certificate: it is asked for again when a client comes" host=www.example.com`)
}
