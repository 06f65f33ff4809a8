//go:build unix

package rabbitmq

import (
	"context"
	"slices"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/servers"
)

const benchBatch = 100

// bare is amqp091 as one has to use it for the same guarantees: confirms, a quorum queue, prefetch, manual acks.
type bare struct{ publish, consume *amqp091.Channel }

func openBare(b *testing.B, s *servers.RabbitServer, topic string) bare {
	b.Helper()
	channel := func() *amqp091.Channel {
		c, err := amqp091.Dial("amqp://guest:guest@" + s.Addr)
		require.NoError(b, err)
		b.Cleanup(func() { c.Close() })
		ch, err := c.Channel()
		require.NoError(b, err)
		return ch
	}
	x := bare{channel(), channel()}
	require.NoError(b, x.publish.Confirm(false))
	require.NoError(b, declareExchange(x.publish, topic))
	require.NoError(b, declareDead(x.publish))
	_, err := x.consume.QueueDeclare(queueOf(topic, "g", -1), true, false, false, false, quorum(-1))
	require.NoError(b, err)
	require.NoError(b, x.consume.QueueBind(queueOf(topic, "g", -1), "", exchangeOf(topic), false, nil))
	require.NoError(b, x.consume.Qos(64, 0, false))
	return x
}

func (x bare) send(b *testing.B, topic string, n int) {
	confirms := make([]*amqp091.DeferredConfirmation, n)
	for i := range confirms {
		var err error
		confirms[i], err = x.publish.PublishWithDeferredConfirm(exchangeOf(topic), "", false, false,
			amqp091.Publishing{MessageId: broker.NewID(), DeliveryMode: amqp091.Persistent, Body: make([]byte, 256)})
		require.NoError(b, err)
	}
	for _, c := range confirms {
		acked, err := c.WaitContext(context.Background())
		require.True(b, acked && err == nil)
	}
}

func messages(n int) []*broker.Message {
	msgs := make([]*broker.Message, n)
	for i := range msgs {
		msgs[i] = &broker.Message{Body: make([]byte, 256)}
	}
	return msgs
}

// BenchmarkPublish is one message after the other, each confirmed, into the queue of a group. Both take turns, as the
// machine and the server are not equally busy all the time.
func BenchmarkPublish(b *testing.B) {
	s := servers.RabbitMQ(b)
	x := openBare(b, s, "single")
	p := openAt(b, s.Addr)
	compare(b, 20, func() { x.send(b, "single", 1) }, func() {
		require.NoError(b, p.Publish(b.Context(), "single", messages(1)...))
	})
}

// BenchmarkPublishAndConsume has messages published in batches while a member of a group handles them.
func BenchmarkPublishAndConsume(b *testing.B) {
	s := servers.RabbitMQ(b)
	x := openBare(b, s, "bare")
	deliveries, err := x.consume.Consume(queueOf("bare", "g", -1), "", false, false, false, false, nil)
	require.NoError(b, err)
	p := openAt(b, s.Addr)
	handled := make(chan struct{}, 1<<16)
	_, err = p.Subscribe(b.Context(), "plugin", func(context.Context, *broker.Message) error {
		handled <- struct{}{}
		return nil
	}, broker.Group("g"))
	require.NoError(b, err)
	const batches = 5
	compare(b, 1, func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range batches * benchBatch {
				d := <-deliveries
				_ = d.Ack(false)
			}
		}()
		for range batches {
			x.send(b, "bare", benchBatch)
		}
		<-done
	}, func() {
		for range batches {
			require.NoError(b, p.Publish(b.Context(), "plugin", messages(benchBatch)...))
		}
		for range batches * benchBatch {
			<-handled
		}
	})
}

// compare runs both in turn, each several times, and reports the medians.
func compare(b *testing.B, times int, bare, plugin func()) {
	var took [2][]float64
	for b.Loop() {
		for i, f := range []func(){bare, plugin} {
			began := time.Now()
			for range times {
				f()
			}
			took[i] = append(took[i], float64(time.Since(began).Microseconds())/float64(times))
		}
	}
	median := func(of []float64) float64 {
		slices.Sort(of)
		return of[len(of)/2]
	}
	b.ReportMetric(median(took[0]), "us/bare")
	b.ReportMetric(median(took[1]), "us/plugin")
	b.ReportMetric(median(took[0])/median(took[1]), "speed/bare")
}
