package httpd

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// manager gets the certificates and renews them.
func (a ACME) manager() (*autocert.Manager, error) {
	folder, err := a.cacheFolder()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("acme-cache: %w", err)
	}
	client := &acme.Client{DirectoryURL: a.Directory, UserAgent: "micro-gateway"}
	if a.CA != "" {
		pool, err := authorities(a.CA)
		if err != nil {
			return nil, fmt.Errorf("acme-ca: %w", err)
		}
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
		client.HTTPClient = &http.Client{Transport: transport, Timeout: time.Minute}
	}
	return &autocert.Manager{
		Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(folder), HostPolicy: autocert.HostWhitelist(a.Hosts...),
		Email: a.Email, Client: client,
	}, nil
}

// fetch gets the certificates before the first client asks, so that it need not wait, and what is wrong is in the log.
func fetch(m *autocert.Manager, hosts []string, log *slog.Logger) {
	for _, host := range hosts {
		host = strings.ToLower(host)
		hello := &tls.ClientHelloInfo{
			ServerName: host, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
			SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}, SupportedCurves: []tls.CurveID{tls.CurveP256},
		}
		cert, err := m.GetCertificate(hello)
		if err != nil {
			log.Warn("no certificate: it is asked for again when a client comes", "host", host, "error", err)
			continue
		}
		log.Info("the certificate is there", "host", host, "until", cert.Leaf.NotAfter)
	}
}

// cacheFolder is where ACME keeps what it got.
func (a ACME) cacheFolder() (string, error) {
	dir, err := os.UserCacheDir()
	if a.Cache == "" && err != nil {
		return "", fmt.Errorf("acme-cache: there is no folder to keep certificates in: set it: %w", err)
	}
	return cmp.Or(a.Cache, filepath.Join(dir, "micro", "acme")), nil
}
