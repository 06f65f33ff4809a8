package httpd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/loglimit"
)

// unixPrefix begins addresses that are paths.
const unixPrefix = "unix:"

// listen listens at an address of the settings; option is its name.
func listen(option, addr string) (net.Listener, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
		network, addr = "unix", path
		removeStale(path)
	}
	l, err := net.Listen(network, addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s %s is taken, perhaps by another gateway: stop that one, or listen elsewhere with --gateway-%s", option, addr, option)
	case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		return nil, fmt.Errorf("%s %s: the system does not allow it: ports below 1024 need a privilege (setcap cap_net_bind_service=+ep on the program), others can be set with --gateway-%s: %w",
			option, addr, option, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w: set it with --gateway-%s", option, err, option)
	}
	return l, nil
}

// removeStale removes a socket that a process left behind that did not end in order.
func removeStale(path string) {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return
	}
	os.Remove(path)
}

// limiter is a listener that has no more than so many connections open. More wait in the backlog of the system, which is
// bounded, and idle ones are closed for them.
type limiter struct {
	net.Listener
	slots   chan struct{}
	metrics *metrics
	log     *slog.Logger
	full    func(bool) // is told when connections wait, and when they no longer do
	warned  loglimit.Limit
	closed  chan struct{}
	once    sync.Once
}

func newLimiter(l net.Listener, most int, m *metrics, log *slog.Logger, full func(bool)) *limiter {
	return &limiter{Listener: l, slots: make(chan struct{}, most), metrics: m, log: log, full: full, closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *limiter) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	select {
	case l.slots <- struct{}{}:
	default:
		if err := l.wait(); err != nil {
			c.Close()
			return nil, err
		}
	}
	l.metrics.connections.Inc()
	return &conn{Conn: c, limiter: l}, nil
}

// wait has one connection wait here, and those that come after it in the backlog.
func (l *limiter) wait() error {
	l.metrics.waited.Inc()
	l.warned.Warn(l.log, "too many connections: new ones wait, and idle ones are closed for them", "max-connections", cap(l.slots))
	l.full(true)
	defer l.full(false)
	select {
	case l.slots <- struct{}{}:
		return nil
	case <-l.closed:
		return net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *limiter) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// conn gives its slot back once.
type conn struct {
	net.Conn
	limiter *limiter
	once    sync.Once
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(func() {
		<-c.limiter.slots
		c.limiter.metrics.connections.Dec()
	})
	return c.Conn.Close()
}

// CloseWrite is what net/http and crypto/tls look for.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

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

// redirect sends clients to https, and lets m, if it is there, answer the authority.
func redirect(port string, m *autocert.Manager) http.Handler {
	var next http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		switch {
		case port != "443":
			host = net.JoinHostPort(host, port)
		case strings.Contains(host, ":"):
			host = "[" + host + "]"
		}
		w.Header().Set("Connection", "close")
		http.Redirect(w, r, "https://"+host+r.URL.RequestURI(), http.StatusPermanentRedirect)
	})
	if m != nil {
		next = m.HTTPHandler(next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, err := gateway.Prepare(r)
		if err != nil {
			gateway.Fail(w, r, err)
			return
		}
		r.Host = host // without its port
		next.ServeHTTP(w, r)
	})
}
