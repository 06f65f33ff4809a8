// Package broker is the contract of messaging: publish to a topic, subscribe to it, alone or as a group.
//
// Services use it through micro (svc.Publish, svc.Subscribe); a plugin implements Broker and registers itself:
//
//	func init() { plugin.Register("kafka", New, plugin.Doc("Apache Kafka")) }
//	func New(env *plugin.Env, c Config) (broker.Broker, error) { … }
//
// An implementation checks what it is given by CheckPublish and CheckSubscribe, and puts what its server delivers into a
// Queue that a Consumer works off; these keep most of the promises below. Package brokertest holds it to all of them.
//
// Delivery is at least once, in order for messages of one Key, and with bounded memory: a publisher or a
// subscriber that is too fast waits.
package broker

import (
	"context"
	"errors"
	"time"

	"github.com/plugmicro/micro/plugin"
)

// Plugins is the kind: --broker, MICRO_BROKER.
var Plugins = plugin.NewKind[Broker]("broker", plugin.KindDoc("carries messages from publishers to subscribers"), plugin.Known("direct", "kafka", "memory", "rabbitmq"))

// Broker carries messages. All methods are safe for concurrent use.
type Broker interface {
	// Publish hands over msgs, in their order. Nil means that the broker has all of them; an error, that some may
	// not have arrived, and publishing them again is safe for consumers that tolerate duplicates. A message without
	// an ID travels with a new one; set it by NewID to publish again under the same. The broker copies what it
	// keeps and changes nothing in msgs. It waits while subscribers are too slow, so a handler that publishes to
	// what it is subscribed to, directly or in a circle, should give ctx a deadline.
	Publish(ctx context.Context, topic string, msgs ...*Message) error

	// Subscribe returns once the subscription is bound: what is published after that reaches h. ctx bounds only
	// the subscribing, the subscription lives until it or the broker is closed.
	Subscribe(ctx context.Context, topic string, h Handler, opts ...SubscribeOption) (Subscription, error)

	// Close lets the handlers that run finish, flushes what was published, and releases everything. Handlers may
	// publish until it is over; then everything answers ErrClosed. It is bounded by a setting of the plugin: a
	// handler that does not come back is left behind, and Close returns an error. It may be called more than once.
	Close() error

	// String is the name under which the plugin is registered.
	String() string
}

// Message is what travels. All strings are UTF-8. Header keys are case-sensitive; those that begin with "Micro-" are
// reserved, and only the ones of dead letters may be published, so that a dead letter can be published again as it is.
type Message struct {
	ID     string            // unique; a redelivered message keeps it
	Key    string            // messages of one key are handled in order; empty: no order is asked for
	Header map[string]string // e.g. Content-Type
	Body   []byte
}

// Handler handles one message. Nil acks it. An error or a panic is a nack: it is tried again as the subscription's
// Retry says, then goes to the DeadLetter topic. The message is the handler's own. ctx ends when the subscription
// is closed and the time to finish is over.
type Handler func(ctx context.Context, m *Message) error

// Permanent is the error of a handler for a message that it can never handle: it is not tried again, and goes to the
// DeadLetter topic at once. It unwraps to err.
func Permanent(err error) error { return permanent{err} }

type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

func isPermanent(err error) bool {
	var p permanent
	return errors.As(err, &p)
}

// Subscription is one bound handler.
type Subscription interface {
	Topic() string
	// Close stops new deliveries and waits for handlers that run. What was not acked goes to the other members of the
	// group, or is kept by a broker that is Durable. It is bounded as Broker.Close is, returns an error when a handler
	// was left behind, and may be called more than once.
	Close() error
}

// Errors that every broker answers, to be matched with errors.Is.
var (
	ErrClosed      = errors.New("broker closed")
	ErrUnsupported = errors.New("not supported by this broker") // wrapped with the option that it cannot do
	ErrTooLarge    = errors.New("message too large")            // wrapped with the size and the limit, in bytes
	ErrInvalid     = errors.New("invalid for this broker")      // wrapped with what is wrong: topic, message or option
)

// Headers that a dead letter carries beside its own.
const (
	HeaderDeadTopic  = "Micro-Dead-Topic"  // the topic that it was published to
	HeaderDeadReason = "Micro-Dead-Reason" // the last error of its handler
	HeaderAttempts   = "Micro-Attempts"    // how often it was tried, in decimal
)

// SubscribeOptions is what the options of one Subscribe call add up to.
type SubscribeOptions struct {
	Group       string // competing consumers; "": this subscriber gets every message
	Concurrency int    // handlers that run at once, at least 1; messages of one key still one after the other
	Retry       RetryPolicy
	DeadLetter  string // topic for what failed for good; "": it is logged and dropped
}

// RetryPolicy says how a nacked message is tried again.
type RetryPolicy struct {
	Attempts int           // tries in all, the first included; at least 1. A redelivery may count from the start
	Min, Max time.Duration // the pause before a retry: doubles from Min to Max, less a random part of up to a half
}

// DefaultRetry is used when no Retry option is given.
var DefaultRetry = RetryPolicy{Attempts: 5, Min: 50 * time.Millisecond, Max: 5 * time.Second}

// SubscribeOption changes how a subscription works.
type SubscribeOption func(*SubscribeOptions)

// Group makes the subscriber one of several that share the messages of a topic: each goes to one member.
func Group(name string) SubscribeOption { return func(o *SubscribeOptions) { o.Group = name } }

// Concurrency lets n handlers run at once.
func Concurrency(n int) SubscribeOption { return func(o *SubscribeOptions) { o.Concurrency = n } }

// Retry replaces DefaultRetry.
func Retry(p RetryPolicy) SubscribeOption { return func(o *SubscribeOptions) { o.Retry = p } }

// DeadLetter names the topic for messages that failed as often as Retry allows. It keeps them as it keeps what is published
// to it by others: for who is subscribed, and on a broker that is Durable for its groups.
func DeadLetter(topic string) SubscribeOption {
	return func(o *SubscribeOptions) { o.DeadLetter = topic }
}

// NewSubscribeOptions adds up opts, on top of the defaults. Implementations call CheckSubscribe, which does it too.
func NewSubscribeOptions(opts ...SubscribeOption) SubscribeOptions {
	o := SubscribeOptions{Concurrency: 1, Retry: DefaultRetry}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}
