package rabbitmq

import (
	"context"
	"fmt"
	"sync"
)

// slot holds what is lost and made again: a connection, a channel. It is safe for concurrent use.
type slot[T any] struct {
	mu      sync.Mutex
	value   *T
	err     error         // why there is none
	changed chan struct{} // closed with the next change
}

func newSlot[T any]() *slot[T] { return &slot[T]{changed: make(chan struct{})} }

// set replaces the value; nil with the reason, if there is none.
func (s *slot[T]) set(value *T, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value, s.err = value, err
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *slot[T]) now() (*T, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value, s.changed, s.err
}

// first waits for a value, or the reason why there is none.
func (s *slot[T]) first(ctx context.Context) error {
	for {
		value, changed, err := s.now()
		if value != nil || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// get waits for a value. Its error is that of ctx, with the reason why there is none.
func (s *slot[T]) get(ctx context.Context) (*T, error) {
	for {
		value, changed, err := s.now()
		if value != nil {
			return value, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if err != nil {
				return nil, fmt.Errorf("%w (%w)", context.Cause(ctx), err)
			}
			return nil, context.Cause(ctx)
		}
	}
}
