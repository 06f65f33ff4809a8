// Package cors lets pages of other origins use the gateway from a browser, as https://fetch.spec.whatwg.org/#http-cors-protocol
// has it:
//
//	micro gateway --gateway-middleware=cors --middleware-cors-origins=https://shop.example.com
//
// It stands before what authenticates: a browser asks (OPTIONS) without credentials. Without this middleware pages of other
// origins can read nothing, and what they could send by themselves is refused.
package cors

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rs/cors"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/plugin"
)

func init() {
	plugin.Register("cors", New, plugin.Doc("lets web pages of other origins use the gateway"))
}

// Config is what --middleware-cors-* sets.
type Config struct {
	Origins     []string      `help:"required: who may: https://shop.example.com, https://*.example.com for all below it, or * for everybody"`
	Credentials bool          `help:"pages may send cookies and Authorization of the browser; not together with *"`
	Methods     []string      `default:"GET,HEAD,POST" help:"methods that pages may use"`
	Headers     []string      `default:"Authorization,Content-Type,X-Request-Id,X-Request-Timeout" help:"headers that pages may send"`
	Expose      []string      `default:"X-Request-Id" help:"headers of answers that pages may read"`
	MaxAge      time.Duration `default:"10m" help:"how long a browser need not ask again"`
}

// Validate is for package plugin.
func (c *Config) Validate() error {
	if len(c.Origins) == 0 {
		return errors.New("origins: say who may use the gateway, as in https://shop.example.com")
	}
	var errs []error
	for _, o := range c.Origins {
		switch {
		case o == "*" && c.Credentials:
			errs = append(errs, errors.New("origins *: everybody with credentials would let any page act for its visitors: name the origins"))
		case o != "*" && !isOrigin(o):
			errs = append(errs, fmt.Errorf("origins: %q is no origin: write scheme and host, and no path, as in https://shop.example.com or https://*.example.com", o))
		}
	}
	return errors.Join(errs...)
}

// isOrigin takes one asterisk, as the whole first label: anything else would match what nobody thinks of.
func isOrigin(o string) bool {
	scheme, host, _ := strings.Cut(o, "://")
	host = strings.TrimPrefix(host, "*.")
	u, err := url.Parse(scheme + "://" + host)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && !strings.Contains(host, "*") &&
		u.Host == host && strings.ToLower(o) == o
}

// New makes the middleware.
func New(_ *plugin.Env, c Config) (gateway.Middleware, error) {
	handler := cors.New(cors.Options{
		AllowedOrigins: c.Origins, AllowCredentials: c.Credentials, AllowedMethods: c.Methods, AllowedHeaders: c.Headers,
		ExposedHeaders: c.Expose, MaxAge: int(c.MaxAge.Seconds()),
	})
	return gateway.Func(func(next http.Handler) http.Handler {
		return handler.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			gateway.Of(r).CrossOrigin = handler.OriginAllowed(r) && (c.Credentials || !mayHaveCredentials(r))
			next.ServeHTTP(w, r)
		}))
	}), nil
}

// mayHaveCredentials says whether a browser may have sent, without being asked, what it has for this gateway, or sent the
// request for a form or a link: then a page that may come without credentials only is not vouched for.
func mayHaveCredentials(r *http.Request) bool {
	if gateway.IsWebSocket(r.Header) || r.Header.Get("Cookie") != "" || r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return true
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode != "cors"
	}
	return r.Header.Get("Authorization") != "" || r.Method != http.MethodGet && r.Method != http.MethodHead
}
