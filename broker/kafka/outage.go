package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// settle is how long something has to fail before it is called an outage: leaders that move and members that join take
// their time when all is well.
const settle = time.Second

// outage tells the log once when something fails for those who need it, and once when it goes on. It is safe for concurrent
// use.
type outage struct {
	log     *slog.Logger
	cluster *cluster

	mu      sync.Mutex
	failing map[any]struct{} // who tries again now
	since   time.Time        // of the first try that failed, while nothing has worked
	told    bool
}

func newOutage(log *slog.Logger, c *cluster) *outage {
	return &outage{log: log, cluster: c, failing: map[any]struct{}{}}
}

// fails is for a try of who that was begun at that time, and will be followed by another.
func (o *outage) fails(who any, begun time.Time, err error, says string, args ...any) {
	o.mu.Lock()
	o.failing[who] = struct{}{}
	if o.since.IsZero() {
		o.since = begun
	}
	tell := !o.told && time.Since(o.since) >= settle
	o.told = o.told || tell
	o.mu.Unlock()
	if tell {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer: %w", err)
		}
		o.log.Warn(says+", will go on trying", append(args, "error", o.cluster.at(err))...)
	}
}

// gaveUp is for who does not try any more, which says nothing about the others.
func (o *outage) gaveUp(who any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.failing, who)
}

// works is for who succeeded. The outage is over when that was the last one.
func (o *outage) works(who any, says string, args ...any) {
	o.mu.Lock()
	delete(o.failing, who)
	over := len(o.failing) == 0
	tell := over && o.told
	if over {
		o.since, o.told = time.Time{}, false
	}
	o.mu.Unlock()
	if tell {
		o.log.Info(says, args...)
	}
}
