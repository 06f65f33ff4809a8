package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
)

var faultTests = []test{
	{"KilledMember", needs{"Groups", "Redelivery", "fault Kill"}, killedMember},
	{"KilledGroupIsKept", needs{"Groups", "Durable", "fault Kill"}, killedGroupIsKept},
	{"KilledBrokerCloses", needs{"fault Kill"}, killedBrokerCloses},
	{"RestartKeepsSubscriptions", needs{"fault Restart"}, restartKeepsSubscriptions},
	{"RestartKeepsMessages", needs{"Groups", "Durable", "fault Restart"}, restartKeepsMessages},
	{"RestartUnderLoad", needs{"Groups", "Durable", "fault Restart"}, restartUnderLoad},
	{"PublishWhilePausedObeysItsContext", needs{"fault Pause"}, publishWhilePaused},
	{"CloseWhilePausedIsBounded", needs{"fault Pause"}, closeWhilePaused},
	{"PartitionHeals", needs{"fault Partition"}, partitionHeals},
	{"PartitionedMemberIsRelieved", needs{"Groups", "Redelivery", "fault Partition"}, partitionedMemberIsRelieved},
	{"PartitionedGroupIsKept", needs{"Groups", "Durable", "fault Partition"}, partitionedGroupIsKept},
	{"PublishOverAPartition", needs{"fault Partition"}, publishOverAPartition},
	{"CloseWhilePartitionedIsBounded", needs{"fault Partition"}, closeWhilePartitioned},
}

// partition cuts b off until heal, or the end of the test.
func (r *rig) partition(b broker.Broker) (heal func()) {
	heal = sync.OnceFunc(r.harness.Partition(r, b))
	r.Cleanup(heal) // before the instances are closed that were opened before
	return heal
}

// pause freezes the backend until resume, or the end of the test.
func (r *rig) pause() (resume func()) {
	resume = sync.OnceFunc(r.harness.Pause(r))
	r.Cleanup(resume)
	return resume
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
	requireFirsts(r, sent, in)
	_ = r.inTime("Close of the killed one", victim.Close)
}

