package httpd

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLongAnswers take longer than a client may be silent: it has nothing to send, and is not gone.
func TestLongAnswers(t *testing.T) {
	g := start(t, withArgs("--gateway-silent-timeout=150ms"), withHandler(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		select {
		case <-r.Context().Done():
			w.WriteHeader(http.StatusTeapot)
		case <-time.After(600 * time.Millisecond):
			_, _ = io.WriteString(w, "done "+string(body))
		}
	}))
	for name, r := range map[string]struct {
		method string
		body   io.Reader
	}{
		"no body": {"GET", nil}, "a body": {"POST", strings.NewReader("x")}, "in chunks": {"POST", io.MultiReader(strings.NewReader("x"))},
		"an empty body": {"POST", nil},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), r.method, g.url("/"), r.body)
			require.NoError(t, err)
			a := g.do(req)
			require.Equal(t, 200, a.status)
			require.Contains(t, a.body, "done")
		})
	}
}
