//go:build unix

package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/plugmicro/micro/broker"
)

// fake is a cluster of three that shows faults on demand, and the settings of a broker on it.
func fake(t *testing.T) (*kfake.Cluster, Config) {
	c, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.BrokerConfigs(map[string]string{
		"group.min.session.timeout.ms": "500", "group.initial.rebalance.delay.ms": "0",
	}))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	config := testConfig("")
	config.Address, config.Timeout, config.Session = c.ListenAddrs(), 4*time.Second, 2*time.Second
	return c, config
}

// ledger notes what arrives, each message at its first time.
type ledger struct {
	mu    sync.Mutex
	seen  map[string]bool
	order map[string][]string
	more  chan struct{}
}

func newLedger() *ledger {
	return &ledger{seen: map[string]bool{}, order: map[string][]string{}, more: make(chan struct{}, 1)}
}

func (l *ledger) handle(_ context.Context, m *broker.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.seen[m.ID] {
		l.seen[m.ID] = true
		l.order[m.Key] = append(l.order[m.Key], string(m.Body))
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
	return nil
}

// wait waits until n have arrived.
func (l *ledger) wait(t *testing.T, n int) {
	t.Helper()
	for limit := time.After(30 * time.Second); ; {
		l.mu.Lock()
		have := len(l.seen)
		l.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-l.more:
		case <-limit:
			require.FailNow(t, "messages lost", "%d of %d arrived", have, n)
		}
	}
}

// A fault is put into a cluster until the test ends, and says when it has been met.
type fault func(*testing.T, *kfake.Cluster) (met <-chan struct{})

func refuse(key kmsg.Key, err *kerr.Error) fault {
	return func(t *testing.T, c *kfake.Cluster) <-chan struct{} {
		h := c.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: err, Count: 3})
		met := make(chan struct{})
		go func() {
			if h.Wait(t.Context(), 1) == nil {
				close(met)
			}
		}()
		return met
	}
}

// hangUp ends the connection instead of an answer.
func hangUp(key kmsg.Key) fault { return instead(key, errors.New("hung up")) }

// ignore never answers.
func ignore(key kmsg.Key) fault { return instead(key, nil) }

func instead(key kmsg.Key, err error) fault {
	return func(_ *testing.T, c *kfake.Cluster) <-chan struct{} {
		met := make(chan struct{})
		c.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
			close(met)
			return nil, err, true
		})
		return met
	}
}

func at(once func(*kfake.Cluster)) fault {
	return func(_ *testing.T, c *kfake.Cluster) <-chan struct{} {
		once(c)
		met := make(chan struct{})
		close(met)
		return met
	}
}

