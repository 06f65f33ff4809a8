// Package direct is the default broker: processes send each other their messages, over the chosen registry and the chosen
// transport, and nothing has to be installed.
//
//	MICRO_BROKER=direct MICRO_BROKER_DRAIN=30s ./program
//
// A subscription is a node of the service "_direct" in the registry, with the address at which its process listens. A
// publisher connects to the subscriptions of the topics that it publishes to, and is the broker of its own messages: nil
// from Publish means that it keeps them in memory, for each group that it knows of, until the group has acked them.
//
// # What is guaranteed
//
// Each message is handled at least once by each group, as long as the publisher's process lives until Close has returned
// nil, and somebody of the group lives:
//
//   - When a member is killed, the others get what it had not acked, at once. What it did but could not ack is done twice.
//   - A member that is frozen, or cut off, is noticed within Config.Timeout, and the others get what it had not acked at
//     most five seconds later. If it goes on after all, it handles what it had in its hands, too.
//   - A member that closes acks what it has done, and the others get the rest, without duplicates.
//   - A group that has lost all its members has Config.Grace to come back; then its messages are dropped, with an error in
//     the log that counts them. What a subscriber without a group did not ack is dropped when it is gone.
//   - A publisher that is killed, or ends without Close, takes with it what was not sent yet.
//   - A topic that nobody has subscribed to takes messages and forgets them: Publish returns nil.
//
// A publisher is a node of "_direct", too, so that Subscribe knows whom to wait for: it returns when all publishers have
// confirmed that they know of the subscription, or after a second, if some do not because they were killed. A new
// publisher asks the registry before it publishes, and so finds all that was subscribed before.
//
// Messages of one key, published by one publisher, are handled in their order: the key stays with one member of the
// group for as long as one of its messages is not acked, and then moves only when members come or go. When a member dies
// with a message half done, that and what follows is handled by the next one, in order.
//
// Publish waits while Config.Buffer messages, or Config.BufferSize, of a group are not acked, whoever of its members is
// the slow one; other groups and topics of the process are waited for only by who publishes to them.
//
// # Security
//
// Who reaches the address of a subscriber can publish to it, and who writes to the registry can subscribe to everything.
// The settings of the transport protect the connections: with the tcp transport, TLS and tls-mutual. What a stranger
// sends is bounded: 4,096 streams to a process, 64 KiB and one message on each, beside what the subscription buffers.
package direct

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/transport"
)

// Config is what --broker-* and MICRO_BROKER_* set. Zero means the default.
type Config struct {
	Address    string        `help:"address that a process with subscriptions listens at; empty: the transport chooses one"`
	Buffer     int           `default:"1024" help:"messages that a group may leave without an ack before its publishers have to wait"`
	BufferSize plugin.Size   `default:"64MiB" help:"bytes that a group may leave without an ack before its publishers have to wait"`
	MaxMessage plugin.Size   `default:"1MiB" help:"largest body of a message"`
	Timeout    time.Duration `default:"15s" help:"a process that is silent for so long is given up, and others get its messages"`
	Grace      time.Duration `default:"30s" help:"how long messages are kept for a group that has lost its last member"`
	Drain      time.Duration `default:"10s" help:"how long Close waits for handlers and for what was published"`
}

func init() {
	plugin.Register("direct", New, plugin.Doc("peer to peer between processes, nothing to install"))
}

// New opens the broker on the chosen registry and transport.
func New(env *plugin.Env, c Config) (broker.Broker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	reg, err := plugin.Use[registry.Registry](env)
	if err != nil {
		return nil, err
	}
	tr, err := plugin.Use[transport.Transport](env)
	if err != nil {
		return nil, err
	}
	return Open(reg, tr, c, env.Logger())
}

// maxBody bounds the MaxMessage setting.
const maxBody = 1 << 30

// Validate implements plugin's check of settings.
func (c Config) Validate() error {
	switch {
	case c.Buffer < 0:
		return fmt.Errorf("buffer %d: want at least 1 message", c.Buffer)
	case c.BufferSize < 0 || c.BufferSize > math.MaxInt32:
		return fmt.Errorf("buffer-size %s: want 1B to %dB", c.BufferSize, math.MaxInt32)
	case c.MaxMessage < 0 || c.MaxMessage > maxBody:
		return fmt.Errorf("max-message %s: want 1B to %s", c.MaxMessage, plugin.Size(maxBody))
	case c.Timeout < 0:
		return fmt.Errorf("timeout %s: want more than 0", c.Timeout)
	case c.Grace < 0:
		return fmt.Errorf("grace %s: want more than 0", c.Grace)
	case c.Drain < 0:
		return fmt.Errorf("drain %s: want more than 0", c.Drain)
	}
	return nil
}

