package httpd

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	_ "github.com/plugmicro/micro/tracer/stdout"
	_ "github.com/plugmicro/micro/tracer/xray"
)

// TestDecisionIsTold: a load balancer that leaves it to the gateway whether a trace is recorded is told what it decided.
func TestDecisionIsTold(t *testing.T) {
	g := start(t, withArgs("--tracer=xray", "--tracer-sampling=local", "--tracer-reservoir=1", "--tracer-rate=0"), withHandler(ok))
	require.Contains(t, g.logs.String(), "tracer=xray", "the first line says what is in use")
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

// TestClientTraces: by default a request goes on with the trace that it names, and strangers can be kept from that.
func TestClientTraces(t *testing.T) {
	headers := map[string]string{
		"traceparent":     "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01",
		"tracestate":      "vendor=1",
		"baggage":         "user=1",
		"x-amzn-trace-id": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
	}
	for _, tracer := range []string{"none", "stdout", "xray"} {
		for _, believed := range []string{"true", "false"} {
			t.Run(tracer+" "+believed, func(t *testing.T) {
				var got http.Header
				var span trace.SpanContext
				args := []string{"--tracer=" + tracer, "--gateway-client-traces=" + believed}
				if tracer == "xray" {
					args = append(args, "--tracer-sampling=local")
				}
				g := start(t, withArgs(args...), withHandler(func(w http.ResponseWriter, r *http.Request) {
					got, span = r.Header, trace.SpanContextFromContext(r.Context())
				}))
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url("/"), nil)
				require.NoError(t, err)
				for name, value := range headers {
					req.Header.Set(name, value)
				}
				require.Equal(t, http.StatusOK, g.do(req).status)
				for name, value := range headers {
					if believed == "false" {
						value = ""
					}
					require.Equal(t, value, got.Get(name))
				}
				require.Equal(t, tracer != "none", span.IsValid())
				require.Equal(t, believed == "true" && tracer != "none", span.TraceID().String() == "5759e988bd862e3fe1be46a994272793")
			})
		}
	}
}
