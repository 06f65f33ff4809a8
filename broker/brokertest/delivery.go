package brokertest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
)

var deliveryTests = []test{
	{"FieldsArriveEqual", nil, fieldsArriveEqual},
	{"LargestBody", nil, largestBody},
	{"IDsAreGiven", nil, idsAreGiven},
	{"PublishCopies", nil, publishCopies},
	{"HandlersHaveTheirOwnCopy", needs{"FanOut"}, handlersHaveTheirOwnCopy},
	{"SubscribeReturnsOnceBound", nil, subscribeReturnsOnceBound},
	{"SubscriptionOutlivesItsContext", nil, subscriptionOutlivesItsContext},
	{"PublishNothing", nil, publishNothing},
	{"TopicsDoNotMix", nil, topicsDoNotMix},
	{"ConcurrentPublishers", nil, concurrentPublishers},
	{"ConcurrencyIsHeld", nil, concurrencyIsHeld},
	{"BatchKeepsItsOrder", needs{"Ordered"}, batchKeepsItsOrder},
	{"KeysKeepTheirOrder", needs{"Ordered"}, keysKeepTheirOrder},
	{"Backpressure", needs{"Backpressure"}, backpressure},
	{"SlowSubscriberIsBounded", needs{"not Backpressure"}, slowSubscriberIsBounded},
	{"PublishLatency", nil, publishLatency},
}

func fieldsArriveEqual(r *rig) {
	b, topic := r.open(), r.name()
	headers := map[string]string{}
	for i := range broker.MaxHeaders {
		headers[fmt.Sprint("header-", i)] = strings.Repeat("v", i)
	}
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	msgs := []*broker.Message{
		{Body: []byte("plain")},
		{Body: nil},
		{Body: binary},
		{Body: []byte("Grüße, 世界 \U0001F600\x00")},
		{Header: map[string]string{"Content-Type": "application/json", "content-type": "other case", "Straße": "世界\U0001F600", "empty": ""}, Body: []byte("{}")},
		{Header: map[string]string{"lines": "a\r\nb", "spaces": "  a  ", "binary-like": "\x00\x01"}},
		{Header: headers},
		{ID: strings.Repeat("i", broker.MaxID), Body: []byte("long ID")},
		{ID: "ключ/with spaces?" + r.name(), Body: []byte("odd ID")},
	}
	if r.can.Ordered {
		msgs = append(msgs,
			&broker.Message{Key: "世界", Body: []byte("key")},
			&broker.Message{Key: strings.Repeat("k", broker.MaxKey), Body: []byte("long key")},
			&broker.Message{Key: "a b\x00/c", Body: []byte("odd key")})
	}
	for _, m := range msgs {
		if m.ID == "" {
			m.ID = broker.NewID()
		}
	}
	in := &inbox{}
	r.own(b, topic, in.handle)
	r.publish(b, topic, msgs...)
	r.once(msgs, in)

	got := map[string]*broker.Message{}
	for _, m := range in.messages() {
		got[m.ID] = m
	}
	for _, m := range msgs {
		requireEqual(r, m, got[m.ID])
	}
}

// requireEqual does not tell nil from empty.
func requireEqual(r *rig, want, got *broker.Message) {
	r.Helper()
	require.Equal(r, want.ID, got.ID)
	require.Equal(r, want.Key, got.Key)
	require.Len(r, got.Header, len(want.Header))
	for k, v := range want.Header {
		require.Equal(r, v, got.Header[k], k)
	}
	require.True(r, string(want.Body) == string(got.Body), "body of message %q differs: %d bytes sent, %d received",
		want.ID, len(want.Body), len(got.Body))
}

