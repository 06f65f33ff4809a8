// Package recover answers what panics further down the chain with 500, and logs it with its stack:
//
//	micro gateway --gateway-middleware=recover,router
//
// The gateway does that itself for the whole chain; the plugin is for those who want it at a place of their own in it, such as
// below a middleware that has to see the 500. When a part of the answer was sent, the connection is cut, so that the
// answer does not look complete.
package recover

import (
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/clip"
	"github.com/plugmicro/micro/plugin"
)

func init() {
	plugin.Register("recover", New, plugin.Doc("answers panics further down the chain with 500"))
}

// Config has no settings.
type Config struct{}

// Recover is the middleware. It collects micro_gateway_recovered_panics_total.
type Recover struct {
	prometheus.Counter
	log *slog.Logger
}

var _ gateway.Middleware = (*Recover)(nil)

// New makes the middleware.
func New(env *plugin.Env, _ Config) (gateway.Middleware, error) {
	return &Recover{
		Counter: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "micro_gateway_recovered_panics_total", Help: "Panics that the middleware recover answered.",
		}),
		log: env.Logger(),
	}, nil
}

// maxPath is how many bytes of a path the log has.
const maxPath = 512

// Handler implements gateway.Middleware.
func (m *Recover) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sw := &sentWriter{ResponseWriter: w}
		defer func() {
			v := recover()
			switch {
			case v == nil:
			case v == http.ErrAbortHandler: // not a bug: somebody wants the connection cut
				panic(v)
			default:
				m.Inc()
				m.log.Error("panic while answering", "panic", v, "path", clip.Text(r.URL.Path, maxPath),
					"request_id", gateway.Of(r).ID, "stack", string(debug.Stack()))
				if sw.sent {
					panic(http.ErrAbortHandler)
				}
				gateway.Fail(w, r, gateway.NewProblem(http.StatusInternalServerError, "the gateway failed: its log says why"))
			}
		}()
		next.ServeHTTP(sw, r)
	})
}

// sentWriter knows whether a part of the answer was sent.
type sentWriter struct {
	http.ResponseWriter
	sent bool
}

func (w *sentWriter) WriteHeader(code int) {
	w.sent = w.sent || code >= 200 || code == http.StatusSwitchingProtocols
	w.ResponseWriter.WriteHeader(code)
}

func (w *sentWriter) Write(b []byte) (int, error) {
	w.sent = true
	return w.ResponseWriter.Write(b)
}

// Flush implements http.Flusher.
func (w *sentWriter) Flush() {
	w.sent = true
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (w *sentWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
