//go:build unix

package kafka

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/servers"
)

// Side by side on one server, with the same guarantees: the plugin, and kafka-go used directly as its documentation has it,
// with acks from all replicas, Java's partitions, and commits after handling, four times a second.
//
//	go test -run=NONE -bench=. ./broker/kafka

const benchTopic = "bench"

var payload = make([]byte, 1024)

// newWriter is kafka-go's; with a batch of 1 nothing waits for others, with more for 5 ms at most.
func newWriter(b *testing.B, addr string, batch int) *kafka.Writer {
	w := &kafka.Writer{
		Addr: kafka.TCP(addr), RequiredAcks: kafka.RequireAll, Balancer: kafka.Murmur2Balancer{},
		BatchSize: batch, BatchTimeout: 5 * time.Millisecond, Transport: new(kafka.Transport),
	}
	b.Cleanup(func() {
		w.Close()
		w.Transport.(*kafka.Transport).CloseIdleConnections()
	})
	return w
}

func benchServer(b *testing.B) (*servers.KafkaServer, *Broker) {
	s := servers.Kafka(b)
	plugged := open(b, Config{Address: []string{s.Addr}})
	b.Cleanup(func() { plugged.Close() })
	require.NoError(b, plugged.Publish(b.Context(), benchTopic, &broker.Message{})) // which creates the topic
	return s, plugged
}

// publishers are the ways to publish one message.
func publishers(b *testing.B) (plugin, alone, batched func(key string) error) {
	s, plugged := benchServer(b)
	direct := func(batch int) func(string) error {
		w := newWriter(b, s.Addr, batch)
		return func(key string) error {
			return w.WriteMessages(b.Context(), kafka.Message{
				Topic: benchTopic, Key: []byte(key), Value: payload, Headers: []kafka.Header{{Key: headerID, Value: []byte(broker.NewID())}},
			})
		}
	}
	plugin = func(key string) error {
		return plugged.Publish(b.Context(), benchTopic, &broker.Message{Key: key, Body: payload})
	}
	return plugin, direct(1), direct(100)
}

// BenchmarkLonePublish publishes one message at a time, by the plugin and by a Writer in turn, so that what else the machine
// does is the same for both.
func BenchmarkLonePublish(b *testing.B) {
	plugin, writer, _ := publishers(b)
	var took [2][]time.Duration
	for i := range 100 {
		require.NoError(b, plugin(fmt.Sprint(i)))
		require.NoError(b, writer(fmt.Sprint(i)))
	}
	for i := 0; b.Loop(); i++ {
		for by, publish := range []func(string) error{plugin, writer} {
			begun := time.Now()
			require.NoError(b, publish(fmt.Sprint(i)))
			took[by] = append(took[by], time.Since(begun))
		}
	}
	var p50 [2]float64
	for by := range took {
		slices.Sort(took[by])
		p50[by] = float64(took[by][len(took[by])/2].Nanoseconds()) / 1000
	}
	b.ReportMetric(p50[0], "plugin-p50-us")
	b.ReportMetric(p50[1], "writer-p50-us")
	b.ReportMetric(p50[0]-p50[1], "added-us")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkPublish(b *testing.B) {
	const publishing = 64
	plugin, alone, batched := publishers(b)
	for _, by := range []struct {
		name    string
		publish func(string) error
	}{{"plugin", plugin}, {"writer,batch=1", alone}, {"writer,batch=100", batched}} {
		b.Run(by.name, func(b *testing.B) {
			require.NoError(b, by.publish("first"))
			var next atomic.Int64
			var all sync.WaitGroup
			b.ResetTimer()
			for range publishing {
				all.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						if err := by.publish(fmt.Sprint(i)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// BenchmarkPublishMany has 1000 messages in each call.
func BenchmarkPublishMany(b *testing.B) {
	const many = 1000
	s, plugged := benchServer(b)
	w := newWriter(b, s.Addr, many)
	var msgs []*broker.Message
	var records []kafka.Message
	for i := range many {
		id, key := broker.NewID(), fmt.Sprint(i)
		msgs = append(msgs, &broker.Message{ID: id, Key: key, Body: payload})
		records = append(records, kafka.Message{
			Topic: benchTopic, Key: []byte(key), Value: payload, Headers: []kafka.Header{{Key: headerID, Value: []byte(id)}},
		})
	}
	for name, publish := range map[string]func() error{
		"plugin": func() error { return plugged.Publish(b.Context(), benchTopic, msgs...) },
		"writer": func() error { return w.WriteMessages(b.Context(), records...) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				require.NoError(b, publish())
			}
			b.ReportMetric(float64(b.N*many)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// BenchmarkConsume reads what is there with a group that is new.
func BenchmarkConsume(b *testing.B) {
	const there = 200_000
	s, plugged := benchServer(b)
	oldest := open(b, Config{Address: []string{s.Addr}, Start: "oldest"})
	b.Cleanup(func() { oldest.Close() })
	var msgs []*broker.Message
	for i := range 1000 {
		msgs = append(msgs, &broker.Message{Key: fmt.Sprint(i), Body: payload})
	}
	for range there / len(msgs) {
		require.NoError(b, plugged.Publish(b.Context(), benchTopic, msgs...))
	}
	b.Run("plugin", func(b *testing.B) {
		for b.Loop() {
			var n atomic.Int64
			over := make(chan struct{})
			sub, err := oldest.Subscribe(b.Context(), benchTopic, func(context.Context, *broker.Message) error {
				if n.Add(1) == there {
					close(over)
				}
				return nil
			}, broker.Group(broker.NewID()))
			require.NoError(b, err)
			<-over
			require.NoError(b, sub.Close())
		}
		b.ReportMetric(float64(b.N*there)/b.Elapsed().Seconds(), "messages/s")
	})
	b.Run("reader", func(b *testing.B) {
		for b.Loop() {
			r := kafka.NewReader(kafka.ReaderConfig{
				Brokers: []string{s.Addr}, GroupID: broker.NewID(), Topic: benchTopic, StartOffset: kafka.FirstOffset,
				MaxWait: maxWait, CommitInterval: commitEvery, QueueCapacity: 1024,
			})
			for range there {
				m, err := r.FetchMessage(b.Context())
				require.NoError(b, err)
				require.NoError(b, r.CommitMessages(b.Context(), m))
			}
			require.NoError(b, r.Close())
		}
		b.ReportMetric(float64(b.N*there)/b.Elapsed().Seconds(), "messages/s")
	})
}