// largestBody also has one with as much of everything else as there may be: it does not count as body.
func largestBody(r *rig) {
	b, topic := r.open(), r.name()
	sent := r.messages(2, 1)
	for _, m := range sent {
		m.Body = r.largest()
	}
	all := sent[1]
	all.ID += strings.Repeat("i", broker.MaxID-len(all.ID))
	if r.can.Ordered {
		all.Key = strings.Repeat("k", broker.MaxKey)
	}
	all.Header = map[string]string{}
	for i := range broker.MaxHeaders {
		all.Header[fmt.Sprintf("header-%02d", i)] = strings.Repeat("v", broker.MaxHeaderBytes/broker.MaxHeaders-len("header-00"))
	}
	in := &inbox{}
	r.own(b, topic, in.handle)
	r.publish(b, topic, sent[0])
	r.publish(b, topic, sent[1])
	r.once(sent, in)
	for _, got := range in.messages() {
		want := sent[0]
		if got.ID == all.ID {
			want = all
		}
		requireEqual(r, want, got)
	}
}

func (r *rig) largest() []byte {
	body := make([]byte, r.can.MaxBody)
	for i := range body {
		body[i] = byte(i * 31)
	}
	return body
}

func idsAreGiven(r *rig) {
	b, topic := r.open(), r.name()
	in := &inbox{}
	r.own(b, topic, in.handle)
	m := &broker.Message{Body: []byte("no ID")}
	for range 50 {
		r.publish(b, topic, m, m)
	}
	r.eventually("100 different IDs", func() bool { return in.different() == 100 })
	require.NotContains(r, in.ids(), "")
	require.Equal(r, &broker.Message{Body: []byte("no ID")}, m, "the publisher's message stays as it is")
}

func publishCopies(r *rig) {
	b, topic := r.open(), r.name()
	in := &inbox{}
	r.own(b, topic, in.handle)
	m := &broker.Message{Header: map[string]string{"n": ""}, Body: []byte{0}}
	for i := range 100 {
		m.ID, m.Header["n"], m.Body[0] = broker.NewID(), fmt.Sprint(i), byte(i)
		r.publish(b, topic, m)
	}
	r.eventually("100 messages", func() bool { return in.different() == 100 })
	seen := map[string]bool{}
	for _, m := range in.messages() {
		require.Equal(r, fmt.Sprint(m.Body[0]), m.Header["n"])
		seen[m.Header["n"]] = true
	}
	require.Len(r, seen, 100)
}

func handlersHaveTheirOwnCopy(r *rig) {
	b, topic := r.open(), r.name()
	in := [2]*inbox{{}, {}}
	for i := range in {
		r.own(b, topic, func(ctx context.Context, m *broker.Message) error {
			c := m.Clone()
			m.Key, m.Header["h"], m.Body[0] = "changed", "changed", 'X'
			return in[i].handle(ctx, c)
		})
	}
	sent := r.messages(20, 1)
	for _, m := range sent {
		m.Header = map[string]string{"h": "as sent"}
	}
	r.publish(b, topic, sent...)
	for i := range in {
		r.once(sent, in[i])
		got := map[string]*broker.Message{}
		for _, m := range in[i].messages() {
			got[m.ID] = m
		}
		for _, m := range sent {
			requireEqual(r, m, got[m.ID])
		}
	}
}

func subscribeReturnsOnceBound(r *rig) {
	publisher, subscriber := r.open(), r.open()
	for range 5 {
		topic, in, msgs := r.name(), &inbox{}, r.messages(1, 0)
		r.own(subscriber, topic, in.handle)
		r.publish(publisher, topic, msgs...)
		r.once(msgs, in)
	}
}

func subscriptionOutlivesItsContext(r *rig) {
	b, topic, in := r.open(), r.name(), &inbox{}
	r.own(b, topic, in.handle) // the context of which has ended now
	var sent []*broker.Message
	for range 20 {
		m := r.messages(1, 0)[0]
		r.publish(b, topic, m)
		sent = append(sent, m)
		r.all(sent, in)
	}
}

func publishNothing(r *rig) {
	r.publish(r.open(), r.name())
}

func topicsDoNotMix(r *rig) {
	b := r.open()
	base := r.name()
	// Not base_a: Kafka refuses topics that differ only in . and _
	topics := []string{base, base + ".a", base + "-a", base + "_b", strings.ToUpper(base)}
	in, sent := map[string]*inbox{}, map[string][]*broker.Message{}
	for _, topic := range topics {
		in[topic], sent[topic] = &inbox{}, r.messages(20, 0)
		r.own(b, topic, in[topic].handle)
	}
	for _, topic := range topics {
		r.publish(b, topic, sent[topic]...)
	}
	for _, topic := range topics {
		r.once(sent[topic], in[topic])
	}
}

