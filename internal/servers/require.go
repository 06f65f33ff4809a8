//go:build unix

package servers

import (
	"fmt"
	"os"
	"testing"
)

// RequireEnv is the environment variable that makes a missing server a failure.
const RequireEnv = "MICRO_REQUIRE_SERVERS"

// need returns the path of what a server is started from, if it is there; if not, the test is missing it.
func need(t testing.TB, server, path string) string {
	t.Helper()
	if _, err := os.Stat(path); err == nil {
		return path
	}
	missing(t, server, "`make servers` installs it.")
	return ""
}

// missing skips the test with a loud line, which the summary of `make test` counts; with MICRO_REQUIRE_SERVERS=1 it fails.
func missing(t testing.TB, server, advice string) {
	t.Helper()
	line := fmt.Sprintf("NO REAL SERVER: %s is not installed, so %s does not run. %s", server, t.Name(), advice)
	if os.Getenv(RequireEnv) == "1" {
		t.Fatalf("%s (%s=1 makes that a failure)", line, RequireEnv)
	}
	if skips := os.Getenv("MICRO_SKIPPED_SERVERS"); skips != "" {
		note(skips, line)
	}
	t.Skip(line)
}

// note adds a line to the file from which `make test` makes its summary.
func note(file, line string) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return // the test still says it with -v
	}
	defer f.Close()
	fmt.Fprintln(f, line)
}
