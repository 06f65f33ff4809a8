package brokertest_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/broker/brokertest"
	"github.com/plugmicro/micro/broker/memory"
	"github.com/plugmicro/micro/internal/suite"
	"github.com/plugmicro/micro/plugin"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // handlers fail all the time
	os.Exit(m.Run())
}

func open(t testing.TB) broker.Broker {
	b, err := memory.New(new(plugin.Env), memory.Config{Buffer: 100, BufferSize: 4 << 20, Drain: 100 * time.Millisecond})
	require.NoError(t, err)
	return b
}

// A mutant is a broker that breaks one promise. The suite must notice in the tests that are named.
var mutants = map[string]struct {
	noticed []string
	mutate  func(*mutant)
}{
	"loses one in a hundred": {[]string{"ConcurrentPublishers", "MembersComeAndGo", "PublishLatency"}, func(m *mutant) {
		var n atomic.Int32
		m.publish = func(ctx context.Context, topic string, msgs ...*broker.Message) error {
			msgs = slices.DeleteFunc(slices.Clone(msgs), func(*broker.Message) bool { return n.Add(1)%100 == 0 })
			return m.Broker.Publish(ctx, topic, msgs...)
		}
	}},
	"publishes backwards": {[]string{"BatchKeepsItsOrder"}, func(m *mutant) {
		m.publish = func(ctx context.Context, topic string, msgs ...*broker.Message) error {
			msgs = slices.Clone(msgs)
			slices.Reverse(msgs)
			return m.Broker.Publish(ctx, topic, msgs...)
		}
	}},
	"handles some later": {[]string{"MembersComeAndGo", "KeysKeepTheirOrder"}, func(m *mutant) {
		var n atomic.Int32
		m.handle = func(h broker.Handler) broker.Handler {
			return func(ctx context.Context, msg *broker.Message) error {
				if n.Add(1)%97 > 0 {
					return h(ctx, msg)
				}
				time.AfterFunc(200*time.Millisecond, func() { h(ctx, msg) })
				return nil
			}
		}
	}},
	"counts headers as body": {[]string{"LargestBody", "DeadLetterOfTheLargest"}, func(m *mutant) {
		m.publish = func(ctx context.Context, topic string, msgs ...*broker.Message) error {
			for _, msg := range msgs {
				if n := len(msg.Body) + len(fmt.Sprint(msg.Header)); n > broker.CapabilitiesOf(m.Broker).MaxBody+1000 {
					return fmt.Errorf("%d bytes: %w", n, broker.ErrTooLarge)
				}
			}
			return m.Broker.Publish(ctx, topic, msgs...)
		}
	}},
	"tries again what is permanent": {[]string{"PermanentIsNotTriedAgain"}, func(m *mutant) {
		m.handle = func(h broker.Handler) broker.Handler {
			return func(ctx context.Context, msg *broker.Message) error {
				if err := h(ctx, msg); err != nil {
					return errors.New(err.Error())
				}
				return nil
			}
		}
	}},
	"has no keys": {[]string{"FieldsArriveEqual", "KeysKeepTheirOrder", "KeysKeepTheirOrderInAGroup", "OrderIsKeptOverRetries"}, func(m *mutant) {
		m.each(func(msg *broker.Message) { msg.Key = "" })
	}},
	"renames messages": {[]string{"FieldsArriveEqual"}, func(m *mutant) {
		m.each(func(msg *broker.Message) { msg.ID = broker.NewID() })
	}},
	"cuts bodies": {[]string{"LargestBody"}, func(m *mutant) {
		m.each(func(msg *broker.Message) { msg.Body = msg.Body[:min(len(msg.Body), 1000)] })
	}},
	"renames at each try": {[]string{"ErrorIsTriedAgain", "PanicIsTriedAgain"}, func(m *mutant) {
		m.handle = func(h broker.Handler) broker.Handler {
			return func(ctx context.Context, msg *broker.Message) error {
				msg.ID = broker.NewID()
				return h(ctx, msg)
			}
		}
	}},
	"shares messages": {[]string{"HandlersHaveTheirOwnCopy", "ErrorIsTriedAgain"}, func(m *mutant) {
		m.handle = func(h broker.Handler) broker.Handler {
			return func(ctx context.Context, msg *broker.Message) error {
				same, _ := seen.LoadOrStore(msg.ID, msg)
				return h(ctx, same.(*broker.Message))
			}
		}
	}},
	"publishes later": {[]string{"PublishCopies", "CloseFlushes"}, func(m *mutant) {
		m.publish = func(ctx context.Context, topic string, msgs ...*broker.Message) error {
			time.AfterFunc(100*time.Millisecond, func() { m.Broker.Publish(context.WithoutCancel(ctx), topic, msgs...) })
			return nil
		}
	}},
	"names the publisher's": {[]string{"IDsAreGiven"}, func(m *mutant) {
		m.publish = func(ctx context.Context, topic string, msgs ...*broker.Message) error {
			for _, msg := range msgs {
				msg.ID = broker.NewID()
			}
			return m.Broker.Publish(ctx, topic, msgs...)
		}
	}},
	"ignores groups": {[]string{"MembersShare", "GroupsDoNotShare", "GroupsBesideSubscribers"}, func(m *mutant) {
		m.opts = []broker.SubscribeOption{broker.Group("")}
	}},
	"has one group only": {[]string{"EverySubscriberGetsAll", "GroupsDoNotShare"}, func(m *mutant) {
		m.opts = []broker.SubscribeOption{broker.Group("all")}
	}},
	"handles one at a time": {[]string{"ConcurrencyIsHeld"}, func(m *mutant) {
		m.opts = []broker.SubscribeOption{broker.Concurrency(1)}
	}},
	"handles too many": {[]string{"ConcurrencyIsHeld"}, func(m *mutant) {
		m.opts = []broker.SubscribeOption{broker.Concurrency(20)}
	}},
	"never tries again": {[]string{"ErrorIsTriedAgain", "TriesAreCounted", "DeadLetter"}, func(m *mutant) {
		m.opts = []broker.SubscribeOption{broker.Retry(broker.RetryPolicy{Attempts: 1})}
	}},
	"never gives up": {[]string{"TriesAreCounted", "DeadLetter"}, func(m *mutant) {
		m.opts = []broker.SubscribeOption{broker.Retry(broker.RetryPolicy{Attempts: 1 << 30, Max: time.Millisecond})}
	}},
	"acks failures": {[]string{"ErrorIsTriedAgain", "MemberThatFailsIsRelieved", "CloseHandsBack", "DeadLetterIsPublishedAgain"}, func(m *mutant) {
		m.handle = func(h broker.Handler) broker.Handler {
			return func(ctx context.Context, msg *broker.Message) error {
				h(ctx, msg)
				return nil
			}
		}
	}},
	"gives no reason": {[]string{"DeadLetter", "DeadLetterOfAPanic"}, func(m *mutant) {
		m.handle = func(h broker.Handler) broker.Handler {
			return func(ctx context.Context, msg *broker.Message) error {
				delete(msg.Header, broker.HeaderDeadReason)
				return h(ctx, msg)
			}
		}
	}},
	"mixes topics": {[]string{"TopicsDoNotMix"}, func(m *mutant) { m.topic = strings.ToLower }},
	"takes any topic": {[]string{"InvalidTopics"}, func(m *mutant) {
		m.topic = func(topic string) string {
			if strings.HasPrefix(topic, "test-") {
				return topic
			}
			return "other"
		}
	}},
	"drops what is too much": {[]string{"Backpressure"}, func(m *mutant) {
		m.publish = func(ctx context.Context, topic string, msgs ...*broker.Message) error {
			ctx, cancel := context.WithTimeout(ctx, time.Microsecond)
			defer cancel()
			m.Broker.Publish(ctx, topic, msgs...)
			return nil
		}
	}},
	"publishes half a batch": {[]string{"InvalidMessages", "TooLarge"}, func(m *mutant) {
		m.publish = func(ctx context.Context, topic string, msgs ...*broker.Message) error {
			for _, msg := range msgs {
				if err := m.Broker.Publish(ctx, topic, msg); err != nil {
					return err
				}
			}
			return nil
		}
	}},
	"heeds no context": {[]string{"CancelledPublish", "CancelledSubscribe"}, func(m *mutant) {
		m.context = context.WithoutCancel
	}},
	"binds late": {[]string{"SubscribeReturnsOnceBound"}, func(m *mutant) { m.bindLate = true }},
	"lives with its context": {[]string{"SubscriptionOutlivesItsContext"}, func(m *mutant) {
		m.bound = func(ctx context.Context, s broker.Subscription) { context.AfterFunc(ctx, func() { s.Close() }) }
	}},
	"does not wait": {[]string{"SubscriptionCloseWaits", "CloseWaits"}, func(m *mutant) {
		m.stop = func(stop func() error) error {
			go stop()
			return nil
		}
	}},
	"waits for ever": {[]string{"CloseWithAStuckHandler", "SubscriptionCloseWithAStuckHandler"}, func(m *mutant) {
		var mu sync.Mutex
		idle := sync.NewCond(&mu)
		running := 0
		count := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			running += n
			idle.Broadcast()
		}
		m.handle = func(h broker.Handler) broker.Handler {
			return func(ctx context.Context, msg *broker.Message) error {
				count(1)
				defer count(-1)
				return h(ctx, msg)
			}
		}
		m.stop = func(stop func() error) error {
			mu.Lock()
			for running > 0 {
				idle.Wait()
			}
			mu.Unlock()
			return stop()
		}
	}},
	"stays open": {[]string{"AfterClose"}, func(m *mutant) {
		m.publish = func(ctx context.Context, topic string, msgs ...*broker.Message) error {
			m.Broker.Publish(ctx, topic, msgs...)
			return nil
		}
	}},
	"leaks": {[]string{"PublishNothing"}, func(*mutant) { go func() { select {} }() }},
	"denies its groups": {[]string{"NotClaimedIsUnsupported"}, func(m *mutant) {
		m.can = broker.CapabilitiesOf(m.Broker)
		m.can.Groups = false
	}},
	"denies its order": {[]string{"NotClaimedIsUnsupported"}, func(m *mutant) {
		m.can = broker.CapabilitiesOf(m.Broker)
		m.can.Ordered = false
	}},
	"boasts of being durable": {[]string{"GroupIsKept"}, func(m *mutant) {
		m.can = broker.CapabilitiesOf(m.Broker)
		m.can.Durable = true
	}},
}

