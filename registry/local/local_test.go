//go:build unix

package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/plugmicro/micro/internal/logtest"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/registry/registrytest"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// childEnv makes of the test binary a program that does one thing, so that it can be killed.
const childEnv = "LOCAL_TEST_CHILD"

type job struct {
	Dir     string
	Service *registry.Service // nil: only open the directory
	TTL     time.Duration
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		if err := child(text); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func child(text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	r, err := Open(j.Dir, nil)
	if err != nil {
		return err
	}
	if j.Service == nil {
		list, err := r.ListServices()
		fmt.Println(len(list), "services in", r.Dir())
		return err
	}
	if _, err := registry.Keep(r, j.Service, j.TTL, 0, nil); err != nil {
		return err
	}
	registrytest.Ready()
	return nil
}

func command(t *testing.T, j job) *exec.Cmd {
	text, err := json.Marshal(j)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	return cmd
}

func spawn(t *testing.T, j job) registrytest.Process {
	return registrytest.Start(t, command(t, j))
}

// notifiers are all ways in which Watch can learn of changes.
var notifiers = map[string]notifier{
	"platform": platform,
	"fsnotify": {start: fsNotify},
	"polling":  {start: func(string, chan<- struct{}) (func(), error) { return nil, errors.New("no notifications here") }},
}

func TestConformance(t *testing.T) {
	for name, notifier := range notifiers {
		nodes := 200
		if name == "platform" {
			nodes = 1000
		}
		t.Run(name, func(t *testing.T) {
			registrytest.Run(t, func(t *testing.T) registrytest.Harness {
				dir := filepath.Join(t.TempDir(), "registry")
				return registrytest.Harness{
					Open: func(t *testing.T) registry.Registry {
						r := open(t, dir)
						r.notifier = notifier
						return r
					},
					Nodes:     nodes,
					SeesCrash: true,
					Wipe: func(*testing.T) {
						for os.RemoveAll(dir) != nil { // a Keeper has come back already
						}
					},
					Spawn: func(t *testing.T, s *registry.Service, ttl time.Duration) registrytest.Process {
						return spawn(t, job{Dir: dir, Service: s, TTL: ttl})
					},
				}
			})
		})
	}
}

func open(t *testing.T, dir string) *Registry {
	t.Helper()
	r, err := Open(dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func greeter(id string) *registry.Service {
	return &registry.Service{Name: "greeter", Version: "1", Nodes: []*registry.Node{{ID: id, Address: "127.0.0.1:80"}}}
}

func files(t *testing.T, dir string) []string {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func ids(t *testing.T, r *Registry) []string {
	services, err := r.GetService("greeter")
	if !errors.Is(err, registry.ErrNotFound) {
		require.NoError(t, err)
	}
	var ids []string
	for _, s := range services {
		for _, n := range s.Nodes {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

func TestWhoeverSeesADeadProcessRemovesItsFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "registry")
	p := spawn(t, job{Dir: dir, Service: greeter("dead")})
	require.Len(t, files(t, dir), 1)
	r := open(t, dir)
	require.Equal(t, []string{"dead"}, ids(t, r))
	p.Kill()
	require.Empty(t, ids(t, r), "at once, without watching")
	require.Empty(t, files(t, dir))
}

func TestManyProcesses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "registry")
	var processes []registrytest.Process
	for i := range 8 {
		processes = append(processes, spawn(t, job{Dir: dir, Service: greeter(fmt.Sprint(i))}))
	}
	var readers sync.WaitGroup
	for range 4 { // who all see and remove the same dead files
		r := open(t, dir)
		readers.Go(func() {
			for len(ids(t, r)) > 4 {
			}
		})
	}
	r := open(t, dir)
	for _, p := range processes[:5] {
		p.Kill()
		require.NoError(t, r.Register(greeter("8")))
	}
	readers.Wait()
	require.Equal(t, []string{"5", "6", "7", "8"}, ids(t, r))
}

func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	r := open(t, dir)
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	require.NoError(t, r.Register(greeter("x")))
	require.NoError(t, r.Register(greeter("x")), "a refresh")
	names := files(t, dir)
	require.Len(t, names, 1)
	info, err = os.Stat(filepath.Join(dir, names[0]))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	changed := greeter("x")
	changed.Version = "2"
	require.NoError(t, r.Register(changed))
	require.Len(t, files(t, dir), 2, "who is reading finds the one or the other")
	require.Eventually(t, func() bool { return len(files(t, dir)) == 1 }, 5*time.Second, 10*time.Millisecond)
	require.NoError(t, r.Close())
	require.Empty(t, files(t, dir))
}

// TestOneLockForEachOwnNode counts descriptors: nothing is held open for the nodes of others.
func TestOneLockForEachOwnNode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "registry")
	one, two := open(t, dir), open(t, dir)
	w, err := two.Watch()
	require.NoError(t, err)
	defer w.Stop()
	before := len(descriptors(t))
	for i := range 20 {
		require.NoError(t, one.Register(greeter(fmt.Sprint(i))))
		require.NoError(t, one.Register(greeter(fmt.Sprint(i))))
	}
	require.Len(t, ids(t, two), 20)
	require.Eventually(t, func() bool { return len(descriptors(t)) == before+20 }, 5*time.Second, 10*time.Millisecond)
}

