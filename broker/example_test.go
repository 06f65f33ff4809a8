package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/plugmicro/micro/broker"
)

// The inside of a plugin's subscription: what the server delivers goes into a Queue, and the server is told how it ended.
func ExampleConsumer() {
	ctx := context.Background()
	queue := broker.NewQueue(100, 16<<20)
	consumer := broker.StartConsumer(queue, broker.ConsumerConfig{
		Topic: "orders",
		Handler: func(_ context.Context, m *broker.Message) error {
			if string(m.Body) == "bad" {
				return errors.New("cannot read it")
			}
			fmt.Printf("handled %s\n", m.Body)
			return nil
		},
		Options: broker.NewSubscribeOptions(broker.Retry(broker.RetryPolicy{Attempts: 2}), broker.DeadLetter("dead")),
		Publish: func(_ context.Context, topic string, msgs ...*broker.Message) error {
			fmt.Printf("to %s: %s, %s\n", topic, msgs[0].Body, msgs[0].Header[broker.HeaderDeadReason])
			return nil
		},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})

	for _, body := range []string{"one", "bad", "two"} { // as the server delivers them; one key, so one after the other
		_ = queue.Put(ctx, &broker.Message{Key: "k", Body: []byte(body)}, func(acked bool) {
			fmt.Printf("tell the server about %s: acked %t\n", body, acked)
		})
	}
	_ = queue.Drain(ctx)

	_ = consumer.Stop(ctx) // the handlers that run finish
	queue.Close()          // what is left is handed back: acked false

	// Output:
	// handled one
	// tell the server about one: acked true
	// to dead: bad, cannot read it
	// tell the server about bad: acked true
	// handled two
	// tell the server about two: acked true
}
