package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/plugmicro/micro/internal/mux"
)

// budget bounds retries to a share of the calls that succeed, so that they cannot multiply the load of a service that
// is down. Tokens are counted in tenths.
type budget struct{ tenths atomic.Int64 }

const (
	budgetMax    = 10_000 // 1,000 retries in a burst: what may be in flight on nodes that die together
	budgetRetry  = 10
	budgetRefill = 2 // one retry for five calls that succeed
)

func newBudget() *budget {
	b := &budget{}
	b.tenths.Store(budgetMax)
	return b
}

func (b *budget) take() bool {
	if b.tenths.Add(-budgetRetry) >= 0 {
		return true
	}
	b.tenths.Add(budgetRetry)
	return false
}

func (b *budget) refill() {
	if b.tenths.Load() < budgetMax {
		b.tenths.Add(budgetRefill)
	}
}

// pause waits before the next attempt, longer each time, and not at all after the first one that was refused or never
// reached its node. False: there is no time left.
func (c *Client) pause(ctx context.Context, r *Request, attempts int, err error) bool {
	ctx, cancel := c.bound(ctx, r)
	defer cancel()
	var e *mux.Error
	if attempts == 1 && errors.As(err, &e) && e.NotRun {
		return ctx.Err() == nil
	}
	d := 5 * time.Millisecond << attempts
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
