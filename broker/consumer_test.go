package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// dead collects what is published as dead letters.
type dead struct {
	mu   sync.Mutex
	err  error // answered instead, while not nil
	seen []*Message
}

func (d *dead) publish(_ context.Context, topic string, msgs ...*Message) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	d.seen = append(d.seen, msgs...)
	return nil
}

func (d *dead) answer(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func consume(t *testing.T, q *Queue, h Handler, d *dead, opts ...SubscribeOption) (*Consumer, *bytes.Buffer) {
	var log bytes.Buffer
	c := StartConsumer(q, ConsumerConfig{
		Topic: "orders", Handler: h, Options: NewSubscribeOptions(opts...), Publish: d.publish,
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	t.Cleanup(func() { c.Stop(context.Background()) })
	return c, &log
}

func TestConsumerRetriesThenBuries(t *testing.T) {
	for name, tc := range map[string]struct {
		fail   func() error
		reason string
	}{
		"error":  {func() error { return errors.New("boom") }, "boom"},
		"panic":  {func() error { panic("boom") }, "panic: boom"},
		"goexit": {func() error { runtime.Goexit(); return nil }, "the handler ended its goroutine"},
		"long":   {func() error { return errors.New(strings.Repeat("ä", 2000)) }, strings.Repeat("ä", 512)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := NewQueue(10, 1000)
				var tries []time.Time
				d := &dead{}
				_, log := consume(t, q, func(_ context.Context, m *Message) error {
					if m.ID == "good" {
						return nil
					}
					tries = append(tries, time.Now())
					m.Header["seen"], m.Body[0] = "yes", 'X' // its own copy: the next try does not see it
					return tc.fail()
				}, d, Retry(RetryPolicy{Attempts: 3, Min: time.Minute, Max: time.Hour}), DeadLetter("dead"))
				fill(t, q, &Message{ID: "bad", Key: "k", Header: map[string]string{"a": "b"}, Body: []byte("x")}, &Message{ID: "good"})
				require.NoError(t, q.Drain(t.Context()))

				require.Len(t, tries, 3)
				require.InDelta(t, 45*time.Second, tries[1].Sub(tries[0]), float64(15*time.Second))
				require.InDelta(t, 90*time.Second, tries[2].Sub(tries[1]), float64(30*time.Second))
				require.Equal(t, []*Message{{ID: "bad", Key: "k", Body: []byte("x"), Header: map[string]string{
					"a": "b", HeaderDeadTopic: "orders", HeaderDeadReason: tc.reason, HeaderAttempts: "3",
				}}}, d.seen)
				require.Equal(t, name == "panic", strings.Contains(log.String(), "stack="), "stacks go to the log")
			})
		})
	}
}

func TestConsumerBuriesPermanentErrorsAtOnce(t *testing.T) {
	q := NewQueue(10, 1000)
	d := &dead{}
	tries := 0
	consume(t, q, func(context.Context, *Message) error {
		tries++
		return fmt.Errorf("order 7: %w", Permanent(errors.New("unreadable")))
	}, d, DeadLetter("dead"))
	fill(t, q, &Message{ID: "bad"})
	require.NoError(t, q.Drain(t.Context()))
	require.Equal(t, 1, tries)
	require.Equal(t, "order 7: unreadable", d.seen[0].Header[HeaderDeadReason])
}

func TestConsumerDropsWithoutDeadLetter(t *testing.T) {
	q := NewQueue(10, 1000)
	_, log := consume(t, q, func(context.Context, *Message) error { return errors.New("boom") }, nil,
		Retry(RetryPolicy{Attempts: 1}))
	fill(t, q, &Message{ID: "bad"})
	require.NoError(t, q.Drain(t.Context()))
	require.Contains(t, log.String(), "message dropped")
	require.Contains(t, log.String(), "id=bad")
}

func TestConsumerKeepsWhatCannotBeBuriedYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(10, 1000)
		calls := 0
		d := &dead{err: errors.New("server away")}
		consume(t, q, func(context.Context, *Message) error { calls++; return errors.New("boom") }, d,
			Retry(RetryPolicy{Attempts: 2}), DeadLetter("dead"))
		fill(t, q, &Message{ID: "bad"})
		<-time.After(time.Minute) // of the bubble
		synctest.Wait()
		require.Equal(t, 2, calls, "its handler is not called again")
		d.answer(nil)
		require.NoError(t, q.Drain(t.Context()))
		require.Len(t, d.seen, 1)
		require.Equal(t, "boom", d.seen[0].Header[HeaderDeadReason])
	})
}

func TestConsumerDropsWhatCannotBeBuriedEver(t *testing.T) {
	q := NewQueue(10, 1000)
	d := &dead{err: ErrTooLarge}
	_, log := consume(t, q, func(context.Context, *Message) error { return errors.New("boom") }, d,
		Retry(RetryPolicy{Attempts: 1}), DeadLetter("dead"))
	fill(t, q, &Message{ID: "bad"})
	require.NoError(t, q.Drain(t.Context()))
	require.Contains(t, log.String(), "does not take it")
}

