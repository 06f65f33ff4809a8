package registry

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// readAgain is how often, about, a Follower has everything read again in spite of its watch.
const readAgain = 30 * time.Second

// Follower tells of what changes in a registry for as long as it is wanted, whatever happens to the registry meanwhile. It
// is what keeps a table of services up to date:
//
//	f := registry.Follow(reg, log, table.apply, table.read)
//	defer f.Stop()
//	<-f.Begun() // what changes from here on is told: now read what is there
type Follower struct {
	reg    Registry
	log    *slog.Logger
	apply  func(*Result)
	read   func(context.Context)
	ctx    context.Context
	cancel context.CancelFunc
	begun  chan struct{}
	work   sync.WaitGroup

	mu      sync.Mutex
	watcher Watcher
}

// Follow watches reg, and when that fails watches it anew, with growing pauses, until Stop or until the registry is
// closed. apply gets each change, one after the other. read is called when changes may have been missed, and every half
// a minute or so: it is to read again what apply keeps, and to end with its context. It may be called while apply is,
// and may be nil. A nil log means slog.Default.
func Follow(reg Registry, log *slog.Logger, apply func(*Result), read func(context.Context)) *Follower {
	if log == nil {
		log = slog.Default()
	}
	f := &Follower{reg: reg, log: log, apply: apply, read: read, begun: make(chan struct{})}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.work.Go(f.run)
	return f
}

// Begun is closed when the first watch has begun, or has failed.
func (f *Follower) Begun() <-chan struct{} { return f.begun }

// Stop ends it, and waits until apply and read have returned. It must not be called by them; it may be called again.
func (f *Follower) Stop() {
	f.end()
	f.work.Wait()
}

// end ends it without waiting.
func (f *Follower) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cancel()
	if f.watcher != nil {
		f.watcher.Stop()
	}
}

func (f *Follower) run() {
	begun := sync.OnceFunc(func() { close(f.begun) })
	defer begun()
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval = 100 * time.Millisecond
	pauses.MaxInterval = 10 * time.Second
	failures := 0
	for first := true; f.ctx.Err() == nil; first = false {
		w, err := f.watch()
		begun()
		if err == nil {
			failures = 0
			err = f.follow(w, first, pauses)
		}
		if f.ctx.Err() != nil || errors.Is(err, ErrClosed) {
			return
		}
		if failures++; failures == 2 { // the first one a caller of the registry meets, too, or nobody does
			f.log.Warn("the registry cannot be watched, what is known of it stays in use", "registry", f.reg.String(), "error", err)
		}
		select {
		case <-time.After(pauses.NextBackOff()):
		case <-f.ctx.Done():
			return
		}
		if w == nil && f.read != nil {
			f.read(f.ctx) // while it cannot be watched, this is all there is
		}
	}
}

func (f *Follower) watch() (Watcher, error) {
	w, err := f.reg.Watch()
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watcher = w
	if f.ctx.Err() != nil {
		w.Stop()
	}
	return w, nil
}

// follow applies changes until the watcher fails.
func (f *Follower) follow(w Watcher, first bool, pauses *backoff.ExponentialBackOff) error {
	defer w.Stop()
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	if f.read != nil {
		f.work.Go(func() { f.readNowAndThen(ctx, !first) })
	}
	for {
		r, err := w.Next()
		if err != nil {
			return err
		}
		pauses.Reset()
		f.apply(r)
	}
}

// readNowAndThen reads at once when a watch is not the first one, because of what may have been missed before it.
func (f *Follower) readNowAndThen(ctx context.Context, now bool) {
	for {
		if now {
			f.read(ctx)
		}
		now = true
		select {
		case <-time.After(readAgain/2 + rand.N(readAgain)):
		case <-ctx.Done():
			return
		}
	}
}
