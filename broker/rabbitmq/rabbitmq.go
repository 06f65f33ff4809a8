// Package rabbitmq is the broker on RabbitMQ 3.10 or later: quorum queues for groups, exclusive queues for the others.
//
//	MICRO_BROKER=rabbitmq MICRO_BROKER_ADDRESS=rabbit-1:5672,rabbit-2:5672 ./program
//
// # What is on the server
//
// All names begin with "micro:". A topic is a durable exchange of the type topic, micro:TOPIC. A group is a quorum queue
// micro:TOPIC:GROUP, which its members share, and eight micro:TOPIC:GROUP:key.N for messages with a key: the routing key of
// those is key.N, where N is made of the key, and the routing key of others is empty. Each of the eight has one active
// consumer at a time, so messages of one key are handled in order, whichever member does it; members that find that
// they work off more than their share of the eight hand some of them over. A subscriber without a group has an exclusive
// queue that goes when it does. Queues and exchanges of groups stay until somebody deletes them.
//
// Any client can publish to micro:TOPIC, with an empty routing key or one of a single word, and read the queues: the ID
// is the property message-id, the key the header Micro-Key, Content-Type the property content-type. Messages of one key
// are handled in order if all have the same routing key.N: for the one that Micro uses, be h the 32 bit FNV-1a hash of
// the key, and N = (h XOR h >> 16) mod 8. With another routing key they are handled by whoever is free.
//
// # What is guaranteed
//
//   - Publish returns nil when the server has confirmed that the messages are in all queues of the topic. When the
//     connection is lost before that, they are published again, with the same ID, until ctx ends. When a queue refuses them,
//     as a policy can have it do, they are published again for as long as Config.Timeout: the other queues may then have
//     them more than once. What is published to a topic without any queue is gone, and that is no error, unless
//     Config.Mandatory says so. While the server is short of memory or disk, Publish waits, and says why when ctx ends. A
//     program that begins while the server is down does not wait: New fails at once, and says why.
//   - What a group has not acked is kept, while it has no members as well, and over restarts of the server. RabbitMQ
//     3.10 on a single node, killed within a second of the first subscription of a group, may break its queues: then
//     they have to be deleted.
//   - A subscriber without a group gets what is published while it is connected. What is published while its connection
//     is lost is lost for it. When it is slow, what waits for it waits on the server.
//   - When a connection is lost, its messages come again, to whoever is there. Handlers that run have Config.Drain to come
//     back before their context ends; what they ack then counts for nothing, and never for another message.
//   - A message that is retried waits in its consumer, and holds back only those of its key. RabbitMQ gives a message to
//     somebody else when it was not acked for 30 minutes (its consumer_timeout).
//   - A message that its handlers cannot handle is what broker.Retry and broker.DeadLetter are for. One that ends the
//     process each time comes again each time: the server cannot tell it from those that were only sent ahead, and counts
//     a return for all of them whenever a member leaves. It moves to the queue micro::dead what came back 1,000,000 times;
//     a policy of RabbitMQ with a smaller delivery-limit has it do so earlier, also with messages that no handler saw.
//   - A dead letter that no queue takes, because nobody has subscribed to its topic, is kept in the queue micro::dead, with
//     the headers of dead letters and, as Micro-Dead-Letter, the topic that it was for. The log says so.
//
// A process can have about 200 subscriptions with a group: each takes ten of the 2,047 channels of a connection.
//
// The user needs the rights to configure, write and read what matches ^micro:.*
package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/amqp"
	"github.com/plugmicro/micro/plugin"
)

// Config is what --broker-* and MICRO_BROKER_* set. Zero means the default.
type Config struct {
	amqp.Config
	Prefetch   int           `default:"64" help:"messages that the server sends ahead from each queue of a subscription; at least as many as it has handlers"`
	MaxMessage plugin.Size   `default:"1MiB" help:"largest body of a message; the server has a limit of its own, 128MiB by default"`
	Mandatory  bool          `help:"publishing to a topic that nobody has subscribed to is an error"`
	Drain      time.Duration `default:"10s" help:"how long closing waits for handlers, and for what was published to be confirmed"`
}