func TestConsumerSaysWhereADeadLetterIsKept(t *testing.T) {
	q := NewQueue(10, 1000)
	acked := make(chan bool, 1)
	d := &dead{err: fmt.Errorf("no room: %w in the cellar", ErrKept)}
	_, log := consume(t, q, func(context.Context, *Message) error { return errors.New("boom") }, d,
		Retry(RetryPolicy{Attempts: 1}), DeadLetter("dead"))
	require.NoError(t, q.Put(t.Context(), &Message{ID: "bad"}, func(is bool) { acked <- is }))
	require.NoError(t, q.Drain(t.Context()))
	require.True(t, <-acked)
	require.Contains(t, log.String(), "level=WARN")
	require.Contains(t, log.String(), `where="no room: kept in the cellar"`)
	require.NotContains(t, log.String(), "moved to the dead letter topic")
}

func TestConsumerKeepsOrderAcrossRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(100, 1000)
		var mu sync.Mutex
		var done []string
		failed := false
		consume(t, q, func(_ context.Context, m *Message) error {
			mu.Lock()
			defer mu.Unlock()
			if m.ID == "a1" && !failed {
				failed = true
				return errors.New("once")
			}
			done = append(done, m.ID)
			return nil
		}, nil, Concurrency(8), Retry(RetryPolicy{Attempts: 2, Min: time.Minute, Max: time.Minute}))
		fill(t, q, &Message{ID: "a1", Key: "a"}, &Message{ID: "a2", Key: "a"}, &Message{ID: "a3", Key: "a"}, &Message{ID: "b1", Key: "b"})
		require.NoError(t, q.Drain(t.Context()))
		require.Equal(t, []string{"b1", "a1", "a2", "a3"}, done)
	})
}

func TestConsumerRunsAsManyAsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(100, 1000)
		running, free := 0, make(chan struct{})
		var mu sync.Mutex
		consume(t, q, func(context.Context, *Message) error {
			mu.Lock()
			running++
			mu.Unlock()
			<-free
			return nil
		}, nil, Concurrency(3))
		for range 5 {
			fill(t, q, &Message{})
		}
		synctest.Wait()
		require.Equal(t, 3, running)
		close(free)
		require.NoError(t, q.Drain(t.Context()))
	})
}

func TestConsumerStop(t *testing.T) {
	type outcome struct {
		acked, back int
		err         bool
	}
	for name, tc := range map[string]struct {
		handler func(ctx context.Context, leave <-chan struct{}) error
		want    outcome
	}{
		"waits for the handler":    {func(context.Context, <-chan struct{}) error { <-time.After(time.Second); return nil }, outcome{acked: 1, back: 1}},
		"interrupts the handler":   {func(ctx context.Context, _ <-chan struct{}) error { <-ctx.Done(); return ctx.Err() }, outcome{back: 2}},
		"leaves a stuck one there": {func(_ context.Context, leave <-chan struct{}) error { <-leave; return nil }, outcome{back: 2, err: true}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := NewQueue(10, 1000)
				leave := make(chan struct{})
				c, _ := consume(t, q, func(ctx context.Context, _ *Message) error { return tc.handler(ctx, leave) }, nil)
				var got outcome
				settled := func(acked bool) {
					if acked {
						got.acked++
					} else {
						got.back++
					}
				}
				for range 2 {
					require.NoError(t, q.Put(t.Context(), &Message{}, settled))
				}
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				got.err = c.Stop(ctx) != nil
				q.Close()
				require.Equal(t, tc.want, got)
				close(leave)
				synctest.Wait()
				require.Equal(t, tc.want, got, "what a stuck handler returns later does not count")
			})
		})
	}
}

func TestInterruptedTryDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(10, 1000)
		c, _ := consume(t, q, func(ctx context.Context, _ *Message) error { <-ctx.Done(); return ctx.Err() }, nil)
		fill(t, q, &Message{})
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, c.Stop(ctx))
		require.Zero(t, take(t, q).Attempts)
	})
}

func TestPause(t *testing.T) {
	for _, tc := range []struct {
		p    RetryPolicy
		n    int
		want time.Duration // without jitter
	}{
		{RetryPolicy{}, 7, 0},
		{RetryPolicy{Max: time.Hour}, 1 << 60, 0},
		{RetryPolicy{Min: 50, Max: 5000}, 1, 50},
		{RetryPolicy{Min: 50, Max: 5000}, 3, 200},
		{RetryPolicy{Min: 50, Max: 5000}, 1 << 60, 5000},
		{RetryPolicy{Min: 1, Max: 1<<63 - 1}, 1 << 60, 1<<63 - 1},
	} {
		got := tc.p.pause(tc.n)
		require.LessOrEqual(t, got, tc.want)
		require.GreaterOrEqual(t, got, tc.want-tc.want/2)
	}
}
