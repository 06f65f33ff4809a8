package httpd

import (
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/plugmicro/micro/gateway"
)

// adminHandler is what those who run the gateway see.
func (g *Gateway) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(g.metrics.registry, promhttp.HandlerOpts{Registry: g.metrics.registry}))
	mux.HandleFunc("/healthz", g.serveHealth)
	mux.HandleFunc("/readyz", g.serveReady)
	mux.Handle("GET /openapi.json", &g.backend.document)
	if g.settings.AdminPprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	mux.Handle("/", g.backend.page)
	return guard(g.settings.AdminHosts, mux)
}

// guard keeps pages of others, which a browser on this machine has open, from asking: by a name of their own that they had
// resolve to this address, or across sites. And it keeps the world from asking through a proxy that was not meant to lead here:
// the gateway itself is one, if a route takes addresses from the registry.
func guard(hosts []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Frame-Options", "DENY")
		host, err := gateway.Prepare(r)
		switch {
		case err != nil:
			gateway.Fail(w, r, err)
		case !isOwn(host, hosts):
			gateway.Fail(w, r, gateway.NewProblem(http.StatusForbidden,
				"the admin address is asked by address, as localhost, or by a name of --gateway-admin-hosts"))
		case isProxied(r.Header):
			gateway.Fail(w, r, gateway.NewProblem(http.StatusForbidden, "the admin address is not asked through a proxy, as X-Forwarded-For, "+
				"X-Forwarded-Host, X-Forwarded-Proto, Forwarded or Via says of this request: ask it directly"))
		case gateway.FromOtherOrigin(r) && !isLink(r):
			gateway.Fail(w, r, gateway.NewProblem(http.StatusForbidden, "pages of other sites may not ask the admin address"))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// isOwn holds for what nobody else can have resolve to this address.
func isOwn(host string, hosts []string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// isLink holds for a link to what is there to be looked at, which somebody followed. What the page asks by its scripts is not.
func isLink(r *http.Request) bool {
	return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && !strings.HasPrefix(r.URL.Path, "/api/")
}

// isProxied goes by what proxies add, the gateway's router among them.
func isProxied(h http.Header) bool {
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "Via"} {
		if _, ok := h[name]; ok {
			return true
		}
	}
	return false
}
