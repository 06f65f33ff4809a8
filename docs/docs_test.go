// Package docs_test runs the documentation: what README.md and docs/*.md show is what happens.
//
// A block marked console is a session: lines that begin with "$ " are run by a shell, in a copy of the module, and the
// lines below must be what they print; "…" in them stands for anything, on a line of its own for any number of lines. A
// command that ends with "&" goes on until the end of the file; one that is expected to print "^C" is interrupted when
// what stands before that was printed. A Go block that begins with a package clause is compiled; one that begins with a
// comment that names a file must stand in that file.
//
// The usual addresses of Consul, Kafka and RabbitMQ in commands stand for servers that the test starts, and those of the
// gateway, localhost:8080 and localhost:8081, for ports that are free.
package docs_test

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/servers"
)

func TestDocumentation(t *testing.T) {
	files, err := filepath.Glob("*.md")
	require.NoError(t, err)
	files = append(files, "../README.md")
	module := copyModule(t)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			checkLinks(t, filepath.Dir(file), string(text))
			s := newSession(t, module)
			s.startServers(t, string(text))
			for _, b := range blocks(string(text)) {
				switch {
				case b.language == "console":
					s.run(t, b)
				case b.language == "go" && strings.HasPrefix(b.text, "package "):
					s.compile(t, b)
				case b.language == "go" && excerptOf.MatchString(b.text):
					s.find(t, b)
				}
			}
		})
	}
}

// copyModule copies what git tracks, or would track, so that commands may build into it.
func copyModule(t *testing.T) string {
	cmd := exec.Command("git", "ls-files", "-co", "--exclude-standard", "-z")
	cmd.Dir = ".."
	out, err := cmd.Output()
	require.NoError(t, err)
	to := t.TempDir()
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join("..", name))
		if os.IsNotExist(err) {
			continue // deleted, and not committed yet
		}
		require.NoError(t, err)
		info, err := os.Stat(filepath.Join("..", name))
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Join(to, filepath.Dir(name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(to, name), data, info.Mode()))
	}
	return to
}

var (
	link       = regexp.MustCompile(`\]\(([^)#:]+)[^)]*\)`)
	inlineCode = regexp.MustCompile("`[^`]*`")
)

// checkLinks looks whether the files are there that a page points to.
func checkLinks(t *testing.T, dir, text string) {
	for _, b := range blocks(text) {
		text = strings.Replace(text, b.text, "", 1)
	}
	for _, m := range link.FindAllStringSubmatch(inlineCode.ReplaceAllString(text, ""), -1) {
		_, err := os.Stat(filepath.Join(dir, m[1]))
		require.NoError(t, err)
	}
}

type block struct {
	language, text string
	line           int
}

func blocks(text string) []block {
	var list []block
	var open *block
	for i, line := range strings.Split(text, "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &block{language: language, line: i + 2}
		case fence:
			list = append(list, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	return list
}

// session runs the commands of one file.
type session struct {
	dir       string
	env       []string
	addresses *strings.Replacer // of the servers
}

// startServers starts those of which a console block has the address.
func (s *session) startServers(t *testing.T, text string) {
	var addresses []string
	for _, server := range []struct {
		address string
		start   func() string
	}{
		{"127.0.0.1:8500", func() string { return servers.Consul(t).Addr }},
		{"127.0.0.1:9092", func() string { return servers.Kafka(t).Addr }},
		{"127.0.0.1:5672", func() string { return servers.RabbitMQ(t).Addr }},
	} {
		used := func(b block) bool { return b.language == "console" && strings.Contains(b.text, server.address) }
		if slices.ContainsFunc(blocks(text), used) {
			addresses = append(addresses, server.address, server.start())
		}
	}
	public, admin := freePort(t), freePort(t)
	s.env = append(s.env, "MICRO_GATEWAY_ADDRESS="+public, "MICRO_GATEWAY_ADMIN_ADDRESS="+admin)
	s.addresses = strings.NewReplacer(append(addresses, "localhost:8080", public, "localhost:8081", admin, "localhost:8090", freePort(t))...)
	if len(addresses) > 0 {
		s.env = append(s.env, "PATH="+filepath.Join(servers.Dir(), "consul")+":"+os.Getenv("PATH"))
	}
}

// freePort is an address of this machine at which nobody listens just now.
func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func newSession(t *testing.T, dir string) *session {
	home := t.TempDir()
	require.NoError(t, os.Chmod(home, 0o700))
	s := &session{dir: dir, env: []string{"XDG_RUNTIME_DIR=" + home}}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MICRO_") && !strings.HasPrefix(v, "XDG_RUNTIME_DIR=") {
			s.env = append(s.env, v)
		}
	}
	for _, name := range []string{"GOMODCACHE", "GOCACHE"} { // HOME is another one
		out, err := exec.Command("go", "env", name).Output()
		require.NoError(t, err)
		s.env = append(s.env, name+"="+strings.TrimSpace(string(out)))
	}
	s.env = append(s.env, "HOME="+home)
	return s
}

