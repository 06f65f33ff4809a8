// Package gateway is the contract between the gateway, which is HTTP in front of services, and the middlewares that it
// is made of. A middleware is a plugin:
//
//	package teapot
//
//	type Config struct {
//		Paths []string `help:"paths that are answered with 418"`
//	}
//
//	func init() { plugin.Register("teapot", New, plugin.Doc("answers 418")) }
//
//	func New(env *plugin.Env, c Config) (gateway.Middleware, error) { … }
//
// It is linked by a blank import, chosen with --gateway-middleware=ipallow,teapot, in the order in which requests pass, and
// set by --middleware-teapot-paths. The program is package gateway/httpd, or the command micro gateway.
//
// What every middleware can rely on: Prepare has made path and host of the request their one normal form, which is
// what is routed, authorised and forwarded; and Of tells what the gateway knows of the request.
package gateway

import (
	"net/http"

	"github.com/plugmicro/micro/plugin"
)

// Plugins is the kind: --gateway-middleware, MICRO_GATEWAY_MIDDLEWARE.
var Plugins = plugin.NewKind[Middleware]("middleware", plugin.Many(), plugin.ChosenBy("gateway-middleware"),
	plugin.KindDoc("does something to the gateway's requests, one after the other"),
	plugin.Known("basicauth", "cors", "gzip", "headers", "ipallow", "jwt", "ratelimit", "recover", "router"))

// Middleware is one link of the chain. One that holds resources also implements io.Closer, and is closed when no request
// is in it any more. One that counts also implements prometheus.Collector: what it collects is in /metrics.
type Middleware interface {
	// Handler wraps next; it is called once, before the first request. The handler answers the request itself, with
	// Fail if it refuses it, or passes it on. It must not change what Prepare made of path and host unless it is the
	// one that routes. It serves requests concurrently.
	Handler(next http.Handler) http.Handler
}

// Last is a Middleware that answers requests itself which are none to be refused, as one that routes does: what comes after
// it never sees them. So nothing may come after it that guards, and the gateway does not start unless all that do are Last,
// too.
type Last interface {
	Middleware
	EndsChain() // is never called
}

// Func makes a Middleware of a function.
type Func func(next http.Handler) http.Handler

// Handler calls f.
func (f Func) Handler(next http.Handler) http.Handler { return f(next) }
