package brokertest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
)

// faultTests are those for which h has the fault.
func faultTests(h Harness) []test {
	var tests []test
	add := func(possible bool, name string, needs func(broker.Capabilities) bool, run func(*rig)) {
		if possible {
			tests = append(tests, test{name, needs, run})
		}
	}
	durable := func(c broker.Capabilities) bool { return c.Groups && c.Durable }
	add(h.Kill != nil, "KilledMember", redelivers, killedMember)
	add(h.Kill != nil, "KilledBrokerCloses", anyBroker, killedBrokerCloses)
	add(h.Restart != nil, "RestartKeepsSubscriptions", anyBroker, restartKeepsSubscriptions)
	add(h.Restart != nil, "RestartKeepsMessages", durable, restartKeepsMessages)
	add(h.Restart != nil, "RestartUnderLoad", durable, restartUnderLoad)
	add(h.Pause != nil, "PublishWhilePausedObeysItsContext", anyBroker, publishWhilePaused)
	add(h.Pause != nil, "CloseWhilePausedIsBounded", anyBroker, closeWhilePaused)
	add(h.Partition != nil, "PartitionHeals", anyBroker, partitionHeals)
	add(h.Partition != nil, "PartitionedMemberIsRelieved", redelivers, partitionedMemberIsRelieved)
	return tests
}

// killedMember kills one of two members in the middle of the work. What it had not acked is handled by the other.
func killedMember(r *rig) {
	victim, survivor, topic, group := r.harness.Open(r), r.open(), r.name(), r.name()
	in := &inbox{}
	var dead atomic.Bool
	var handled atomic.Int32
	busy, free := make(chan struct{}), make(chan struct{})
	r.subscribe(victim, topic, func(ctx context.Context, m *broker.Message) error {
		if handled.Add(1) == 50 {
			close(busy)
			<-free // it dies with this one in its hands
		}
		if dead.Load() {
			return errors.New("dead")
		}
		return in.handle(ctx, m)
	}, broker.Group(group))
	sent := r.messages(500, 50)
	published := make(chan error, 1)
	go func() { published <- r.publishFor(r.harness.Timeout, survivor, topic, sent...) }()
	receive(r, "part of the work", busy)
	r.subscribe(survivor, topic, in.handle, broker.Group(group))
	dead.Store(true)
	r.harness.Kill(r, victim)
	close(free)
	require.NoError(r, receive(r, "the publisher", published))
	r.all(sent, in)
	_ = r.inTime("Close of the killed one", victim.Close)
}

func killedBrokerCloses(r *rig) {
	b, topic := r.harness.Open(r), r.name()
	s := r.own(b, topic, (&inbox{}).handle)
	r.harness.Kill(r, b)
	_ = r.inTime("Subscription.Close", s.Close)
	_ = r.inTime("Close", b.Close)
	require.ErrorIs(r, b.Publish(r.Context(), topic, &broker.Message{}), broker.ErrClosed)
}

// reaches publishes until something arrives: a broker that lost its backend comes back by itself.
func (r *rig) reaches(b broker.Broker, topic string, in *inbox) {
	r.Helper()
	before := len(in.messages())
	r.eventually("messages come through again", func() bool {
		_ = r.publishFor(time.Second, b, topic, r.messages(1, 0)...)
		return len(in.messages()) > before
	})
}

func restartKeepsSubscriptions(r *rig) {
	publisher, subscriber, topic := r.open(), r.open(), r.name()
	in := &inbox{}
	r.own(subscriber, topic, in.handle)
	r.reaches(publisher, topic, in)
	for range 2 {
		r.harness.Restart(r)
		r.reaches(publisher, topic, in)
	}
	sent := r.messages(100, 10)
	r.publish(publisher, topic, sent...)
	r.all(sent, in)
}

func restartKeepsMessages(r *rig) {
	b, topic, group := r.open(), r.name(), r.name()
	s := r.subscribe(b, topic, (&inbox{}).handle, broker.Group(group))
	require.NoError(r, s.Close())
	sent := r.messages(200, 10)
	r.publish(b, topic, sent...)
	r.harness.Restart(r)
	in := &inbox{}
	r.eventually("subscribing again", func() bool {
		ctx, cancel := context.WithTimeout(r.Context(), r.harness.Timeout/2)
		defer cancel()
		_, err := b.Subscribe(ctx, topic, in.handle, broker.Group(group))
		return err == nil
	})
	r.all(sent, in)
}

// restartUnderLoad publishes each message until the broker has it, as a service would. None of them is lost.
func restartUnderLoad(r *rig) {
	publisher, topic, group := r.open(), r.name(), r.name()
	in := &inbox{}
	r.subscribe(r.open(), topic, in.handle, broker.Group(group))
	sent := r.messages(500, 10)
	started, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i, m := range sent {
			if i == 100 {
				close(started)
			}
			for r.publishFor(2*time.Second, publisher, topic, m) != nil && r.Context().Err() == nil {
				<-time.After(10 * time.Millisecond)
			}
		}
	}()
	receive(r, "load", started)
	r.harness.Restart(r)
	receive(r, "the publisher", done)
	r.all(sent, in)
}

func publishWhilePaused(r *rig) {
	b, topic := r.open(), r.name()
	in := &inbox{}
	r.own(b, topic, in.handle)
	r.reaches(b, topic, in)
	resume := r.harness.Pause(r)
	err := r.inTime("Publish", func() error { return r.publishFor(time.Second, b, topic, r.messages(1, 0)...) })
	resume()
	require.Error(r, err, "a backend that stands still cannot have it")
	r.reaches(b, topic, in)
}

func closeWhilePaused(r *rig) {
	b, topic := r.harness.Open(r), r.name()
	r.own(b, topic, (&inbox{}).handle)
	resume := r.harness.Pause(r)
	defer resume()
	_ = r.inTime("Close", b.Close)
}

func partitionHeals(r *rig) {
	publisher, subscriber, topic := r.open(), r.open(), r.name()
	in := &inbox{}
	r.own(subscriber, topic, in.handle)
	r.reaches(publisher, topic, in)
	heal := r.harness.Partition(r, subscriber)
	err := r.inTime("Publish", func() error { return r.publishFor(time.Second, subscriber, topic, r.messages(1, 0)...) })
	require.Error(r, err, "published over a partition")
	heal()
	r.reaches(publisher, topic, in)
	r.reaches(subscriber, topic, in)
}

// partitionedMemberIsRelieved cuts a member off that holds messages; the rest of its group gets them.
func partitionedMemberIsRelieved(r *rig) {
	lonely, other, topic, group := r.harness.Open(r), r.open(), r.name(), r.name()
	in := &inbox{}
	held, free := make(chan struct{}, 1), make(chan struct{})
	r.subscribe(lonely, topic, func(ctx context.Context, _ *broker.Message) error {
		select {
		case held <- struct{}{}:
		default:
		}
		select {
		case <-free:
		case <-ctx.Done():
		}
		return errors.New("cut off")
	}, broker.Group(group))
	sent := r.messages(50, 5)
	r.publish(other, topic, sent...)
	receive(r, "a held message", held)
	r.subscribe(other, topic, in.handle, broker.Group(group))
	heal := r.harness.Partition(r, lonely)
	r.all(sent, in)
	close(free)
	heal()
	_ = r.inTime("Close", lonely.Close)
}
