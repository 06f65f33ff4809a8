package httpd

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/testcert"
	"github.com/plugmicro/micro/plugin"
)

func TestAddressThatIsTaken(t *testing.T) {
	g := start(t)
	for _, flag := range []string{"address", "admin-address"} {
		args := []string{"--gateway-address=127.0.0.1:0", "--gateway-admin-address=127.0.0.1:0"}
		settings, loaded, err := load(t, &setup{args: append(args, "--gateway-"+flag+"="+g.Addr())})
		require.NoError(t, err)
		host := loaded.Open(context.Background(), slog.New(slog.DiscardHandler))
		_, err = Start(t.Context(), host, settings, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, flag+" "+g.Addr()+" is taken")
		require.ErrorContains(t, err, "--gateway-"+flag)
		require.NoError(t, host.Close())
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	require.NoError(t, err)
	stale.SetUnlinkOnClose(false)
	require.NoError(t, stale.Close())
	g := start(t, withArgs("--gateway-address=unix:"+path), withHandler(ok))
	g.client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	require.Equal(t, "GET /x ", g.get("http://gateway/x").body)
	_, err = listen("address", "unix:"+path)
	require.ErrorContains(t, err, "is taken", "a socket that is in use is not removed")
}

// TestConnectionsAreLimited has as many connections as there may be, of which one is idle.
func TestConnectionsAreLimited(t *testing.T) {
	release, busy := make(chan struct{}), make(chan struct{}, 2)
	g := start(t, withArgs("--gateway-max-connections=2"), withHandler(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/busy" {
			busy <- struct{}{}
			<-release
		}
		ok(w, r)
	}))
	_, idle := g.raw("GET /idle HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(idle, nil)
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	require.NoError(t, err)
	_, first := g.raw("GET /busy HTTP/1.1\r\nHost: a\r\n\r\n")
	<-busy
	require.Equal(t, "2", g.metric("micro_gateway_connections"))

	_, second := g.raw("GET /busy HTTP/1.1\r\nHost: a\r\n\r\n")
	<-busy // the idle one made room
	_, err = idle.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	require.Contains(t, g.logs.String(), "too many connections")

	_, third := g.raw("GET /waits HTTP/1.1\r\nHost: a\r\n\r\n")
	g.eventually("it waits", func() bool { return g.metric("micro_gateway_connection_limit_total") == "2" })
	require.Equal(t, "2", g.metric("micro_gateway_connections"))
	close(release)
	for _, r := range []*bufio.Reader{first, second, third} {
		resp, err := http.ReadResponse(r, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.NoError(t, resp.Body.Close())
	}
}

func TestTLS(t *testing.T) {
	own := testcert.New(t).TLS()
	infos := make(chan gateway.Info, 1)
	g := start(t, withArgs("--gateway-tls-cert="+own.Cert, "--gateway-tls-key="+own.Key),
		withHandler(func(w http.ResponseWriter, r *http.Request) { infos <- *gateway.Of(r); ok(w, r) }))
	g.trust(own)
	a := g.get(g.url("/x"))
	require.Equal(t, "HTTP/2.0", a.proto)
	require.True(t, (<-infos).Secure)

	config, err := own.Client()
	require.NoError(t, err)
	g.client.Transport = &http.Transport{TLSClientConfig: config, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	require.Equal(t, "HTTP/1.1", g.get(g.url("/x")).proto)
	<-infos

	old := config.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	_, err = tls.Dial("tcp", g.Addr(), old)
	require.ErrorContains(t, err, "protocol version")

	// plain HTTP is told what is wrong
	_, r := g.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)
	g.eventuallyLogs("connection failed")
}

func TestCertificateIsReplaced(t *testing.T) {
	ours := testcert.New(t)
	end := time.Now().Add(30 * time.Minute)
	own, next := ours.TLS(), ours.TLS(func(c *x509.Certificate) { c.Subject.CommonName, c.NotAfter = "next", end })
	g := start(t, withArgs("--gateway-tls-cert="+own.Cert, "--gateway-tls-key="+own.Key))
	config, err := own.Client()
	require.NoError(t, err)
	name := func() string {
		c, err := tls.Dial("tcp", g.Addr(), config)
		require.NoError(t, err)
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	require.Equal(t, "test", name())
	for from, to := range map[string]string{next.Cert: own.Cert, next.Key: own.Key} {
		data, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, data, 0o600))
	}
	g.eventually("the new certificate", func() bool { return name() == "next" })
	until := func() string {
		v, err := strconv.ParseFloat(g.metric("micro_gateway_certificate_expiry_timestamp_seconds"), 64)
		require.NoError(t, err)
		return time.Unix(int64(v), 0).UTC().Format(time.RFC3339)
	}
	require.Equal(t, end.UTC().Format(time.RFC3339), until())
}