var seen sync.Map // the messages of "shares messages"

const environment = "BROKERTEST_MUTANT"

// TestSuiteNotices runs the suite on each mutant, in a process of its own as it is to fail.
func TestSuiteNotices(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			only := "^TestMutant$/^(" + strings.Join(m.noticed, "|") + ")$"
			run := exec.CommandContext(t.Context(), self, "-test.run="+only, "-test.v", "-test.timeout=1m")
			run.Env = append(os.Environ(), environment+"="+name)
			out, err := run.CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "%s", out)
			for _, test := range m.noticed {
				require.Contains(t, string(out), "--- FAIL: TestMutant/"+test+" ")
			}
		})
	}
}

// TestMutant is what TestSuiteNotices runs.
func TestMutant(t *testing.T) {
	m, chosen := mutants[os.Getenv(environment)]
	if !chosen {
		return
	}
	t.Setenv(suite.Env, "") // it is no plugin
	brokertest.Run(t, brokertest.Harness{Timeout: time.Second, Open: func(t testing.TB) broker.Broker {
		b := &mutant{Broker: open(t)}
		m.mutate(b)
		return b
	}})
}

// mutant is a broker whose parts can be replaced.
type mutant struct {
	broker.Broker
	can      broker.Capabilities
	publish  func(ctx context.Context, topic string, msgs ...*broker.Message) error
	handle   func(broker.Handler) broker.Handler
	topic    func(string) string
	context  func(context.Context) context.Context
	opts     []broker.SubscribeOption
	bindLate bool
	bound    func(context.Context, broker.Subscription)
	stop     func(func() error) error
}

