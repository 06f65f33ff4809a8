package httpd

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/plugin"
)

// register has the middlewares' counters collected.
func (g *Gateway) register(chain []gateway.Middleware) error {
	for _, m := range chain {
		if c, ok := m.(prometheus.Collector); ok {
			if err := g.metrics.registry.Register(c); err != nil {
				return fmt.Errorf("the metrics of middleware %T: %w", m, err)
			}
		}
	}
	return nil
}

// checkOrder finds a middleware that requests get past, because the one before it answers them. The settings say under
// which names they were chosen, and where.
func checkOrder(chain []gateway.Middleware, settings *plugin.Settings) error {
	names := namesOf(chain, settings)
	var guards, last []string
	var wrong error
	for i, m := range chain {
		if _, ok := m.(gateway.Last); ok {
			last = append(last, names[i])
			continue
		}
		if len(last) > 0 && wrong == nil {
			wrong = fmt.Errorf("%s answers requests itself, which then get past %s, because that comes after it", last[0], names[i])
		}
		guards = append(guards, names[i])
	}
	if wrong == nil {
		return nil
	}
	return fmt.Errorf("gateway-middleware: %w (%s): write --gateway-middleware=%s", wrong, originOf(settings, "gateway-middleware"),
		strings.Join(append(guards, last...), ","))
}

// namesOf are the names under which the middlewares were chosen, or their types if the program passes in its own.
func namesOf(chain []gateway.Middleware, settings *plugin.Settings) []string {
	if names := settings.Chosen(gateway.Plugins.Name()); len(names) == len(chain) {
		return names
	}
	var names []string
	for _, m := range chain {
		names = append(names, fmt.Sprintf("%T", m))
	}
	return names
}

// originOf says where a setting came from.
func originOf(settings *plugin.Settings, key string) string {
	for _, s := range settings.All() {
		if s.Key == key {
			return s.Origin
		}
	}
	return "code"
}

// chainOf puts the middlewares before the end: the first one is the outermost.
func chainOf(all []gateway.Middleware, end http.Handler) http.Handler {
	for i := len(all) - 1; i >= 0; i-- {
		end = all[i].Handler(end)
	}
	return end
}
