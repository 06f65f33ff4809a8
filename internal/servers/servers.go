//go:build unix

// Package servers starts the real servers that we test and measure against: Consul, Kafka, RabbitMQ, Pebble.
// `make servers` installs them; each test starts its own, on free ports and with its own data, and can hurt it.
//
//	consul := servers.Consul(t)          // skipped, or failed under MICRO_REQUIRE_SERVERS=1, where it is not installed
//	addr := consul.Proxy.Addr()          // what the clients under test connect to
//	consul.Kill(t); consul.Start(t)      // kill -9, and up again with its data
//	consul.Proxy.Blackhole()             // connections stay, nothing arrives
package servers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTimeout is for a cold JVM on a machine that is busy with other tests.
const startTimeout = 2 * time.Minute

// Server is one real server, a group of processes. Its methods are for one goroutine at a time; they fail t when the
// server does not do as told.
type Server struct {
	Addr  string // where it listens itself
	Proxy *Proxy // the same, over a proxy that can cut the connections
	Dir   string // its data
	Log   string // the file that its output goes to

	command func() *exec.Cmd // a new one for each start, with the same ports and data
	ready   func() error     // nil once it serves
	prepare func() error     // makes a wiped Dir usable; may be nil

	process *exec.Cmd
	ended   chan struct{} // closed when process has
}

// newServer has a folder for its data and a log; the rest is for the caller to set before begin.
func newServer(t testing.TB) *Server {
	t.Helper()
	dir := t.TempDir()
	s := &Server{Dir: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log")}
	if err := os.Mkdir(s.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

// listen sets the address of the server, and puts a proxy before it.
func (s *Server) listen(t testing.TB, addr string) {
	t.Helper()
	proxy, err := NewProxy(addr)
	if err != nil {
		t.Fatal(err)
	}
	s.Addr, s.Proxy = addr, proxy
}

// begin starts the server, which ends with t.
func (s *Server) begin(t testing.TB) {
	t.Helper()
	if s.prepare != nil {
		if err := s.prepare(); err != nil {
			t.Fatalf("preparing %s: %v", s.Dir, err)
		}
	}
	t.Cleanup(func() {
		s.end()
		if t.Failed() {
			t.Logf("the end of the server's log:\n%s", tail(s.Log, 4096))
		}
	})
	s.Start(t)
}

// Start starts the server with the data that it has, and returns when it serves.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.launch(); err != nil {
		t.Fatal(err)
	}
	if err := s.wait(); err != nil {
		t.Fatalf("%v; the end of its log:\n%s", err, tail(s.Log, 4096))
	}
}

// launch starts the process, and does not wait until it serves.
func (s *Server) launch() error {
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := s.command()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = processGroup()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	s.process, s.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		_ = cmd.Wait()
		close(ended)
	}(s.ended)
	return nil
}

func (s *Server) wait() error {
	deadline := time.Now().Add(startTimeout)
	for {
		err := s.ready()
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("%s ended before it served (%v)", s.process.Path, s.process.ProcessState)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not serve after %s: %w", s.process.Path, startTimeout, err)
		}
	}
}

// Kill is kill -9.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.signal(t, syscall.SIGKILL)
	<-s.ended
}

// Stop asks the server to end, and waits for it.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.signal(t, syscall.SIGTERM)
	<-s.ended
}

// Restart is Kill and Start.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Kill(t)
	s.Start(t)
}

// Pause freezes the server, which keeps its connections, until resume.
func (s *Server) Pause(t testing.TB) (resume func()) {
	t.Helper()
	s.signal(t, syscall.SIGSTOP)
	for deadline := time.Now().Add(startTimeout); !isStopped(s.process.Process.Pid); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s goes on after SIGSTOP", s.process.Path)
		}
	}
	return func() { s.signal(t, syscall.SIGCONT) }
}

// Wipe restarts the server without its data.
func (s *Server) Wipe(t testing.TB) {
	t.Helper()
	s.Kill(t)
	if err := errors.Join(os.RemoveAll(s.Dir), os.MkdirAll(s.Dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	if s.prepare != nil {
		if err := s.prepare(); err != nil {
			t.Fatal(err)
		}
	}
	s.Start(t)
}

func (s *Server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(-s.process.Process.Pid, sig); err != nil {
		t.Fatalf("sending %s to %s: %v", sig, s.process.Path, err)
	}
}

// end leaves nothing behind, in whatever state the server is.
func (s *Server) end() {
	if s.process != nil {
		_ = syscall.Kill(-s.process.Process.Pid, syscall.SIGKILL)
		<-s.ended
	}
	if s.Proxy != nil {
		s.Proxy.Close()
	}
}

func tail(file string, n int64) []byte {
	f, err := os.Open(file)
	if err != nil {
		return []byte(err.Error())
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, size-n), io.SeekStart)
	}
	data, _ := io.ReadAll(f)
	return bytes.TrimSpace(data)
}

// ports hands out no port twice in this process.
var ports = struct {
	sync.Mutex
	given map[int]bool
}{given: map[int]bool{}}

// freePort is a port of 127.0.0.1 on which nothing listens. It is taken from below the range of outgoing
// connections, so that none of those takes it while its server is down.
func freePort(t testing.TB) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	const low, span = 10_000, 22_000
	for i := range span {
		port := low + (os.Getpid()*16+i)%span // the tests of other packages begin elsewhere
		if ports.given[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		l.Close()
		ports.given[port] = true
		return port
	}
	t.Fatal("no free port between 10000 and 32000")
	return 0
}

// Root is the folder of this module.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Dir is where `make servers` puts the servers.
func Dir() string { return filepath.Join(Root(), ".servers") }
