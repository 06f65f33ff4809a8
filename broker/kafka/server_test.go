//go:build unix

package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/servers"
)

// TestServer is what is particular to Kafka, on a real one.
func TestServer(t *testing.T) {
	t.Parallel()
	server := servers.Kafka(t)
	admin := &kafka.Client{Addr: kafka.TCP(server.Addr), Timeout: 10 * time.Second, Transport: newAdminTransport(t)}
	for name, test := range map[string]func(*testing.T, *workshop){
		"PlainConsumersRead":        plainConsumersRead,
		"PartitionsAreThoseOfJava":  partitionsAreThoseOfJava,
		"ForeignRecords":            foreignRecords,
		"ForeignDeadLetter":         foreignDeadLetter,
		"TransactionsLeaveNoTrace":  transactionsLeaveNoTrace,
		"SmallTopic":                smallTopic,
		"AddedPartitions":           addedPartitions,
		"StartsAsConfigured":        startsAsConfigured,
		"FollowersLeaveNoTrace":     followersLeaveNoTrace,
		"GroupIsNamedWithItsTopic":  groupIsNamedWithItsTopic,
		"CommitsAreContiguous":      commitsAreContiguous,
		"CommitsNeverGoBack":        commitsNeverGoBack,
		"MissingDeadLetterTopic":    missingDeadLetterTopic,
		"TopicOfAnotherIsFoundSoon": topicOfAnotherIsFoundSoon,
		"LonePublishDoesNotWait":    lonePublishDoesNotWait,
		"Compressions":              compressionsWork,
		"CloseOfIdleIsQuick":        closeOfIdleIsQuick,
		"ProxiesAreNotGoneRound":    proxiesAreNotGoneRound,
		"AddressesAreTriedInTurn":   addressesAreTriedInTurn,
		"InternalTopics":            internalTopics,
		"HungServersAreGoneRound":   hungServersAreGoneRound,
		"RebalanceWaitsForHandlers": rebalanceWaitsForHandlers,
		"WindowBehindAStuckOne":     windowBehindAStuckOneIsBounded,
		"TwoMembersInOneProcess":    twoMembersInOneProcess,
	} {
		t.Run(name, func(t *testing.T) {
			test(t, &workshop{server: server, admin: admin, config: testConfig(server.Addr), topic: "t-" + strings.ToLower(broker.NewID()[:12])})
		})
	}
}

// workshop is what such a test works with.
type workshop struct {
	server *servers.KafkaServer
	admin  *kafka.Client
	config Config
	topic  string // which does not exist yet
}

func (w *workshop) open(t *testing.T) *Broker {
	b := open(t, w.config)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

func (w *workshop) create(t *testing.T, partitions int, settings ...kafka.ConfigEntry) {
	answer, err := w.admin.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: w.topic, NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: settings}},
	})
	require.NoError(t, err)
	require.NoError(t, answer.Errors[w.topic])
}

// franz is another client, which has nothing of kafka-go.
func (w *workshop) franz(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(w.server.Addr), kgo.MetadataMinAge(50*time.Millisecond))...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func (w *workshop) committed(t *testing.T, group string, partitions int) []int64 {
	var all []int
	for p := range partitions {
		all = append(all, p)
	}
	answer, err := w.admin.OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{GroupID: groupID(group, w.topic), Topics: map[string][]int{w.topic: all}})
	require.NoError(t, err)
	require.NoError(t, answer.Error)
	offsets := make([]int64, partitions)
	for _, p := range answer.Topics[w.topic] {
		require.NoError(t, p.Error)
		offsets[p.Partition] = p.CommittedOffset
	}
	return offsets
}