func descriptors(t *testing.T) []os.DirEntry {
	fds, err := os.ReadDir("/proc/self/fd")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("no /proc")
	}
	require.NoError(t, err)
	return fds
}

func TestStrangeFilesAreSkippedWithOneWarning(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "registry")
	good := open(t, dir)
	require.NoError(t, good.Register(greeter("good")))
	sample, err := os.ReadFile(filepath.Join(dir, files(t, dir)[0]))
	require.NoError(t, err)

	name := func(i int) string { return newKey("greeter", fmt.Sprint(i)).newFile() }
	write := func(name string, data []byte) string {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
		return name
	}
	strange := []string{
		write(name(0), nil),
		write(name(1), []byte("\x00\xff{")),
		write(name(2), sample[:len(sample)/2]),
		write(name(3), sample), // says that it is about another node
		write(name(4), []byte("null")),
		write(name(5), []byte(`{"name":"greeter","nodes":[null]}`)),
		write("README", []byte("hello")),
		write("greeter.json", sample),
		write(strings.ToUpper(name(6)), sample),
	}
	huge := name(7)
	require.NoError(t, os.WriteFile(filepath.Join(dir, huge), sample, 0o600))
	require.NoError(t, os.Truncate(filepath.Join(dir, huge), maxFile+1))
	folder, link, pipe := name(8), name(9), name(10)
	require.NoError(t, os.Mkdir(filepath.Join(dir, folder), 0o700))
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(dir, link)))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, pipe), 0o600))
	strange = append(strange, huge, folder, link, pipe)
	if os.Geteuid() != 0 { // who can read everything
		locked := write(name(11), sample)
		require.NoError(t, os.Chmod(filepath.Join(dir, locked), 0))
		strange = append(strange, locked)
	}

	var logs logtest.Buffer
	r, err := Open(dir, slog.New(slog.NewTextHandler(&logs, nil)))
	require.NoError(t, err)
	defer r.Close()
	w, err := r.Watch()
	require.NoError(t, err)
	for range 3 {
		require.Equal(t, []string{"good"}, ids(t, r))
		list, err := r.ListServices()
		require.NoError(t, err)
		require.Len(t, list, 1)
	}
	require.NoError(t, good.Register(greeter("another")))
	result, err := w.Next()
	require.NoError(t, err)
	require.Equal(t, "another", result.Service.Nodes[0].ID)
	require.NoError(t, r.Deregister(greeter("3")))
	for _, name := range strange[:len(strange)-1] {
		if name != strange[3] { // which is gone now: it was asked for by name
			require.Contains(t, files(t, dir), name, "not ours to delete")
		}
		require.Equal(t, 1, strings.Count(logs.String(), name), name+"\n"+logs.String())
	}
}

func TestTemporaryFilesOfTheDeadAreSwept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "registry")
	r := open(t, dir)
	fresh, old := newKey("greeter", "a").newFile()+".new", newKey("greeter", "b").newFile()+".new"
	for _, name := range []string{fresh, old} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	ago := time.Now().Add(-2 * abandon)
	require.NoError(t, os.Chtimes(filepath.Join(dir, old), ago, ago))
	require.Empty(t, ids(t, r))
	require.Equal(t, []string{fresh}, files(t, dir))
}

func TestDirectoriesThatCannotBeTrusted(t *testing.T) {
	base := t.TempDir()
	mkdir := func(name string, mode os.FileMode) string {
		path := filepath.Join(base, name)
		require.NoError(t, os.Mkdir(path, 0o700))
		require.NoError(t, os.Chmod(path, mode))
		return path
	}
	link := filepath.Join(base, "link")
	require.NoError(t, os.Symlink(mkdir("target", 0o700), link))
	file := filepath.Join(base, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	cases := map[string]string{
		mkdir("open", 0o755):                "is open to other users (mode 0755): run chmod 700 " + base + "/open",
		mkdir("group", 0o710):               "mode 0710",
		link:                                "is a symbolic link",
		file:                                "is no directory",
		filepath.Join(file, "below a file"): "not a directory; choose another with --registry-dir",
	}
	if os.Geteuid() == 0 {
		foreign := mkdir("foreign", 0o700)
		require.NoError(t, os.Chown(foreign, 65534, 65534))
		cases[foreign] = "belongs to another user (uid 65534, this process has 0): choose another directory with --registry-dir"
	}
	for path, says := range cases {
		_, err := Open(path, nil)
		require.ErrorContains(t, err, says)
		require.ErrorContains(t, err, path)
		require.ErrorContains(t, err, "registry directory")
	}
}

func TestADirectoryThatIsOpenedToOthersLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "registry")
	r := open(t, dir)
	require.NoError(t, r.Register(greeter("a")))
	w, err := r.Watch()
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o777))
	_, err = r.GetService("greeter")
	require.ErrorContains(t, err, "is open to other users")
	require.ErrorContains(t, r.Register(greeter("b")), "is open to other users")
	require.NoError(t, os.Chmod(dir, 0o700))
	require.NoError(t, r.Register(greeter("b")))
	result, err := w.Next()
	require.NoError(t, err)
	require.Equal(t, registry.Create, result.Action)
	require.Equal(t, "b", result.Service.Nodes[0].ID)
}