func both(one, other fault) fault {
	return func(t *testing.T, c *kfake.Cluster) <-chan struct{} {
		other(t, c)
		return one(t, c)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	faults := map[string]fault{
		"leaders moved": at(func(c *kfake.Cluster) {
			for p := range int32(4) {
				_ = c.MoveTopicPartition("t", p, (c.LeaderFor("t", p)+1)%3)
			}
		}),
		"coordinators moved":           at(func(c *kfake.Cluster) { c.RehashCoordinators() }),
		"produce: not the leader":      refuse(kmsg.Produce, kerr.NotLeaderForPartition),
		"produce: written, but late":   refuse(kmsg.Produce, kerr.RequestTimedOut),
		"produce: too few replicas":    refuse(kmsg.Produce, kerr.NotEnoughReplicasAfterAppend),
		"produce: hung up":             hangUp(kmsg.Produce),
		"produce: no answer":           ignore(kmsg.Produce),
		"fetch: not the leader":        refuse(kmsg.Fetch, kerr.NotLeaderForPartition),
		"fetch: corrupt":               refuse(kmsg.Fetch, kerr.CorruptMessage),
		"fetch: hung up":               hangUp(kmsg.Fetch),
		"fetch: no answer":             ignore(kmsg.Fetch),
		"commit: rebalance":            refuse(kmsg.OffsetCommit, kerr.RebalanceInProgress),
		"commit: unknown member":       refuse(kmsg.OffsetCommit, kerr.UnknownMemberID),
		"commit: not the coordinator":  refuse(kmsg.OffsetCommit, kerr.NotCoordinator),
		"commit: hung up":              hangUp(kmsg.OffsetCommit),
		"commit: no answer":            ignore(kmsg.OffsetCommit),
		"heartbeat: rebalance":         refuse(kmsg.Heartbeat, kerr.RebalanceInProgress),
		"heartbeat: unknown member":    refuse(kmsg.Heartbeat, kerr.UnknownMemberID),
		"heartbeat: illegal":           refuse(kmsg.Heartbeat, kerr.IllegalGeneration),
		"heartbeat: hung up":           hangUp(kmsg.Heartbeat),
		"heartbeat: no answer":         ignore(kmsg.Heartbeat),
		"metadata: hung up":            hangUp(kmsg.Metadata),
		"rebalance, join: loading":     both(refuse(kmsg.Heartbeat, kerr.RebalanceInProgress), refuse(kmsg.JoinGroup, kerr.CoordinatorLoadInProgress)),
		"rebalance, sync: rebalance":   both(refuse(kmsg.Heartbeat, kerr.RebalanceInProgress), refuse(kmsg.SyncGroup, kerr.RebalanceInProgress)),
		"rebalance, offsets: hung up":  both(refuse(kmsg.Heartbeat, kerr.RebalanceInProgress), hangUp(kmsg.OffsetFetch)),
		"rebalance, join: no answer":   both(refuse(kmsg.Heartbeat, kerr.RebalanceInProgress), ignore(kmsg.JoinGroup)),
		"rebalance, commit: hung up":   both(hangUp(kmsg.OffsetCommit), refuse(kmsg.Heartbeat, kerr.RebalanceInProgress)),
		"rebalance, coordinator moved": both(refuse(kmsg.Heartbeat, kerr.RebalanceInProgress), at(func(c *kfake.Cluster) { c.RehashCoordinators() })),
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const part, keys = 100, 10
			c, config := fake(t)
			publisher, subscriber := open(t, config), open(t, config)
			defer publisher.Close()
			defer subscriber.Close()
			grouped, followed := newLedger(), newLedger()
			_, err := subscriber.Subscribe(t.Context(), "t", grouped.handle, broker.Group("g"), broker.Concurrency(4))
			require.NoError(t, err)
			_, err = subscriber.Subscribe(t.Context(), "t", followed.handle)
			require.NoError(t, err)
			want, n := map[string][]string{}, 0
			publish := func() {
				m := &broker.Message{ID: broker.NewID(), Key: fmt.Sprint(n % keys), Body: fmt.Append(nil, n)}
				require.NoError(t, publisher.Publish(t.Context(), "t", m))
				want[m.Key] = append(want[m.Key], string(m.Body))
				n++
			}
			for range part {
				publish()
			}
			grouped.wait(t, part)
			met, limit := fault(t, c), time.After(20*time.Second)
			for hit := false; !hit; {
				publish()
				select {
				case <-met:
					hit = true
				case <-limit:
					require.FailNow(t, "the fault was not met")
				case <-time.After(time.Millisecond):
				}
			}
			for range part {
				publish()
			}
			for _, l := range []*ledger{grouped, followed} {
				l.wait(t, n)
				require.Equal(t, want, l.order)
			}
			require.NoError(t, subscriber.Close())
			again := newLedger()
			late := open(t, config)
			defer late.Close()
			_, err = late.Subscribe(t.Context(), "t", again.handle, broker.Group("g"))
			require.NoError(t, err)
			require.NoError(t, publisher.Publish(t.Context(), "t", &broker.Message{}))
			again.wait(t, 1)
			require.Equal(t, 1, len(again.seen), "everything was committed")
		})
	}
}

func TestPartialFailureIsAnError(t *testing.T) {
	c, config := fake(t)
	b := open(t, config)
	defer b.Close()
	got := subscribe(t, b, "t")
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Partitions: []int32{2}, Err: kerr.PolicyViolation, Count: -1})
	var msgs []*broker.Message
	arrive := 0
	for i := range 100 {
		m := &broker.Message{Key: fmt.Sprint(i)}
		msgs = append(msgs, m)
		if b.producer.partition([]byte(m.Key), 0, 4) != 2 {
			arrive++
		}
	}
	require.Less(t, arrive, 100)
	err := b.Publish(t.Context(), "t", msgs...)
	require.ErrorIs(t, err, kafka.PolicyViolation)
	for range arrive {
		receive(t, got)
	}
}

// TestGapsAreCrossed reads batches whose last records, or all, were compacted away.
func TestGapsAreCrossed(t *testing.T) {
	c, config := fake(t)
	config.Start = "oldest"
	require.NoError(t, c.CreateTopic("t", 1, map[string]string{"cleanup.policy": "compact"}))
	b := open(t, config)
	defer b.Close()
	for _, batch := range [][]string{{"a", "b", "c"}, {"b", "c", "b", "c"}, {"z", "b", "c", "b", "c"}, {"b", "c"}, {"end"}} {
		var msgs []*broker.Message
		for _, k := range batch {
			msgs = append(msgs, &broker.Message{Key: k, Body: []byte(k)})
		}
		require.NoError(t, b.Publish(t.Context(), "t", msgs...))
	}
	c.Compact()
	got := subscribe(t, b, "t", broker.Group("g"))
	for _, want := range []string{"a", "z", "b", "c", "end"} {
		require.Equal(t, want, string(receive(t, got).Body))
	}
}

