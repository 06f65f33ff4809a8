package brokertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
)

var groupTests = []test{
	{"EverySubscriberGetsAll", needs{"FanOut"}, everySubscriberGetsAll},
	{"MembersShare", needs{"Groups"}, membersShare},
	{"GroupsDoNotShare", needs{"Groups"}, groupsDoNotShare},
	{"GroupsBesideSubscribers", needs{"Groups", "FanOut"}, groupsBesideSubscribers},
	{"GroupOfTwoTopics", needs{"Groups"}, groupOfTwoTopics},
	{"KeysKeepTheirOrderInAGroup", needs{"Groups", "Ordered"}, keysKeepTheirOrderInAGroup},
	{"MemberThatFailsIsRelieved", needs{"Groups", "Redelivery"}, memberThatFailsIsRelieved},
	{"MembersComeAndGo", needs{"Groups", "Redelivery"}, membersComeAndGo},
	{"WithoutSubscribers", needs{"not Durable"}, withoutSubscribers},
	{"GroupIsKept", needs{"Groups", "Durable"}, groupIsKept},
}

func everySubscriberGetsAll(r *rig) {
	one, two, topic := r.open(), r.open(), r.name()
	in := []*inbox{{}, {}, {}}
	r.own(one, topic, in[0].handle)
	r.own(one, topic, in[1].handle)
	r.own(two, topic, in[2].handle)
	sent := r.messages(100, 5)
	r.publish(two, topic, sent...)
	for i := range in {
		r.once(sent, in[i])
	}
}

// membersShare holds each member's first message until the other has one as well.
func membersShare(r *rig) {
	one, two, topic, group := r.open(), r.open(), r.name(), r.name()
	in := []*inbox{{}, {}}
	var arrived atomic.Int32
	both := make(chan struct{})
	for i, b := range []broker.Broker{one, two} {
		first := sync.OnceFunc(func() {
			if arrived.Add(1) == 2 {
				close(both)
			}
		})
		r.subscribe(b, topic, func(ctx context.Context, m *broker.Message) error {
			first()
			select {
			case <-both:
				return in[i].handle(ctx, m)
			case <-ctx.Done():
				return ctx.Err()
			}
		}, broker.Group(group))
	}
	sent := r.messages(200, 100)
	r.publish(r.open(), topic, sent...)
	receive(r, "a message for each of the two members", both)
	r.once(sent, in...)
}

func groupsDoNotShare(r *rig) {
	b, topic := r.open(), r.name()
	in := map[string][]*inbox{}
	for range 3 {
		group := r.name()
		for range 2 {
			box := &inbox{}
			r.subscribe(b, topic, box.handle, broker.Group(group))
			in[group] = append(in[group], box)
		}
	}
	sent := r.messages(100, 5)
	r.publish(b, topic, sent...)
	for group := range in {
		r.once(sent, in[group]...)
	}
}

func groupsBesideSubscribers(r *rig) {
	b, topic, group := r.open(), r.name(), r.name()
	alone, member, other := &inbox{}, &inbox{}, &inbox{}
	r.subscribe(b, topic, alone.handle)
	r.subscribe(b, topic, member.handle, broker.Group(group))
	r.subscribe(b, topic, other.handle, broker.Group(group))
	sent := r.messages(100, 5)
	r.publish(b, topic, sent...)
	r.once(sent, alone)
	r.once(sent, member, other)
}

func groupOfTwoTopics(r *rig) {
	b, group := r.open(), r.name()
	for range 2 { // the same group name is another group on another topic
		topic, in, sent := r.name(), &inbox{}, r.messages(20, 5)
		r.subscribe(b, topic, in.handle, broker.Group(group))
		r.publish(b, topic, sent...)
		r.once(sent, in)
	}
}