func TestTheDefaultDirectory(t *testing.T) {
	run, tmp := t.TempDir(), t.TempDir()
	require.NoError(t, os.Chmod(run, 0o700))
	t.Setenv("XDG_RUNTIME_DIR", run)
	t.Setenv("TMPDIR", tmp)
	require.Equal(t, filepath.Join(run, "micro", "registry"), open(t, "").Dir())

	inTmp := filepath.Join(tmp, fmt.Sprint("micro-", os.Geteuid()))
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(run, "not there"))
	require.Equal(t, filepath.Join(inTmp, "registry"), open(t, "").Dir())
	t.Setenv("XDG_RUNTIME_DIR", "")
	require.Equal(t, filepath.Join(inTmp, "registry"), open(t, "").Dir())

	require.NoError(t, os.Chmod(inTmp, 0o777))
	_, err := Open("", nil)
	require.ErrorContains(t, err, inTmp+" is open to other users", "others could replace what is in it")
}

func TestTwoUsersDoNotSeeEachOther(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	tmp, err := os.MkdirTemp("/tmp", "local-test")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(tmp)) })
	require.NoError(t, os.Chmod(tmp, 0o777|os.ModeSticky))
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("TMPDIR", tmp)
	r := open(t, "")
	require.NoError(t, r.Register(greeter("a")))

	binary := filepath.Join(tmp, "child") // the other user may not enter where the test binary is
	self, err := os.Executable()
	require.NoError(t, err)
	data, err := os.ReadFile(self)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(binary, data, 0o755))
	asOther := func(dir string) string {
		cmd := command(t, job{Dir: dir})
		cmd.Path, cmd.Dir = binary, tmp
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, _ := cmd.Output()
		return string(out)
	}
	require.Equal(t, fmt.Sprintln("0 services in", filepath.Join(tmp, "micro-65534", "registry")), asOther(""))
	require.Contains(t, asOther(r.Dir()), "permission denied")
	require.Contains(t, asOther(filepath.Dir(r.Dir())), "belongs to another user (uid 0, this process has 65534)")
}

func TestNewChecksTheDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "registry")
	r, err := New(&plugin.Env{}, Config{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, r.(io.Closer).Close())
	require.NoError(t, os.Chmod(dir, 0o777))
	_, err = New(&plugin.Env{}, Config{Dir: dir})
	require.ErrorContains(t, err, "chmod 700")
}

// TestAWatchSurvivesTheDirectory: made anew by whom ever, as often as you like.
func TestAWatchSurvivesTheDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "registry")
	r, other := open(t, dir), open(t, dir)
	w, err := r.Watch()
	require.NoError(t, err)
	defer w.Stop()
	for i := range 5 {
		s := greeter(fmt.Sprint(i))
		require.NoError(t, other.Register(s))
		result, err := w.Next()
		require.NoError(t, err)
		require.Equal(t, registry.Create, result.Action)
		require.NoError(t, os.RemoveAll(dir))
		result, err = w.Next()
		require.NoError(t, err)
		require.Equal(t, registry.Delete, result.Action)
		require.Equal(t, s.Nodes[0].ID, result.Service.Nodes[0].ID)
	}
}

// TestNobodySeesOldStatesAgain, although replaced files stay for a moment.
func TestNobodySeesOldStatesAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "registry")
	one, two := open(t, dir), open(t, dir)
	for i := range 20 {
		last := 0
		seen, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for last < 10 {
				services, err := two.GetService("greeter")
				if err != nil {
					continue
				}
				n, err := strconv.Atoi(services[0].Version)
				if err != nil || n < last {
					t.Errorf("round %d: %v after %d, %v", i, services[0].Version, last, err)
				}
				last = n
			}
			close(seen)
			for {
				services, err := two.GetService("greeter")
				if err != nil {
					return
				}
				if services[0].Version != "10" {
					t.Errorf("round %d: %s after 10", i, services[0].Version)
				}
			}
		}()
		s := greeter("x")
		for version := range 10 {
			s.Version = strconv.Itoa(version + 1)
			require.NoError(t, one.Register(s))
		}
		<-seen
		require.NoError(t, one.Deregister(s))
		<-done
	}
}
