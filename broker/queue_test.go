package broker

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func fill(t *testing.T, q *Queue, msgs ...*Message) {
	t.Helper()
	for _, m := range msgs {
		require.NoError(t, q.Put(t.Context(), m, nil))
	}
}

func take(t *testing.T, q *Queue) *Delivery {
	t.Helper()
	d, err := q.Take(t.Context())
	require.NoError(t, err)
	return d
}

// nothing asserts that no message is to be had; within a synctest bubble.
func nothing(t *testing.T, q *Queue) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	_, err := q.Take(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestQueueHandsOutOneOfAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(10, 1000)
		fill(t, q, &Message{ID: "a1", Key: "a"}, &Message{ID: "a2", Key: "a"}, &Message{ID: "1"}, &Message{ID: "b1", Key: "b"})
		a1, none, b1 := take(t, q), take(t, q), take(t, q)
		require.Equal(t, []string{"a1", "1", "b1"}, []string{a1.Message.ID, none.Message.ID, b1.Message.ID})
		nothing(t, q)
		none.Ack()
		b1.Ack()
		nothing(t, q)
		a1.Ack()
		a2 := take(t, q)
		require.Equal(t, "a2", a2.Message.ID)
		a2.Ack()
		require.NoError(t, q.Drain(t.Context()))
	})
}

func TestQueueReturnKeepsThePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(10, 1000)
		fill(t, q, &Message{ID: "a1", Key: "a"}, &Message{ID: "a2", Key: "a"}, &Message{ID: "1"})
		a1 := take(t, q)
		a1.Return(time.Minute)
		one := take(t, q)
		require.Equal(t, "1", one.Message.ID, "a pause holds nobody else back")
		one.Ack()
		nothing(t, q)
		start := time.Now()
		again := take(t, q)
		require.Equal(t, "a1", again.Message.ID)
		require.InDelta(t, time.Minute, time.Since(start), float64(time.Second))

		a1.Ack()
		a1.Return(0)
		nothing(t, q) // the first handle is void
		again.Ack()
		require.Equal(t, "a2", take(t, q).Message.ID)
	})
}

func TestQueueBounds(t *testing.T) {
	for name, q := range map[string]*Queue{"messages": NewQueue(2, 1000), "bytes": NewQueue(100, 20)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := NewQueue(q.maxMessages, q.maxBytes) // of this bubble
				ten := &Message{Body: make([]byte, 10)}
				fill(t, q, ten, ten)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				require.ErrorIs(t, q.Put(ctx, ten, nil), context.DeadlineExceeded)

				var order []string
				for _, id := range []string{"3", "4"} {
					go func() {
						if q.Put(t.Context(), &Message{ID: id, Body: make([]byte, 9)}, nil) == nil {
							order = append(order, id)
						}
					}()
					synctest.Wait()
				}
				require.Empty(t, order)
				take(t, q).Ack()
				synctest.Wait()
				require.Equal(t, []string{"3"}, order, "who came first")
				take(t, q).Ack()
				synctest.Wait()
				require.Equal(t, []string{"3", "4"}, order)
			})
		})
	}
}

func TestQueueTakesOneThatIsLargerThanAll(t *testing.T) {
	q := NewQueue(10, 10)
	fill(t, q, &Message{Body: make([]byte, 100)})
	take(t, q).Ack()
}

func TestQueueClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(5, 1000)
		var back, acked []string
		put := func(id, key string) {
			m := &Message{ID: id, Key: key}
			require.NoError(t, q.Put(t.Context(), m, func(ok bool) {
				if ok {
					acked = append(acked, id)
				} else {
					back = append(back, id)
				}
			}))
		}
		put("1", "a")
		put("2", "a")
		put("3", "")
		put("4", "")
		put("5", "")
		first, second, third := take(t, q), take(t, q), take(t, q)
		second.Return(time.Hour)
		waits := make(chan error)
		go func() { waits <- q.Put(t.Context(), &Message{}, nil) }()
		synctest.Wait()

		require.Equal(t, 3, q.Close())
		require.ErrorIs(t, <-waits, ErrClosed)
		require.Equal(t, []string{"2", "3", "5"}, back, "in order, in flight left out")
		first.Ack()
		third.Return(time.Hour)
		require.Equal(t, []string{"1"}, acked)
		require.Equal(t, []string{"2", "3", "5", "4"}, back)
		require.NoError(t, q.Drain(t.Context()))
		require.Zero(t, q.Close())
		require.ErrorIs(t, q.Put(t.Context(), &Message{}, nil), ErrClosed)
		_, err := q.Take(t.Context())
		require.ErrorIs(t, err, ErrClosed)
	})
}

func TestQueueDrainWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(5, 1000)
		fill(t, q, &Message{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, q.Drain(ctx), context.DeadlineExceeded)
		go func() { take(t, q).Ack() }()
		require.NoError(t, q.Drain(t.Context()))
	})
}

func TestQueueDiscard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(10, 1000)
		var back []string
		for _, m := range []Message{{ID: "a1", Key: "a"}, {ID: "b1", Key: "b"}, {ID: "1"}, {ID: "c1", Key: "c"}, {ID: "b2", Key: "b"},
			{ID: "a2", Key: "a"}, {ID: "c2", Key: "c"}, {ID: "d1", Key: "d"}} {
			require.NoError(t, q.Put(t.Context(), &m, func(acked bool) {
				if !acked {
					back = append(back, m.ID)
				}
			}))
		}
		a1, b1 := take(t, q), take(t, q)
		b1.Return(time.Minute)
		require.Equal(t, 5, q.Discard(func(m *Message) bool { return m.Key == "a" || m.Key == "b" || m.Key == "c" }))
		require.Equal(t, []string{"b1", "c1", "b2", "a2", "c2"}, back, "in order, but not what is in flight")
		fill(t, q, &Message{ID: "a3", Key: "a"}, &Message{ID: "c3", Key: "c"}, &Message{ID: "b3", Key: "b"})
		for _, want := range []string{"1", "d1", "c3", "b3"} {
			d := take(t, q)
			require.Equal(t, want, d.Message.ID)
			d.Ack()
		}
		nothing(t, q)
		a1.Ack()
		require.Equal(t, "a3", take(t, q).Message.ID, "a key that is in flight is still one after the other")
	})
}

// TestQueueDiscardSomeOfAKey leaves messages behind those of the same key that are discarded: paused, ready, in flight.
func TestQueueDiscardSomeOfAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(10, 1000)
		fill(t, q, &Message{ID: "a1", Key: "a"}, &Message{ID: "b1", Key: "b"}, &Message{ID: "c1", Key: "c"})
		take(t, q).Return(time.Minute) // a1 is paused, b1 in flight, c1 ready
		b1 := take(t, q)
		for _, key := range []string{"a", "b", "c"} {
			fill(t, q, &Message{ID: key + "2", Key: key}, &Message{ID: key + "3", Key: key})
		}
		gone := []string{"a1", "a2", "b2", "c1", "c3"}
		require.Equal(t, 5, q.Discard(func(m *Message) bool { return slices.Contains(gone, m.ID) }))
		for _, want := range []string{"a3", "c2"} {
			d := take(t, q)
			require.Equal(t, want, d.Message.ID)
			d.Ack()
		}
		nothing(t, q)
		b1.Ack()
		take(t, q).Ack()
		require.NoError(t, q.Drain(t.Context()))
	})
}

// TestQueueDiscardAgainstTake has those who take find nothing where something was discarded.
func TestQueueDiscardAgainstTake(t *testing.T) {
	q := NewQueue(4, 1000)
	var all sync.WaitGroup
	const messages = 2000
	settled := make(chan bool, messages)
	for range 4 {
		all.Go(func() {
			for {
				d, err := q.Take(t.Context())
				if err != nil {
					return
				}
				d.Ack()
			}
		})
	}
	for i := range messages {
		require.NoError(t, q.Put(t.Context(), &Message{Key: string(rune('a' + i%3))}, func(acked bool) { settled <- acked }))
		if i%2 == 0 {
			q.Discard(func(m *Message) bool { return m.Key != "b" })
		}
	}
	require.NoError(t, q.Drain(t.Context()))
	q.Close()
	all.Wait()
	require.Len(t, settled, messages)
}
