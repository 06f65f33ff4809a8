package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSubscriptions(t *testing.T) {
	var together sync.WaitGroup // each close waits for the other
	together.Add(2)
	closed := make(chan string, 3)
	l := NewSubscriptions(func(s string, ctx context.Context) error {
		together.Done()
		together.Wait()
		closed <- s
		return fmt.Errorf("%s: %w", s, context.Cause(ctx))
	})
	started := 0
	for _, s := range []string{"a", "b", "gone"} {
		require.True(t, l.Add(s, func() { started++ }))
	}
	l.Forget("gone")
	l.Forget("never there")
	require.False(t, l.Sealed())
	require.ElementsMatch(t, []string{"a", "b"}, l.Seal())
	require.True(t, l.Sealed())
	require.False(t, l.Add("late", func() { started++ }))
	require.Equal(t, 3, started)
	require.Empty(t, closed, "sealing closes nothing")

	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	err := l.CloseAll(ctx)
	require.ErrorIs(t, err, why)
	require.ErrorContains(t, err, "a: ")
	require.ErrorContains(t, err, "b: ")
	require.ElementsMatch(t, []string{"a", "b"}, []string{<-closed, <-closed})

	l.Forget("a")
	l.Forget("b")
	require.NoError(t, l.CloseAll(t.Context()))
}

// TestSubscriptionsStartBeforeTheyClose closes while one is being added: what start has set is there when it is closed.
func TestSubscriptionsStartBeforeTheyClose(t *testing.T) {
	for range 100 {
		started := false
		l := NewSubscriptions(func(_ int, _ context.Context) error {
			if !started {
				return errors.New("it is not started")
			}
			return nil
		})
		closing, result := make(chan struct{}), make(chan error)
		go func() {
			<-closing
			result <- l.CloseAll(t.Context())
		}()
		require.True(t, l.Add(1, func() {
			close(closing)
			started = true
		}))
		require.NoError(t, <-result)
		require.False(t, l.Add(2, func() { started = false }))
	}
}
