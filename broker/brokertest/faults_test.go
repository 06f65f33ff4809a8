package brokertest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/broker/brokertest"
	"github.com/plugmicro/micro/internal/suite"
)

// The faults of a backend, made from a broker that keeps what its groups have not handled, and a cable that can be pulled.
func TestFaults(t *testing.T) {
	t.Setenv(suite.Env, "") // it is no plugin
	runFaults(t, mistakes{}, 30*time.Second)
}

func runFaults(t *testing.T, m mistakes, timeout time.Duration) {
	backend := newShelf()
	var all []*cabled
	each := func(f func(*cabled)) {
		for _, c := range all {
			f(c)
		}
	}
	brokertest.Run(t, brokertest.Harness{
		Messages: 2000,
		Buffered: 4 << 20,
		Timeout:  timeout,
		Open: func(t testing.TB) broker.Broker {
			c := &cabled{shelved: backend.open(), mistakes: m, subs: map[*cabledSub]struct{}{}}
			all = append(all, c)
			return c
		},
		Restart: func(testing.TB) { each((*cabled).pull); each((*cabled).plug) },
		Pause: func(testing.TB) func() {
			each((*cabled).pull)
			return func() { each((*cabled).plug) }
		},
		Partition: func(_ testing.TB, b broker.Broker) func() {
			b.(*cabled).pull()
			return b.(*cabled).plug
		},
		Kill: func(_ testing.TB, b broker.Broker) { b.(*cabled).pull() },
	})
}

// mistakes that the tests of faults must notice.
type mistakes struct {
	lies    bool // Publish reports success while the cable is out
	hangs   bool // Close waits for the cable
	forgets bool // what was waiting is lost when the cable is pulled
	acks    bool // a message is acked before it is handled
	stays   bool // subscriptions are not taken up again
	holds   bool // a member that is cut off keeps what it has
	hoards  bool // claims that the backend stores what is waiting, which is in memory
}

var faultMutants = map[string]struct {
	mistakes
	noticed []string
}{
	"lies":    {mistakes{lies: true}, []string{"PublishOverAPartition", "PublishWhilePausedObeysItsContext", "PartitionHeals"}},
	"hangs":   {mistakes{hangs: true}, []string{"CloseWhilePausedIsBounded", "CloseWhilePartitionedIsBounded"}},
	"forgets": {mistakes{forgets: true}, []string{"RestartKeepsMessages", "RestartUnderLoad", "KilledGroupIsKept"}},
	"acks":    {mistakes{acks: true}, []string{"KilledMember", "KilledGroupIsKept"}},
	"stays":   {mistakes{stays: true}, []string{"RestartKeepsSubscriptions", "PartitionHeals", "PartitionedGroupIsKept"}},
	"holds":   {mistakes{holds: true}, []string{"PartitionedMemberIsRelieved"}},
	"hoards":  {mistakes{hoards: true}, []string{"SlowSubscriberIsBounded"}},
}

// TestSuiteNoticesFaults runs the suite on each, in a process of its own as it is to fail.
func TestSuiteNoticesFaults(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	for name, m := range faultMutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			only := "^TestFaultMutant$/^(" + strings.Join(m.noticed, "|") + ")$"
			run := exec.CommandContext(t.Context(), self, "-test.run="+only, "-test.v", "-test.timeout=2m")
			run.Env = append(os.Environ(), environment+"="+name)
			out, err := run.CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "%s", out)
			for _, test := range m.noticed {
				require.Contains(t, string(out), "--- FAIL: TestFaultMutant/"+test+" ")
			}
		})
	}
}

// TestFaultMutant is what TestSuiteNoticesFaults runs.
func TestFaultMutant(t *testing.T) {
	if m, chosen := faultMutants[os.Getenv(environment)]; chosen {
		runFaults(t, m.mistakes, 3*time.Second)
	}
}

// cabled is a broker that loses its subscriptions while it is cut off, and takes them up again afterwards.
type cabled struct {
	*shelved
	mistakes mistakes

	mu      sync.Mutex
	plugged chan struct{} // closed when the cable is in again; nil while it is in
	closed  bool
	subs    map[*cabledSub]struct{}
}

type cabledSub struct {
	broker.Subscription // nil while cut off
	c                   *cabled
	topic               string
	subscribe           func() broker.Subscription
}

func (c *cabled) Capabilities() broker.Capabilities {
	can := c.shelved.Capabilities()
	can.Backpressure = !c.mistakes.hoards
	return can
}

func (c *cabled) pull() {
	c.mu.Lock()
	if c.closed || c.plugged != nil {
		c.mu.Unlock()
		return
	}
	c.plugged = make(chan struct{})
	var cut []broker.Subscription
	for s := range c.subs {
		if !c.mistakes.holds {
			cut = append(cut, s.Subscription)
			s.Subscription = nil
		}
	}
	c.mu.Unlock()
	for _, s := range cut {
		_ = s.Close()
	}
	if c.mistakes.forgets {
		c.shelf.clear()
	}
}

func (c *cabled) plug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.plugged == nil {
		return
	}
	for s := range c.subs {
		if !c.mistakes.stays && s.Subscription == nil {
			s.Subscription = s.subscribe()
		}
	}
	close(c.plugged)
	c.plugged = nil
}

// away returns what ends when the cable is in, nil if it is.
func (c *cabled) away() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed && !c.mistakes.hangs {
		return nil
	}
	return c.plugged
}

