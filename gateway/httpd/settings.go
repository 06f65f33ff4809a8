package httpd

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/idna"

	"github.com/plugmicro/micro/gateway/clientip"
	"github.com/plugmicro/micro/plugin"
)

// Settings are what --gateway-address, MICRO_GATEWAY_ADDRESS and gateway: {address: …} in the file set, and so on. They are
// made by a plugin.Loader, which knows the defaults: see Section.
type Settings struct {
	Address         string   `help:"address to listen on, or unix:PATH; default: :8080, or 127.0.0.1:8080 while the registry is of this machine only; that default takes only requests for an address, localhost or *.localhost"`
	AdminAddress    string   `default:"127.0.0.1:8081" help:"address of metrics, health, the API's description and the page for people, who can call every service there; off: none"`
	AdminHosts      []string `help:"names under which the admin address may be asked, beside addresses and localhost"`
	AdminPprof      bool     `help:"profiles of the process, on the admin address at /debug/pprof/"`
	RedirectAddress string   `help:"address that sends clients from http to https, such as :80; ACME's challenge http-01 is answered there, too"`

	clientip.Settings

	TLS       plugin.TLS
	TLSMutual bool `help:"take only clients with a certificate of the authorities in tls-ca"`
	ACME      ACME
	H2C       bool `name:"h2c" help:"take HTTP/2 without TLS from clients that begin with it; Upgrade: h2c is never honoured"`

	MaxHeader      plugin.Size `default:"64KiB" help:"largest head of a request; more is answered with 431"`
	MaxBody        plugin.Size `default:"4MiB" help:"largest body of a request, also of one that is passed on to a URL; more is answered with 413"`
	MaxConnections int         `default:"10000" help:"connections at a time; more wait until one is closed, and idle ones are closed for them"`

	Services       []string `default:"*" help:"services that paths and /v1/rpc reach: names, or beginnings of names and *"`
	ForwardHeaders []string `default:"Authorization,Accept-Language" help:"headers of requests that services get as metadata"`
	Origins        []string `help:"origins of pages that may open WebSockets, beside the gateway's own: https://app.example.com, https://*.example.com"`

	CallTimeout    time.Duration `default:"10s" help:"limit for a call whose request and route do not say"`
	MaxCallTimeout time.Duration `default:"5m" help:"the longest that a request can ask for, with X-Request-Timeout"`
	Heartbeat      time.Duration `default:"15s" help:"how often a stream that has nothing to say gives a sign of life"`

	HeaderTimeout time.Duration `default:"10s" help:"limit for the head of a request, and for a TLS handshake"`
	IdleTimeout   time.Duration `default:"2m" help:"how long a connection is kept without a request"`
	SilentTimeout time.Duration `default:"1m" help:"how long a client may send nothing of a body that it began, or take nothing of its answer"`

	StopDelay    time.Duration `default:"300ms" help:"how long, when it stops, it goes on to take requests while /readyz says no: as long as those who send them take to notice"`
	DrainTimeout time.Duration `default:"30s" help:"limit for stopping: requests and streams that run longer are cut off"`

	ClientTraces bool `default:"true" help:"continue the traces that requests name, and record those that they want recorded; false: traceparent, tracestate, baggage and X-Amzn-Trace-Id are removed from requests, and each begins a trace of its own"`

	AccessLog bool `default:"true" help:"log each request"`
}

// ACME has certificates got from an authority, and renewed.
type ACME struct {
	Hosts     []string `help:"names to get certificates for; who sets it agrees to the terms of the authority"`
	Email     string   `help:"where the authority can write to"`
	Cache     string   `help:"folder that keeps the account and the certificates; default: micro/acme in the user's cache folder"`
	Directory string   `default:"https://acme-v02.api.letsencrypt.org/directory" help:"URL of the authority's directory"`
	CA        string   `help:"file with the authorities by which that URL is trusted, PEM; default: those of the system"`
}

// off is the AdminAddress that there is none.
const off = "off"

