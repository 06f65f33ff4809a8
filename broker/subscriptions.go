package broker

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
)

// Subscriptions is for implementations: what a broker has subscribed, and closes with itself. It is safe for concurrent
// use.
//
//	subs := broker.NewSubscriptions((*subscription).close)
type Subscriptions[S comparable] struct {
	close func(S, context.Context) error

	mu     sync.Mutex
	sealed bool
	open   map[S]struct{}
}

// NewSubscriptions is empty. CloseAll calls close for each, which is to end it within ctx and to Forget it; its user may be
// closing it at the same time.
func NewSubscriptions[S comparable](close func(S, context.Context) error) *Subscriptions[S] {
	return &Subscriptions[S]{close: close, open: map[S]struct{}{}}
}

// Add starts s, which nobody closes before start has returned. It reports false, and starts nothing, once the broker is
// closing: Subscribe then fails with ErrClosed. start must not wait, nor use the Subscriptions.
func (l *Subscriptions[S]) Add(s S, start func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sealed {
		return false
	}
	start()
	l.open[s] = struct{}{}
	return true
}

// Forget is for what is closed.
func (l *Subscriptions[S]) Forget(s S) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, s)
}

// Seal has Add take no more, and returns what there is.
func (l *Subscriptions[S]) Seal() []S {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sealed = true
	return slices.Collect(maps.Keys(l.open))
}

// Sealed tells whether Seal or CloseAll was called.
func (l *Subscriptions[S]) Sealed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sealed
}

// CloseAll seals, closes all at once and waits for them.
func (l *Subscriptions[S]) CloseAll(ctx context.Context) error {
	subs := l.Seal()
	errs := make([]error, len(subs))
	var all sync.WaitGroup
	for i, s := range subs {
		all.Go(func() { errs[i] = l.close(s, ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}
