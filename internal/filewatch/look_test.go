package filewatch

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/logtest"
)

// TestHalfWritten writes in place and slowly, as a copy over a full disk's last blocks or a busy machine does it.
func TestHalfWritten(t *testing.T) {
	var got []string
	w := &Watch{
		file: filepath.Join(t.TempDir(), "f"),
		log:  slog.New(slog.NewTextHandler(io.Discard, nil)),
		last: []byte("deny: [a, b]"),
		load: func(data []byte) error { got = append(got, string(data)); return nil },
	}
	becomes := func(text string) {
		require.NoError(t, os.WriteFile(w.file, []byte(text), 0o600))
	}
	passes := func(d time.Duration) { w.since = w.since.Add(-d) }

	becomes("")
	require.Equal(t, settle, w.look())
	passes(settle)
	require.Equal(t, settle, w.look(), "an empty file is most often one that is about to be written")
	becomes("deny: [a")
	passes(empty)
	require.Equal(t, settle, w.look())
	becomes("deny: [a, c]")
	passes(settle)
	require.Equal(t, settle, w.look(), "it was another a moment ago")
	require.Empty(t, got)

	passes(settle)
	require.Equal(t, poll, w.look())
	require.Equal(t, []string{"deny: [a, c]"}, got)

	becomes("")
	require.Equal(t, settle, w.look())
	passes(empty)
	require.Equal(t, poll, w.look())
	require.Equal(t, []string{"deny: [a, c]", ""}, got, "one that stays empty is meant to be")
}

// TestWhatIsRefusedIsLoadedOnce looks again and again at a file that load has refused.
func TestWhatIsRefusedIsLoadedOnce(t *testing.T) {
	var got []string
	var log logtest.Buffer
	w := &Watch{
		file: filepath.Join(t.TempDir(), "f"),
		log:  slog.New(slog.NewTextHandler(&log, nil)),
		last: []byte("good"),
		load: func(data []byte) error {
			if got = append(got, string(data)); string(data) != "better" {
				return errors.New("no")
			}
			return nil
		},
	}
	becomes := func(text string) {
		require.NoError(t, os.WriteFile(w.file, []byte(text), 0o600))
		w.look()
		w.since = w.since.Add(-empty)
		for range 3 {
			require.Equal(t, poll, w.look())
		}
	}
	becomes("bad")
	require.Equal(t, []string{"bad"}, got)
	becomes("")
	require.Equal(t, []string{"bad", ""}, got)
	becomes("bad")
	require.Equal(t, []string{"bad", "", "bad"}, got, "it was another between")
	becomes("good")
	becomes("bad")
	require.Equal(t, []string{"bad", "", "bad", "bad"}, got)

	require.NoError(t, os.Remove(w.file))
	require.Equal(t, poll, w.look())
	require.Equal(t, poll, w.look())
	becomes("bad")
	require.Equal(t, []string{"bad", "", "bad", "bad", "bad"}, got, "what was told of it may have been long ago")
	becomes("better")
	require.Equal(t, []string{"bad", "", "bad", "bad", "bad", "better"}, got)
	require.Equal(t, 5, strings.Count(log.String(), "error=no\n"), "each is told once")
	require.Equal(t, 1, strings.Count(log.String(), "no such file"))
}