func TestMutualTLS(t *testing.T) {
	own := testcert.New(t).TLS()
	g := start(t, withArgs("--gateway-tls-cert="+own.Cert, "--gateway-tls-key="+own.Key, "--gateway-tls-ca="+own.CA, "--gateway-tls-mutual"), withHandler(ok))
	g.trust(plugin.TLS{CA: own.CA})
	_, err := g.client.Get(g.url("/"))
	require.Error(t, err)
	g.trust(own)
	require.Equal(t, http.StatusOK, g.get(g.url("/")).status)
}

func TestH2C(t *testing.T) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	g := start(t, withArgs("--gateway-h2c"), withHandler(ok))
	g.client.Transport = &http.Transport{Protocols: protocols}
	require.Equal(t, "HTTP/2.0", g.get(g.url("/")).proto)
	g = start(t, withHandler(ok))
	g.client.Transport = &http.Transport{Protocols: protocols}
	_, err := g.client.Get(g.url("/"))
	require.Error(t, err, "off by default")
}

func TestRedirect(t *testing.T) {
	own := testcert.New(t).TLS()
	g := start(t, withArgs("--gateway-tls-cert="+own.Cert, "--gateway-tls-key="+own.Key, "--gateway-redirect-address=127.0.0.1:0"), withHandler(ok))
	g.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	at := "http://" + g.redirectListener.Addr().String()
	_, port, err := net.SplitHostPort(g.Addr())
	require.NoError(t, err)
	for host, want := range map[string]string{"api.example.com": "https://api.example.com:" + port, "API.example.com:80": "https://api.example.com:" + port, "[::1]:80": "https://[::1]:" + port} {
		req, err := http.NewRequest(http.MethodGet, at+"/a//b?c=d", nil)
		require.NoError(t, err)
		req.Host = host
		a := g.do(req)
		require.Equal(t, http.StatusPermanentRedirect, a.status)
		require.Equal(t, want+"/a/b?c=d", a.header.Get("Location"))
	}
	req, err := http.NewRequest(http.MethodGet, at, nil)
	require.NoError(t, err)
	req.Host = "a\\b"
	require.Equal(t, http.StatusBadRequest, g.do(req).status)
}

func TestProxyProtocol(t *testing.T) {
	infos := make(chan gateway.Info, 1)
	g := start(t, withArgs("--gateway-proxy-protocol", "--gateway-trusted-proxies=127.0.0.1"),
		withHandler(func(w http.ResponseWriter, r *http.Request) { infos <- *gateway.Of(r); ok(w, r) }))
	_, r := g.raw("PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, "203.0.113.7", (<-infos).Client.String())
}

func TestTrustedProxy(t *testing.T) {
	infos := make(chan gateway.Info, 1)
	g := start(t, withArgs("--gateway-client-header=x-forwarded-for", "--gateway-trusted-proxies=127.0.0.1"),
		withHandler(func(w http.ResponseWriter, r *http.Request) { infos <- *gateway.Of(r); ok(w, r) }))
	req, err := http.NewRequest(http.MethodGet, g.url("/"), nil)
	require.NoError(t, err)
	req.Header.Set("X-Forwarded-For", "203.0.113.7")
	req.Header.Set("X-Forwarded-Proto", "https")
	g.do(req)
	info := <-infos
	require.Equal(t, "203.0.113.7", info.Client.String())
	require.True(t, info.Secure)
	g.get(g.url("/"))
	require.False(t, (<-infos).Client.IsValid(), "nobody said")
	g.eventuallyLogs("it is not known who the client is")
	g.eventuallyLogs("client=unknown")
}

func TestServingThatFails(t *testing.T) {
	g := start(t, withHandler(ok))
	require.NoError(t, g.listener.Close())
	require.ErrorContains(t, <-g.Failed(), "address: ")
	require.NoError(t, g.Stop(t.Context()))
}
