package rabbitmq

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/fnv"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// What all publishers and subscribers must agree on.
const (
	partitions = 8   // queues of a group for messages with keys
	maxName    = 255 // bytes, of AMQP

	// deliveryLimit is how often a message may be given back. The server counts all that a member had when it left, most
	// of which no handler ever saw, so a limit that is reached takes good messages away. Left out, it is 20 since
	// RabbitMQ 4.0. It is no less than what a message goes through in years; a policy can set less.
	deliveryLimit = 1_000_000

	deadName = "micro::dead" // of the exchange and the queue for what was given back too often; no topic has that name
)

func exchangeOf(topic string) string { return "micro:" + topic }

// routingKey is where in a group's queues a message goes.
func routingKey(key string) string {
	if key == "" {
		return ""
	}
	return routingKeys[partitionOf(key)]
}

var routingKeys = func() (keys [partitions]string) {
	for p := range keys {
		keys[p] = fmt.Sprint("key.", p)
	}
	return keys
}()

func partitionOf(key string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	sum := h.Sum32()
	return int((sum ^ sum>>16) % partitions)
}

// queueOf names a queue of a group: partition -1 is the shared one. What is too long for AMQP ends with a hash.
func queueOf(topic, group string, partition int) string {
	name := exchangeOf(topic) + ":" + group
	if partition >= 0 {
		name += ":" + routingKeys[partition]
	}
	if len(name) <= maxName {
		return name
	}
	hash := sha256.Sum256([]byte(name))
	tail := "~" + hex.EncodeToString(hash[:16])
	return name[:maxName-len(tail)] + tail
}

func declareExchange(ch *amqp091.Channel, topic string) error {
	return ch.ExchangeDeclare(exchangeOf(topic), amqp091.ExchangeTopic, true, false, false, false, nil)
}

// quorum is what the queues of groups are made with. What is given back too often is moved, not dropped.
func quorum(partition int) amqp091.Table {
	args := amqp091.Table{
		amqp091.QueueTypeArg:     amqp091.QueueTypeQuorum,
		"x-delivery-limit":       int32(deliveryLimit),
		"x-dead-letter-exchange": deadName,
		"x-dead-letter-strategy": "at-least-once",
		amqp091.QueueOverflowArg: amqp091.QueueOverflowRejectPublish, // at-least-once asks for it
	}
	if partition >= 0 {
		args[amqp091.SingleActiveConsumerArg] = true
	}
	return args
}

// groupQueues are the names of a group's queues, the shared one first.
func groupQueues(topic, group string) []string {
	var names []string
	for p := -1; p < partitions; p++ {
		names = append(names, queueOf(topic, group, p))
	}
	return names
}

func declareGroup(ch *amqp091.Channel, topic string, queues []string) error {
	if err := declareExchange(ch, topic); err != nil {
		return err
	}
	if err := declareDead(ch); err != nil {
		return err
	}
	for i, name := range queues {
		partition := i - 1
		if _, err := ch.QueueDeclare(name, true, false, false, false, quorum(partition)); err != nil {
			return err
		}
		keys := []string{"", "*"} // * is one word, which others may publish with
		if partition >= 0 {
			keys = []string{routingKeys[partition]}
		}
		for _, key := range keys {
			if err := ch.QueueBind(name, key, exchangeOf(topic), false, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func declareDead(ch *amqp091.Channel) error {
	if err := ch.ExchangeDeclare(deadName, amqp091.ExchangeFanout, true, false, false, false, nil); err != nil {
		return err
	}
	args := amqp091.Table{amqp091.QueueTypeArg: amqp091.QueueTypeQuorum}
	if _, err := ch.QueueDeclare(deadName, true, false, false, false, args); err != nil {
		return err
	}
	return ch.QueueBind(deadName, "", deadName, false, nil)
}

// declareOwn makes the queue of a subscriber without a group.
func declareOwn(ch *amqp091.Channel, topic, name string) error {
	if err := declareExchange(ch, topic); err != nil {
		return err
	}
	if _, err := ch.QueueDeclare(name, false, true, true, false, nil); err != nil {
		return err
	}
	return ch.QueueBind(name, "#", exchangeOf(topic), false, nil)
}
