package amqp

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// settled is how long it must have worked again for the next failure to be a new outage.
	settled = 5 * time.Second
	// reminder is how often an outage that lasts is logged.
	reminder = time.Minute
)

// Outage logs that something does not work which is tried again and again: when that begins, once a minute while it
// lasts, and when it is over. The zero value is ready, and safe for concurrent use.
type Outage struct {
	mu     sync.Mutex
	lasts  bool
	began  time.Time
	ended  time.Time // of the last one
	warned time.Time
	told   bool // the last line was about the outage
}

// Failed is to be called with every failure.
func (o *Outage) Failed(log *slog.Logger, msg string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if !o.lasts && now.Sub(o.ended) >= settled {
		o.began, o.warned = now, time.Time{}
	}
	o.lasts = true
	if now.Sub(o.warned) < reminder {
		return
	}
	o.warned, o.told = now, true
	log.Warn(msg, "error", strings.ReplaceAll(fmt.Sprint(err), "\n", "; ")) // of several addresses
}

// Over is to be called when it works.
func (o *Outage) Over(log *slog.Logger, msg string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.lasts {
		return
	}
	o.lasts, o.ended = false, time.Now()
	if o.told {
		o.told = false
		log.Info(msg, append(args, "after", time.Since(o.began).Round(time.Millisecond))...)
	}
}
