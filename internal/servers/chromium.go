//go:build unix

package servers

import (
	"os/exec"
	"testing"
)

// Chromium returns the program of the browser that pages are tested in. It is no server, but as real: it comes with the
// system, not with `make servers`.
func Chromium(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing(t, "Chromium", "On Debian, `apt-get install chromium` installs it.")
	return ""
}
