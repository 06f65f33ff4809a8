package brokertest

import (
	"context"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
)

// refusalTests are about what a broker must not take: what is invalid for all, and what it does not claim.
var refusalTests = []test{
	{"NameAndLimit", nil, nameAndLimit},
	{"InvalidTopics", nil, invalidTopics},
	{"InvalidMessages", nil, invalidMessages},
	{"InvalidOptions", nil, invalidOptions},
	{"TooLarge", nil, tooLarge},
	{"CancelledPublish", nil, cancelledPublish},
	{"CancelledSubscribe", nil, cancelledSubscribe},
	{"NotClaimedIsUnsupported", nil, notClaimedIsUnsupported},
}

func nameAndLimit(r *rig) {
	require.NotEmpty(r, r.open().String())
	require.GreaterOrEqual(r, r.can.MaxBody, 1<<10, "a broker that takes less is of no use")
}

var badNames = []string{"", ".", "..", "a b", "a/b", "*", "größe", "a\x00", strings.Repeat("t", broker.MaxName+1)}

func invalidTopics(r *rig) {
	b := r.open()
	for _, topic := range badNames {
		require.ErrorIs(r, b.Publish(r.Context(), topic, &broker.Message{}), broker.ErrInvalid, "%q", topic)
		_, err := b.Subscribe(r.Context(), topic, (&inbox{}).handle)
		require.ErrorIs(r, err, broker.ErrInvalid, "%q", topic)
	}
	longest := r.name()
	longest += strings.Repeat("t", broker.MaxName-len(longest))
	in, sent := &inbox{}, r.messages(1, 0)
	r.own(b, longest, in.handle)
	r.publish(b, longest, sent...)
	r.once(sent, in)
}

// invalidMessages publishes bad ones between good ones: nothing of such a batch may arrive.
func invalidMessages(r *rig) {
	b, topic := r.open(), r.name()
	in := &inbox{}
	r.own(b, topic, in.handle)
	header := func(k, v string) *broker.Message { return &broker.Message{Header: map[string]string{k: v}} }
	many := &broker.Message{Header: map[string]string{}}
	for i := range broker.MaxHeaders + 1 {
		many.Header["h"+strings.Repeat("x", i)] = ""
	}
	for name, bad := range map[string]*broker.Message{
		"nil":              nil,
		"long ID":          {ID: strings.Repeat("i", broker.MaxID+1)},
		"long key":         {Key: strings.Repeat("k", broker.MaxKey+1)},
		"key not UTF-8":    {Key: "\xff"},
		"reserved header":  header("Micro-Something", "v"),
		"header not UTF-8": header("k", "\xff"),
		"header, no name":  header("", "v"),
		"header, long":     header(strings.Repeat("k", broker.MaxHeaderKey+1), "v"),
		"many headers":     many,
	} {
		good := r.messages(2, 0)
		require.ErrorIs(r, b.Publish(r.Context(), topic, good[0], bad, good[1]), broker.ErrInvalid, name)
	}
	sent := r.messages(1, 0)
	r.publish(b, topic, sent...)
	r.once(sent, in)
}

func invalidOptions(r *rig) {
	b := r.open()
	topic, h := r.name(), (&inbox{}).handle
	for name, opt := range map[string]broker.SubscribeOption{
		"concurrency 0":  broker.Concurrency(0),
		"concurrency -1": broker.Concurrency(-1),
		"no tries":       broker.Retry(broker.RetryPolicy{}),
		"pauses":         broker.Retry(broker.RetryPolicy{Attempts: 1, Min: time.Second}),
		"group":          broker.Group("a b"),
		"dead letter":    broker.DeadLetter("a b"),
		"dead to itself": broker.DeadLetter(topic),
	} {
		_, err := b.Subscribe(r.Context(), topic, h, opt)
		require.ErrorIs(r, err, broker.ErrInvalid, name)
	}
	_, err := b.Subscribe(r.Context(), topic, nil)
	require.ErrorIs(r, err, broker.ErrInvalid, "no handler")
}

func tooLarge(r *rig) {
	b, topic := r.open(), r.name()
	in := &inbox{}
	r.own(b, topic, in.handle)
	for _, large := range []*broker.Message{
		{Body: make([]byte, r.can.MaxBody+1)},
		{Header: map[string]string{"k": strings.Repeat("v", broker.MaxHeaderBytes)}},
	} {
		before := r.messages(1, 0)[0]
		require.ErrorIs(r, b.Publish(r.Context(), topic, before, large), broker.ErrTooLarge)
	}
	sent := r.messages(1, 0)
	r.publish(b, topic, sent...)
	r.once(sent, in)
}

func cancelledPublish(r *rig) {
	b, topic := r.open(), r.name()
	in := &inbox{}
	r.own(b, topic, in.handle)
	ctx, cancel := context.WithCancel(r.Context())
	cancel()
	require.ErrorIs(r, b.Publish(ctx, topic, &broker.Message{}), context.Canceled)
	sent := r.messages(1, 0)
	r.publish(b, topic, sent...)
	r.all(sent, in)
}

func cancelledSubscribe(r *rig) {
	b, topic := r.open(), r.name()
	never, in := &inbox{}, &inbox{}
	ctx, cancel := context.WithCancel(r.Context())
	cancel()
	var opts []broker.SubscribeOption
	if !r.can.FanOut {
		opts = append(opts, broker.Group(r.name()))
	}
	_, err := b.Subscribe(ctx, topic, never.handle, opts...)
	require.ErrorIs(r, err, context.Canceled)
	sent := r.messages(10, 0)
	r.own(b, topic, in.handle)
	r.publish(b, topic, sent...)
	r.all(sent, in)
	require.Empty(r, never.messages())
}

func notClaimedIsUnsupported(r *rig) {
	b := r.open()
	unsupported := func(option string, err error) {
		require.ErrorIs(r, err, broker.ErrUnsupported, option)
		require.ErrorContains(r, err, b.String(), option)
	}
	group := broker.Group("g")
	for _, option := range []struct {
		name    string
		claimed bool
		opts    []broker.SubscribeOption
	}{
		{"Group", r.can.Groups, []broker.SubscribeOption{group}},
		{"FanOut", r.can.FanOut, nil},
		{"Retry", r.can.Retry, []broker.SubscribeOption{quick(3)}},
		{"DeadLetter", r.can.DeadLetter, []broker.SubscribeOption{broker.DeadLetter("dead")}},
	} {
		if option.claimed {
			continue
		}
		if !r.can.FanOut && r.can.Groups && option.name != "FanOut" {
			option.opts = append(option.opts, group)
		}
		_, err := b.Subscribe(r.Context(), r.name(), (&inbox{}).handle, option.opts...)
		unsupported(option.name, err)
	}
	if !r.can.Ordered {
		unsupported("Key", b.Publish(r.Context(), r.name(), &broker.Message{Key: "k"}))
	}
}