// Validate is for package plugin.
func (s *Settings) Validate() error {
	errs := []error{s.Settings.Validate()}
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, a := range []struct{ name, value string }{
		{"address", s.Address}, {"admin-address", s.AdminAddress}, {"redirect-address", s.RedirectAddress},
	} {
		if err := checkAddress(a.value); err != nil && a.value != "" && (a.name != "admin-address" || a.value != off) {
			wrong("%s %q: %w", a.name, a.value, err)
		}
	}
	for _, l := range []struct {
		name  string
		value time.Duration
	}{
		{"header-timeout", s.HeaderTimeout}, {"idle-timeout", s.IdleTimeout}, {"silent-timeout", s.SilentTimeout}, {"drain-timeout", s.DrainTimeout},
		{"call-timeout", s.CallTimeout}, {"max-call-timeout", s.MaxCallTimeout}, {"heartbeat", s.Heartbeat},
	} {
		if l.value <= 0 {
			wrong("%s %s: want more than 0", l.name, l.value)
		}
	}
	switch {
	case s.StopDelay < 0 || s.StopDelay >= s.DrainTimeout && s.DrainTimeout > 0:
		wrong("stop-delay %s: want 0 or more, and less than drain-timeout %s, of which it is a part", s.StopDelay, s.DrainTimeout)
	case s.MaxCallTimeout > 0 && s.CallTimeout > s.MaxCallTimeout:
		wrong("call-timeout %s is longer than max-call-timeout %s", s.CallTimeout, s.MaxCallTimeout)
	case s.MaxHeader < 1<<10 || s.MaxHeader > 16<<20:
		wrong("max-header %s: want 1KiB to 16MiB", s.MaxHeader)
	case s.MaxBody < 1:
		wrong("max-body %s: want at least 1B", s.MaxBody)
	case s.MaxConnections < 1:
		wrong("max-connections %d: want at least 1", s.MaxConnections)
	}
	if len(s.Services) == 0 {
		wrong("services: it is empty, which could mean all or none: name those that are to be reached, or write * for all")
	}
	for _, pattern := range s.Services {
		if name := strings.TrimSuffix(pattern, "*"); strings.Contains(name, "*") || pattern == "" {
			wrong("services %q: want a name, or the beginning of names and one * at its end", pattern)
		}
	}
	return errors.Join(append(errs, s.checkTLS()...)...)
}

func (s *Settings) checkTLS() (errs []error) {
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	acme := len(s.ACME.Hosts) > 0
	switch {
	case acme && (s.TLS.Cert != "" || s.TLS.Key != ""):
		wrong("acme-hosts and tls-cert are two ways to a certificate: leave one")
	case s.TLS.Enabled() && !acme && (s.TLS.Cert == "" || s.TLS.Key == ""):
		wrong("TLS is on, by tls-enable or another of its options, and needs a certificate: set tls-cert and tls-key, or acme-hosts")
	case s.TLS.ServerName != "" || s.TLS.Insecure:
		wrong("tls-server-name and tls-insecure are for clients: remove them")
	case s.TLSMutual != (s.TLS.CA != ""):
		wrong("tls-mutual and tls-ca go together: set both to take only clients with a certificate of these authorities, or neither")
	case s.RedirectAddress != "" && !acme && !s.TLS.Enabled():
		wrong("redirect-address leads to https, but there is no TLS: set tls-cert and tls-key, or acme-hosts")
	}
	for _, h := range s.ACME.Hosts {
		if name, err := idna.Lookup.ToASCII(h); err != nil || !strings.Contains(strings.Trim(name, "."), ".") || net.ParseIP(h) != nil {
			wrong("acme-hosts: no certificate can be got for %q: want a name such as api.example.com, no address and no wildcard", h)
		}
	}
	if u, err := url.Parse(s.ACME.Directory); acme && (err != nil || u.Scheme != "https" || u.Host == "") {
		wrong("acme-directory %q: want a URL that begins with https://", s.ACME.Directory)
	}
	return errs
}

// publicAddress is where to listen for everybody; unset says that nobody has set one, and that it is of this machine only.
func (s *Settings) publicAddress(oneMachine bool) (address string, unset bool) {
	switch {
	case s.Address != "":
		return s.Address, false
	case oneMachine:
		return "127.0.0.1:8080", true
	}
	return ":8080", false
}

func (s *Settings) hasTLS() bool { return s.TLS.Enabled() || len(s.ACME.Hosts) > 0 }

func checkAddress(a string) error {
	if path, ok := strings.CutPrefix(a, unixPrefix); ok {
		if path == "" {
			return errors.New("want unix:PATH")
		}
		return nil
	}
	_, port, err := net.SplitHostPort(a)
	if err != nil {
		return errors.New("want HOST:PORT, :PORT or unix:PATH")
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("there is no port %q", port)
	}
	return nil
}