func concurrentPublishers(r *rig) {
	const publishers, each = 20, 500
	instances, topic := []broker.Broker{r.open(), r.open()}, r.name()
	in := &inbox{}
	r.own(r.open(), topic, in.handle, broker.Concurrency(4))
	sent := r.messages(publishers*each, 100)
	var all sync.WaitGroup
	for p := range publishers {
		all.Go(func() {
			mine := sent[p*each : (p+1)*each]
			for len(mine) > 0 { // one, two, three, … at a time
				n := min(len(mine), 1+len(mine)%7)
				if !assert.NoError(r, instances[p%2].Publish(r.Context(), topic, mine[:n]...)) {
					return
				}
				mine = mine[n:]
			}
		})
	}
	all.Wait()
	r.once(sent, in)
}

// concurrencyIsHeld holds the handlers until as many run as may, and a moment longer.
func concurrencyIsHeld(r *rig) {
	const handlers = 4
	b, topic := r.open(), r.name()
	started, free := make(chan struct{}, 100), make(chan struct{})
	release := sync.OnceFunc(func() { close(free) })
	defer release()
	in := &inbox{}
	r.own(b, topic, func(ctx context.Context, m *broker.Message) error {
		started <- struct{}{}
		<-free
		return in.handle(ctx, m)
	}, broker.Concurrency(handlers))
	sent := r.messages(50, 0)
	r.publish(b, topic, sent...)
	for range handlers {
		receive(r, "4 handlers at once", started)
	}
	select {
	case <-started:
		require.FailNow(r, "too many", "more than %d handlers run at once", handlers)
	case <-time.After(50 * time.Millisecond):
	}
	release()
	r.once(sent, in)
}

func batchKeepsItsOrder(r *rig) {
	b, topic := r.open(), r.name()
	in := &inbox{}
	r.own(b, topic, in.handle, broker.Concurrency(4))
	var sent []*broker.Message
	for range 5 {
		sent = append(sent, r.messages(100, 1)...)
	}
	for i := range sent {
		sent[i].Body = fmt.Append(nil, i)
	}
	for i := 0; i < len(sent); i += 100 {
		r.publish(b, topic, sent[i:i+100]...)
	}
	r.once(sent, in)
	requireOrder(r, sent, in)
}

func keysKeepTheirOrder(r *rig) {
	b, topic := r.open(), r.name()
	in, busy := &inbox{}, &oneOfAKey{}
	r.own(b, topic, busy.watch(in.handle), broker.Concurrency(8))
	sent := r.messages(1000, 20)
	for _, m := range sent {
		r.publish(b, topic, m)
	}
	r.once(sent, in)
	requireOrder(r, sent, in)
	require.Zero(r, busy.broken.Load(), "two messages of one key were handled at the same time")
}

// requireOrder checks that each key's messages arrived as they were sent.
func requireOrder(r *rig, sent []*broker.Message, in *inbox) {
	r.Helper()
	want := map[string][]string{}
	for _, m := range sent {
		want[m.Key] = append(want[m.Key], string(m.Body))
	}
	for key := range want {
		require.Equal(r, want[key], in.order(key), "order of %s", key)
	}
}

// requireFirsts checks that each key's messages arrived first as they were sent. That some arrived again is no offence.
func requireFirsts(r *rig, sent []*broker.Message, in *inbox) {
	r.Helper()
	if !r.can.Ordered {
		return
	}
	want, got, seen := map[string][]string{}, map[string][]string{}, map[string]bool{}
	for _, m := range sent {
		want[m.Key] = append(want[m.Key], string(m.Body))
	}
	for _, m := range in.messages() {
		if !seen[m.ID] {
			seen[m.ID] = true
			got[m.Key] = append(got[m.Key], string(m.Body))
		}
	}
	for key := range want {
		require.Equal(r, want[key], got[key], "order of %s", key)
	}
}

