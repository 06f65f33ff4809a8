package httpd

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	_ "github.com/plugmicro/micro/tracer/xray"
)

// TestDecisionIsTold: a load balancer that leaves it to the gateway whether a trace is recorded is told what it decided.
func TestDecisionIsTold(t *testing.T) {
	g := start(t, withArgs("--tracer=xray", "--tracer-sampling=local", "--tracer-reservoir=1", "--tracer-rate=0"), withHandler(ok))
	const root = "Root=1-5759e988-bd862e3fe1be46a994272793"
	for _, c := range []struct{ sent, want string }{
		{root + ";Sampled=?", root + ";Sampled=1"}, // the one of this second
		{root + ";Sampled=1", ""},
		{"", ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url("/"), nil)
		require.NoError(t, err)
		if c.sent != "" {
			req.Header.Set("X-Amzn-Trace-Id", c.sent)
		}
		require.Equal(t, c.want, g.do(req).header.Get("X-Amzn-Trace-Id"))
	}
}
