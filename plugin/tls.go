package plugin

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// TLS is how every plugin is told about TLS: as a field of its settings it gives tls-enable, tls-ca, tls-cert, tls-key,
// tls-server-name and tls-insecure. The files are checked when the settings are loaded. Certificates are verified, and
// TLS 1.2 is the least. A certificate that is replaced on disk is taken up by new connections; slog.Default is told of it,
// and of one that cannot be used, in whose place the one before stays in use.
type TLS struct {
	Enable     bool   `help:"use TLS; any other tls option turns it on too"`
	CA         string `help:"file with the certificates of the authorities to trust, PEM; default: those of the system"`
	Cert       string `help:"file with the own certificate, PEM"`
	Key        string `help:"file with the key of the own certificate, PEM"`
	ServerName string `help:"name that the server's certificate must be for; default: the name that is dialled"`
	Insecure   bool   `help:"do not verify the server: anybody in between can read and change everything"`
}

// Enabled tells whether any option is set.
func (t TLS) Enabled() bool { return t != TLS{} }

// Validate reads the files; Load calls it.
func (t TLS) Validate() error {
	_, err := t.Client()
	return err
}

// Client makes the configuration for dialling, nil if TLS is not enabled. The own certificate, if there is one, is
// shown to servers that ask for it.
func (t TLS) Client() (*tls.Config, error) {
	if !t.Enabled() {
		return nil, nil
	}
	roots, err := t.authorities()
	if err != nil {
		return nil, err
	}
	own, err := t.own()
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: t.ServerName, InsecureSkipVerify: t.Insecure}
	if own != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own.get(), nil }
	}
	return c, nil
}

// Server makes the configuration for listening, nil if TLS is not enabled; it needs Cert and Key. Certificates that
// clients show are verified against CA. To insist on one (mutual TLS), require CA and set ClientAuth to
// tls.RequireAndVerifyClientCert.
func (t TLS) Server() (*tls.Config, error) {
	if !t.Enabled() {
		return nil, nil
	}
	authorities, err := t.authorities()
	if err != nil {
		return nil, err
	}
	own, err := t.own()
	if err != nil {
		return nil, err
	}
	if own == nil {
		return nil, errors.New("a TLS server needs a certificate: set tls-cert and tls-key of this plugin, as in --transport-tls-cert")
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ClientCAs: authorities}
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own.get(), nil }
	if authorities != nil {
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return c, nil
}

// authorities reads CA; nil means those of the system.
func (t TLS) authorities() (*x509.CertPool, error) {
	if t.CA == "" {
		return nil, nil
	}
	data, err := readFile(t.CA)
	if err != nil {
		return nil, fmt.Errorf("tls-ca: %w", err)
	}
	pool := x509.NewCertPool()
	var expired error
	usable := false
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("tls-ca %s: %w", t.CA, err)
		}
		if err := valid(cert); err != nil {
			expired = err
			continue
		}
		pool.AddCert(cert)
		usable = true
	}
	switch {
	case usable:
		return pool, nil
	case expired != nil:
		return nil, fmt.Errorf("tls-ca %s: %w", t.CA, expired)
	}
	return nil, fmt.Errorf("tls-ca %s: there is no certificate in PEM in it", t.CA)
}

// own reads Cert and Key; nil if there are none.
func (t TLS) own() (*certificate, error) {
	switch {
	case t.Cert == "" && t.Key == "":
		return nil, nil
	case t.Key == "":
		return nil, fmt.Errorf("tls-cert %s: its key is missing: set tls-key", t.Cert)
	case t.Cert == "":
		return nil, fmt.Errorf("tls-key %s: its certificate is missing: set tls-cert", t.Key)
	}
	c := &certificate{certFile: t.Cert, keyFile: t.Key, checked: time.Now()}
	c.version = c.stat()
	var err error
	c.current, err = c.load()
	return c, err
}

// certificate is a certificate and its key, read again when their files change.
type certificate struct {
	certFile, keyFile string

	mu      sync.Mutex
	current *tls.Certificate
	version [2]fileVersion
	checked time.Time
	refused refusal // what slog.Default was told last; zero: all is well
}

// refusal is files that could not be used, and why.
type refusal struct {
	version [2]fileVersion
	reason  string
}

type fileVersion struct {
	modified time.Time
	size     int64
}

// get looks at the files once a second at most. While what is there cannot be used, perhaps because only one of the two
// was replaced yet, the certificate that was good stays.
func (c *certificate) get() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < time.Second {
		return c.current
	}
	c.checked = time.Now()
	version := c.stat()
	if version == c.version && c.refused == (refusal{}) {
		return c.current
	}
	cert, err := c.load()
	if err != nil {
		c.refuse(refusal{version, err.Error()})
		return c.current
	}
	c.current, c.version, c.refused = cert, version, refusal{}
	slog.Info("the certificate on disk is in use", "tls-cert", c.certFile, "until", cert.Leaf.NotAfter)
	return c.current
}

// refuse tells once of files that cannot be used.
func (c *certificate) refuse(r refusal) {
	if r == c.refused {
		return
	}
	c.refused = r
	slog.Warn("the changed certificate on disk cannot be used: the one before stays in use",
		"tls-cert", c.certFile, "tls-key", c.keyFile, "error", r.reason, "until", c.current.Leaf.NotAfter)
}

func (c *certificate) stat() (v [2]fileVersion) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			v[i] = fileVersion{info.ModTime(), info.Size()}
		}
	}
	return v
}

func (c *certificate) load() (*tls.Certificate, error) {
	certPEM, err := readFile(c.certFile)
	if err != nil {
		return nil, fmt.Errorf("tls-cert: %w", err)
	}
	keyPEM, err := readFile(c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("tls-key: %w", err)
	}
	if !hasBlock(certPEM, "CERTIFICATE") {
		return nil, fmt.Errorf("tls-cert %s: there is no certificate in PEM in it", c.certFile)
	}
	if !hasBlock(keyPEM, "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY") {
		return nil, fmt.Errorf("tls-key %s: there is no private key in PEM, without a passphrase, in it", c.keyFile)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("tls-cert %s with tls-key %s: %w", c.certFile, c.keyFile, err)
	}
	if err := valid(cert.Leaf); err != nil {
		return nil, fmt.Errorf("tls-cert %s: %w", c.certFile, err)
	}
	return &cert, nil
}

func hasBlock(data []byte, types ...string) bool {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if slices.Contains(types, block.Type) {
			return true
		}
	}
	return false
}

// valid says since when a certificate is of no use, or until when.
func valid(cert *x509.Certificate) error {
	switch now := time.Now(); {
	case now.After(cert.NotAfter):
		return fmt.Errorf("the certificate expired at %s: renew it", cert.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(cert.NotBefore):
		return fmt.Errorf("the certificate is not valid before %s: check the clock", cert.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}