func plainConsumersRead(t *testing.T, w *workshop) {
	w.create(t, 1)
	b := w.open(t)
	want := &broker.Message{ID: "id-1", Key: "größe", Header: map[string]string{"Content-Type": "text/plain", "empty": ""}, Body: []byte("hello")}
	require.NoError(t, b.Publish(t.Context(), w.topic, want, &broker.Message{}))
	headers := map[string]string{"Micro-ID": "id-1", "Content-Type": "text/plain", "empty": ""}

	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{w.server.Addr}, Topic: w.topic, MaxWait: 100 * time.Millisecond})
	defer r.Close()
	m, err := r.ReadMessage(t.Context())
	require.NoError(t, err)
	require.Equal(t, "größe", string(m.Key))
	require.Equal(t, "hello", string(m.Value))
	got := map[string]string{}
	for _, h := range m.Headers {
		got[h.Key] = string(h.Value)
	}
	require.Equal(t, headers, got)
	require.WithinDuration(t, time.Now(), m.Time, time.Minute)

	records := w.franz(t, kgo.ConsumeTopics(w.topic)).PollRecords(t.Context(), 2).Records()
	require.Equal(t, "größe", string(records[0].Key))
	require.Equal(t, "hello", string(records[0].Value))
	got = map[string]string{}
	for _, h := range records[0].Headers {
		got[h.Key] = string(h.Value)
	}
	require.Equal(t, headers, got)
	if len(records) > 1 {
		require.Nil(t, records[1].Key, "no key is no key")
		require.NotNil(t, records[1].Value, "an empty body does not delete")
	}
}

func partitionsAreThoseOfJava(t *testing.T, w *workshop) {
	w.create(t, 7)
	b := w.open(t)
	other := w.franz(t, kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	for _, key := range []string{"a", "ab", "abc", "abcd", "größe", strings.Repeat("k", 200), "\x00", "order-4711"} {
		r, err := other.ProduceSync(t.Context(), &kgo.Record{Topic: w.topic, Key: []byte(key)}).First()
		require.NoError(t, err)
		require.Equal(t, int(r.Partition), b.producer.partition([]byte(key), 0, 7), "%q", key)
	}
}

func foreignRecords(t *testing.T, w *workshop) {
	w.create(t, 1)
	got := subscribe(t, w.open(t), w.topic, broker.Group("g"))
	header := func(k, v string) kgo.RecordHeader { return kgo.RecordHeader{Key: k, Value: []byte(v)} }
	var many []kgo.RecordHeader
	for i := range 100 {
		many = append(many, header(fmt.Sprint("h", i), "v"))
	}
	require.NoError(t, w.franz(t).ProduceSync(t.Context(),
		&kgo.Record{Topic: w.topic, Value: []byte("no ID")},
		&kgo.Record{Topic: w.topic, Key: []byte("deleted")},
		&kgo.Record{Topic: w.topic, Key: []byte{0xff, 'k'}, Headers: []kgo.RecordHeader{header("twice", "1"), header("twice", "2"), header("odd", "\xff"), header("Micro-Other", "x")}},
		&kgo.Record{Topic: w.topic, Key: []byte(strings.Repeat("k", 1000)), Headers: many},
	).FirstErr())
	require.Equal(t, &broker.Message{ID: w.topic + "/0/0", Body: []byte("no ID")}, receive(t, got))
	deleted := receive(t, got)
	require.Equal(t, "deleted", deleted.Key)
	require.Empty(t, deleted.Body)
	odd := receive(t, got)
	require.Equal(t, "\uFFFDk", odd.Key)
	require.Equal(t, map[string]string{"twice": "2", "odd": "\uFFFD"}, odd.Header)
	require.Len(t, receive(t, got).Header, 100)
}

// foreignDeadLetter has more headers and a longer key than Micro itself would take.
func foreignDeadLetter(t *testing.T, w *workshop) {
	w.create(t, 1)
	b := w.open(t)
	dead := subscribe(t, b, w.topic+"-dead")
	_, err := b.Subscribe(t.Context(), w.topic, func(context.Context, *broker.Message) error { return errors.New("boom") },
		broker.Group("g"), broker.Retry(broker.RetryPolicy{Attempts: 2}), broker.DeadLetter(w.topic+"-dead"))
	require.NoError(t, err)
	r := &kgo.Record{Topic: w.topic, Key: []byte(strings.Repeat("k", 1000))}
	for i := range 100 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: fmt.Sprint("h", i), Value: []byte("v")})
	}
	require.NoError(t, w.franz(t).ProduceSync(t.Context(), r).FirstErr())
	letter := receive(t, dead)
	require.Len(t, letter.Header, 103)
	require.Equal(t, "boom", letter.Header[broker.HeaderDeadReason])
	require.Equal(t, w.topic+"/0/0", letter.ID)
	require.Equal(t, string(r.Key), letter.Key)
}

