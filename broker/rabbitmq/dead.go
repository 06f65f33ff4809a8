package rabbitmq

import (
	"context"
	"errors"
	"fmt"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/plugmicro/micro/broker"
)

// headerDeadLetter is on dead letters that are in the queue micro::dead: the topic that they were for.
const headerDeadLetter = "Micro-Dead-Letter"

// bury publishes dead letters. An exchange without queues drops what it gets, and the one of a dead letter topic often has
// none yet: what it would drop is kept in the queue micro::dead. What another client has sent may exceed the limits of
// Publish, and is taken nevertheless.
func (b *Broker) bury(ctx context.Context, topic string, msgs ...*broker.Message) error {
	var kept error
	for _, m := range msgs {
		err := b.send(ctx, topic, newBatch(topic, true, m))
		if errors.Is(err, ErrNoSubscriber) {
			kept = fmt.Errorf("no queue takes what is published to %q: %w in the queue %s, which any AMQP client reads, as rabbitmqadmin get queue=%[3]s does", topic, broker.ErrKept, deadName)
			err = b.send(ctx, topic, newDeadBatch(topic, m))
		}
		if err != nil {
			return err
		}
	}
	return kept
}

// newDeadBatch is for the queue micro::dead, which is declared each time: it is to be there when nothing else is.
func newDeadBatch(topic string, m *broker.Message) *batch {
	b := newBatch(topic, true, m)
	b.exchange, b.declare, b.declareAlways = deadName, declareDead, true
	if b.msgs[0].Headers == nil {
		b.msgs[0].Headers = amqp091.Table{}
	}
	b.msgs[0].Headers[headerDeadLetter] = topic
	return b
}