// killedGroupIsKept kills the only member, with messages in its hands. Whoever comes after it gets them.
func killedGroupIsKept(r *rig) {
	victim, topic, group := r.harness.Open(r), r.name(), r.name()
	held, free := make(chan struct{}, 1000), make(chan struct{})
	r.subscribe(victim, topic, func(context.Context, *broker.Message) error {
		held <- struct{}{}
		<-free
		return errors.New("dead")
	}, broker.Group(group), broker.Concurrency(2), quick(forever))
	publisher, sent := r.open(), r.messages(100, 10)
	r.publish(publisher, topic, sent...)
	receive(r, "a message in its hands", held)
	r.harness.Kill(r, victim)
	close(free)
	in := &inbox{}
	r.subscribe(r.open(), topic, in.handle, broker.Group(group))
	r.all(sent, in)
	requireFirsts(r, sent, in)
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

// restartUnderLoad restarts the backend twice while many publish, each message until the broker has it, as a service would.
// None of them is lost, each key keeps its order, and how many are handled again is counted.
func restartUnderLoad(r *rig) {
	const publishers, batch = 10, 10
	topic, group, in := r.name(), r.name(), &inbox{}
	for range 2 {
		r.subscribe(r.open(), topic, in.handle, broker.Group(group), broker.Concurrency(4))
	}
	sent := r.messages(r.harness.Messages/publishers*publishers, publishers)
	var published atomic.Int32
	var failed atomic.Int32
	done := make(chan struct{}, publishers)
	from := []broker.Broker{r.open(), r.open()}
	for p := range publishers { // one for each key
		var mine []*broker.Message
		for i := p; i < len(sent); i += publishers {
			mine = append(mine, sent[i])
		}
		go func() {
			defer func() { done <- struct{}{} }()
			for part := range slices.Chunk(mine, batch) {
				for r.publishFor(5*time.Second, from[p%2], topic, part...) != nil && r.Context().Err() == nil {
					failed.Add(1)
					<-time.After(10 * time.Millisecond)
				}
				published.Add(int32(len(part)))
			}
		}()
	}
	for _, part := range []int{3, 2} {
		r.progress("load", func() int { return int(published.Load()) }, len(sent)/part)
		r.harness.Restart(r)
	}
	r.progress("the publishers", func() int { return int(published.Load()) }, len(sent))
	for range publishers {
		receive(r, "the publishers", done)
	}
	r.all(sent, in)
	requireFirsts(r, sent, in)
	r.suite.Measure(r.T, "handled again after two restarts under load",
		fmt.Sprintf("%d of %d, %d batches published again", duplicates(in), len(sent), failed.Load()))
}

// progress waits until what is counted reaches n, as long as it grows within the limit.
func (r *rig) progress(what string, count func() int, n int) {
	r.Helper()
	for last := -1; last < n; {
		before := last
		r.eventually(what, func() bool { last = count(); return last > before })
	}
}

func publishWhilePaused(r *rig) {
	b, topic := r.open(), r.name()
	in := &inbox{}
	r.own(b, topic, in.handle)
	r.reaches(b, topic, in)
	resume := r.pause()
	r.eventually("a backend that stands still has no message", func() bool { // it may still finish what it is at
		return r.publishFor(time.Second, b, topic, r.messages(1, 0)...) != nil
	})
	resume()
	r.reaches(b, topic, in)
}

func closeWhilePaused(r *rig) {
	b, topic := r.harness.Open(r), r.name()
	r.own(b, topic, (&inbox{}).handle)
	r.pause()
	_ = r.inTime("Close", b.Close)
}

func partitionHeals(r *rig) {
	publisher, subscriber, topic := r.open(), r.open(), r.name()
	in := &inbox{}
	r.own(subscriber, topic, in.handle)
	r.reaches(publisher, topic, in)
	heal := r.partition(subscriber)
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
	heal := r.partition(lonely)
	r.all(sent, in)
	requireFirsts(r, sent, in)
	close(free)
	heal()
	_ = r.inTime("Close", lonely.Close)
}

// partitionedGroupIsKept cuts the only member off: it gets what was published meanwhile once it is back.
func partitionedGroupIsKept(r *rig) {
	publisher, lonely, topic, group, in := r.open(), r.open(), r.name(), r.name(), &inbox{}
	r.subscribe(lonely, topic, in.handle, broker.Group(group))
	sent := r.messages(200, 10)
	r.publish(publisher, topic, sent[:100]...)
	r.all(sent[:1], in)
	heal := r.partition(lonely)
	r.publish(publisher, topic, sent[100:]...)
	heal()
	r.all(sent, in)
	requireFirsts(r, sent, in)
}

// publishOverAPartition publishes while nothing goes through, and heals before the publishers lose their patience. What
// they were told is there is there.
func publishOverAPartition(r *rig) {
	const publishers = 20
	lonely, topic, in := r.open(), r.name(), &inbox{}
	r.own(r.open(), topic, in.handle)
	r.reaches(lonely, topic, in)
	heal := r.partition(lonely)
	sent := r.messages(publishers, 0)
	results := make(chan error, publishers)
	taken := make(chan *broker.Message, publishers)
	for _, m := range sent {
		go func() {
			err := r.publishFor(r.harness.Timeout, lonely, topic, m)
			if err == nil {
				taken <- m
			}
			results <- err
		}()
	}
	select {
	case err := <-results:
		require.Error(r, err, "published over a partition")
		results <- err
	case <-time.After(time.Second):
	}
	heal()
	for range publishers {
		if err := receive(r, "a publisher", results); err != nil {
			require.NotErrorIs(r, err, broker.ErrClosed)
			require.NotErrorIs(r, err, context.DeadlineExceeded, "neither an error nor a success after it healed")
		}
	}
	close(taken)
	var there []*broker.Message
	for m := range taken {
		there = append(there, m)
	}
	r.all(there, in)
	r.reaches(lonely, topic, in)
}

// closeWhilePartitioned closes one that has a handler under way and a publisher waiting.
func closeWhilePartitioned(r *rig) {
	b, topic := r.harness.Open(r), r.name()
	started := make(chan struct{}, 1000)
	s := r.own(b, topic, func(ctx context.Context, _ *broker.Message) error {
		started <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	r.publish(b, topic, r.messages(10, 0)...)
	receive(r, "a handler", started)
	r.partition(b)
	waits := make(chan error, 1)
	go func() { waits <- r.publishFor(r.harness.Timeout, b, topic, r.messages(1, 0)...) }()
	_ = r.inTime("Subscription.Close", s.Close)
	_ = r.inTime("Close", b.Close)
	require.Error(r, receive(r, "the publisher", waits))
	require.ErrorIs(r, b.Publish(r.Context(), topic, &broker.Message{}), broker.ErrClosed)
}