func transactionsLeaveNoTrace(t *testing.T, w *workshop) {
	w.create(t, 1)
	b := w.open(t)
	got := subscribe(t, b, w.topic, broker.Group("g"))
	c := w.franz(t, kgo.TransactionalID(w.topic), kgo.DefaultProduceTopic(w.topic))
	for i := range 3 {
		require.NoError(t, c.BeginTransaction())
		require.NoError(t, c.ProduceSync(t.Context(), &kgo.Record{Value: fmt.Append(nil, i)}).FirstErr())
		require.NoError(t, c.EndTransaction(t.Context(), kgo.TryCommit))
	}
	require.NoError(t, b.Publish(t.Context(), w.topic, &broker.Message{Body: []byte("end")}))
	for _, want := range []string{"0", "1", "2", "end"} {
		require.Equal(t, want, string(receive(t, got).Body), "marks are no messages")
	}
}

func smallTopic(t *testing.T, w *workshop) {
	w.create(t, 1, kafka.ConfigEntry{ConfigName: "max.message.bytes", ConfigValue: "10000"})
	b := w.open(t)
	got := subscribe(t, b, w.topic)
	var msgs []*broker.Message
	for i := range 100 { // ten times what the topic takes at once
		msgs = append(msgs, &broker.Message{Key: "k", Body: append(make([]byte, 1000), fmt.Append(nil, i)...)})
	}
	require.NoError(t, b.Publish(t.Context(), w.topic, msgs...))
	err := b.Publish(t.Context(), w.topic, &broker.Message{Body: make([]byte, 20_000)})
	require.ErrorIs(t, err, broker.ErrTooLarge)
	require.ErrorContains(t, err, "max.message.bytes")
	require.NoError(t, b.Publish(t.Context(), w.topic, &broker.Message{Key: "k"}), "it is still usable")
	for i := range 100 {
		require.Equal(t, fmt.Sprint(i), string(receive(t, got).Body[1000:]), "halved, in order")
	}
	receive(t, got)
}

func addedPartitions(t *testing.T, w *workshop) {
	w.create(t, 1)
	b := w.open(t)
	s, err := b.Subscribe(t.Context(), w.topic, newLedger().handle, broker.Group("away"))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	follower, member := subscribe(t, b, w.topic), subscribe(t, b, w.topic, broker.Group("g"))
	added, err := w.admin.CreatePartitions(t.Context(), &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: w.topic, Count: 5}}})
	require.NoError(t, err)
	require.NoError(t, added.Errors[w.topic])
	producer := w.franz(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for p := range int32(5) {
		require.NoError(t, producer.ProduceSync(t.Context(), &kgo.Record{Topic: w.topic, Partition: p, Value: fmt.Append(nil, p)}).FirstErr())
	}
	for _, got := range []<-chan *broker.Message{follower, member, subscribe(t, b, w.topic, broker.Group("away"))} {
		var bodies []string
		for range 5 {
			bodies = append(bodies, string(receive(t, got).Body))
		}
		slices.Sort(bodies)
		require.Equal(t, []string{"0", "1", "2", "3", "4"}, bodies, "from their beginning")
	}
}

func startsAsConfigured(t *testing.T, w *workshop) {
	newest := w.open(t)
	w.config.Start = "oldest"
	oldest := w.open(t)
	require.NoError(t, newest.Publish(t.Context(), w.topic, &broker.Message{Key: "k", Body: []byte("old")}))
	all, rest, follower := subscribe(t, oldest, w.topic, broker.Group("all")), subscribe(t, newest, w.topic, broker.Group("rest")), subscribe(t, oldest, w.topic)
	require.NoError(t, newest.Publish(t.Context(), w.topic, &broker.Message{Key: "k", Body: []byte("new")}))
	require.Equal(t, "old", string(receive(t, all).Body))
	require.Equal(t, "new", string(receive(t, all).Body))
	require.Equal(t, "new", string(receive(t, rest).Body))
	require.Equal(t, "new", string(receive(t, follower).Body))
}

