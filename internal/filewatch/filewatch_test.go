package filewatch_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/internal/filewatch"
	"github.com/plugmicro/micro/internal/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reader is who loads; "bad" content is refused.
type reader struct{ got chan string }

func (r reader) load(data []byte) error {
	if strings.HasPrefix(string(data), "bad") {
		return errors.New("it is " + string(data))
	}
	r.got <- string(data)
	return nil
}

func (r reader) wait(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-r.got:
		require.Equal(t, want, got)
	case <-time.After(10 * time.Second):
		require.Fail(t, "nothing was loaded", "want %q", want)
	}
}

func follow(t *testing.T, file string) (reader, *logtest.Buffer) {
	r, log := reader{make(chan string, 10)}, new(logtest.Buffer)
	w, err := filewatch.Follow(file, slog.New(slog.NewTextHandler(log, nil)), r.load)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Close()); require.NoError(t, w.Close()) })
	return r, log
}

func write(t *testing.T, file, text string) {
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
}

func TestChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	write(t, file, "one")
	r, _ := follow(t, file)
	r.wait(t, "one")

	write(t, file, "two")
	r.wait(t, "two")

	write(t, file+".new", "three")
	require.NoError(t, os.Rename(file+".new", file))
	r.wait(t, "three")

	require.NoError(t, os.Remove(file))
	write(t, file, "four")
	r.wait(t, "four")
}

// TestLinks replaces the directory behind a link, as Kubernetes does for a ConfigMap.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"1", "2"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, version), 0o700))
		write(t, filepath.Join(dir, version, "f"), version)
	}
	require.NoError(t, os.Symlink("1", filepath.Join(dir, "data")))
	require.NoError(t, os.Symlink("data/f", filepath.Join(dir, "f")))
	r, _ := follow(t, filepath.Join(dir, "f"))
	r.wait(t, "1")
	require.NoError(t, os.Symlink("2", filepath.Join(dir, "new")))
	require.NoError(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "data")))
	r.wait(t, "2")
}

// TestNeighbours writes another file of the folder all the time.
func TestNeighbours(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	write(t, file, "one")
	r, _ := follow(t, file)
	r.wait(t, "one")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
				_ = os.WriteFile(file+".log", []byte{byte(i)}, 0o600)
			}
		}
	}()
	defer func() { close(stop); <-done }()
	write(t, file, "two")
	r.wait(t, "two")
	for i := range 20 { // each is used while its neighbour changes all the time
		text := "version " + strconv.Itoa(i)
		write(t, file+".new", text)
		require.NoError(t, os.Rename(file+".new", file))
		r.wait(t, text)
	}
}

func TestWhatIsWrongIsToldOnceAndNotUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	write(t, file, "one")
	r, log := follow(t, file)
	r.wait(t, "one")
	write(t, file, "bad 1")
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "it is bad 1") }, 10*time.Second, 5*time.Millisecond)
	write(t, file, "bad 2")
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "it is bad 2") }, 10*time.Second, 5*time.Millisecond)
	write(t, file, "two")
	r.wait(t, "two")
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "in use") }, 10*time.Second, 5*time.Millisecond)
	require.Equal(t, 2, strings.Count(log.String(), "WARN"))
}

func TestFirstReading(t *testing.T) {
	dir := t.TempDir()
	_, err := filewatch.Follow(filepath.Join(dir, "f"), nil, func([]byte) error { return nil })
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = filewatch.Follow(dir, nil, func([]byte) error { return nil })
	require.ErrorContains(t, err, "is no file")
	write(t, filepath.Join(dir, "f"), "bad")
	_, err = filewatch.Follow(filepath.Join(dir, "f"), nil, reader{}.load)
	require.ErrorContains(t, err, "it is bad")
}
