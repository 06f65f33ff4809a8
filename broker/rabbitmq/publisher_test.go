//go:build unix

package rabbitmq

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/servers"
)

// Of messages that come back when nobody waits for them any more nothing is kept.
func TestReturnedTooLate(t *testing.T) {
	s := servers.RabbitMQ(t)
	c := testConfig(s.Addr)
	c.Mandatory = true
	b, err := open(context.Background(), c, quiet)
	require.NoError(t, err)
	defer b.Close()
	require.ErrorIs(t, b.Publish(t.Context(), "late", &broker.Message{ID: "1"}), ErrNoSubscriber)

	resume := s.Pause(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, b.Publish(ctx, "late", &broker.Message{ID: "2"}), context.DeadlineExceeded)
	resume()
	require.ErrorIs(t, b.Publish(t.Context(), "late", &broker.Message{ID: "3"}, &broker.Message{ID: "3"}), ErrNoSubscriber, "and 2 came back before")
	o, _, _ := b.publish.outlets.now()
	o.returned.mu.Lock()
	defer o.returned.mu.Unlock()
	require.Empty(t, o.returned.ids)
}

// Four publish what the server refuses, all the time, as fast as they can: by its size, and for a reason that names nothing
// of the message. What others publish meanwhile arrives.
func TestBadNeighbours(t *testing.T) {
	s := servers.RabbitMQ(t, "max_message_size = 300000")
	b, in := openAt(t, s.Addr), &inbox{}
	subscribe(t, b, "neighbours", in.handle, broker.Group("g"))
	const publishers, each = 4, 25
	var good, bad sync.WaitGroup
	over := make(chan struct{})
	for i := range publishers {
		bad.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				refused := newBatch("neighbours", false, &broker.Message{ID: "bad", Body: make([]byte, 400_000)})
				if i%2 == 0 {
					refused = newBatch("neighbours", false, &broker.Message{ID: "bad"})
					refused.msgs[0].UserId = "somebody-else"
				}
				assert.ErrorContains(t, b.send(t.Context(), "neighbours", refused), "PRECONDITION_FAILED")
			}
		})
		good.Go(func() {
			for j := range each {
				assert.NoError(t, b.Publish(t.Context(), "neighbours", &broker.Message{ID: fmt.Sprint(i, "-", j)}))
			}
		})
	}
	good.Wait()
	close(over)
	bad.Wait()
	require.Zero(t, b.publish.suspects.Load())
	require.Eventually(t, func() bool {
		ids := map[string]bool{}
		for _, id := range in.ids() {
			ids[id] = true
		}
		return len(ids) == publishers*each
	}, wait, poll)
	require.NotContains(t, in.ids(), "bad")
	t.Log(len(in.ids())-publishers*each, "duplicates")
}

// What a queue refuses is published again while there is time.
func TestRefusedByAQueue(t *testing.T) {
	s := servers.RabbitMQ(t)
	c := testConfig(s.Addr)
	c.Timeout = 500 * time.Millisecond
	hasty, err := open(context.Background(), c, quiet)
	require.NoError(t, err)
	defer hasty.Close()
	b, ch, in := openAt(t, s.Addr), plain(t, s), &inbox{}
	subscribe(t, b, "refused", in.handle) // counts
	_, err = ch.QueueDeclare("full", false, false, true, false, amqp091.Table{"x-max-length": int32(1), amqp091.QueueOverflowArg: amqp091.QueueOverflowRejectPublish})
	require.NoError(t, err)
	require.NoError(t, ch.QueueBind("full", "#", "micro:refused", false, nil))
	require.NoError(t, b.Publish(t.Context(), "refused", &broker.Message{ID: "1"}))
	require.ErrorContains(t, hasty.Publish(t.Context(), "refused", &broker.Message{ID: "2"}), "a queue is full")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan error, 1)
	publish := func(id string) {
		go func() { result <- b.Publish(ctx, "refused", &broker.Message{ID: id}) }()
		require.Eventually(t, func() bool { return strings.Count(strings.Join(in.ids(), ","), id) > 1 }, wait, poll)
	}
	publish("free")
	_, err = ch.QueuePurge("full", false)
	require.NoError(t, err)
	require.NoError(t, <-result)

	publish("given-up")
	cancel()
	err = <-result
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "a queue is full")
}
