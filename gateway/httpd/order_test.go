package httpd

import (
	"context"
	"log/slog"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway"
)

// pass guards nothing.
type pass struct{}

func (pass) Handler(next http.Handler) http.Handler { return next }

// site answers all there is.
type site struct{}

func (site) Handler(http.Handler) http.Handler { return http.HandlerFunc(ok) }
func (site) EndsChain()                        {}

var _ gateway.Last = site{}

func TestWhatAnswersIsLast(t *testing.T) {
	begin := func(chain ...gateway.Middleware) error {
		s := &setup{args: []string{"--gateway-address=127.0.0.1:0", "--gateway-admin-address=off"}, middlewares: chain}
		settings, loaded, err := load(t, s)
		require.NoError(t, err)
		host := loaded.Open(context.Background(), slog.New(slog.DiscardHandler))
		defer func() { require.NoError(t, host.Close()) }()
		g, err := Start(t.Context(), host, settings, slog.New(slog.DiscardHandler))
		if err == nil {
			require.NoError(t, g.Stop(context.Background()))
		}
		return err
	}
	require.NoError(t, begin())
	require.NoError(t, begin(site{}))
	require.NoError(t, begin(pass{}, site{}))
	require.NoError(t, begin(pass{}, site{}, site{}), "neither guards")
	require.EqualError(t, begin(pass{}, site{}, pass{}, site{}), "gateway-middleware: httpd.site answers requests itself, which then get past "+
		"httpd.pass, because that comes after it (code): write --gateway-middleware=httpd.pass,httpd.pass,httpd.site,httpd.site")
}
