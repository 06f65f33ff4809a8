package tcp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/testcert"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/transport"
)

// meet has a dialer and a listener with settings of their own meet, and returns the error of each; the listener's is nil
// if it saw nothing to tell.
func meet(t *testing.T, dialer, listener Config, addr ...string) (dialed, accepted error) {
	l := listen(t, open(t, listener), "127.0.0.1:0")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	result := make(chan error, 1)
	go func() {
		c, err := l.Accept(ctx)
		if err == nil {
			_, err = c.Recv(ctx)
			c.Close()
		}
		result <- err
	}()
	to := l.Addr()
	if len(addr) > 0 {
		_, port, _ := net.SplitHostPort(to)
		to = net.JoinHostPort(addr[0], port)
	}
	c, err := open(t, dialer).Dial(ctx, to)
	if err == nil {
		require.NoError(t, c.Send(ctx, []byte("a message that is longer than the header of a record")))
		_, err = c.Recv(ctx)
		c.Close()
	}
	return err, <-result
}

func TestTLSRefusals(t *testing.T) {
	ours, theirs := testcert.New(t), testcert.New(t)
	good := ours.TLS()
	onlyCA := plugin.TLS{CA: good.CA}
	stranger := theirs.TLS()
	stranger.CA = ours.File
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	otherHost := func(c *x509.Certificate) { c.IPAddresses = nil; c.DNSNames = []string{"elsewhere.example"} }

	for name, tc := range map[string]struct {
		dialer, listener Config
		dialed, accepted []string // parts of the errors
	}{
		"the listener's authority is unknown": {
			dialer:   Config{TLS: plugin.TLS{CA: theirs.File}},
			listener: Config{TLS: good},
			dialed:   []string{"dial 127.0.0.1:", "peer's certificate is refused", "unknown authority", theirs.File + " (--transport-tls-ca)"},
			accepted: []string{"accept from 127.0.0.1:", "bad certificate"},
		},
		"the listener's certificate is for another host": {
			dialer:   Config{TLS: onlyCA},
			listener: Config{TLS: ours.TLS(otherHost)},
			dialed:   []string{"peer's certificate is refused", "127.0.0.1"},
			accepted: []string{"bad certificate"},
		},
		"the dialer has no certificate": {
			dialer:   Config{TLS: onlyCA},
			listener: Config{TLS: good, TLSMutual: true},
			dialed:   []string{"the peer refused the TLS handshake", "certificate required", "it was shown no certificate: set --transport-tls-cert"},
			accepted: []string{"client didn't provide a certificate"},
		},
		"the dialer's authority is unknown": {
			dialer:   Config{TLS: stranger},
			listener: Config{TLS: good, TLSMutual: true},
			dialed:   []string{"the peer refused the TLS handshake", "(--transport-tls-cert)"},
			accepted: []string{"unknown authority"},
		},
		"the listener has no TLS": {
			dialer:   Config{TLS: onlyCA},
			listener: Config{},
			dialed:   []string{"the peer ended the TLS handshake", "it may listen without TLS"},
			accepted: []string{"not a micro peer", "looks like TLS: set --transport-tls-cert"},
		},
		"the dialer has no TLS": {
			dialer:   Config{},
			listener: Config{TLS: good},
			dialed:   []string{"not a micro peer", "looks like TLS", "--transport-tls-ca"},
			accepted: []string{"not a micro peer", "TLS was expected", "--transport-tls-ca"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dialed, accepted := meet(t, tc.dialer, tc.listener)
			for _, part := range tc.dialed {
				require.ErrorContains(t, dialed, part)
			}
			for _, part := range tc.accepted {
				require.ErrorContains(t, accepted, part)
			}
		})
	}

	t.Run("an expired certificate is found when the transport is made", func(t *testing.T) {
		settings := ours.TLS(expired)
		_, err := New(new(plugin.Env), Config{TLS: settings})
		require.ErrorContains(t, err, settings.Cert)
		require.ErrorContains(t, err, "expired")
	})
	t.Run("a certificate that cannot be read is found when the transport is made", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "cert.pem")
		require.NoError(t, os.WriteFile(file, []byte("no certificate"), 0o600))
		_, err := New(new(plugin.Env), Config{TLS: plugin.TLS{Cert: file, Key: file}})
		require.ErrorContains(t, err, file)
	})
	t.Run("the listener's certificate expires", func(t *testing.T) {
		settings := ours.TLS(expired)
		pair, err := tls.LoadX509KeyPair(settings.Cert, settings.Key)
		require.NoError(t, err)
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
		require.NoError(t, err)
		defer l.Close()
		go func() {
			if c, err := l.Accept(); err == nil {
				c.(*tls.Conn).Handshake()
				c.Close()
			}
		}()
		_, err = open(t, Config{TLS: onlyCA}).Dial(t.Context(), l.Addr().String())
		require.ErrorContains(t, err, "dial "+l.Addr().String()+": the peer's certificate is refused")
		require.ErrorContains(t, err, "expired")
	})
	t.Run("listening needs a certificate", func(t *testing.T) {
		_, err := open(t, Config{TLS: onlyCA}).Listen(t.Context(), "127.0.0.1:0")
		require.ErrorContains(t, err, "set tls-cert and tls-key")
	})
}