// TestMessagesThatAreGone lets the topic lose what a group had not read while it was away.
func TestMessagesThatAreGone(t *testing.T) {
	c, config := fake(t)
	config.Partitions = 1
	b := open(t, config)
	defer b.Close()
	s, err := b.Subscribe(t.Context(), "t", newLedger().handle, broker.Group("g"))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	for i := range 10 {
		require.NoError(t, b.Publish(t.Context(), "t", &broker.Message{Body: fmt.Append(nil, i)}))
	}
	require.NoError(t, c.DeleteRecords("t", 0, 7))
	got := subscribe(t, b, "t", broker.Group("g"))
	require.Equal(t, "7", string(receive(t, got).Body))
}

// hang keeps the server from answering a kind of request, and says when one has come.
func hang(c *kfake.Cluster, key kmsg.Key) <-chan struct{} {
	came := make(chan struct{})
	once := sync.OnceFunc(func() { close(came) })
	c.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		once()
		return nil, nil, true
	})
	return came
}

// TestGivenUpPublishesAreNotKept while a request before them hangs.
func TestGivenUpPublishesAreNotKept(t *testing.T) {
	c, config := fake(t)
	config.Timeout, config.Drain = time.Hour, time.Millisecond
	b := open(t, config)
	defer b.Close()
	hung := hang(c, kmsg.Produce)
	var calls sync.WaitGroup
	defer calls.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	calls.Go(func() { _ = b.Publish(ctx, "t", &broker.Message{Key: "k"}) })
	receive(t, hung)
	held := func() (n int) {
		b.producer.mu.Lock()
		defer b.producer.mu.Unlock()
		for _, l := range b.producer.lanes {
			n += len(l.waiting)
		}
		return n
	}
	const others = 50
	impatient, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	results := make(chan error, others)
	for range others {
		go func() { results <- b.Publish(impatient, "t", &broker.Message{Key: "k"}) }()
	}
	require.Eventually(t, func() bool { return held() == others }, 30*time.Second, time.Millisecond)
	giveUp()
	for range others {
		require.ErrorIs(t, receive(t, results), context.Canceled)
	}
	require.Zero(t, held())
}

// TestNewGroupIsFoundAsAWhole, even if some partitions' beginnings are refused at first.
func TestNewGroupIsFoundAsAWhole(t *testing.T) {
	c, config := fake(t)
	b := open(t, config)
	defer b.Close()
	publish := func(body string) {
		for i := range 100 {
			require.NoError(t, b.Publish(t.Context(), "t", &broker.Message{Key: fmt.Sprint(i), Body: []byte(body)}))
		}
	}
	publish("old")
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Partitions: []int32{2}, Err: kerr.CoordinatorLoadInProgress, Count: 1})
	got := subscribe(t, b, "t", broker.Group("g"))
	publish("new")
	for range 100 {
		require.Equal(t, "new", string(receive(t, got).Body))
	}
}

// TestTopicWithoutPartitions is one that a server is about to make.
func TestTopicWithoutPartitions(t *testing.T) {
	c, config := fake(t)
	require.NoError(t, c.CreateTopic("t", 1, nil))
	c.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		answer := r.ResponseKind().(*kmsg.MetadataResponse)
		topic := kmsg.NewMetadataResponseTopic()
		topic.Topic = kmsg.StringPtr("t")
		answer.Topics = append(answer.Topics, topic)
		return answer, nil, true
	})
	b := open(t, config)
	defer b.Close()
	require.NoError(t, b.Publish(t.Context(), "t", &broker.Message{}))
	require.NoError(t, b.Publish(t.Context(), "t", &broker.Message{Key: "k"}))
}

// TestCloseEndsWhatHangs: Drain is the limit of Close, not Timeout.
func TestCloseEndsWhatHangs(t *testing.T) {
	for name, test := range map[string]struct {
		hangs kmsg.Key
		call  func(*Broker) error
	}{
		"Publish, metadata": {kmsg.Metadata, func(b *Broker) error { return b.Publish(context.Background(), "t", &broker.Message{}) }},
		"Publish":           {kmsg.Produce, func(b *Broker) error { return b.Publish(context.Background(), "t", &broker.Message{}) }},
		"Subscribe":         {kmsg.ListOffsets, func(b *Broker) error { return joinAs(b, "") }},
		"Subscribe, found":  {kmsg.OffsetFetch, func(b *Broker) error { return joinAs(b, "g") }},
		"Subscribe, join":   {kmsg.JoinGroup, func(b *Broker) error { return joinAs(b, "g") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, config := fake(t)
			config.Timeout, config.Drain = time.Hour, time.Millisecond
			b := open(t, config)
			came := hang(c, test.hangs)
			result := make(chan error, 1)
			go func() { result <- test.call(b) }()
			receive(t, came)
			_ = b.Close()
			require.ErrorIs(t, receive(t, result), broker.ErrClosed)
			require.Empty(t, b.subs.Seal(), "nothing is left behind")
		})
	}
}

func joinAs(b *Broker, group string) error {
	_, err := b.Subscribe(context.Background(), "t", newLedger().handle, broker.Group(group))
	return err
}
