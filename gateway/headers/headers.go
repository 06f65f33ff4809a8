// Package headers sets and removes headers of requests and answers:
//
//	micro gateway --gateway-middleware=headers --middleware-headers-response-set='X-Frame-Options=DENY,Server='
//
// A header that is set to nothing is removed. What concerns the connection or the framing of a message cannot be set.
package headers

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/plugin"
)

func init() {
	plugin.Register("headers", New, plugin.Doc("sets and removes headers of requests and answers"))
}

// Config is what --middleware-headers-* sets.
type Config struct {
	RequestSet  map[string]string `help:"headers of requests, for what comes after in the chain; one without a value is removed"`
	ResponseSet map[string]string `help:"headers of answers, whatever was in them; one without a value is removed"`
	Security    bool              `help:"also set what OWASP recommends for APIs: nosniff, no framing, no referrer, and with TLS HSTS for a year"`
}

// Validate is for package plugin.
func (c *Config) Validate() error {
	if len(c.RequestSet)+len(c.ResponseSet) == 0 && !c.Security {
		return errors.New("nothing is to be set or removed: set request-set, response-set or security")
	}
	return errors.Join(check("request-set", c.RequestSet), check("response-set", c.ResponseSet))
}

// ofTheMessage are headers that say how a message is read.
var ofTheMessage = []string{"Connection", "Content-Length", "Host", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

func check(option string, headers map[string]string) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			errs = append(errs, fmt.Errorf("%s: %q is no name of a header", option, name))
		case !httpguts.ValidHeaderFieldValue(headers[name]):
			errs = append(errs, fmt.Errorf("%s: the value of %s has characters that a header cannot have", option, name))
		case slices.Contains(ofTheMessage, http.CanonicalHeaderKey(name)):
			errs = append(errs, fmt.Errorf("%s: %s says how a message is read, and cannot be set", option, name))
		}
	}
	return errors.Join(errs...)
}

// Headers is the middleware.
type Headers struct {
	request, response []header
	security          bool
}

type header struct {
	name  string
	value []string // nil removes
}

var _ gateway.Middleware = (*Headers)(nil)

// New makes the middleware.
func New(_ *plugin.Env, c Config) (gateway.Middleware, error) {
	return &Headers{request: list(c.RequestSet), response: list(c.ResponseSet), security: c.Security}, nil
}

func list(m map[string]string) []header {
	var all []header
	for _, name := range slices.Sorted(maps.Keys(m)) {
		h := header{name: http.CanonicalHeaderKey(name)}
		if value := strings.TrimSpace(m[name]); value != "" {
			h.value = []string{value}
		}
		all = append(all, h)
	}
	return all
}

// Handler implements gateway.Middleware.
func (m *Headers) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		apply(r.Header, m.request)
		for _, set := range m.request {
			delete(r.Trailer, set.name) // nor does it come after the body
		}
		if len(m.response) == 0 && !m.security {
			next.ServeHTTP(w, r)
			return
		}
		hw := &headWriter{ResponseWriter: w, headers: m.response}
		if m.security {
			hw.security = recommended(gateway.Of(r).Secure)
		}
		defer hw.end()
		next.ServeHTTP(hw, r)
	})
}

func apply(h http.Header, all []header) {
	for _, set := range all {
		if set.value == nil {
			delete(h, set.name)
		} else {
			h[set.name] = slices.Clone(set.value)
		}
	}
}

// hold is apply for informational answers: nothing comes through that is removed or replaced, and nothing is added, which is for
// the final one.
func hold(h http.Header, all []header) {
	for _, set := range all {
		if _, ok := h[set.name]; ok {
			apply(h, []header{set})
		}
	}
}

func recommended(secure bool) []header {
	if secure {
		return withHSTS
	}
	return withHSTS[:len(withHSTS)-1]
}

// withHSTS is from the OWASP REST Security Cheat Sheet.
var withHSTS = []header{
	{"X-Content-Type-Options", []string{"nosniff"}},
	{"X-Frame-Options", []string{"DENY"}},
	{"Content-Security-Policy", []string{"frame-ancestors 'none'"}},
	{"Referrer-Policy", []string{"no-referrer"}},
	{"Strict-Transport-Security", []string{"max-age=31536000"}},
}

// headWriter changes the head of an answer when it is sent: what the handler set before is known then.
type headWriter struct {
	http.ResponseWriter
	headers, security []header
	done              bool
}

func (w *headWriter) finish() {
	if w.done {
		return
	}
	w.done = true
	h := w.ResponseWriter.Header()
	for _, s := range w.security {
		if _, ok := h[s.name]; !ok {
			h[s.name] = s.value
		}
	}
	apply(h, w.headers)
}

// end does with trailers, which are among the headers once the handler is done, as with headers.
func (w *headWriter) end() {
	w.finish()
	h := w.ResponseWriter.Header()
	for _, set := range w.headers {
		delete(h, http.TrailerPrefix+set.name)
	}
	apply(h, w.headers)
}

func (w *headWriter) WriteHeader(code int) {
	switch {
	case code >= 200, code == http.StatusSwitchingProtocols:
		w.finish()
	case !w.done:
		hold(w.ResponseWriter.Header(), w.headers)
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *headWriter) Write(b []byte) (int, error) {
	w.finish()
	return w.ResponseWriter.Write(b)
}

// Flush implements http.Flusher.
func (w *headWriter) Flush() {
	w.finish()
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (w *headWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