func (w *workshop) groups(t *testing.T) []string {
	answer, err := w.admin.ListGroups(t.Context(), &kafka.ListGroupsRequest{})
	require.NoError(t, err)
	var names []string
	for _, g := range answer.Groups {
		names = append(names, g.GroupID)
	}
	slices.Sort(names)
	return names
}

func followersLeaveNoTrace(t *testing.T, w *workshop) {
	before := w.groups(t)
	b := w.open(t)
	got := subscribe(t, b, w.topic)
	require.NoError(t, b.Publish(t.Context(), w.topic, &broker.Message{}))
	receive(t, got)
	require.Equal(t, before, w.groups(t))
}

func groupIsNamedWithItsTopic(t *testing.T, w *workshop) {
	subscribe(t, w.open(t), w.topic, broker.Group("billing"))
	require.Contains(t, w.groups(t), "billing@"+w.topic)
}

// commitsAreContiguous kills a member that has handled everything but one message in the middle.
func commitsAreContiguous(t *testing.T, w *workshop) {
	w.create(t, 1)
	victim := open(t, w.config)
	stuck, free, handled := make(chan struct{}), make(chan struct{}), make(chan string, 100)
	_, err := victim.Subscribe(t.Context(), w.topic, func(_ context.Context, m *broker.Message) error {
		if string(m.Body) == "5" {
			close(stuck)
			<-free
			return errors.New("killed")
		}
		handled <- string(m.Body)
		return nil
	}, broker.Group("g"), broker.Concurrency(2))
	require.NoError(t, err)
	b := w.open(t)
	for i := range 20 {
		require.NoError(t, b.Publish(t.Context(), w.topic, &broker.Message{Body: fmt.Append(nil, i)}))
	}
	receive(t, stuck)
	for range 19 {
		receive(t, handled)
	}
	require.Eventually(t, func() bool { return w.committed(t, "g", 1)[0] == 5 }, 10*time.Second, 20*time.Millisecond)
	kill(victim)
	close(free)
	got := subscribe(t, b, w.topic, broker.Group("g"))
	for i := 5; i < 20; i++ {
		require.Equal(t, fmt.Sprint(i), string(receive(t, got).Body))
	}
	_ = victim.Close()
}

// commitsNeverGoBack watches the offsets of a group while members come and go.
func commitsNeverGoBack(t *testing.T, w *workshop) {
	const partitions, n = 4, 2000
	w.create(t, partitions)
	publisher, all := w.open(t), newLedger()
	stay := w.open(t)
	_, err := stay.Subscribe(t.Context(), w.topic, all.handle, broker.Group("g"))
	require.NoError(t, err)
	var work sync.WaitGroup
	work.Go(func() {
		for i := range n {
			_ = publisher.Publish(t.Context(), w.topic, &broker.Message{ID: fmt.Sprint(i), Key: fmt.Sprint(i % 50)})
		}
	})
	for range 3 {
		work.Go(func() {
			for range 2 {
				b := open(t, w.config)
				s, err := b.Subscribe(t.Context(), w.topic, all.handle, broker.Group("g"), broker.Concurrency(3))
				if err == nil {
					_ = s.Close()
				}
				_ = b.Close()
			}
		})
	}
	over := make(chan struct{})
	go func() { work.Wait(); close(over) }()
	last := make([]int64, partitions)
	for done := false; !done; {
		select {
		case <-over:
			done = true
		default:
		}
		now := w.committed(t, "g", partitions)
		for p := range now {
			require.GreaterOrEqual(t, now[p], last[p], "partition %d was rewound", p)
		}
		last = now
	}
	all.wait(t, n)
}

func missingDeadLetterTopic(t *testing.T, w *workshop) {
	w.create(t, 1)
	w.config.MissingTopics = "fail"
	_, err := w.open(t).Subscribe(t.Context(), w.topic, newLedger().handle, broker.DeadLetter("none"))
	require.ErrorContains(t, err, `its dead letters: broker kafka at `+w.server.Addr+`: the topic "none" does not exist`)
}

