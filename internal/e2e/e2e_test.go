// Package e2e runs services as processes, the way users do, and does to them what production does.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro"
	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
)

// binaries is where TestMain builds the programs.
var binaries string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "micro-e2e")
	if err != nil {
		panic(err)
	}
	binaries = dir
	build := exec.Command("go", "build", "-o", dir, "../../cmd/micro", "../../examples/greeter", "../../examples/greeter/client",
		"../../examples/greeter/subscriber", "../../examples/streams", "../../examples/custom-registry", "../../examples/gateway", "./worker")
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	code := 1
	if err := build.Run(); err == nil {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// machine is a registry directory of its own: what one test starts, no other finds. It is empty where another registry is
// used.
type machine struct {
	t   *testing.T
	dir string
}

func newMachine(t *testing.T) *machine {
	dir := filepath.Join(t.TempDir(), "registry")
	return &machine{t, dir}
}

// process is a running service.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *output
	done chan struct{} // closed when it has ended
}

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

// start starts a program, which is killed at the end of the test.
func (m *machine) start(env []string, program string, args ...string) *process {
	p := &process{t: m.t, out: &output{}, done: make(chan struct{})}
	if !filepath.IsAbs(program) {
		program = filepath.Join(binaries, program)
	}
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = append(os.Environ(), env...)
	if m.dir != "" {
		p.cmd.Env = append(p.cmd.Env, "MICRO_REGISTRY_DIR="+m.dir)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	require.NoError(m.t, p.cmd.Start())
	go func() {
		defer close(p.done)
		p.cmd.Wait()
	}()
	m.t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.done
	})
	return p
}

func (p *process) signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

// stop asks it to end, and waits until it has.
func (p *process) stop() {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		require.Fail(p.t, "does not stop", p.out.String())
	}
}

// prints waits for a line.
func (p *process) prints(text string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return strings.Contains(p.out.String(), text) }, 20*time.Second, 10*time.Millisecond,
		"%v does not print %q", p.cmd.Args, text)
}

// run runs a program to its end.
func (m *machine) run(program string, args ...string) (stdout, stderr string, code int) {
	cmd := exec.Command(filepath.Join(binaries, program), args...)
	cmd.Env = append(os.Environ(), "MICRO_REGISTRY_DIR="+m.dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	timeout := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer timeout.Stop()
	cmd.Run()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// service is the test's own end: what it does in this process.
func (m *machine) service(opts ...micro.Option) *micro.Service {
	quiet := slog.New(slog.DiscardHandler)
	svc := micro.New("tester", append([]micro.Option{micro.WithArgs(), micro.WithLogger(quiet), micro.WithSetting("registry-dir", m.dir)}, opts...)...)
	require.NoError(m.t, svc.Start(m.t.Context()))
	m.t.Cleanup(func() { require.NoError(m.t, svc.Stop(context.Background())) })
	return svc
}

// nodes is how many nodes of a service the registry has.
func (m *machine) nodes(name string) int {
	loader := plugin.NewLoader(plugin.Linked)
	loader.Set("registry-dir", m.dir)
	settings, err := loader.Load(nil)
	require.NoError(m.t, err)
	host := settings.Open(context.Background(), slog.New(slog.DiscardHandler))
	defer host.Close()
	reg, err := plugin.Open[registry.Registry](host)
	require.NoError(m.t, err)
	versions, _ := reg.GetService(name)
	n := 0
	for _, v := range versions {
		n += len(v.Nodes)
	}
	return n
}

func (m *machine) waitNodes(name string, n int) {
	m.t.Helper()
	require.Eventually(m.t, func() bool { return m.nodes(name) == n }, 20*time.Second, 20*time.Millisecond,
		"service %s does not come to %d nodes", name, n)
}

type job struct {
	Name string `json:"name"`
}

type done struct {
	By int `json:"by"`
}

// load is callers that call without a pause.
type load struct {
	stop chan struct{}
	all  sync.WaitGroup

	mu       sync.Mutex
	calls    int
	failures []failure
}

type failure struct {
	endpoint, name string
	err            error
}

func startLoad(c *client.Client, callers int) *load {
	l := &load{stop: make(chan struct{})}
	for i := range callers {
		endpoint := []string{"Work.Once", "Work.Again"}[i%2]
		l.all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-l.stop:
					return
				default:
				}
				l.call(c, endpoint, fmt.Sprintf("%d-%d", i, n))
			}
		})
	}
	return l
}

func (l *load) call(c *client.Client, endpoint, name string) {
	_, err := client.Call[done](context.Background(), c, "worker", endpoint, &job{name})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if err != nil {
		l.failures = append(l.failures, failure{endpoint, name, err})
	}
}

// made is how many calls have been made.
func (l *load) made() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls
}

func (l *load) end() {
	close(l.stop)
	l.all.Wait()
}

// runs counts how often each job of an endpoint was run, by all workers together.
func runs(t *testing.T, dir, how string) map[string]int {
	count := make(map[string]int)
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	require.NoError(t, err)
	for _, f := range files {
		data, err := os.ReadFile(f)
		require.NoError(t, err)
		for line := range strings.Lines(string(data)) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), how+" "); ok {
				count[name]++
			}
		}
	}
	return count
}