func keysKeepTheirOrderInAGroup(r *rig) {
	topic, group := r.name(), r.name()
	in, busy := &inbox{}, &oneOfAKey{}
	for range 3 {
		r.subscribe(r.open(), topic, busy.watch(in.handle), broker.Group(group), broker.Concurrency(4))
	}
	publisher := r.open()
	sent := r.messages(600, 20)
	for _, m := range sent {
		r.publish(publisher, topic, m)
	}
	r.once(sent, in)
	requireOrder(r, sent, in)
	require.Zero(r, busy.broken.Load(), "two messages of one key were handled at the same time")
}

// memberThatFailsIsRelieved has one member that acks nothing. What it holds when it closes goes to the other.
func memberThatFailsIsRelieved(r *rig) {
	bad, good, topic, group := r.open(), r.open(), r.name(), r.name()
	in := &inbox{}
	tried := make(chan struct{})
	first := sync.OnceFunc(func() { close(tried) })
	failing := r.subscribe(bad, topic, func(context.Context, *broker.Message) error {
		first()
		return errors.New("not here")
	}, broker.Group(group), quick(forever))
	sent := r.messages(50, 10)
	r.publish(good, topic, sent...)
	receive(r, "a first try", tried)
	r.subscribe(good, topic, in.handle, broker.Group(group))
	require.NoError(r, r.inTime("Subscription.Close", failing.Close))
	r.all(sent, in)
	require.Subset(r, in.ids(), idsOf(sent), "a redelivered message keeps its ID")
	require.Len(r, in.ids(), len(sent))
	if r.can.Ordered {
		requireOrder(r, sent, in)
	}
}

func idsOf(msgs []*broker.Message) map[string]int {
	ids := map[string]int{}
	for _, m := range msgs {
		ids[m.ID] = 1
	}
	return ids
}

// membersComeAndGo has members join and leave under load: nothing is lost, and each key keeps its order all the while.
func membersComeAndGo(r *rig) {
	topic, group := r.name(), r.name()
	in := &inbox{}
	r.subscribe(r.open(), topic, in.handle, broker.Group(group))
	publisher, sent := r.open(), r.messages(2000, 50)

	published := make(chan struct{})
	go func() {
		defer close(published)
		for _, m := range sent {
			assert.NoError(r, r.publishFor(r.harness.Timeout, publisher, topic, m))
		}
	}()
	for i := range 6 {
		before, b := in.different(), r.harness.Open(r)
		s, err := b.Subscribe(r.Context(), topic, in.handle, broker.Group(group), broker.Concurrency(2))
		require.NoError(r, err)
		r.eventually("progress", func() bool { return in.different() >= min(before+100, len(sent)) })
		if i%2 == 0 {
			require.NoError(r, r.inTime("Subscription.Close", s.Close))
		}
		require.NoError(r, r.inTime("Close", b.Close))
	}
	receive(r, "the publisher", published)
	r.all(sent, in)
	requireFirsts(r, sent, in)
	r.suite.Measure(r.T, "handled again while six members came and went", fmt.Sprintf("%d of %d", duplicates(in), len(sent)))
}

func withoutSubscribers(r *rig) {
	b, topic := r.open(), r.name()
	for i := range 5 { // more than any buffer
		msgs := make([]*broker.Message, 1000)
		for j := range msgs {
			msgs[j] = &broker.Message{Body: fmt.Append(nil, i, j)}
		}
		r.publish(b, topic, msgs...)
	}
	in, sent := &inbox{}, r.messages(10, 0)
	r.own(b, topic, in.handle)
	r.publish(b, topic, sent...)
	r.once(sent, in)
}

func groupIsKept(r *rig) {
	b, topic, group := r.open(), r.name(), r.name()
	s := r.subscribe(b, topic, (&inbox{}).handle, broker.Group(group))
	require.NoError(r, s.Close())
	sent := r.messages(100, 5)
	r.publish(b, topic, sent...)
	in := &inbox{}
	r.subscribe(r.open(), topic, in.handle, broker.Group(group))
	r.all(sent, in)
	requireOrder(r, sent, in)
}