// topicOfAnotherIsFoundSoon publishes to a topic that was created after the metadata were read, which are six seconds old at
// most by kafka-go's own measure.
func topicOfAnotherIsFoundSoon(t *testing.T, w *workshop) {
	w.config.MissingTopics = "fail"
	b := w.open(t)
	require.Error(t, b.Publish(t.Context(), w.topic, &broker.Message{}))
	w.create(t, 1)
	begun := time.Now()
	require.NoError(t, b.Publish(t.Context(), w.topic, &broker.Message{}))
	require.Less(t, time.Since(begun), 2*time.Second)
}

func lonePublishDoesNotWait(t *testing.T, w *workshop) {
	b := w.open(t)
	require.NoError(t, b.Publish(t.Context(), w.topic, &broker.Message{}))
	begun := time.Now()
	for range 100 {
		require.NoError(t, b.Publish(t.Context(), w.topic, &broker.Message{}))
	}
	require.Less(t, time.Since(begun), 2*time.Second, "kafka-go's default takes 100s")
}

func compressionsWork(t *testing.T, w *workshop) {
	for name := range compressions {
		w.config.Compression = name
		b := w.open(t)
		got := subscribe(t, b, w.topic)
		body := strings.Repeat(name, 10_000)
		require.NoError(t, b.Publish(t.Context(), w.topic, &broker.Message{Body: []byte(body)}))
		require.Equal(t, body, string(receive(t, got).Body), name)
	}
}

func closeOfIdleIsQuick(t *testing.T, w *workshop) {
	b := open(t, w.config)
	for _, group := range []string{"", "g", "h"} {
		subscribe(t, b, w.topic, broker.Group(group))
	}
	begun := time.Now()
	require.NoError(t, b.Close())
	require.Less(t, time.Since(begun), 2*time.Second)
}

func proxiesAreNotGoneRound(t *testing.T, w *workshop) {
	w.config.Address, w.config.Timeout = []string{w.server.Proxy.Addr()}, time.Second
	b := w.open(t)
	got := subscribe(t, b, w.topic, broker.Group("g"))
	require.NoError(t, b.Publish(t.Context(), w.topic, &broker.Message{}))
	receive(t, got)
	w.server.Proxy.Cut()
	require.ErrorContains(t, b.Publish(t.Context(), w.topic, &broker.Message{}), "tried for 1s")
	w.server.Proxy.Heal()
	require.Eventually(t, func() bool { return b.Publish(t.Context(), w.topic, &broker.Message{}) == nil }, 10*time.Second, time.Millisecond)
	receive(t, got)
}

// rebalanceWaitsForHandlers lets a member join while another handles: what that does is committed, not done again.
func rebalanceWaitsForHandlers(t *testing.T, w *workshop) {
	w.create(t, 2)
	one, two := w.open(t), w.open(t)
	started, free := make(chan string, 100), make(chan struct{})
	handle := func(_ context.Context, m *broker.Message) error {
		started <- m.ID
		<-free
		return nil
	}
	_, err := one.Subscribe(t.Context(), w.topic, handle, broker.Group("g"))
	require.NoError(t, err)
	require.NoError(t, one.Publish(t.Context(), w.topic, &broker.Message{ID: "slow", Key: "k"}))
	require.Equal(t, "slow", receive(t, started))
	joined := make(chan error, 1)
	go func() {
		_, err := two.Subscribe(t.Context(), w.topic, handle, broker.Group("g"))
		joined <- err
	}()
	select {
	case <-joined:
		require.FailNow(t, "the partitions were given away under the handler")
	case <-time.After(500 * time.Millisecond):
	}
	close(free)
	require.NoError(t, receive(t, joined))
	for i := range 10 {
		require.NoError(t, one.Publish(t.Context(), w.topic, &broker.Message{ID: "end", Key: fmt.Sprint(i)}))
		require.Equal(t, "end", receive(t, started))
	}
}