func (s *session) run(t *testing.T, b block) {
	for _, c := range commands(b) {
		cmd := exec.Command("bash", "-c", "exec 2>&1; "+strings.TrimSuffix(s.addresses.Replace(c.text), "&"))
		cmd.Dir, cmd.Env = s.dir, s.env
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out := &output{}
		cmd.Stdout = out
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		switch want, interrupted := strings.CutSuffix(strings.TrimSpace(c.want), "^C"); {
		case interrupted:
			c.expect(t, out, want, done)
			require.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGINT))
			wait(t, c, out, done)
		case strings.HasSuffix(c.text, "&"):
			c.expect(t, out, want, nil)
		default:
			wait(t, c, out, done)
			require.True(t, matches(want, out.String()), "line %d: %s\nprinted\n%s\nwanted\n%s", c.line, c.text, out, want)
		}
	}
}

func wait(t *testing.T, c command, out *output, done chan error) {
	select {
	case <-done:
	case <-time.After(3 * time.Minute):
		require.Fail(t, "does not end", "line %d: %s\n%s", c.line, c.text, out)
	}
}

type command struct {
	text, want string
	line       int
}

// commands takes a console block apart. A command goes on in the next line after a backslash.
func commands(b block) []command {
	var list []command
	goesOn := false
	lines := bufio.NewScanner(strings.NewReader(b.text))
	for n := b.line; lines.Scan(); n++ {
		line := lines.Text()
		text, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case goesOn:
			list[len(list)-1].text += "\n" + line
		case isCommand:
			list = append(list, command{text: text, line: n})
		case len(list) > 0:
			list[len(list)-1].want += line + "\n"
		}
		goesOn = (goesOn || isCommand) && strings.HasSuffix(line, `\`)
	}
	return list
}

// expect waits until want was printed.
func (c command) expect(t *testing.T, out *output, want string, done chan error) {
	require.Eventually(t, func() bool { return matches(want+"…", out.String()) }, time.Minute, 20*time.Millisecond,
		"line %d: %s\nwanted\n%s", c.line, c.text, want)
}

func matches(want, got string) bool {
	pattern := regexp.QuoteMeta(strings.TrimSpace(want))
	pattern = strings.ReplaceAll(pattern, "…", "(?s:.*)")
	return regexp.MustCompile(`^\s*` + pattern + `\s*$`).MatchString(got)
}

// output is written by a command while the test reads it.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// compile checks that a program of the documentation is one.
func (s *session) compile(t *testing.T, b block) {
	dir, err := os.MkdirTemp(s.dir, "snippet")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	name := "snippet.go"
	if strings.Contains(b.text, "func Test") {
		name = "snippet_test.go"
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(b.text), 0o644))
	cmd := exec.Command("go", "vet", ".")
	cmd.Dir, cmd.Env = dir, s.env
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "Go block at line %d: %s", b.line, out)
}

var excerptOf = regexp.MustCompile(`^// (\S+\.go)\n`)

// find looks an excerpt up in its file.
func (s *session) find(t *testing.T, b block) {
	file := excerptOf.FindStringSubmatch(b.text)[1]
	data, err := os.ReadFile(filepath.Join(s.dir, file))
	require.NoError(t, err)
	_, excerpt, _ := strings.Cut(b.text, "\n")
	require.Contains(t, string(data), excerpt, "line %d", b.line)
}
