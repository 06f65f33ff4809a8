// Package amqptest makes the certificates with which the RabbitMQ plugins are tested.
//
//	rabbit, client := amqptest.TLS(t)
//	server := servers.RabbitMQ(t, rabbit...)
package amqptest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/plugin"
)

// TLS makes an authority and a certificate for 127.0.0.1, and returns the lines of a rabbitmq.conf that listens with it
// and wants one of the same authority from clients, and the settings of such a client.
func TLS(t testing.TB) (rabbit []string, client plugin.TLS) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return file
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	own := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	require.NoError(t, err)
	ownDER, err := x509.CreateCertificate(rand.Reader, own, ca, key.Public(), key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	client = plugin.TLS{CA: write("ca.pem", "CERTIFICATE", caDER), Cert: write("cert.pem", "CERTIFICATE", ownDER), Key: write("key.pem", "PRIVATE KEY", keyDER)}
	conf := strings.NewReplacer("CA", client.CA, "CERT", client.Cert, "KEY", client.Key).Replace(
		"ssl_options.cacertfile = CA\nssl_options.certfile = CERT\nssl_options.keyfile = KEY\n" +
			"ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true")
	return strings.Split(conf, "\n"), client
}
