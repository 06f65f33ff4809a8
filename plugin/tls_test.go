package plugin

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue writes NAME.pem and NAME-key.pem for localhost, valid from and to, and returns the paths. Without an authority
// it is one itself.
func (a *authority) issue(t *testing.T, dir, name string, from, to time.Time) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	cert := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"}, NotBefore: from, NotAfter: to,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	if a.cert == nil {
		cert.IsCA, cert.KeyUsage = true, x509.KeyUsageCertSign
		a.cert, a.key = cert, key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, &key.PublicKey, a.key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certFile, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return certFile, keyFile
}

func TestTLSErrors(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	var a authority
	ca, _ := a.issue(t, dir, "ca", now.Add(-time.Hour), now.Add(time.Hour))
	cert, key := a.issue(t, dir, "good", now.Add(-time.Hour), now.Add(time.Hour))
	_, otherKey := a.issue(t, dir, "other", now.Add(-time.Hour), now.Add(time.Hour))
	old, oldKey := a.issue(t, dir, "old", now.Add(-2*time.Hour), time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC))
	early, earlyKey := a.issue(t, dir, "early", time.Date(2126, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2127, 1, 1, 0, 0, 0, 0, time.UTC))
	text := writeFile(t, "text.pem", "not a certificate")
	broken := writeFile(t, "broken.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})))

	for name, tt := range map[string]struct {
		tls  TLS
		want []string
	}{
		"unreadable ca":     {TLS{CA: "/nowhere.pem"}, []string{"tls-ca: cannot read the file: open /nowhere.pem: no such file"}},
		"unreadable cert":   {TLS{Cert: "/nowhere.pem", Key: key}, []string{"tls-cert: cannot read the file: open /nowhere.pem"}},
		"unreadable key":    {TLS{Cert: cert, Key: "/nowhere.pem"}, []string{"tls-key: cannot read the file: open /nowhere.pem"}},
		"ca not PEM":        {TLS{CA: text}, []string{"tls-ca " + text, "no certificate in PEM"}},
		"ca is a key":       {TLS{CA: key}, []string{"tls-ca " + key, "no certificate in PEM"}},
		"ca broken":         {TLS{CA: broken}, []string{"tls-ca " + broken, "malformed"}},
		"ca expired":        {TLS{CA: old}, []string{"tls-ca " + old, "expired at 2020-01-02T03:04:05Z: renew it"}},
		"cert not PEM":      {TLS{Cert: text, Key: key}, []string{"tls-cert " + text, "no certificate in PEM"}},
		"cert broken":       {TLS{Cert: broken, Key: key}, []string{"tls-cert " + broken, "malformed"}},
		"key not PEM":       {TLS{Cert: cert, Key: text}, []string{"tls-key " + text, "no private key in PEM"}},
		"key of another":    {TLS{Cert: cert, Key: otherKey}, []string{"tls-cert " + cert, otherKey, "does not match"}},
		"cert without key":  {TLS{Cert: cert}, []string{"tls-cert " + cert, "set tls-key"}},
		"key without cert":  {TLS{Key: key}, []string{"tls-key " + key, "set tls-cert"}},
		"cert expired":      {TLS{Cert: old, Key: oldKey}, []string{"tls-cert " + old, "expired at 2020-01-02T03:04:05Z"}},
		"cert not yet good": {TLS{Cert: early, Key: earlyKey}, []string{"tls-cert " + early, "not valid before 2126-01-02T03:04:05Z: check the clock"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, clientErr := tt.tls.Client()
			_, serverErr := tt.tls.Server()
			for _, want := range tt.want {
				require.ErrorContains(t, clientErr, want)
				require.ErrorContains(t, serverErr, want)
				require.ErrorContains(t, tt.tls.Validate(), want)
			}
		})
	}
	_, err := TLS{CA: ca}.Server()
	require.EqualError(t, err, "a TLS server needs a certificate: set tls-cert and tls-key of this plugin, as in --transport-tls-cert")
}

func TestTLSFilesAreCheckedWhenLoading(t *testing.T) {
	_, err := load(t, input{args: []string{"--store=disk"}, file: "store: {tls: {ca: /nowhere.pem}}"})
	require.EqualError(t, err, "store/disk: tls-ca: cannot read the file: open /nowhere.pem: no such file or directory"+
		" (store-tls-ca from file FILE:1)")
}

func TestTLSNotEnabled(t *testing.T) {
	require.False(t, TLS{}.Enabled())
	for _, on := range []TLS{{Enable: true}, {CA: "x"}, {Cert: "x"}, {Key: "x"}, {ServerName: "x"}, {Insecure: true}} {
		require.True(t, on.Enabled())
	}
	client, err := TLS{}.Client()
	require.NoError(t, err)
	require.Nil(t, client)
	server, err := TLS{}.Server()
	require.NoError(t, err)
	require.Nil(t, server)
}

// handshake connects the two and answers the name of the server's certificate and that of the client, if any.
func handshake(t *testing.T, client, server *tls.Config) (serverName, clientName string, err error) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	require.NoError(t, err)
	defer listener.Close()
	seen := make(chan string, 1)
	go func() {
		defer close(seen)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if conn.(*tls.Conn).Handshake() != nil {
			return
		}
		name := ""
		if peers := conn.(*tls.Conn).ConnectionState().PeerCertificates; len(peers) > 0 {
			name = peers[0].Subject.CommonName
		}
		_, _ = conn.Write([]byte("x"))
		seen <- name
	}()
	raw, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	client = client.Clone()
	if client.ServerName == "" {
		client.ServerName = "localhost"
	}
	conn := tls.Client(raw, client)
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil { // a refused client certificate shows on reading
		return "", "", err
	}
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName, <-seen, nil
}

