// Package teapot is a middleware of the gateway that shows what one is made of: it answers some paths with 418.
//
//	--gateway-middleware=teapot --middleware-teapot-paths=/coffee
package teapot

import (
	"errors"
	"net/http"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/plugin"
)

func init() { plugin.Register("teapot", New, plugin.Doc("answers some paths with 418")) }

// Config is what --middleware-teapot-* sets.
type Config struct {
	Paths []string `help:"paths, with what is below them, that are answered with 418"`
}

// Validate is for package plugin.
func (c *Config) Validate() error {
	if len(c.Paths) == 0 {
		return errors.New("paths: say which, as in /coffee")
	}
	return gateway.CheckPaths("paths", c.Paths)
}

// New makes the middleware.
func New(_ *plugin.Env, c Config) (gateway.Middleware, error) {
	return gateway.Func(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if gateway.IsBelow(r.URL.Path, c.Paths) {
				gateway.Of(r).Route = "teapot"
				gateway.Fail(w, r, gateway.NewProblem(http.StatusTeapot, "this is a teapot"))
				return
			}
			next.ServeHTTP(w, r)
		})
	}), nil
}
