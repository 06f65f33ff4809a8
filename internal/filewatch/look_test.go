package filewatch

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
