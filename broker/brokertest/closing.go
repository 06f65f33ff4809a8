package brokertest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
)

var closeTests = []test{
	{"SubscriptionCloseWaits", nil, func(r *rig) { closeWaits(r, false) }},
	{"CloseWaits", nil, func(r *rig) { closeWaits(r, true) }},
	{"ClosedSubscriptionIsQuiet", nil, closedSubscriptionIsQuiet},
	{"CloseHandsBack", needs{"Groups", "Redelivery"}, closeHandsBack},
	{"SubscriptionCloseWithAStuckHandler", nil, func(r *rig) { stuckHandler(r, false) }},
	{"CloseWithAStuckHandler", nil, func(r *rig) { stuckHandler(r, true) }},
	{"HandlersMayPublishWhileClosing", nil, handlersMayPublishWhileClosing},
	{"CloseFlushes", nil, closeFlushes},
	{"CloseUnderLoad", needs{"Groups", "Redelivery"}, closeUnderLoad},
	{"CloseWithARetryUnderWay", needs{"Retry"}, closeWithARetryUnderWay},
	{"AfterClose", nil, afterClose},
	{"CloseAtOnce", nil, closeAtOnce},
}

// closeWaits closes the subscription, or its broker, while the handler runs.
func closeWaits(r *rig, all bool) {
	b, topic := r.open(), r.name()
	started, free := make(chan struct{}), make(chan struct{})
	var finished atomic.Bool
	s := r.own(b, topic, func(context.Context, *broker.Message) error {
		close(started)
		<-free
		finished.Store(true)
		return nil
	})
	r.publish(b, topic, &broker.Message{})
	receive(r, "the handler", started)

	stop := s.Close
	if all {
		stop = b.Close
	}
	closed := make(chan error, 1)
	go func() { closed <- stop() }()
	select {
	case <-closed:
		close(free)
		require.FailNow(r, "Close did not wait for the handler")
	case <-time.After(20 * time.Millisecond):
	}
	close(free)
	require.NoError(r, receive(r, "Close", closed))
	require.True(r, finished.Load())
	require.NoError(r, s.Close(), "it may be called more than once")
}

func closedSubscriptionIsQuiet(r *rig) {
	b, topic := r.open(), r.name()
	var closed, late atomic.Bool
	s := r.own(b, topic, func(context.Context, *broker.Message) error {
		if closed.Load() {
			late.Store(true)
		}
		return nil
	})
	in := &inbox{}
	r.own(b, topic, in.handle)
	r.publish(b, topic, r.messages(200, 10)...)
	require.NoError(r, s.Close())
	closed.Store(true)
	sent := r.messages(50, 10)
	r.publish(b, topic, sent...)
	r.all(sent, in)
	require.False(r, late.Load(), "a handler was called after Close")
}

// closeHandsBack closes a member whose handlers obey their context, and what they did not ack goes to the other.
func closeHandsBack(r *rig) {
	leaving, staying, topic, group := r.open(), r.open(), r.name(), r.name()
	started := make(chan struct{}, 1000)
	r.subscribe(leaving, topic, func(ctx context.Context, m *broker.Message) error {
		started <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}, broker.Group(group), broker.Concurrency(2))
	sent := r.messages(20, 0)
	r.publish(staying, topic, sent...)
	receive(r, "a handler", started)
	in := &inbox{}
	r.subscribe(staying, topic, in.handle, broker.Group(group))
	require.NoError(r, r.inTime("Close", leaving.Close))
	r.once(sent, in)
}

// stuckHandler closes while a handler runs that heeds nothing. Close must give up on it and say so.
func stuckHandler(r *rig, all bool) {
	b, topic := r.harness.Open(r), r.name()
	started, free := make(chan struct{}), make(chan struct{})
	defer close(free)
	once := sync.OnceFunc(func() { close(started) })
	s := r.own(b, topic, func(context.Context, *broker.Message) error {
		once()
		<-free
		return nil
	})
	r.publish(b, topic, r.messages(3, 0)...)
	receive(r, "the handler", started)
	stop := s.Close
	if all {
		stop = b.Close
	}
	require.Error(r, r.inTime("Close", stop), "a handler was left behind")
	_ = r.inTime("Close", b.Close)
	require.ErrorIs(r, b.Publish(r.Context(), topic, &broker.Message{}), broker.ErrClosed)
}