// Validate implements plugin's check of settings.
func (c Config) Validate() error {
	errs := c.Problems()
	if c.Prefetch < 0 || c.Prefetch > maxPrefetch {
		errs = append(errs, fmt.Errorf("prefetch %d: want 1 to %d", c.Prefetch, maxPrefetch))
	}
	if c.MaxMessage < 0 {
		errs = append(errs, fmt.Errorf("max-message %d: want at least 1B", c.MaxMessage))
	}
	if c.Drain < 0 {
		errs = append(errs, fmt.Errorf("drain %s: want more than 0", c.Drain))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.Config = c.Config.WithDefaults()
	c.Prefetch = cmp.Or(c.Prefetch, 64)
	c.MaxMessage = cmp.Or(c.MaxMessage, broker.DefaultMaxBody)
	c.Drain = cmp.Or(c.Drain, 10*time.Second)
	return c
}

const maxPrefetch = 65_535 // of AMQP

func init() {
	plugin.Register("rabbitmq", New, plugin.Doc("RabbitMQ: quorum queues, publisher confirms, order by key"))
}

// Broker is one service's two connections to RabbitMQ: a server that is short of memory stops reading from those that
// publish, and must still get what is acked.
type Broker struct {
	config  Config
	log     *slog.Logger
	publish *publisher
	consume *consumers
	subs    *broker.Subscriptions[*subscription]

	patience context.Context // ends when nobody waits for Close any more
	open     context.Context // ends at the end of Close
	release  context.CancelCauseFunc
	close    func() error // shutdown, once

	mu         sync.Mutex
	closed     bool
	publishing sync.WaitGroup // added to while not closed
}

var (
	_ broker.Broker  = (*Broker)(nil)
	_ broker.Capable = (*Broker)(nil)
)

// New connects, and fails at once if that is not possible. Closing is cut short when env's context ends.
func New(env *plugin.Env, c Config) (broker.Broker, error) {
	return open(env.Context(), c, env.Logger())
}

func open(ctx context.Context, c Config, log *slog.Logger) (*Broker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	dialer, err := amqp.NewDialer("broker", c.Config, log)
	if err != nil {
		return nil, err
	}
	b := &Broker{config: c, log: log, patience: ctx, subs: broker.NewSubscriptions((*subscription).close)}
	b.open, b.release = context.WithCancelCause(context.Background())
	b.close = sync.OnceValue(b.shutdown)
	b.publish = newPublisher(dialer, c)
	b.consume = newConsumers(dialer)
	if err := b.publish.start(ctx); err != nil {
		b.release(broker.ErrClosed)
		return nil, err
	}
	return b, nil
}

// String is "rabbitmq".
func (b *Broker) String() string { return "rabbitmq" }

// Capabilities is the whole contract, but the server stores what is waiting instead of holding publishers back.
func (b *Broker) Capabilities() broker.Capabilities {
	return broker.Capabilities{
		Groups: true, FanOut: true, Ordered: true, Retry: true, DeadLetter: true, Redelivery: true, Durable: true,
		MaxBody: int(b.config.MaxMessage),
	}
}

// Publish returns once the server has confirmed all of msgs.
func (b *Broker) Publish(ctx context.Context, topic string, msgs ...*broker.Message) error {
	if err := broker.CheckPublish(b, topic, msgs...); err != nil {
		return err
	}
	return b.send(ctx, topic, newBatch(topic, b.config.Mandatory, msgs...))
}

func (b *Broker) send(ctx context.Context, topic string, messages *batch) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("publish to %q: %w", topic, err)
	}
	if !b.enter() {
		return fmt.Errorf("publish to %q: %w", topic, broker.ErrClosed)
	}
	defer b.publishing.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(b.open, func() { cancel(broker.ErrClosed) })()
	if err := b.publish.publish(ctx, messages); err != nil {
		return fmt.Errorf("publish to %q: %w", topic, err)
	}
	return nil
}

// enter reports false once nothing can be published any more. If not, publishing is to be told when it is over.
func (b *Broker) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.publishing.Add(1)
	return true
}

// Subscribe returns when the queues are there and consumed.
func (b *Broker) Subscribe(ctx context.Context, topic string, h broker.Handler, opts ...broker.SubscribeOption) (broker.Subscription, error) {
	o, err := broker.CheckSubscribe(b, topic, h, opts...)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("subscribe to %q: %w", topic, err)
	}
	s := newSubscription(b, topic, h, o)
	if !b.subs.Add(s, s.start) {
		return nil, fmt.Errorf("subscribe to %q: %w", topic, broker.ErrClosed)
	}
	ctx, cancel := context.WithTimeout(ctx, b.config.Timeout)
	defer cancel()
	if err := s.bind(ctx); err != nil {
		now, cancel := context.WithCancel(ctx)
		cancel()
		_ = s.close(now)
		return nil, fmt.Errorf("subscribe to %q: %w", topic, err)
	}
	return s, nil
}

// Close closes the subscriptions, then waits for what is being published, all in the time of Config.Drain.
func (b *Broker) Close() error { return b.close() }

func (b *Broker) shutdown() error {
	ctx, cancel := context.WithTimeout(b.patience, b.config.Drain)
	defer cancel()
	err := b.subs.CloseAll(ctx)
	b.endPublishing(ctx)
	b.release(broker.ErrClosed)
	b.publishing.Wait()
	var all sync.WaitGroup
	all.Go(b.publish.stop)
	all.Go(b.consume.stop)
	all.Wait()
	return err
}

// endPublishing lets nobody begin, and waits for those that did.
func (b *Broker) endPublishing(ctx context.Context) {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	over := make(chan struct{})
	go func() {
		b.publishing.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-ctx.Done():
	}
}
