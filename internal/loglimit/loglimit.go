// Package loglimit keeps strangers from filling the log of a process that they can reach.
//
//	var refused loglimit.Limit
//	refused.Warn(log, "connection refused", "peer", addr, "error", err)
package loglimit

import (
	"log/slog"
	"sync"
	"time"
)

// period is the least time between two lines.
const period = 10 * time.Second

// Limit logs the first occasion, and then at most one in each 10 s, with how often it came. The zero value is ready; it
// is safe for concurrent use.
type Limit struct {
	mu    sync.Mutex
	last  time.Time
	count int
}

// Warn logs, or counts.
func (l *Limit) Warn(log *slog.Logger, msg string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	if time.Since(l.last) < period {
		return
	}
	if l.count > 1 {
		args = append(args, "times", l.count)
	}
	log.Warn(msg, args...)
	l.last, l.count = time.Now(), 0
}
