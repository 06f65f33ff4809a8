package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// bin has the binaries that the tests run: the toolkit as users have it, and a service to call.
var bin string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "micro-toolkit")
	if err == nil {
		bin = dir
		build := exec.Command("go", "build", "-o", dir, ".", "./testdata/greeter")
		build.Stderr = os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build what is tested:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// patience bounds waiting for what must come.
const patience = 30 * time.Second

// machine is a registry of its own, in which processes of a test find each other.
type machine struct {
	t   *testing.T
	dir string
	env []string
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, dir: filepath.Join(t.TempDir(), "registry")}
	m.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "MICRO_REGISTRY_DIR=" + m.dir}
	return m
}

func (m *machine) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, name), args...)
	cmd.Env = m.env
	cmd.WaitDelay = patience
	return cmd
}

type result struct {
	out, err string
	code     int
}

// micro runs one command to its end.
func (m *machine) micro(args ...string) result { return m.microIn("", args...) }

func (m *machine) microIn(stdin string, args ...string) result {
	m.t.Helper()
	cmd := m.command("micro", args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	require.NoError(m.t, cmd.Start())
	limit := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	cmd.Wait()
	require.True(m.t, limit.Stop(), "micro %q does not end\n%s%s", args, &out, &errs)
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// process is a command that goes on.
type process struct {
	t        *testing.T
	cmd      *exec.Cmd
	stdin    io.WriteCloser
	ended    bool
	out, err *lines
}

func (m *machine) start(name string, args ...string) *process {
	m.t.Helper()
	p := &process{t: m.t, cmd: m.command(name, args...)}
	var err error
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(m.t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(m.t, err)
	errs, err := p.cmd.StderrPipe()
	require.NoError(m.t, err)
	require.NoError(m.t, p.cmd.Start())
	p.out, p.err = readLines(out), readLines(errs)
	m.t.Cleanup(func() {
		if p.cmd.Process.Kill() == nil {
			p.end()
		}
	})
	return p
}

// greeter starts the service and waits until it can be called.
func (m *machine) greeter(args ...string) *process {
	m.t.Helper()
	p := m.start("greeter", args...)
	p.err.until(m.t, "serving")
	return p
}

var addressOf = regexp.MustCompile(`address=(\S+)`)

// address is where a greeter listens.
func (p *process) address() string {
	for _, line := range p.err.seen {
		if found := addressOf.FindStringSubmatch(line); found != nil {
			return found[1]
		}
	}
	require.FailNow(p.t, "no address", p.err.seen)
	return ""
}

// end waits for the process and returns its exit code. One that does not end tells what it is doing.
func (p *process) end() int {
	p.t.Helper()
	limit := time.AfterFunc(patience, func() { p.cmd.Process.Signal(syscall.SIGQUIT) })
	p.out.toEnd()
	p.err.toEnd()
	p.cmd.Wait()
	require.True(p.t, p.ended || limit.Stop(), "%q does not end\n%s", p.cmd.Args, p.err)
	p.ended = true
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) interrupt() int {
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGINT))
	return p.end()
}

// lines is what a process prints.
type lines struct {
	more chan string
	seen []string
}

func readLines(r io.Reader) *lines {
	l := &lines{more: make(chan string, 1<<14)}
	go func() {
		defer close(l.more)
		for s := bufio.NewScanner(r); s.Scan(); {
			l.more <- s.Text()
		}
		io.Copy(io.Discard, r)
	}()
	return l
}

// next waits for a line.
func (l *lines) next(t *testing.T) string {
	t.Helper()
	select {
	case line, ok := <-l.more:
		require.True(t, ok, "it ended after %q", l.seen)
		l.seen = append(l.seen, line)
		return line
	case <-time.After(patience):
		require.FailNow(t, "nothing is printed", "after %q", l.seen)
		return ""
	}
}

// until waits for a line that has text in it.
func (l *lines) until(t *testing.T, text string) string {
	t.Helper()
	for {
		if line := l.next(t); strings.Contains(line, text) {
			return line
		}
	}
}

func (l *lines) toEnd() {
	for line := range l.more {
		l.seen = append(l.seen, line)
	}
}

// String is for the messages of failing tests.
func (l *lines) String() string { return l.text() }

func (l *lines) text() string { return strings.Join(l.seen, "\n") }