func (c Config) withDefaults() Config {
	c.Buffer = cmp.Or(c.Buffer, 1024)
	c.BufferSize = cmp.Or(c.BufferSize, 64<<20)
	c.MaxMessage = cmp.Or(c.MaxMessage, broker.DefaultMaxBody)
	c.Timeout = cmp.Or(c.Timeout, 15*time.Second)
	c.Grace = cmp.Or(c.Grace, 30*time.Second)
	c.Drain = cmp.Or(c.Drain, 10*time.Second)
	return c
}

// Broker publishes and subscribes for one process.
type Broker struct {
	registry  registry.Registry
	transport transport.Transport
	config    Config
	log       *slog.Logger
	table     *table
	waiting   int // bytes that streams of one connection may keep together

	open    context.Context // ends when nothing more is published
	release context.CancelFunc
	close   func() error // shutdown, once

	listening sync.Mutex // held while the listener is made

	mu       sync.Mutex
	closing  bool
	listener *listener // nil until the first Subscribe
	subs     map[string]*subscription
}

var (
	_ broker.Broker  = (*Broker)(nil)
	_ broker.Capable = (*Broker)(nil)
)

// Open makes a broker on a registry and a transport, which must stay open until after its Close. It opens nothing by
// itself: the first Publish reads the registry and connects, the first Subscribe listens.
func Open(reg registry.Registry, tr transport.Transport, c Config, log *slog.Logger) (*Broker, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("direct broker: %w", err)
	}
	if log == nil {
		log = slog.Default()
	}
	b := &Broker{registry: reg, config: c.withDefaults(), log: log, subs: map[string]*subscription{}}
	b.waiting = int(min(maxStreams*(window+int64(b.maxFrame())), math.MaxInt)) // never less than honest publishers need
	b.transport = limited{tr, b.maxFrame()}
	b.table = newTable(reg, newConns(b.transport, b.muxOptions()), b.config, log)
	b.open, b.release = context.WithCancel(context.Background())
	b.close = sync.OnceValue(b.shutdown)
	return b, nil
}

// maxFrame is the size of the largest frame that is needed.
func (b *Broker) maxFrame() int { return int(b.config.MaxMessage) + overhead }

func (b *Broker) muxOptions() mux.Options {
	return mux.Options{
		MaxCalls: maxStreams, Window: window, MaxBytes: b.waiting,
		KeepAlive: max(b.config.Timeout/3, time.Millisecond), Logger: b.log,
	}
}

// String is "direct".
func (b *Broker) String() string { return "direct" }

// Capabilities is the whole contract, but a message does not outlive its publisher's process.
func (b *Broker) Capabilities() broker.Capabilities {
	return broker.Capabilities{
		Groups: true, FanOut: true, Ordered: true, Retry: true, DeadLetter: true, Redelivery: true, Backpressure: true,
		MaxBody: int(b.config.MaxMessage),
	}
}

