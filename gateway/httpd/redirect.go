package httpd

import (
	"net"
	"net/http"
	"strings"

	"golang.org/x/crypto/acme/autocert"

	"github.com/plugmicro/micro/gateway"
)

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
