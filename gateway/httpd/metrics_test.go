package httpd

import (
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	_ "github.com/plugmicro/micro/tracer/otlp"
)

// TestSpansThatAreLost has a collector that is away.
func TestSpansThatAreLost(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	g := start(t, withArgs("--tracer=otlp", "--tracer-endpoint="+l.Addr().String(), "--tracer-timeout=10ms", "--tracer-batch-delay=1ms"), withHandler(ok))
	require.Equal(t, "0", g.metric("micro_gateway_spans_dropped_total"))
	require.Equal(t, http.StatusOK, g.get(g.url("/")).status)
	g.eventually("the span is lost", func() bool { return g.metric("micro_gateway_spans_dropped_total") == "1" })
	require.Empty(t, start(t).metric("micro_gateway_spans_dropped_total"), "nothing is traced")
}