func TestTLSServerName(t *testing.T) {
	a := testcert.New(t)
	listener := Config{TLS: a.TLS(func(c *x509.Certificate) { c.IPAddresses = nil })}
	dialed, _ := meet(t, Config{TLS: plugin.TLS{CA: a.File}}, listener, "localhost")
	require.Equal(t, io.EOF, dialed, "the name that is dialled")
	dialed, _ = meet(t, Config{TLS: plugin.TLS{CA: a.File, ServerName: "localhost"}}, listener)
	require.Equal(t, io.EOF, dialed, "the name that is set")
	dialed, _ = meet(t, Config{TLS: plugin.TLS{CA: a.File}}, listener)
	require.ErrorContains(t, dialed, "certificate is refused")
}

func TestDialTLSToOtherServers(t *testing.T) {
	web := httptest.NewUnstartedServer(http.NotFoundHandler())
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.EnableHTTP2 = true
	web.StartTLS()
	defer web.Close()
	tr := open(t, Config{TLS: plugin.TLS{Insecure: true}, Timeout: 100 * time.Millisecond})
	_, err := tr.Dial(t.Context(), web.Listener.Addr().String())
	require.ErrorContains(t, err, "the peer refused the TLS handshake")
	require.ErrorContains(t, err, "no application protocol")

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	_, err = tr.Dial(t.Context(), silent.Addr().String())
	require.ErrorContains(t, err, "dial "+silent.Addr().String()+": the TLS handshake did not end within 100ms")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err = open(t, Config{TLS: plugin.TLS{Insecure: true}}).Dial(ctx, silent.Addr().String())
	require.ErrorIs(t, err, context.Canceled)

	talks, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer talks.Close()
	go func() {
		if c, err := talks.Accept(); err == nil {
			io.WriteString(c, "SSH-2.0-OpenSSH_9.9\r\n")
			io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	_, err = tr.Dial(t.Context(), talks.Addr().String())
	require.ErrorIs(t, err, transport.ErrProtocol)
	require.ErrorContains(t, err, `it sent "SSH-2`)
}

func TestSlowHandshakeHoldsUpNobody(t *testing.T) {
	tr := open(t, Config{TLS: testcert.New(t).TLS()})
	l := listen(t, tr, "127.0.0.1:0")
	for range 20 {
		silent, err := net.Dial("tcp", l.Addr())
		require.NoError(t, err)
		defer silent.Close()
	}
	accepted := make(chan error, 1)
	go func() {
		c, err := l.Accept(t.Context())
		if err == nil {
			c.Close()
		}
		accepted <- err
	}()
	dial(t, tr, l.Addr())
	require.NoError(t, <-accepted)
	require.NoError(t, l.Close(), "it ends the handshakes that are under way")
}

func TestHandshakeThatStallsIsGivenUp(t *testing.T) {
	l := listen(t, open(t, Config{TLS: testcert.New(t).TLS(), Timeout: 50 * time.Millisecond}), "127.0.0.1:0")
	silent, err := net.Dial("tcp", l.Addr())
	require.NoError(t, err)
	defer silent.Close()
	_, err = l.Accept(t.Context())
	require.ErrorContains(t, err, "accept from "+silent.LocalAddr().String()+": the TLS handshake did not end within 50ms")
	requireGone(t, silent)
}

// Health checks of load balancers connect and close.
func TestPortScanIsNoError(t *testing.T) {
	tr := open(t, Config{TLS: testcert.New(t).TLS()})
	l := listen(t, tr, "127.0.0.1:0")
	scan, err := net.Dial("tcp", l.Addr())
	require.NoError(t, err)
	require.NoError(t, scan.Close())
	require.Eventually(t, func() bool { return l.(*listener).conns.Load() == 0 }, 30*time.Second, time.Millisecond)
	go dial(t, tr, l.Addr())
	accept(t, l)
}

func TestRefusedHandshakesFreeTheirPlaces(t *testing.T) {
	settings := testcert.New(t).TLS()
	l := listen(t, open(t, Config{TLS: settings, MaxConns: 1}), "127.0.0.1:0")
	for range 5 {
		plain := dial(t, open(t, Config{}), l.Addr())
		require.NoError(t, plain.Send(t.Context(), []byte("not encrypted")))
		_, err := l.Accept(t.Context())
		require.ErrorIs(t, err, transport.ErrProtocol)
		require.Eventually(t, func() bool { return l.(*listener).conns.Load() == 0 }, 30*time.Second, time.Millisecond)
	}
	go echo(dial(t, open(t, Config{TLS: settings}), l.Addr()))
	c := accept(t, l)
	require.NoError(t, c.Send(t.Context(), []byte("encrypted")))
	_, err := c.Recv(t.Context())
	require.NoError(t, err)
}
