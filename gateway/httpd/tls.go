package httpd

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// tlsConfig makes what the listener uses; nil is no TLS. The manager is there if certificates come by ACME.
func (s *Settings) tlsConfig() (*tls.Config, *autocert.Manager, error) {
	if len(s.ACME.Hosts) == 0 {
		config, err := s.TLS.Server()
		if config != nil && s.TLSMutual {
			config.ClientAuth = tls.RequireAndVerifyClientCert
		}
		return config, nil, err
	}
	m, err := s.ACME.manager()
	if err != nil {
		return nil, nil, err
	}
	config := m.TLSConfig()
	config.MinVersion = tls.VersionTLS12
	if s.TLS.CA != "" {
		if config.ClientCAs, err = authorities(s.TLS.CA); err != nil {
			return nil, nil, fmt.Errorf("tls-ca: %w", err)
		}
		config.ClientAuth = tls.VerifyClientCertIfGiven
		if s.TLSMutual {
			config.ClientAuth = tls.RequireAndVerifyClientCert
		}
		challenge := config.Clone() // the authority that asks has no certificate of ours
		challenge.ClientAuth = tls.NoClientCert
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acme.ALPNProto {
				return challenge, nil
			}
			return nil, nil
		}
	}
	return config, m, nil
}

func authorities(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s: there is no certificate in PEM in it", file)
	}
	return pool, nil
}