func TestTLSHandshakes(t *testing.T) {
	dir := t.TempDir()
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	var a, foreign authority
	ca, _ := a.issue(t, dir, "ca", from, to)
	cert, key := a.issue(t, dir, "server", from, to)
	clientCert, clientKey := a.issue(t, dir, "client", from, to)
	foreignCert, foreignKey := foreign.issue(t, dir, "foreign", from, to)

	for name, tt := range map[string]struct {
		client, server TLS
		mutual         bool
		wantClient     string
		wantErr        string
	}{
		"verified":             {client: TLS{CA: ca}, server: TLS{Cert: cert, Key: key}},
		"unknown authority":    {client: TLS{Enable: true}, server: TLS{Cert: cert, Key: key}, wantErr: "unknown authority"},
		"wrong name":           {client: TLS{CA: ca, ServerName: "elsewhere"}, server: TLS{Cert: cert, Key: key}, wantErr: "not elsewhere"},
		"insecure":             {client: TLS{Insecure: true}, server: TLS{Cert: cert, Key: key}},
		"client certificate":   {client: TLS{CA: ca, Cert: clientCert, Key: clientKey}, server: TLS{CA: ca, Cert: cert, Key: key}, wantClient: "client"},
		"not insisted on":      {client: TLS{CA: ca}, server: TLS{CA: ca, Cert: cert, Key: key}},
		"mutual":               {client: TLS{CA: ca, Cert: clientCert, Key: clientKey}, server: TLS{CA: ca, Cert: cert, Key: key}, mutual: true, wantClient: "client"},
		"mutual, none shown":   {client: TLS{CA: ca}, server: TLS{CA: ca, Cert: cert, Key: key}, mutual: true, wantErr: "certificate required"},
		"foreign client shown": {client: TLS{CA: ca, Cert: foreignCert, Key: foreignKey}, server: TLS{CA: ca, Cert: cert, Key: key}, wantErr: "tls"},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := tt.client.Client()
			require.NoError(t, err)
			server, err := tt.server.Server()
			require.NoError(t, err)
			require.EqualValues(t, tls.VersionTLS12, client.MinVersion)
			require.EqualValues(t, tls.VersionTLS12, server.MinVersion)
			if tt.mutual {
				server.ClientAuth = tls.RequireAndVerifyClientCert
			}
			serverName, clientName, err := handshake(t, client, server)
			if tt.wantErr != "" {
				require.ErrorContains(t, err, tt.wantErr)
				return
			}
			require.NoError(t, err)
			require.Equal(t, "server", serverName)
			require.Equal(t, tt.wantClient, clientName)
		})
	}
}

func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	var a authority
	a.issue(t, dir, "ca", from, to)
	cert, key := a.issue(t, dir, "own", from, to)
	c, err := TLS{Cert: cert, Key: key}.own()
	require.NoError(t, err)
	var written bytes.Buffer
	before, out, flags := slog.Default(), log.Writer(), log.Flags()
	slog.SetDefault(slog.New(slog.NewTextHandler(&written, nil)))
	defer func() {
		slog.SetDefault(before)
		log.SetOutput(out)
		log.SetFlags(flags)
	}()
	logged := func() string {
		defer written.Reset()
		return written.String()
	}
	first := c.get()
	later := func() *tls.Certificate { // as if a second had passed
		c.mu.Lock()
		c.checked = c.checked.Add(-time.Minute)
		c.mu.Unlock()
		return c.get()
	}
	require.Same(t, first, later(), "the files did not change")

	require.NoError(t, os.WriteFile(cert, []byte("half written"), 0o600))
	require.Empty(t, logged())
	require.Same(t, first, later(), "what cannot be used does not replace what can")
	text := logged()
	require.Contains(t, text, "level=WARN")
	require.Contains(t, text, "tls-cert="+cert)
	require.Contains(t, text, "there is no certificate in PEM in it")
	require.Same(t, first, later())
	require.Empty(t, logged(), "it is told once")
	require.NoError(t, os.Remove(key))
	require.Same(t, first, later())
	require.Contains(t, logged(), "level=WARN", "there is something else wrong")
	require.NoError(t, os.WriteFile(cert, []byte("written by halves"), 0o600))
	require.Same(t, first, later())
	require.Contains(t, logged(), "level=WARN", "that is new, too")

	a.issue(t, dir, "own", from, to)
	require.Same(t, first, c.get(), "not looked at again within a second")
	second := later()
	text = logged()
	require.Contains(t, text, "level=INFO")
	require.NotContains(t, text, "level=WARN")
	require.NotEqual(t, first.Leaf.SerialNumber, second.Leaf.SerialNumber)
	require.Same(t, second, later())
	require.Empty(t, logged())

	good, err := os.Stat(cert)
	require.NoError(t, err)
	kept := cert + ".kept"
	require.NoError(t, os.Rename(cert, kept))
	require.Same(t, second, later())
	require.Contains(t, logged(), "level=WARN")
	require.NoError(t, os.Rename(kept, cert))
	require.NoError(t, os.Chtimes(cert, good.ModTime(), good.ModTime()))
	require.Equal(t, second.Leaf.SerialNumber, later().Leaf.SerialNumber)
	require.Contains(t, logged(), "level=INFO", "all is well again, though nothing has changed in the end")
}
