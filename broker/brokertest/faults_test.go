package brokertest_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/broker/brokertest"
)

// The faults of a backend, made from the memory broker and a cable that can be pulled. Durable ones need a real server.
func TestFaults(t *testing.T) {
	var backend []*cabled
	all := func(f func(*cabled)) {
		for _, c := range backend {
			f(c)
		}
	}
	brokertest.Run(t, brokertest.Harness{
		Open: func(t testing.TB) broker.Broker {
			c := &cabled{Broker: open(t), subs: map[*cabledSub]struct{}{}}
			backend = append(backend, c)
			return c
		},
		Restart: func(testing.TB) { all((*cabled).pull); all((*cabled).plug) },
		Pause: func(testing.TB) func() {
			all((*cabled).pull)
			return func() { all((*cabled).plug) }
		},
		Partition: func(_ testing.TB, b broker.Broker) func() {
			b.(*cabled).pull()
			return b.(*cabled).plug
		},
		Kill: func(_ testing.TB, b broker.Broker) { b.(*cabled).pull() },
	})
}

// cabled is a broker that loses its subscriptions while it is cut off, and takes them up again afterwards.
type cabled struct {
	broker.Broker

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

func (c *cabled) Capabilities() broker.Capabilities { return broker.CapabilitiesOf(c.Broker) }

func (c *cabled) pull() {
	c.mu.Lock()
	if c.closed || c.plugged != nil {
		c.mu.Unlock()
		return
	}
	c.plugged = make(chan struct{})
	var cut []broker.Subscription
	for s := range c.subs {
		cut = append(cut, s.Subscription)
		s.Subscription = nil
	}
	c.mu.Unlock()
	for _, s := range cut {
		_ = s.Close()
	}
}

func (c *cabled) plug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.plugged == nil {
		return
	}
	for s := range c.subs {
		s.Subscription = s.subscribe()
	}
	close(c.plugged)
	c.plugged = nil
}

// away returns what ends when the cable is in, nil if it is.
func (c *cabled) away() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	return c.plugged
}

func (c *cabled) Publish(ctx context.Context, topic string, msgs ...*broker.Message) error {
	if away := c.away(); away != nil {
		select {
		case <-away:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return c.Broker.Publish(ctx, topic, msgs...)
}

func (c *cabled) Subscribe(ctx context.Context, topic string, h broker.Handler, opts ...broker.SubscribeOption) (broker.Subscription, error) {
	inner, err := c.Broker.Subscribe(ctx, topic, h, opts...)
	if err != nil {
		return nil, err
	}
	s := &cabledSub{Subscription: inner, c: c, topic: topic, subscribe: func() broker.Subscription {
		again, _ := c.Broker.Subscribe(context.Background(), topic, h, opts...)
		return again
	}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs[s] = struct{}{}
	return s, nil
}

func (c *cabled) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	return c.Broker.Close()
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

func TestCabledIsABroker(t *testing.T) {
	var b broker.Broker = &cabled{Broker: open(t)}
	require.NoError(t, b.Close())
}
