// Package kafka is the broker on Apache Kafka: what is published is kept by the server, for groups that are away too.
//
//	import _ "github.com/plugmicro/micro/broker/kafka" // then --broker kafka --broker-address kafka-1:9092
//
// A message is one record: Key is the record's key (hashed to a partition as the Java client does it), Body its value, and
// each header one of the record's. The ID is the header Micro-ID; a record without one, from a producer that is not Micro,
// gets TOPIC/PARTITION/OFFSET. A nil return of Publish means that all in-sync replicas have the messages.
//
// A group is the consumer group GROUP@TOPIC, so that the same name on another topic is another group; its members share the
// partitions of the topic, so those beyond the number of partitions wait idle. A subscriber without a group reads all
// partitions, from their ends at the time of Subscribe, and leaves no trace on the server.
//
// Offsets are committed four times a second, as far as everything before them is handled, and when a member gives its
// partitions back. What was handled since, when a process dies, is delivered again. Records of transactions are delivered
// whether they are committed or not, as to a Java consumer with its defaults.
package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	kafka "github.com/segmentio/kafka-go"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/plugin"
)

// Config is what --broker-* and MICRO_BROKER_* set. Zero means the default.
type Config struct {
	Address       []string      `default:"127.0.0.1:9092" help:"servers of one cluster to begin with, HOST:PORT; the others are learned from them"`
	User          string        `help:"user, where the servers ask for one (SASL)"`
	Password      plugin.Secret `help:"password of the user"`
	Mechanism     string        `default:"plain" help:"how the user is proved: plain, scram-sha-256 or scram-sha-512"`
	TLS           plugin.TLS
	Timeout       time.Duration `default:"10s" help:"limit for connecting and for one request, and how long Publish and Subscribe go on trying over failures"`
	Compression   string        `default:"none" help:"of what is published: none, gzip, snappy, lz4 or zstd"`
	MaxMessage    plugin.Size   `default:"960KiB" help:"largest body of a message; with up to 40KiB for the rest it must fit into the max.message.bytes of the topic"`
	MissingTopics string        `default:"create" help:"what is done about a topic that does not exist, when it is published or subscribed to: create or fail"`
	Partitions    int           `default:"8" help:"partitions of topics that are created: as many members of a group can share the work"`
	Replication   int           `default:"0" help:"replicas of topics that are created; 0: what the servers have as their default"`
	Start         string        `default:"newest" help:"where a group begins that has never existed: newest (what is published from then on) or oldest (all that the topic still has)"`
	Session       time.Duration `default:"8s" help:"after this time a member that died is replaced in its group; a rebalance waits half of it for handlers"`
	Buffer        int           `default:"1024" help:"messages that a subscription has fetched ahead of its handlers"`
	BufferSize    plugin.Size   `default:"32MiB" help:"what these messages may take together"`
	Drain         time.Duration `default:"10s" help:"how long closing waits for handlers and for what is being published"`
}

// The values of the options that have names.
var (
	mechanisms   = []string{"plain", "scram-sha-256", "scram-sha-512"}
	compressions = map[string]kafka.Compression{
		"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd,
	}
)

// Validate is asked when the settings are loaded; it names every mistake.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	for _, addr := range c.Address {
		host, port, err := net.SplitHostPort(addr)
		want(err == nil && host != "" && port != "", "address %q: want HOST:PORT", addr)
	}
	_, known := compressions[c.Compression]
	want(slices.Contains(mechanisms, c.Mechanism), "mechanism %q: want plain, scram-sha-256 or scram-sha-512", c.Mechanism)
	want(c.User != "" || c.Password.Reveal() == "", "password without user: set user too")
	want(known, "compression %q: want none, gzip, snappy, lz4 or zstd", c.Compression)
	want(c.MissingTopics == "create" || c.MissingTopics == "fail", "missing-topics %q: want create or fail", c.MissingTopics)
	want(c.Start == "newest" || c.Start == "oldest", "start %q: want newest or oldest", c.Start)
	want(c.Timeout > 0, "timeout %s: want more than 0", c.Timeout)
	want(c.MaxMessage > 0, "max-message %d: want at least 1B", c.MaxMessage)
	want(c.Partitions > 0, "partitions %d: want at least 1", c.Partitions)
	want(c.Replication >= 0, "replication %d: want at least 1, or 0 for the servers' default", c.Replication)
	want(c.Session >= time.Second, "session %s: want at least 1s", c.Session)
	want(c.Buffer > 0, "buffer %d: want at least 1", c.Buffer)
	want(c.BufferSize > 0, "buffer-size %d: want at least 1B", c.BufferSize)
	want(c.Drain > 0, "drain %s: want more than 0", c.Drain)
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if len(c.Address) == 0 {
		c.Address = []string{"127.0.0.1:9092"}
	}
	c.Mechanism = cmp.Or(c.Mechanism, "plain")
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.Compression = cmp.Or(c.Compression, "none")
	c.MaxMessage = cmp.Or(c.MaxMessage, 960<<10)
	c.MissingTopics = cmp.Or(c.MissingTopics, "create")
	c.Partitions = cmp.Or(c.Partitions, 8)
	c.Start = cmp.Or(c.Start, "newest")
	c.Session = cmp.Or(c.Session, 8*time.Second)
	c.Buffer = cmp.Or(c.Buffer, 1024)
	c.BufferSize = cmp.Or(c.BufferSize, 32<<20)
	c.Drain = cmp.Or(c.Drain, 10*time.Second)
	return c
}

