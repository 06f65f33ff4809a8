// Package memory is the broker of one process: its services reach each other, and nothing else is needed.
//
//	import _ "github.com/plugmicro/micro/broker/memory" // then --broker memory
//
// Every broker that New returns shares the same topics. A message is kept while its group has a member that did not ack
// it; the last member to leave takes what is waiting with it, and what is published without any subscriber is gone.
// A publisher waits for the group that is furthest behind.
package memory

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/plugin"
)

// Config is what --broker-* and MICRO_BROKER_* set. Zero means the default.
type Config struct {
	Buffer     int           `default:"1024" help:"messages that a group may be behind before its publishers have to wait"`
	BufferSize plugin.Size   `default:"64MiB" help:"what these messages may take together"`
	MaxMessage plugin.Size   `default:"1MiB" help:"largest body of a message"`
	Drain      time.Duration `default:"10s" help:"how long closing waits for handlers, and for what they have not handled yet"`
}

// Validate implements plugin's check of settings.
func (c Config) Validate() error {
	switch {
	case c.Buffer < 0:
		return fmt.Errorf("buffer %d: want at least 1", c.Buffer)
	case c.BufferSize < 0:
		return fmt.Errorf("buffer-size %d: want at least 1B", c.BufferSize)
	case c.MaxMessage < 0:
		return fmt.Errorf("max-message %d: want at least 1B", c.MaxMessage)
	case c.Drain < 0:
		return fmt.Errorf("drain %s: want more than 0", c.Drain)
	}
	return nil
}

func (c Config) withDefaults() Config {
	c.Buffer = cmp.Or(c.Buffer, 1024)
	c.BufferSize = cmp.Or(c.BufferSize, 64<<20)
	c.MaxMessage = cmp.Or(c.MaxMessage, broker.DefaultMaxBody)
	c.Drain = cmp.Or(c.Drain, 10*time.Second)
	return c
}

func init() {
	plugin.Register("memory", New, plugin.Doc("one process: nothing to install, nothing kept"))
}

// shared is what makes the services of one process reach each other.
var shared = newHub()

// Broker is one service's access to the topics of the process.
type Broker struct {
	hub    *hub
	config Config
	log    *slog.Logger
	subs   *broker.Subscriptions[*subscription]

	patience context.Context // ends when nobody waits for Close any more
	open     context.Context // ends at the end of Close
	release  context.CancelFunc
	close    func() error // shutdown, once
}

var (
	_ broker.Broker  = (*Broker)(nil)
	_ broker.Capable = (*Broker)(nil)
)

// New opens the broker. Closing it is cut short when env's context ends.
func New(env *plugin.Env, c Config) (broker.Broker, error) {
	b, err := newBroker(env.Context(), shared, c, env.Logger())
	if err != nil {
		return nil, fmt.Errorf("memory broker: %w", err)
	}
	return b, nil
}

func newBroker(ctx context.Context, h *hub, c Config, log *slog.Logger) (*Broker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	b := &Broker{hub: h, config: c.withDefaults(), log: log, patience: ctx, subs: broker.NewSubscriptions((*subscription).close)}
	b.open, b.release = context.WithCancel(context.Background())
	b.close = sync.OnceValue(b.shutdown)
	return b, nil
}

// String is "memory".
func (b *Broker) String() string { return "memory" }

// Capabilities is the whole contract, but nothing outlives its subscribers.
func (b *Broker) Capabilities() broker.Capabilities {
	return broker.Capabilities{
		Groups: true, FanOut: true, Ordered: true, Retry: true, DeadLetter: true, Redelivery: true, Backpressure: true,
		MaxBody: int(b.config.MaxMessage),
	}
}

// Publish puts a copy of each message into the queue of each group, and waits for those that are full.
func (b *Broker) Publish(ctx context.Context, topic string, msgs ...*broker.Message) error {
	if err := broker.CheckPublish(b, topic, msgs...); err != nil {
		return err
	}
	if err := cmp.Or(ctx.Err(), b.closed()); err != nil {
		return fmt.Errorf("publish to %q: %w", topic, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(b.open, func() { cancel(broker.ErrClosed) })()

	queues := b.hub.queues(topic)
	for _, m := range msgs {
		if err := put(ctx, queues, m); err != nil {
			return fmt.Errorf("publish to %q: %w", topic, err)
		}
	}
	return nil
}

func (b *Broker) closed() error {
	if b.open.Err() != nil {
		return broker.ErrClosed
	}
	return nil
}

func put(ctx context.Context, queues []*broker.Queue, m *broker.Message) error {
	m = m.Clone()
	m.ID = cmp.Or(m.ID, broker.NewID())
	for _, q := range queues {
		if q.Put(ctx, m, nil) != nil && ctx.Err() != nil { // else the group's last member has left
			return context.Cause(ctx)
		}
	}
	return nil
}

// Subscribe joins the group, or starts one of its own.
func (b *Broker) Subscribe(ctx context.Context, topic string, h broker.Handler, opts ...broker.SubscribeOption) (broker.Subscription, error) {
	o, err := broker.CheckSubscribe(b, topic, h, opts...)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("subscribe to %q: %w", topic, err)
	}
	s := &subscription{broker: b, topic: topic}
	if !b.subs.Add(s, func() { s.start(h, o) }) {
		return nil, fmt.Errorf("subscribe to %q: %w", topic, broker.ErrClosed)
	}
	return s, nil
}

// Close first lets the groups whose last member is here work off what waits for them, then closes the subscriptions,
// all in the time of Config.Drain.
func (b *Broker) Close() error { return b.close() }

func (b *Broker) shutdown() error {
	ctx, cancel := context.WithTimeout(b.patience, b.config.Drain)
	defer cancel()
	defer b.release()
	b.drain(ctx, b.subs.Seal())
	return b.subs.CloseAll(ctx)
}

// drain waits for the queues that nobody else will work off. What their handlers publish may end up in one that was
// empty already, so it goes round as often as such a chain can be long.
func (b *Broker) drain(ctx context.Context, subs []*subscription) {
	var last []*subscription
	for _, s := range subs {
		if !b.hub.resign(s) {
			last = append(last, s)
		}
	}
	for range last {
		for _, s := range last {
			if s.group.queue.Drain(ctx) != nil {
				return
			}
		}
	}
}

type subscription struct {
	broker   *Broker
	topic    string
	group    *group
	consumer *broker.Consumer

	once sync.Once
	err  error
}

func (s *subscription) start(h broker.Handler, o broker.SubscribeOptions) {
	s.group = s.broker.hub.join(s, o.Group)
	s.consumer = broker.StartConsumer(s.group.queue, broker.ConsumerConfig{
		Topic: s.topic, Handler: h, Options: o, Publish: s.broker.Publish, Logger: s.broker.log,
	})
}

func (s *subscription) Topic() string { return s.topic }

func (s *subscription) Close() error {
	ctx, cancel := context.WithTimeout(s.broker.patience, s.broker.config.Drain)
	defer cancel()
	return s.close(ctx)
}

func (s *subscription) close(ctx context.Context) error {
	s.once.Do(func() {
		s.err = s.consumer.Stop(ctx)
		if lost := s.broker.hub.leave(s); lost > 0 && s.group.name != "" {
			s.broker.log.Warn("the last member of the group has left, its messages are gone",
				"topic", s.topic, "group", s.group.name, "messages", lost)
		}
		s.broker.subs.Forget(s)
	})
	return s.err
}