// each changes every message that is published.
func (m *mutant) each(change func(*broker.Message)) {
	m.publish = func(ctx context.Context, topic string, msgs ...*broker.Message) error {
		var changed []*broker.Message
		for _, msg := range msgs {
			msg = msg.Clone()
			change(msg)
			changed = append(changed, msg)
		}
		return m.Broker.Publish(ctx, topic, changed...)
	}
}

func (m *mutant) Capabilities() broker.Capabilities {
	if m.can != (broker.Capabilities{}) {
		return m.can
	}
	return broker.CapabilitiesOf(m.Broker)
}

func (m *mutant) Publish(ctx context.Context, topic string, msgs ...*broker.Message) error {
	if m.topic != nil {
		topic = m.topic(topic)
	}
	if m.context != nil {
		ctx = m.context(ctx)
	}
	if m.publish != nil {
		return m.publish(ctx, topic, msgs...)
	}
	return m.Broker.Publish(ctx, topic, msgs...)
}

func (m *mutant) Subscribe(ctx context.Context, topic string, h broker.Handler, opts ...broker.SubscribeOption) (broker.Subscription, error) {
	real := topic
	if m.topic != nil {
		real = m.topic(topic)
	}
	if m.handle != nil && h != nil {
		h = m.handle(h)
	}
	bind := ctx
	if m.context != nil {
		bind = m.context(ctx)
	}
	opts = append(opts, m.opts...)
	if m.bindLate {
		go func() {
			<-time.After(50 * time.Millisecond)
			m.Broker.Subscribe(context.WithoutCancel(ctx), real, h, opts...)
		}()
		return &mutantSub{topic: topic}, nil
	}
	s, err := m.Broker.Subscribe(bind, real, h, opts...)
	if err != nil {
		return nil, err
	}
	if m.bound != nil {
		m.bound(ctx, s)
	}
	return &mutantSub{s, m, topic}, nil
}

func (m *mutant) Close() error {
	if m.stop != nil {
		return m.stop(m.Broker.Close)
	}
	return m.Broker.Close()
}

type mutantSub struct {
	broker.Subscription
	m     *mutant
	topic string
}

func (s *mutantSub) Topic() string { return s.topic }

func (s *mutantSub) Close() error {
	if s.m != nil && s.m.stop != nil {
		return s.m.stop(s.Subscription.Close)
	}
	return s.Subscription.Close()
}
