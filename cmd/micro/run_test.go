package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// demo runs what "make run" runs, up to the line that has end, and returns what it printed.
func (m *machine) demo(end string, env ...string) string {
	m.t.Helper()
	root := m.t.TempDir()
	script, err := os.ReadFile("../../examples/run.sh")
	require.NoError(m.t, err)
	require.NoError(m.t, os.MkdirAll(filepath.Join(root, "examples"), 0o755))
	require.NoError(m.t, os.WriteFile(filepath.Join(root, "examples", "run.sh"), script, 0o755))
	require.NoError(m.t, os.Symlink(bin, filepath.Join(root, "bin")))
	cmd := exec.Command("bash", filepath.Join(root, "examples", "run.sh"))
	cmd.Env = append(append([]string{}, m.env...), env...)
	out, err := cmd.StdoutPipe()
	require.NoError(m.t, err)
	cmd.Stderr = cmd.Stdout
	require.NoError(m.t, cmd.Start())
	var text strings.Builder
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		fmt.Fprintln(&text, lines.Text())
		if strings.Contains(lines.Text(), end) {
			require.NoError(m.t, cmd.Process.Signal(syscall.SIGTERM))
		}
	}
	require.NoError(m.t, cmd.Wait(), text.String())
	require.Contains(m.t, text.String(), end)
	return text.String()
}

func TestMakeRun(t *testing.T) {
	m := newMachine(t)
	text := m.demo("bin/micro plugins", "MICRO_GATEWAY_ADDRESS=127.0.0.1:0", "MICRO_GATEWAY_ADMIN_ADDRESS=127.0.0.1:0")
	found := regexp.MustCompile(`the gateway serves address=(\S+) admin=(\S+)`).FindStringSubmatch(text)
	require.NotNil(t, found, text)
	require.Contains(t, text, "$ curl -d '{\"name\":\"Ada\"}' "+found[1]+"/greeter/hello\n")
	require.Equal(t, 2, strings.Count(text, "{\"message\":\"Hello, Ada\"}\n"), "by micro call, and by the gateway: %s", text)
	require.Contains(t, text, "see http://"+found[2]+".")
	require.Contains(t, text, "  curl -d '{\"name\":\"Grace\"}' "+found[1]+"/greeter/hello\n")
	require.NotContains(t, text, ":808")
}

// TestMakeRunWithThePortTaken does not take the answer of a stranger for the gateway's.
func TestMakeRunWithThePortTaken(t *testing.T) {
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a stranger") }))
	defer stranger.Close()
	m := newMachine(t)
	text := m.demo("bin/micro plugins", "MICRO_GATEWAY_ADDRESS="+stranger.Listener.Addr().(*net.TCPAddr).String(), "MICRO_GATEWAY_ADMIN_ADDRESS=127.0.0.1:0")
	require.Contains(t, text, "is taken, perhaps by another gateway")
	require.Contains(t, text, "The gateway did not start, its own line says why. All else goes on.")
	require.NotContains(t, text, "a stranger")
	require.NotContains(t, text, "curl -d")
	require.Contains(t, text, "Greeter goes on running")
}