func (c *cabled) Publish(ctx context.Context, topic string, msgs ...*broker.Message) error {
	if away := c.away(); away != nil {
		if c.mistakes.lies {
			return nil
		}
		select {
		case <-away:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return c.shelved.Publish(ctx, topic, msgs...)
}

func (c *cabled) Subscribe(ctx context.Context, topic string, h broker.Handler, opts ...broker.SubscribeOption) (broker.Subscription, error) {
	if handle := h; c.mistakes.acks && handle != nil {
		h = func(ctx context.Context, m *broker.Message) error {
			go func() { _ = handle(ctx, m) }()
			return nil
		}
	}
	inner, err := c.shelved.Subscribe(ctx, topic, h, opts...)
	if err != nil {
		return nil, err
	}
	s := &cabledSub{Subscription: inner, c: c, topic: topic, subscribe: func() broker.Subscription {
		again, _ := c.shelved.Subscribe(context.Background(), topic, h, opts...)
		return again
	}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs[s] = struct{}{}
	return s, nil
}

func (c *cabled) Close() error {
	if away := c.away(); away != nil && c.mistakes.hangs {
		<-away
	}
	err := c.shelved.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.plugged != nil { // whoever waits is told by the closed broker
		close(c.plugged)
		c.plugged = nil
	}
	return err
}

func (s *cabledSub) Topic() string { return s.topic }

func (s *cabledSub) Close() error {
	s.c.mu.Lock()
	delete(s.c.subs, s)
	inner := s.Subscription
	s.c.mu.Unlock()
	if inner == nil {
		return errors.New("cut off")
	}
	return inner.Close()
}

// shelf is a backend that keeps what a group has not handled, also while it has no member.
type shelf struct {
	mu     sync.Mutex
	topics map[string]map[string]*broker.Queue // by topic and group
}

func newShelf() *shelf { return &shelf{topics: map[string]map[string]*broker.Queue{}} }

func (s *shelf) open() *shelved {
	b := &shelved{shelf: s, subs: map[*shelvedSub]struct{}{}}
	b.ctx, b.end = context.WithCancel(context.Background())
	return b
}

func (s *shelf) queue(topic, group string) *broker.Queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.topics[topic] == nil {
		s.topics[topic] = map[string]*broker.Queue{}
	}
	if s.topics[topic][group] == nil {
		s.topics[topic][group] = broker.NewQueue(1000, 16<<20)
	}
	return s.topics[topic][group]
}

func (s *shelf) queues(topic string) (all []*broker.Queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.topics[topic] {
		all = append(all, q)
	}
	return all
}

func (s *shelf) remove(topic, group string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.topics[topic][group].Close()
	delete(s.topics[topic], group)
}

// clear drops what nobody has in his hands.
func (s *shelf) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, groups := range s.topics {
		for _, q := range groups {
			for {
				ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
				d, err := q.Take(ctx)
				cancel()
				if err != nil {
					break
				}
				d.Ack()
			}
		}
	}
}

// shelved is one connection to a shelf.
type shelved struct {
	shelf *shelf
	ctx   context.Context // ends at the end of Close
	end   context.CancelFunc

	mu   sync.Mutex
	subs map[*shelvedSub]struct{}
}

type shelvedSub struct {
	b            *shelved
	topic, group string
	close        func() error
}

func (b *shelved) String() string { return "shelf" }

func (b *shelved) Capabilities() broker.Capabilities {
	return broker.Capabilities{
		Groups: true, FanOut: true, Ordered: true, Retry: true, DeadLetter: true, Redelivery: true, Backpressure: true, Durable: true,
	}
}

func (b *shelved) Publish(ctx context.Context, topic string, msgs ...*broker.Message) error {
	if err := broker.CheckPublish(b, topic, msgs...); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(b.ctx, func() { cancel(broker.ErrClosed) })()
	if b.ctx.Err() != nil {
		return broker.ErrClosed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, m := range msgs {
		m = m.Clone()
		if m.ID == "" {
			m.ID = broker.NewID()
		}
		for _, q := range b.shelf.queues(topic) {
			if err := q.Put(ctx, m, nil); err != nil && ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

func (b *shelved) Subscribe(ctx context.Context, topic string, h broker.Handler, opts ...broker.SubscribeOption) (broker.Subscription, error) {
	o, err := broker.CheckSubscribe(b, topic, h, opts...)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if b.ctx.Err() != nil {
		return nil, broker.ErrClosed
	}
	s := &shelvedSub{b: b, topic: topic, group: o.Group}
	if o.Group == "" {
		s.group = broker.NewID()
	}
	consumer := broker.StartConsumer(b.shelf.queue(topic, s.group), broker.ConsumerConfig{Topic: topic, Handler: h, Options: o, Publish: b.Publish})
	s.close = sync.OnceValue(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		err := consumer.Stop(ctx)
		if o.Group == "" {
			b.shelf.remove(topic, s.group)
		}
		return err
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs[s] = struct{}{}
	return s, nil
}

func (b *shelved) Close() error {
	b.mu.Lock()
	var subs []*shelvedSub
	for s := range b.subs {
		subs = append(subs, s)
	}
	b.mu.Unlock()
	errs := make([]error, len(subs))
	var all sync.WaitGroup
	for i, s := range subs {
		all.Go(func() { errs[i] = s.close() })
	}
	all.Wait()
	b.end()
	return errors.Join(errs...)
}

func (s *shelvedSub) Topic() string { return s.topic }

func (s *shelvedSub) Close() error { return s.close() }