func handlersMayPublishWhileClosing(r *rig) {
	b, other, topic, answers := r.open(), r.open(), r.name(), r.name()
	started := make(chan struct{})
	sent, in := r.messages(1, 0), &inbox{}
	var result error
	r.own(other, answers, in.handle)
	s := r.own(b, topic, func(ctx context.Context, _ *broker.Message) error {
		close(started)
		<-time.After(20 * time.Millisecond) // so that Close has begun, most of the time
		result = b.Publish(ctx, answers, sent...)
		return nil
	})
	r.publish(b, topic, &broker.Message{})
	receive(r, "the handler", started)
	require.NoError(r, r.inTime("Close", b.Close))
	require.NoError(r, s.Close())
	require.NoError(r, result)
	r.once(sent, in)
}

func closeFlushes(r *rig) {
	topic, in, sent := r.name(), &inbox{}, r.messages(500, 10)
	r.own(r.open(), topic, in.handle)
	b := r.open()
	r.publish(b, topic, sent...)
	require.NoError(r, r.inTime("Close", b.Close))
	r.once(sent, in)
}

// closeUnderLoad closes a broker that publishes and handles, again and again. What it published without an error, or
// took and did not ack, reaches the member that stays.
func closeUnderLoad(r *rig) {
	topic, group, in := r.name(), r.name(), &inbox{}
	r.subscribe(r.open(), topic, in.handle, broker.Group(group))
	for range 3 {
		b := r.harness.Open(r)
		r.subscribe(b, topic, in.handle, broker.Group(group), broker.Concurrency(2))
		var mu sync.Mutex
		var taken []*broker.Message
		var publishers sync.WaitGroup
		for range 4 {
			publishers.Go(func() {
				for {
					m := r.messages(1, 0)[0]
					if err := r.publishFor(r.harness.Timeout, b, topic, m); err != nil {
						assert.ErrorIs(r, err, broker.ErrClosed)
						return
					}
					mu.Lock()
					taken = append(taken, m)
					mu.Unlock()
				}
			})
		}
		before := in.different()
		r.eventually("load", func() bool { return in.different() > before+200 })
		require.NoError(r, r.inTime("Close", b.Close))
		require.NoError(r, r.inTime("publishers", func() error { publishers.Wait(); return nil }))
		r.all(taken, in)
	}
}

// closeWithARetryUnderWay closes while a message is tried again and again.
func closeWithARetryUnderWay(r *rig) {
	b, topic := r.open(), r.name()
	tried := make(chan struct{}, 1)
	s := r.own(b, topic, func(context.Context, *broker.Message) error {
		select {
		case tried <- struct{}{}:
		default:
		}
		return errors.New("never")
	}, broker.Retry(broker.RetryPolicy{Attempts: forever, Min: time.Hour, Max: time.Hour}))
	r.publish(b, topic, r.messages(5, 1)...)
	receive(r, "a first try", tried)
	require.NoError(r, r.inTime("Subscription.Close", s.Close))
	require.NoError(r, r.inTime("Close", b.Close))
}

func afterClose(r *rig) {
	b, topic := r.harness.Open(r), r.name()
	s := r.own(b, topic, (&inbox{}).handle)
	require.NoError(r, r.inTime("Close", b.Close))
	require.ErrorIs(r, b.Publish(r.Context(), topic, &broker.Message{}), broker.ErrClosed)
	var opts []broker.SubscribeOption
	if !r.can.FanOut {
		opts = append(opts, broker.Group(r.name()))
	}
	_, err := b.Subscribe(r.Context(), topic, (&inbox{}).handle, opts...)
	require.ErrorIs(r, err, broker.ErrClosed)
	require.NoError(r, s.Close())
	require.NoError(r, r.inTime("Close", b.Close), "it may be called more than once")
}

// closeAtOnce closes the subscriptions and their broker at the same time, several times each.
func closeAtOnce(r *rig) {
	b, topic := r.open(), r.name()
	closers := []func() error{b.Close, b.Close}
	for range 3 {
		s := r.own(b, topic, (&inbox{}).handle)
		closers = append(closers, s.Close, s.Close)
	}
	r.publish(b, topic, r.messages(100, 10)...)
	var all sync.WaitGroup
	for _, stop := range closers {
		all.Go(func() { assert.NoError(r, stop()) })
	}
	require.NoError(r, r.inTime("all", func() error { all.Wait(); return nil }))
}