func init() {
	plugin.Register("kafka", New, plugin.Doc("Apache Kafka: kept on disk, groups over partitions, order per key"))
}

// Broker is one service's access to a Kafka cluster.
type Broker struct {
	config   Config
	log      *slog.Logger
	cluster  *cluster
	producer *producer
	subs     *broker.Subscriptions[subscription]

	patience context.Context // ends when nobody waits for Close any more
	close    func() error    // shutdown, once
}

// subscription is a member of a group, or a follower of the whole topic.
type subscription interface {
	broker.Subscription
	close(ctx context.Context) error
}

var (
	_ broker.Broker  = (*Broker)(nil)
	_ broker.Capable = (*Broker)(nil)
)

// New opens the broker; it connects when it is first used. Closing it is cut short when env's context ends.
func New(env *plugin.Env, c Config) (broker.Broker, error) {
	b, err := newBroker(env.Context(), c, env.Logger())
	if err != nil {
		return nil, fmt.Errorf("kafka broker: %w", err)
	}
	return b, nil
}

func newBroker(ctx context.Context, c Config, log *slog.Logger) (*Broker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	cl, err := newCluster(c)
	if err != nil {
		return nil, err
	}
	b := &Broker{config: c, log: log, cluster: cl, producer: newProducer(cl, log), patience: ctx, subs: broker.NewSubscriptions(subscription.close)}
	b.close = sync.OnceValue(b.shutdown)
	return b, nil
}

// String is "kafka".
func (b *Broker) String() string { return "kafka" }

// Capabilities is the whole contract, and the server keeps what waits: publishers do not wait for subscribers.
func (b *Broker) Capabilities() broker.Capabilities {
	return broker.Capabilities{
		Groups: true, FanOut: true, Ordered: true, Retry: true, DeadLetter: true, Redelivery: true, Durable: true,
		MaxBody: int(b.config.MaxMessage),
	}
}

// Publish returns when all in-sync replicas have msgs. What cannot be written is tried again until ctx ends, for
// Config.Timeout at most; after an error some of msgs may still arrive.
func (b *Broker) Publish(ctx context.Context, topic string, msgs ...*broker.Message) error {
	if err := broker.CheckPublish(b, topic, msgs...); err != nil {
		return err
	}
	return b.publish(ctx, topic, msgs...)
}

// publish takes whatever the server takes: the dead letter of a foreign record may have more headers, or a longer key, than
// Micro's own.
func (b *Broker) publish(ctx context.Context, topic string, msgs ...*broker.Message) error {
	if err := b.producer.publish(ctx, topic, msgs); err != nil {
		return fmt.Errorf("publish to %q: %w", topic, err)
	}
	return nil
}

// Subscribe creates the topics that are missing, or fails, as Config.MissingTopics says, and returns once the starting
// offsets are fixed, which for a group that has never existed means that the server knows them.
func (b *Broker) Subscribe(ctx context.Context, topic string, h broker.Handler, opts ...broker.SubscribeOption) (broker.Subscription, error) {
	o, err := broker.CheckSubscribe(b, topic, h, opts...)
	if err != nil {
		return nil, err
	}
	s, err := b.subscribe(ctx, topic, h, o)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %q: %w", topic, err)
	}
	return s, nil
}

func (b *Broker) subscribe(ctx context.Context, topic string, h broker.Handler, o broker.SubscribeOptions) (subscription, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if b.subs.Sealed() {
		return nil, broker.ErrClosed
	}
	partitions, err := b.cluster.topic(ctx, topic, nil)
	if err != nil {
		return nil, err
	}
	if o.DeadLetter != "" {
		if _, err := b.cluster.topic(ctx, o.DeadLetter, nil); err != nil {
			return nil, fmt.Errorf("its dead letters: %w", err)
		}
	}
	work := broker.ConsumerConfig{Topic: topic, Handler: h, Options: o, Publish: b.publish, Logger: b.log}
	if o.Group == "" {
		return b.follow(ctx, work, partitions)
	}
	return b.join(ctx, work, partitions)
}

// Close closes the subscriptions, then waits for what is being published, all in the time of Config.Drain.
func (b *Broker) Close() error { return b.close() }

func (b *Broker) shutdown() error {
	ctx, cancel := context.WithTimeout(b.patience, b.config.Drain)
	defer cancel()
	err := errors.Join(b.subs.CloseAll(ctx), b.producer.close(ctx))
	b.cluster.close()
	b.producer.wait()
	return err
}
