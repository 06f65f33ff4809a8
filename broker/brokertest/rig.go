package brokertest

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/suite"
)

// quick is a retry policy that does not hold a test up.
func quick(attempts int) broker.SubscribeOption {
	return broker.Retry(broker.RetryPolicy{Attempts: attempts, Min: time.Millisecond, Max: 10 * time.Millisecond})
}

// forever is more tries than a test takes.
const forever = 1 << 30

// rig is what a test works with.
type rig struct {
	*testing.T
	harness Harness
	can     broker.Capabilities
	suite   *suite.Suite
}

// open returns an instance that must close without an error in the end.
func (r *rig) open() broker.Broker {
	b := r.harness.Open(r)
	r.Cleanup(func() { assert.NoError(r, r.inTime("Close", b.Close)) })
	return b
}

// inTime returns what f returns, and fails if that takes longer than the harness allows.
func (r *rig) inTime(what string, f func() error) error {
	r.Helper()
	result := make(chan error, 1)
	go func() { result <- f() }()
	return receive(r, what, result)
}

// receive waits for a value.
func receive[T any](r *rig, what string, c <-chan T) T {
	r.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(r.harness.Timeout):
		require.FailNow(r, "timeout", "waiting for %s", what)
		panic("unreachable")
	}
}

// eventually waits for a condition.
func (r *rig) eventually(what string, cond func() bool) {
	r.Helper()
	require.Eventually(r, cond, r.harness.Timeout, 2*time.Millisecond, what)
}

// name returns a new name for a topic or a group.
func (r *rig) name() string { return "test-" + strings.ToLower(rand.Text()[:12]) }

// own subscribes one that gets every message, by whatever the broker can do.
func (r *rig) own(b broker.Broker, topic string, h broker.Handler, opts ...broker.SubscribeOption) broker.Subscription {
	r.Helper()
	if !r.can.FanOut {
		opts = append(opts, broker.Group(r.name()))
	}
	return r.subscribe(b, topic, h, opts...)
}

func (r *rig) subscribe(b broker.Broker, topic string, h broker.Handler, opts ...broker.SubscribeOption) broker.Subscription {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), r.harness.Timeout)
	defer cancel() // the subscription lives on
	s, err := b.Subscribe(ctx, topic, h, opts...)
	require.NoError(r, err)
	require.Equal(r, topic, s.Topic())
	return s
}

func (r *rig) publish(b broker.Broker, topic string, msgs ...*broker.Message) {
	r.Helper()
	require.NoError(r, r.publishFor(r.harness.Timeout, b, topic, msgs...))
}

// publishFor gives up after a while.
func (r *rig) publishFor(limit time.Duration, b broker.Broker, topic string, msgs ...*broker.Message) error {
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	return b.Publish(ctx, topic, msgs...)
}

// messages returns n with ID and, if the broker is ordered, keys that repeat after so many; none if keys is 0.
func (r *rig) messages(n, keys int) []*broker.Message {
	msgs := make([]*broker.Message, n)
	for i := range msgs {
		msgs[i] = &broker.Message{ID: broker.NewID(), Body: fmt.Append(nil, i)}
		if keys > 0 && r.can.Ordered {
			msgs[i].Key = fmt.Sprint("key-", i%keys)
		}
	}
	return msgs
}

// inbox keeps what arrives.
type inbox struct {
	mu    sync.Mutex
	got   []*broker.Message
	count map[string]int // how often, by ID
}

func (in *inbox) handle(_ context.Context, m *broker.Message) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.count == nil {
		in.count = map[string]int{}
	}
	in.got = append(in.got, m)
	in.count[m.ID]++
	return nil
}

func (in *inbox) messages() []*broker.Message {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]*broker.Message(nil), in.got...)
}

// ids counts how often each message arrived.
func (in *inbox) ids() map[string]int {
	in.mu.Lock()
	defer in.mu.Unlock()
	ids := map[string]int{}
	maps.Copy(ids, in.count)
	return ids
}

// different is how many different messages arrived.
func (in *inbox) different() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.count)
}

// without returns which of msgs have not arrived.
func (in *inbox) without(msgs []*broker.Message) (missing []*broker.Message) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, m := range msgs {
		if in.count[m.ID] == 0 {
			missing = append(missing, m)
		}
	}
	return missing
}

// order returns the bodies of a key, as they arrived.
func (in *inbox) order(key string) []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	var bodies []string
	for _, m := range in.got {
		if m.Key == key {
			bodies = append(bodies, string(m.Body))
		}
	}
	return bodies
}

// all waits until each of msgs has arrived in one of the inboxes, as long as some do within the limit.
func (r *rig) all(msgs []*broker.Message, in ...*inbox) {
	r.Helper()
	missing, last := msgs, time.Now()
	for {
		before := len(missing)
		for _, i := range in {
			missing = i.without(missing)
		}
		switch {
		case len(missing) == 0:
			return
		case len(missing) < before:
			last = time.Now()
		case time.Since(last) > r.harness.Timeout:
			require.FailNow(r, "messages lost", "%d of %d did not arrive", len(missing), len(msgs))
		}
		<-time.After(2 * time.Millisecond)
	}
}

// once waits for all of msgs and checks that no inbox got one twice, and none got any other.
func (r *rig) once(msgs []*broker.Message, in ...*inbox) {
	r.Helper()
	r.all(msgs, in...)
	want, got := map[string]int{}, map[string]int{}
	for _, m := range msgs {
		want[m.ID] = 1
	}
	for _, i := range in {
		for id, n := range i.ids() {
			got[id] += n
		}
	}
	require.Equal(r, want, got)
}
