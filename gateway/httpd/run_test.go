package httpd

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRunRefusesTypos has no gateway serve that somebody meant to be guarded.
func TestRunRefusesTypos(t *testing.T) {
	file := filepath.Join(t.TempDir(), "micro.yaml")
	require.NoError(t, os.WriteFile(file, []byte("gatway: {middleware: [ipallow]}\nshop: {max: 3}\n"), 0o600))
	// An address that cannot be listened on: what starts ends, too.
	err := Run(WithArgs("--config="+file, "--gateway-address=256.0.0.1:1", "--gateway-admin-address=off", "--registry=memory"),
		WithEnviron("MICRO_GATEWAY_MIDLEWARE=ipallow", "MICRO_SHOP_MAX=3", "MICRO_MIDDLEWARE_TEAPOT_PATHS=/tea"),
		WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
	require.EqualError(t, err, `unknown environment variable MICRO_GATEWAY_MIDLEWARE: did you mean MICRO_GATEWAY_MIDDLEWARE?
unknown environment variable MICRO_MIDDLEWARE_TEAPOT_PATHS: it has no effect: remove it, or correct its name
unknown setting gatway (file `+file+`:1): did you mean gateway? If another program is meant, have it in a file of its own`)
}