// windowBehindAStuckOneIsBounded handles on behind a message that is not done, but not for ever.
func windowBehindAStuckOneIsBounded(t *testing.T, w *workshop) {
	w.create(t, 1)
	w.config.Buffer = 10
	b := w.open(t)
	var mu sync.Mutex
	handled, free := 0, make(chan struct{})
	_, err := b.Subscribe(t.Context(), w.topic, func(ctx context.Context, m *broker.Message) error {
		if m.Header["stuck"] != "" {
			select {
			case <-free:
			case <-ctx.Done():
			}
			return ctx.Err()
		}
		mu.Lock()
		defer mu.Unlock()
		handled++
		return nil
	}, broker.Group("g"), broker.Concurrency(2))
	require.NoError(t, err)
	const n = 3 * ahead * 10
	require.NoError(t, b.Publish(t.Context(), w.topic, &broker.Message{Key: "k", Header: map[string]string{"stuck": "yes"}}))
	for range n {
		require.NoError(t, b.Publish(t.Context(), w.topic, &broker.Message{Key: "other"}))
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return handled
	}
	require.Eventually(t, func() bool { return count() == ahead*10-1 }, 10*time.Second, time.Millisecond)
	require.Never(t, func() bool { return count() > ahead*10-1 }, 300*time.Millisecond, 10*time.Millisecond)
	close(free)
	require.Eventually(t, func() bool { return count() == n }, 10*time.Second, time.Millisecond)
}

func twoMembersInOneProcess(t *testing.T, w *workshop) {
	w.create(t, 2)
	b, all := w.open(t), newLedger()
	for range 2 {
		_, err := b.Subscribe(t.Context(), w.topic, all.handle, broker.Group("g"))
		require.NoError(t, err)
	}
	for i := range 50 {
		require.NoError(t, b.Publish(t.Context(), w.topic, &broker.Message{ID: fmt.Sprint(i), Key: fmt.Sprint(i)}))
	}
	all.wait(t, 50)
}

func addressesAreTriedInTurn(t *testing.T, w *workshop) {
	w.config.Address = []string{"127.0.0.1:1", w.server.Addr}
	for range 5 { // kafka-go begins anywhere
		b := w.open(t)
		got := subscribe(t, b, w.topic, broker.Group("g"))
		require.NoError(t, b.Publish(t.Context(), w.topic, &broker.Message{}))
		receive(t, got)
		require.NoError(t, b.Close())
	}
}

func internalTopics(t *testing.T, w *workshop) {
	b := w.open(t)
	subscribe(t, b, w.topic, broker.Group("g")) // now there are offsets
	const own = "__consumer_offsets"
	require.ErrorContains(t, b.Publish(t.Context(), own, &broker.Message{}), "belongs to the servers themselves")
	_, err := b.Subscribe(t.Context(), own, newLedger().handle)
	require.ErrorContains(t, err, "belongs to the servers themselves")
}

// hungServersAreGoneRound, whether they hang from the beginning or later.
func hungServersAreGoneRound(t *testing.T, w *workshop) {
	var seeds []*servers.Proxy // the server calls itself by its own address: only the first steps go through them
	for range 2 {
		p, err := servers.NewProxy(w.server.Addr)
		require.NoError(t, err)
		t.Cleanup(p.Close)
		seeds = append(seeds, p)
	}
	other := w.open(t)
	w.config.Address = []string{seeds[0].Addr(), seeds[1].Addr(), w.server.Addr}
	long := w.open(t)
	long.cluster.conns.seeds.first.Store(0)
	got := make(chan *broker.Message, 100)
	kept, err := long.Subscribe(t.Context(), w.topic, func(_ context.Context, m *broker.Message) error {
		got <- m
		return nil
	}, broker.Group("g"))
	require.NoError(t, err)
	for _, p := range seeds {
		p.Blackhole()
		t.Cleanup(p.Heal)
	}
	for first := range int64(3) {
		b := w.open(t)
		b.cluster.conns.seeds.first.Store(first)
		begun := time.Now()
		require.NoError(t, b.Publish(t.Context(), w.topic, &broker.Message{}))
		receive(t, got)
		fresh := subscribe(t, b, w.topic, broker.Group("g2"))
		require.NoError(t, b.Publish(t.Context(), w.topic, &broker.Message{}))
		receive(t, got)
		receive(t, fresh)
		require.Less(t, time.Since(begun), w.config.Timeout)
		require.NoError(t, b.Close())
	}

	joins := kept.(*member).joins.Load()
	s, err := other.Subscribe(t.Context(), w.topic, newLedger().handle, broker.Group("g"))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, other.Publish(t.Context(), w.topic, &broker.Message{}))
	receive(t, got)
	require.Greater(t, kept.(*member).joins.Load(), joins, "it has joined again")
}