// duplicates are how many messages arrived again.
func duplicates(in *inbox) int {
	return len(in.messages()) - in.different()
}

// oneOfAKey notices when handlers run for the same key at the same time.
type oneOfAKey struct {
	running sync.Map
	broken  atomic.Int32
}

func (o *oneOfAKey) watch(h broker.Handler) broker.Handler {
	return func(ctx context.Context, m *broker.Message) error {
		key := m.Key
		if _, busy := o.running.LoadOrStore(key, true); busy && key != "" {
			o.broken.Add(1)
		}
		defer o.running.Delete(key)
		return h(ctx, m)
	}
}

// backpressure publishes to a subscriber that stands still, until a Publish has to wait. What was taken must arrive.
func backpressure(r *rig) {
	const limit = 256 << 20 // bytes; no broker that claims to be bounded takes that many
	publisher, topic := r.open(), r.name()
	in, free := &inbox{}, make(chan struct{})
	release := sync.OnceFunc(func() { close(free) })
	defer release()
	r.own(r.open(), topic, func(ctx context.Context, m *broker.Message) error {
		select {
		case <-free:
			m.Body = nil
			return in.handle(ctx, m)
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	body := make([]byte, min(r.can.MaxBody, 64<<10))
	var taken []*broker.Message
	for len(taken)*len(body) < limit {
		m := &broker.Message{ID: broker.NewID(), Body: body}
		if err := r.publishFor(time.Second, publisher, topic, m); err != nil {
			require.ErrorIs(r, err, context.DeadlineExceeded)
			release()
			r.all(taken, in)
			return
		}
		taken = append(taken, m)
	}
	require.FailNow(r, "no backpressure", "%d bytes were published to a subscriber that stands still", limit)
}

// slowSubscriberIsBounded publishes far more than a subscriber that stands still may keep. All of it is handled later.
func slowSubscriberIsBounded(r *rig) {
	publisher, topic, group := r.open(), r.name(), r.name()
	in, started, free := &inbox{}, make(chan struct{}), make(chan struct{})
	begin, release := sync.OnceFunc(func() { close(started) }), sync.OnceFunc(func() { close(free) })
	defer release()
	var opts []broker.SubscribeOption
	if r.can.Groups {
		opts = append(opts, broker.Group(group))
	}
	r.subscribe(r.open(), topic, func(ctx context.Context, m *broker.Message) error {
		begin()
		select {
		case <-free:
			m.Body = nil
			return in.handle(ctx, m)
		case <-ctx.Done():
			return ctx.Err()
		}
	}, opts...)
	before := heap()
	body := make([]byte, min(r.can.MaxBody, 64<<10))
	var sent []*broker.Message
	for len(sent)*len(body) < 3*r.harness.Buffered {
		batch := r.messages(16, 4)
		for _, m := range batch {
			m.Body = body
		}
		r.publish(publisher, topic, batch...)
		sent = append(sent, batch...)
	}
	receive(r, "the handler", started)
	grown := heap() - before
	r.suite.Measure(r.T, "memory of a subscriber that stands still", fmt.Sprintf("%.1f of %.1f MiB", float64(grown)/(1<<20), float64(len(sent)*len(body))/(1<<20)))
	require.Less(r, int(grown), r.harness.Buffered, "bytes of memory in use")
	release()
	r.all(sent, in)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// publishLatency measures, and fails only if a message is lost: how fast this machine is says nothing about the plugin.
func publishLatency(r *rig) {
	b, topic, in := r.open(), r.name(), &inbox{}
	r.own(r.open(), topic, in.handle)
	sent := r.messages(320, 0)
	var took []time.Duration
	for _, m := range sent {
		m.Body = make([]byte, 100)
		start := time.Now()
		r.publish(b, topic, m)
		took = append(took, time.Since(start))
	}
	r.all(sent, in)
	took = took[20:] // connections are made, topics are known
	slices.Sort(took)
	r.suite.Measure(r.T, "single publish", fmt.Sprintf("p50 %v, p99 %v", took[len(took)/2], took[len(took)*99/100]))
}