// Publish puts each message into the outbox of each group, and waits for those that are full.
func (b *Broker) Publish(ctx context.Context, topic string, msgs ...*broker.Message) error {
	if err := broker.CheckPublish(b, topic, msgs...); err != nil {
		return err
	}
	if err := cmp.Or(ctx.Err(), b.closed()); err != nil {
		return fmt.Errorf("publish to %q: %w", topic, err)
	}
	for _, m := range msgs {
		if err := b.publish(ctx, topic, m); err != nil {
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

func (b *Broker) publish(ctx context.Context, topic string, m *broker.Message) error {
	boxes, err := b.table.outboxes(ctx, topic)
	if err != nil {
		return cmp.Or(b.closed(), err)
	}
	if len(boxes) == 0 {
		return b.closed()
	}
	id := m.ID
	if id == "" {
		id = broker.NewID()
	}
	data := appendMessage(make([]byte, 0, sizeOf(m)), m, id)
	for _, box := range boxes {
		if err := b.put(ctx, box, m.Key, data); err != nil {
			return err
		}
	}
	return nil
}

// sizeOf is about what m takes when it is encoded.
func sizeOf(m *broker.Message) int {
	n := 32 + len(m.ID) + len(m.Key) + len(m.Body)
	for k, v := range m.Header {
		n += len(k) + len(v) + 6
	}
	return n
}

// put waits for room in box, or in the one that took its place.
func (b *Broker) put(ctx context.Context, box *outbox, key string, data []byte) error {
	for box != nil {
		done, err := box.tryPut(key, data)
		if !done {
			err = b.wait(ctx, func(ctx context.Context) error { return box.put(ctx, key, data) })
		}
		if err != errGone {
			return err
		}
		box = b.table.again(box)
	}
	return b.closed()
}

// wait runs f with a context that ends with the broker, too.
func (b *Broker) wait(ctx context.Context, f func(context.Context) error) error {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.open, cancel)()
	err := f(waiting)
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return broker.ErrClosed
	}
	return err
}

// Subscribe listens, if this is the first subscription, and returns when it is registered.
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

func (b *Broker) subscribe(ctx context.Context, topic string, h broker.Handler, o broker.SubscribeOptions) (*subscription, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l, err := b.listen(ctx)
	if err != nil {
		return nil, err
	}
	s := newSubscription(b, topic, h, o)
	if !b.remember(s) {
		close(s.bound)
		_ = s.Close()
		return nil, broker.ErrClosed
	}
	if err := s.register(ctx, l.addr()); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// listen makes the listener of the process, once.
func (b *Broker) listen(ctx context.Context) (*listener, error) {
	b.listening.Lock()
	defer b.listening.Unlock()
	b.mu.Lock()
	l, closing := b.listener, b.closing
	b.mu.Unlock()
	if closing {
		return nil, broker.ErrClosed
	}
	if l != nil {
		return l, nil
	}
	err := b.wait(ctx, func(ctx context.Context) (err error) {
		l, err = listen(ctx, b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on transport %s: %w", b.transport, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listener = l
	return l, nil
}

func (b *Broker) remember(s *subscription) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return false
	}
	b.subs[s.id] = s
	return true
}

func (b *Broker) forget(s *subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, s.id)
}

func (b *Broker) subscription(id string) *subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.subs[id]
}

// Close lets the groups that have members only here work off what was published here, closes the subscriptions, and then
// waits until others have acked the rest of what was published. All that takes the time of Config.Drain, and a few
// seconds more when something does not end.
func (b *Broker) Close() error { return b.close() }

func (b *Broker) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), b.config.Drain)
	defer cancel()
	subs := b.startClosing()
	b.workOff(ctx)
	errs := make([]error, len(subs))
	var all sync.WaitGroup
	for i, s := range subs {
		all.Go(func() { errs[i] = s.close(ctx) })
	}
	all.Wait()
	b.release()
	errs = append(errs, b.flush(ctx))
	b.table.close()
	b.listening.Lock() // a Subscribe that came too late may still be at it
	defer b.listening.Unlock()
	if b.listener != nil {
		b.listener.close(rest(ctx))
	}
	return errors.Join(errs...)
}

func (b *Broker) startClosing() []*subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closing = true
	return slices.Collect(maps.Values(b.subs))
}

// workOff waits until the groups whose members are all here have acked what was published here. What their handlers
// publish may be for another of them, so it goes round as often as such a chain can be long. It takes half of the time
// at most: the rest is for the handlers.
func (b *Broker) workOff(ctx context.Context) {
	b.mu.Lock()
	l := b.listener
	b.mu.Unlock()
	if l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, b.config.Drain/2)
	defer cancel()
	boxes := slices.DeleteFunc(b.table.all(), func(box *outbox) bool { return !box.onlyAt(l.addr()) })
	for range boxes {
		for _, box := range boxes {
			if box.wait(ctx) != nil {
				return
			}
		}
	}
}

// flush takes nothing more, waits until everything is acked, and says what is not.
func (b *Broker) flush(ctx context.Context) error {
	if ctx.Err() != nil { // handlers took all the time, but what they handed back is to reach others
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.Background(), lastWords)
		defer cancel()
	}
	var errs []error
	for _, box := range b.table.seal() {
		if box.wait(ctx) == nil {
			continue
		}
		if n := box.waiting(); n > 0 {
			errs = append(errs, fmt.Errorf("%d messages for topic %q, group %q were not acked in time and are lost", n, box.topic, box.group))
		}
	}
	return errors.Join(errs...)
}
