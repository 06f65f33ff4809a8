// Package logtest is for tests that read a log while it is written.
//
//	log := new(logtest.Buffer)
//	l := slog.New(slog.NewTextHandler(log, nil))
//	require.Eventually(t, func() bool { return strings.Contains(log.String(), "msg=stopped") }, soon, time.Millisecond)
package logtest

import (
	"bytes"
	"sync"
)

// Buffer keeps what is written to it. The zero value is ready, and several goroutines may use it.
type Buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String is what was written up to now.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Reset forgets it.
func (b *Buffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Reset()
}
