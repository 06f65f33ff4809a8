//go:build unix

package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/amqp"
	"github.com/plugmicro/micro/internal/logtest"
	"github.com/plugmicro/micro/internal/servers"
	"github.com/plugmicro/micro/internal/testcert"
	"github.com/plugmicro/micro/plugin"
)

const (
	wait     = 30 * time.Second
	poll     = 5 * time.Millisecond
	password = "tell-nobody"
)

// inbox keeps what arrives.
type inbox struct {
	mu  sync.Mutex
	got []*broker.Message
}

func (in *inbox) handle(_ context.Context, m *broker.Message) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.got = append(in.got, m)
	return nil
}

func (in *inbox) messages() []*broker.Message {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]*broker.Message(nil), in.got...)
}

func (in *inbox) ids() (ids []string) {
	for _, m := range in.messages() {
		ids = append(ids, m.ID)
	}
	return ids
}

// one waits for the first message.
func (in *inbox) one(t *testing.T) *broker.Message {
	t.Helper()
	require.Eventually(t, func() bool { return len(in.messages()) > 0 }, wait, poll)
	return in.messages()[0]
}

func subscribe(t *testing.T, b *Broker, topic string, h broker.Handler, opts ...broker.SubscribeOption) broker.Subscription {
	t.Helper()
	s, err := b.Subscribe(t.Context(), topic, h, opts...)
	require.NoError(t, err)
	return s
}

// plain is a channel of a client that knows nothing of this package.
func plain(t *testing.T, s *servers.RabbitServer) *amqp091.Channel {
	t.Helper()
	c, err := amqp091.Dial("amqp://guest:guest@" + s.Addr)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	ch, err := c.Channel()
	require.NoError(t, err)
	return ch
}

// within returns the error of f, and fails if that takes longer.
func within(t *testing.T, limit time.Duration, f func() error) error {
	t.Helper()
	began := time.Now()
	err := f()
	require.Less(t, time.Since(began), limit)
	return err
}

func TestBroker(t *testing.T) {
	s := servers.RabbitMQ(t, "max_message_size = 300000")
	for name, test := range map[string]func(*testing.T, *servers.RabbitServer){
		"a late ack acknowledges no other message": lateAck,
		"acks in any order":                        acksInAnyOrder,
		"one message is held":                      oneHeld,
		"published again after a loss":             publishedAgain,
		"memory alarm":                             memoryAlarm,
		"too large for the server":                 tooLargeForServer,
		"deleted queues and exchanges":             deleted,
		"missing rights":                           missingRights,
		"foreign clients":                          foreignClients,
		"dead letters of foreign clients":          foreignDeadLetters,
		"headers that mean something to RabbitMQ":  specialHeaders,
		"given up while it subscribes":             givenUp,
		"nobody has subscribed":                    nobody,
		"what is left on the server":               leftOnServer,
		"given back too often":                     givenBackTooOften,
		"dead letters that no queue takes":         deadLetters,
		"an outage is logged once":                 outage,
		"long names":                               longNames,
		"an equal share":                           equalShare,
		"foreign keys in the shared queue":         foreignKeys,
		"Subscribe without a server":               withoutServer,
	} {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
}

// lateAck has a handler come back after its connection was lost and its message was delivered again.
func lateAck(t *testing.T, s *servers.RabbitServer) {
	c := testConfig(s.Proxy.Addr())
	c.Drain = 200 * time.Millisecond // then the next connection goes on without the handler
	b, err := open(context.Background(), c, quiet)
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	calls, first, late := make(chan string, 10), make(chan struct{}), make(chan struct{})
	var once sync.Once
	subscribe(t, b, "late", func(ctx context.Context, m *broker.Message) error {
		calls <- m.ID
		is := false
		once.Do(func() { is = true })
		if is {
			defer close(late)
			<-first
			return nil // acks
		}
		<-ctx.Done()
		return ctx.Err()
	}, broker.Group("g"))
	require.NoError(t, b.Publish(t.Context(), "late", &broker.Message{ID: "1"}, &broker.Message{ID: "2"}))
	require.Equal(t, "1", <-calls)
	s.Proxy.Drop()
	require.Equal(t, "1", <-calls, "it comes again, on another channel with the same delivery tag")
	close(first)
	<-late
	b.Close() // what the second handler has is given back

	in := &inbox{}
	subscribe(t, openAt(t, s.Addr), "late", in.handle, broker.Group("g"))
	require.Eventually(t, func() bool { return len(in.messages()) == 2 }, wait, poll)
	require.Equal(t, []string{"1", "2"}, in.ids())
}

// acksInAnyOrder has handlers finish in the reverse order. An ack too many would cost the channel, one too few would
// leave a message: either is delivered again.
func acksInAnyOrder(t *testing.T, s *servers.RabbitServer) {
	const at, rounds = 10, 20
	b := openAt(t, s.Addr)
	frees := make(chan chan struct{}, at*rounds+1)
	h := func(context.Context, *broker.Message) error {
		free := make(chan struct{})
		frees <- free
		<-free
		return nil
	}
	sub := subscribe(t, b, "order", h, broker.Group("g"), broker.Concurrency(at))
	for range rounds {
		require.NoError(t, b.Publish(t.Context(), "order", tenMessages()...))
		var running []chan struct{}
		for range at {
			running = append(running, <-frees)
		}
		for i := range running {
			close(running[at-1-i])
		}
	}
	require.NoError(t, sub.Close())
	require.Empty(t, frees, "delivered again")
	in := &inbox{}
	subscribe(t, b, "order", in.handle, broker.Group("g"))
	require.NoError(t, b.Publish(t.Context(), "order", &broker.Message{ID: "last"}))
	require.Equal(t, "last", in.one(t).ID)
}

// oneHeld acks what comes behind a message that waits for its next try. What is noted about tags must not grow with it.
func oneHeld(t *testing.T, s *servers.RabbitServer) {
	const rounds = 50
	b, done := openAt(t, s.Addr), make(chan struct{}, rounds*10)
	retry := broker.Retry(broker.RetryPolicy{Attempts: 5, Min: time.Hour, Max: time.Hour})
	sub := newSubscription(b, "held", func(_ context.Context, m *broker.Message) error {
		if m.ID == "held" {
			return errors.New("later")
		}
		done <- struct{}{}
		return nil
	}, broker.NewSubscribeOptions(broker.Group("g"), retry))
	b.consume.start()
	conn, err := sub.connection()
	require.NoError(t, err)
	w := newWork(sub, conn)
	require.NoError(t, w.begin())
	require.NoError(t, b.Publish(t.Context(), "held", &broker.Message{ID: "held"}))
	for range rounds {
		require.NoError(t, b.Publish(t.Context(), "held", tenMessages()...))
	}
	for range rounds * 10 {
		<-done
	}
	require.NoError(t, w.end(t.Context()))
	require.Equal(t, []uint64{1}, w.sources[0].tags.open)
	require.LessOrEqual(t, cap(w.sources[0].tags.open), 4*w.prefetch())
}

func tenMessages() (msgs []*broker.Message) {
	for range 10 {
		msgs = append(msgs, &broker.Message{})
	}
	return msgs
}

func publishedAgain(t *testing.T, s *servers.RabbitServer) {
	b, in := openAt(t, s.Proxy.Addr()), &inbox{}
	subscribe(t, openAt(t, s.Addr), "again", in.handle)
	require.NoError(t, b.Publish(t.Context(), "again", &broker.Message{ID: "0"}))
	s.Proxy.Blackhole()
	result := make(chan error, 1)
	go func() { result <- b.Publish(t.Context(), "again", &broker.Message{ID: "1"}, &broker.Message{ID: "2"}) }()
	select {
	case err := <-result:
		require.FailNow(t, "published into a black hole", "%v", err)
	case <-time.After(50 * time.Millisecond):
	}
	s.Proxy.Cut()
	s.Proxy.Heal()
	require.NoError(t, <-result)
	require.Eventually(t, func() bool { return len(in.messages()) >= 3 }, wait, poll)
	require.Subset(t, []string{"0", "1", "2"}, in.ids())
	require.Subset(t, in.ids(), []string{"0", "1", "2"})
}

func memoryAlarm(t *testing.T, s *servers.RabbitServer) {
	b, in := openAt(t, s.Addr), &inbox{}
	subscribe(t, b, "alarm", in.handle)
	clear := sync.OnceFunc(s.Alarm(t))
	defer clear()
	require.Eventually(t, func() bool { // the server takes one more message of a connection before it says so
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		err := b.Publish(ctx, "alarm", &broker.Message{ID: "1"})
		return errors.Is(err, context.DeadlineExceeded) && strings.Contains(err.Error(), "low on memory") && strings.Contains(err.Error(), s.Addr)
	}, wait, poll)
	other := openAt(t, s.Addr)
	go func() { _ = other.Publish(t.Context(), "alarm", &broker.Message{ID: "2", Body: make([]byte, 200_000)}) }()
	require.NoError(t, within(t, 10*time.Second, other.Close))
	clear()
	require.NoError(t, b.Publish(t.Context(), "alarm", &broker.Message{ID: "3"}))
	require.Eventually(t, func() bool { return strings.Contains(fmt.Sprint(in.ids()), "3") }, wait, poll)
}

// tooLargeForServer has one publisher exceed the server's own limit while others publish on the same channel.
func tooLargeForServer(t *testing.T, s *servers.RabbitServer) {
	b, in := openAt(t, s.Addr), &inbox{}
	subscribe(t, b, "large", in.handle)
	var others sync.WaitGroup
	for i := range 4 {
		others.Go(func() {
			for j := range 25 {
				assert.NoError(t, b.Publish(t.Context(), "large", &broker.Message{ID: fmt.Sprint(i, "-", j)}))
			}
		})
	}
	for range 2 {
		err := b.Publish(t.Context(), "large", &broker.Message{Body: make([]byte, 300_001)})
		require.ErrorIs(t, err, broker.ErrTooLarge)
		require.ErrorContains(t, err, "300000")
	}
	others.Wait()
	require.Eventually(t, func() bool {
		ids := map[string]bool{}
		for _, id := range in.ids() {
			ids[id] = true
		}
		return len(ids) == 100
	}, wait, poll)
}

func deleted(t *testing.T, s *servers.RabbitServer) {
	b, in, ch := openAt(t, s.Addr), &inbox{}, plain(t, s)
	subscribe(t, b, "deleted", in.handle, broker.Group("g"))
	publish := func() { require.NoError(t, b.Publish(t.Context(), "deleted", &broker.Message{})) }
	publish()
	in.one(t)
	_, err := ch.QueueDelete("micro:deleted:g", false, false, false)
	require.NoError(t, err)
	_, err = ch.QueueDelete("micro:deleted:g:key.0", false, false, false)
	require.NoError(t, err)
	require.NoError(t, ch.ExchangeDelete("micro:deleted", false, false))
	require.Eventually(t, func() bool { // the first ones are for nobody, until it has subscribed again
		publish()
		return len(in.messages()) > 1
	}, wait, 20*time.Millisecond)
}

func missingRights(t *testing.T, s *servers.RabbitServer) {
	require.NoError(t, openAt(t, s.Addr).Publish(t.Context(), "rights", &broker.Message{})) // makes the exchange
	for user, rights := range map[string][3]string{"configure": {"", ".*", ".*"}, "write": {".*", "", ".*"}, "read": {".*", ".*", ""}} {
		s.AddUser(t, "no-"+user, password, rights[0], rights[1], rights[2])
		b := openAt(t, "amqp://no-"+user+":"+password+"@"+s.Addr)
		check := func(err error, want ...string) {
			require.NotContains(t, err.Error(), password)
			for _, want := range append(want, "broker rabbitmq", s.Addr, "ACCESS_REFUSED", "rights", "micro:") {
				require.ErrorContains(t, err, want)
			}
		}
		if user != "read" {
			check(within(t, 2*time.Second, func() error { return b.Publish(t.Context(), "rights", &broker.Message{}) }), "publish", "micro:rights")
		}
		for _, opts := range [][]broker.SubscribeOption{nil, {broker.Group("g-" + user)}} {
			check(within(t, 2*time.Second, func() error {
				_, err := b.Subscribe(t.Context(), "rights", (&inbox{}).handle, opts...)
				return err
			}), `subscribe to "rights"`)
		}
		require.NoError(t, b.Close())
	}
}

func foreignClients(t *testing.T, s *servers.RabbitServer) {
	b, in, ch := openAt(t, s.Addr), &inbox{}, plain(t, s)
	sub := subscribe(t, b, "foreign", in.handle, broker.Group("g"))
	for _, key := range []string{"", "word", "key.3"} {
		require.NoError(t, ch.PublishWithContext(t.Context(), "micro:foreign", key, false, false, amqp091.Publishing{
			ContentType: "text/plain", Body: []byte(key), CorrelationId: "ignored",
			Headers: amqp091.Table{"n": int32(7), "b": []byte("bytes"), "bad\xff": "\xff", "x-death": "1", "Micro-Odd": "1", "t": amqp091.Table{"a": true}},
		}))
	}
	require.Eventually(t, func() bool { return len(in.messages()) == 3 }, wait, poll)
	for _, m := range in.messages() {
		require.NotEmpty(t, m.ID)
		require.Equal(t, map[string]string{"Content-Type": "text/plain", "n": "7", "b": "bytes", "bad\uFFFD": "\uFFFD", "t": "map[a:true]"}, m.Header)
	}
	require.NoError(t, sub.Close())

	for _, key := range []string{"", "k"} {
		require.NoError(t, b.Publish(t.Context(), "foreign", &broker.Message{ID: "id", Key: key, Header: map[string]string{"Content-Type": "a/b", "h": "v"}, Body: []byte("hello")}))
	}
	for _, queue := range []string{"micro:foreign:g", queueOf("foreign", "g", partitionOf("k"))} {
		deliveries, err := ch.Consume(queue, "", true, false, false, false, nil)
		require.NoError(t, err)
		d := <-deliveries
		want := amqp091.Table{"h": "v"}
		delete(d.Headers, "x-delivery-count") // of the server
		if queue != "micro:foreign:g" {
			want["Micro-Key"] = "k"
		}
		require.Equal(t, []any{"id", "a/b", "hello", want, uint8(2)}, []any{d.MessageId, d.ContentType, string(d.Body), d.Headers, d.DeliveryMode})
	}
}

// foreignDeadLetters are of messages that Publish would not take.
func foreignDeadLetters(t *testing.T, s *servers.RabbitServer) {
	b, ch, in := openAt(t, s.Addr), plain(t, s), &inbox{}
	const odd = "\xffa" // becomes twice as long
	many, two := amqp091.Table{}, amqp091.Table{"small": "v", "large": strings.Repeat("v", 126_000)}
	for i := range 70 {
		many[fmt.Sprint("h", i)] = "v"
	}
	foreign := []amqp091.Publishing{
		{Headers: many},
		{Headers: two},
		{Headers: amqp091.Table{"Micro-Key": strings.Repeat("k", 300)}},
		{Headers: amqp091.Table{strings.Repeat("n", 255): "v", strings.Repeat(odd, 127): "v", "": "v"}},
		{Headers: amqp091.Table{"Micro-Header-Micro-X": "v", "Micro-Header-": "v", "Micro-Header-\xff": "v", "Micro-Header-x-\xff": "\xff"}},
		{MessageId: strings.Repeat(odd, 127)},
		{MessageId: "\xff\xfe"},
		{ContentType: strings.Repeat(odd, 127)},
		{Body: make([]byte, 250_000)},
	}
	seen := make(chan *broker.Message, len(foreign))
	b.config.MaxMessage = 200_000
	subscribe(t, b, "foreign-dead.dead", in.handle)
	subscribe(t, b, "foreign-dead", func(_ context.Context, m *broker.Message) error {
		seen <- m
		return broker.Permanent(errors.New("no"))
	}, broker.Group("g"), broker.DeadLetter("foreign-dead.dead"))
	for i, p := range foreign {
		require.NoError(t, ch.PublishWithContext(t.Context(), "micro:foreign-dead", "", false, false, p))
		m := <-seen
		for _, text := range append(slices.Collect(maps.Keys(m.Header)), append(slices.Collect(maps.Values(m.Header)), m.ID, m.Key)...) {
			require.True(t, utf8.ValidString(text), "%q", text)
		}
		require.NotContains(t, m.Header, "Micro-X")
		require.Eventually(t, func() bool { return len(in.messages()) == i+1 }, wait, poll, "%.300v", m)
		dead := in.messages()[i]
		require.Equal(t, []any{m.Key, len(m.Body), "foreign-dead"}, []any{dead.Key, len(dead.Body), dead.Header[broker.HeaderDeadTopic]})
		require.True(t, strings.HasPrefix(m.ID, dead.ID), "%q %q", m.ID, dead.ID)
		require.Equal(t, m.Header["small"], dead.Header["small"])
	}
}

func specialHeaders(t *testing.T, s *servers.RabbitServer) {
	b, in := openAt(t, s.Addr), &inbox{}
	subscribe(t, b, "special", in.handle)
	header := map[string]string{"CC": "a", "BCC": "b", "x-death": "c", "x-delivery-count": "d", "Content-Type": strings.Repeat("e", 300)}
	require.NoError(t, b.Publish(t.Context(), "special", &broker.Message{Header: header}))
	require.Equal(t, header, in.one(t).Header)
}

// givenUp subscribes with less and less time. A queue that nobody consumes would fill for ever.
func givenUp(t *testing.T, s *servers.RabbitServer) {
	b := openAt(t, s.Proxy.Addr())
	subscribe(t, b, "given-up", (&inbox{}).handle) // connects
	for limit := 30 * time.Millisecond; limit > 200*time.Microsecond; limit = limit * 3 / 4 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		sub, err := b.Subscribe(ctx, "given-up", (&inbox{}).handle)
		cancel()
		if err == nil {
			require.NoError(t, sub.Close())
		} else {
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
	}
	require.Eventually(t, func() bool {
		n := 0
		for _, q := range s.Queues(t) {
			if strings.HasPrefix(q.Name, "micro:given-up::") {
				n++
			}
		}
		return n == 1
	}, wait, poll)
}

func nobody(t *testing.T, s *servers.RabbitServer) {
	c := testConfig(s.Addr)
	require.NoError(t, openAt(t, s.Addr).Publish(t.Context(), "nobody", &broker.Message{}), "it is gone, as on every broker")
	c.Mandatory = true
	b, err := open(context.Background(), c, quiet)
	require.NoError(t, err)
	defer b.Close()
	err = b.Publish(t.Context(), "nobody", &broker.Message{ID: "1"}, &broker.Message{ID: "2", Key: "k"})
	require.ErrorIs(t, err, ErrNoSubscriber)
	require.ErrorContains(t, err, "2 of 2")
	in := &inbox{}
	subscribe(t, b, "nobody", in.handle)
	require.NoError(t, b.Publish(t.Context(), "nobody", &broker.Message{ID: "3"}))
	require.Equal(t, "3", in.one(t).ID)
}

func leftOnServer(t *testing.T, s *servers.RabbitServer) {
	queues := func(prefix string) (found []servers.RabbitQueue) {
		for _, q := range s.Queues(t) {
			if strings.HasPrefix(q.Name, prefix) {
				found = append(found, q)
			}
		}
		return found
	}
	channels := func() string { return s.Eval(t, `integer_to_list(length(rabbit_channel:list()))`) }
	connections := s.Connections(t)
	b := openAt(t, s.Addr)
	subscribe(t, b, "left", (&inbox{}).handle)
	before := channels()
	for range 3 {
		alone, member := subscribe(t, b, "left", (&inbox{}).handle), subscribe(t, b, "left", (&inbox{}).handle, broker.Group("g"))
		require.Len(t, queues("micro:left::"), 2)
		for _, q := range queues("micro:left::") {
			require.Equal(t, servers.RabbitQueue{Name: q.Name, Kind: "rabbit_classic_queue", Exclusive: true, Consumers: 1}, q)
		}
		require.Len(t, queues("micro:left:g"), 1+partitions)
		for _, q := range queues("micro:left:g") {
			require.Equal(t, servers.RabbitQueue{Name: q.Name, Kind: "rabbit_quorum_queue", Durable: true, Consumers: 1}, q)
		}
		require.Equal(t, connections+2, s.Connections(t), "one to publish on, one for all subscriptions")
		require.NoError(t, alone.Close())
		require.NoError(t, member.Close())
		require.Eventually(t, func() bool { return channels() == before }, wait, poll)
	}
	require.NoError(t, b.Close())
	require.Eventually(t, func() bool { return len(queues("micro:left::")) == 0 && s.Connections(t) == connections }, wait, poll)
	require.Len(t, queues("micro:left:g"), 1+partitions, "those of a group stay")
}

// givenBackTooOften has what members that leave were sent ahead come back more often than RabbitMQ 4 allows by itself. It is
// moved when an operator wants that.
func givenBackTooOften(t *testing.T, s *servers.RabbitServer) {
	b, ch := openAt(t, s.Addr), plain(t, s)
	require.NoError(t, subscribe(t, b, "returned", (&inbox{}).handle, broker.Group("g")).Close())
	require.NoError(t, b.Publish(t.Context(), "returned", tenMessages()...))
	deliveries, err := ch.Consume("micro:returned:g", "", false, false, false, false, nil)
	require.NoError(t, err)
	for range 150 {
		var last amqp091.Delivery
		for range 10 {
			last = <-deliveries
		}
		require.NoError(t, ch.Nack(last.DeliveryTag, true, true))
	}
	dead, err := ch.Consume(deadName, "", true, false, false, false, nil)
	require.NoError(t, err)
	s.Eval(t, `ok = rabbit_policy:set(<<"/">>, <<"limit">>, <<"^micro:returned:g$">>, [{<<"delivery-limit">>, 3}], 0, <<"queues">>, <<"test">>), ""`)
	for moved := 0; moved < 10; {
		select {
		case d := <-deliveries: // the queue has not heard of the policy yet
			require.NoError(t, d.Nack(false, true))
		case d := <-dead:
			require.NotEmpty(t, d.Headers["x-death"])
			moved++
		}
	}
}

// logged opens a broker whose log can be read.
func logged(t *testing.T, c Config) (*Broker, *logtest.Buffer) {
	t.Helper()
	log := &logtest.Buffer{}
	b, err := open(context.Background(), c, slog.New(slog.NewTextHandler(log, nil)))
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b, log
}

// deadLetters has three groups fail with the same message: the dead letter topics of two have no queue.
func deadLetters(t *testing.T, s *servers.RabbitServer) {
	ch, in := plain(t, s), &inbox{}
	_, err := ch.QueueDelete(deadName, false, false, false) // it is made when it is needed
	require.NoError(t, err)
	b, log := logged(t, testConfig(s.Addr))
	subscribe(t, b, "bad.kept", in.handle)
	once := broker.Retry(broker.RetryPolicy{Attempts: 1})
	for _, group := range []string{"kept", "lost-1", "lost-2"} {
		subscribe(t, b, "bad", func(context.Context, *broker.Message) error { return errors.New("cannot by " + group) }, broker.Group(group), once, broker.DeadLetter("bad."+group))
	}
	const n = 20
	for i := range n {
		m := &broker.Message{ID: fmt.Sprint(i), Body: []byte("body")}
		if i%2 == 0 {
			m.Key, m.Header = "k", map[string]string{"h": "v"}
		}
		require.NoError(t, b.Publish(t.Context(), "bad", m))
	}
	require.Eventually(t, func() bool {
		return strings.Count(log.String(), "level=WARN") == 2*n && strings.Count(log.String(), "moved to the dead letter topic") == n
	}, wait, poll)
	for _, want := range []string{"queue micro::dead", "rabbitmqadmin get queue=micro::dead", "dead_letter=bad.lost-1"} {
		require.Contains(t, log.String(), want)
	}
	for line := range strings.Lines(log.String()) {
		require.Equal(t, 1, strings.Count(line, " topic="), line)
	}
	require.Eventually(t, func() bool { return len(in.messages()) == n }, wait, poll)
	for _, m := range in.messages() {
		require.Equal(t, "cannot by kept", m.Header[broker.HeaderDeadReason])
	}
	found := map[any]int{}
	for range 2 * n {
		d, ok, err := ch.Get(deadName, true)
		require.NoError(t, err)
		require.True(t, ok)
		group := strings.TrimPrefix(d.Headers["Micro-Dead-Letter"].(string), "bad.")
		found[group]++
		require.Equal(t, "body", string(d.Body))
		require.Equal(t, "cannot by "+group, d.Headers[broker.HeaderDeadReason])
		require.Equal(t, "bad", d.Headers[broker.HeaderDeadTopic])
		require.Equal(t, "1", d.Headers[broker.HeaderAttempts])
		if d.Headers["h"] != nil {
			require.Equal(t, "k", d.Headers["Micro-Key"])
		}
	}
	require.Equal(t, map[any]int{"lost-1": n, "lost-2": n}, found)
	require.NoError(t, b.Close())
	left := s.Eval(t, `io_lib:format("~p", [[Q || Q <- rabbit_amqqueue:list(<<"/">>), {ok, N, _} <- [rabbit_amqqueue:stat(Q)], N > 0]])`)
	require.NotContains(t, left, "micro:bad:", "all is acked")
}

func outage(t *testing.T, s *servers.RabbitServer) {
	b, log := logged(t, testConfig(s.Proxy.Addr()))
	in := &inbox{}
	subscribe(t, b, "outage", in.handle)
	subscribe(t, b, "outage", in.handle, broker.Group("g"))
	s.Proxy.Cut()
	for range 4 { // attempts
		_, noOutlet, _ := b.publish.outlets.now()
		_, noConn, _ := b.consume.conns.now()
		<-noOutlet
		<-noConn
	}
	s.Proxy.Heal()
	require.Eventually(t, func() bool { return strings.Count(log.String(), "connected to RabbitMQ again") == 2 }, wait, poll)
	require.NoError(t, b.Publish(t.Context(), "outage", &broker.Message{}))
	for _, purpose := range []string{"publish", "consume"} {
		for _, level := range []string{"WARN", "INFO"} {
			n := 0
			for line := range strings.Lines(log.String()) {
				if strings.Contains(line, "level="+level) && strings.Contains(line, "purpose="+purpose) && strings.Contains(line, s.Proxy.Addr()) {
					n++
				}
			}
			require.Equal(t, 1, n, "%s %s in\n%s", purpose, level, log)
		}
	}
	require.Equal(t, 4, strings.Count(log.String(), "\n"), log.String())
}

func longNames(t *testing.T, s *servers.RabbitServer) {
	b, topic, group := openAt(t, s.Addr), strings.Repeat("t", broker.MaxName), strings.Repeat("g", broker.MaxName-1)
	in := [2]inbox{}
	for i := range in {
		subscribe(t, b, topic, in[i].handle, broker.Group(group+fmt.Sprint(i)))
	}
	require.NoError(t, b.Publish(t.Context(), topic, &broker.Message{ID: "1", Key: "k"}, &broker.Message{ID: "2"}))
	for i := range in {
		require.Eventually(t, func() bool { return len(in[i].messages()) == 2 }, wait, poll)
	}
}

// equalShare has members join one that works alone, and counts the partitions that each has.
func equalShare(t *testing.T, s *servers.RabbitServer) {
	publisher := openAt(t, s.Addr)
	var mu sync.Mutex
	owner, last := map[string]int{}, map[string]int{} // by key
	next, keys := map[string]int{}, oneOfEach()
	share := func() (counts [3]int) {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range owner {
			counts[m]++
		}
		return counts
	}
	for member, want := range [][3]int{{8, 0, 0}, {4, 4, 0}, {3, 3, 2}} {
		subscribe(t, openAt(t, s.Addr), "share", func(_ context.Context, m *broker.Message) error {
			mu.Lock()
			defer mu.Unlock()
			var n int
			if _, err := fmt.Sscan(string(m.Body), &n); err != nil || n != last[m.Key]+1 {
				assert.Equal(t, last[m.Key]+1, n, "order of %s", m.Key)
			}
			owner[m.Key], last[m.Key] = member, n
			return nil
		}, broker.Group("g"), broker.Concurrency(4))
		require.Eventually(t, func() bool {
			for _, key := range keys {
				next[key]++
				assert.NoError(t, publisher.Publish(t.Context(), "share", &broker.Message{Key: key, Body: fmt.Append(nil, next[key])}))
			}
			got := share()
			return sameCounts(got, want)
		}, wait, 20*time.Millisecond, "want %v, have %v", want, share)
	}
}

// foreignKeys has a member hand over partitions while it has messages of their keys from the shared queue.
func foreignKeys(t *testing.T, s *servers.RabbitServer) {
	first, second, ch, keys := openAt(t, s.Addr), openAt(t, s.Addr), plain(t, s), oneOfEach()
	free, started := make(chan struct{}), make(chan string, len(keys))
	var foreign inbox
	handler := func(own *inbox) broker.Handler {
		return func(ctx context.Context, m *broker.Message) error {
			if m.ID == "own" {
				return own.handle(ctx, m)
			}
			select {
			case started <- m.Key:
			default:
			}
			<-free
			return foreign.handle(ctx, m)
		}
	}
	var atFirst, atSecond inbox
	subscribe(t, first, "foreign-keys", handler(&atFirst), broker.Group("g"), broker.Concurrency(2*len(keys)))
	for range 3 {
		for _, key := range keys {
			p := amqp091.Publishing{Headers: amqp091.Table{headerKey: key}}
			require.NoError(t, ch.PublishWithContext(t.Context(), "micro:foreign-keys", "", false, false, p))
		}
	}
	for range keys {
		<-started // two more of each key wait behind
	}
	subscribe(t, second, "foreign-keys", handler(&atSecond), broker.Group("g"), broker.Concurrency(2*len(keys)))
	require.Eventually(t, func() bool { // hand over, which takes messages of other keys: these keys are in use
		for i := range 100 {
			assert.NoError(t, first.Publish(t.Context(), "foreign-keys", &broker.Message{ID: "own", Key: fmt.Sprint("own", i)}))
		}
		served := map[int]bool{}
		for _, m := range atSecond.messages() {
			served[partitionOf(m.Key)] = true
		}
		return len(served) == partitions/2
	}, wait, 20*time.Millisecond)
	close(free)
	require.Eventually(t, func() bool { return len(foreign.messages()) == 3*len(keys) }, wait, poll)
}

// oneOfEach are keys, one of each partition.
func oneOfEach() (keys []string) {
	for i := 0; len(keys) < partitions; i++ {
		if key := fmt.Sprint("k", i); !containsPartition(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

func containsPartition(keys []string, key string) bool {
	for _, k := range keys {
		if partitionOf(k) == partitionOf(key) {
			return true
		}
	}
	return false
}

// sameCounts does not care who has what.
func sameCounts(got, want [3]int) bool {
	count := map[int]int{}
	for i := range got {
		count[got[i]]++
		count[want[i]]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

func withoutServer(t *testing.T, s *servers.RabbitServer) {
	c := testConfig(s.Proxy.Addr())
	c.Timeout = 500 * time.Millisecond
	b, err := open(context.Background(), c, quiet)
	require.NoError(t, err)
	defer b.Close()
	s.Proxy.Cut()
	defer s.Proxy.Heal()
	err = within(t, 5*time.Second, func() error {
		_, err := b.Subscribe(t.Context(), "away", (&inbox{}).handle)
		return err
	})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, s.Proxy.Addr())
	require.Eventually(t, func() bool { // until it has noticed, publishing waits for its context
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := b.Publish(ctx, "away", &broker.Message{})
		return errors.Is(err, context.DeadlineExceeded) && strings.Contains(err.Error(), "no connection") && strings.Contains(err.Error(), s.Proxy.Addr())
	}, wait, poll)
}

func TestOpenErrors(t *testing.T) {
	client := testcert.New(t).TLS()
	s := servers.RabbitMQ(t, servers.RabbitTLS(client)...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close() // accepts, and says nothing
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed.Close()
	at := func(addr string) Config {
		c := testConfig(addr)
		c.Timeout = time.Second
		return c
	}
	wrongTLS := at(s.TLSAddr)
	wrongTLS.TLS = plugin.TLS{Enable: true}
	for name, test := range map[string]struct {
		config Config
		want   []string
	}{
		"nothing there":  {at(closed.Addr().String()), []string{closed.Addr().String(), "refused", "--broker-address"}},
		"silent":         {at(l.Addr().String()), []string{l.Addr().String(), "in time"}},
		"wrong password": {at("amqp://guest:" + password + "@" + s.Addr), []string{s.Addr, "--broker-password"}},
		"wrong vhost":    {at("amqp://guest:guest@" + s.Addr + "/none"), []string{s.Addr, "--broker-vhost"}},
		"wrong TLS":      {wrongTLS, []string{s.TLSAddr, "--broker-tls-ca"}},
	} {
		t.Run(name, func(t *testing.T) {
			log := &logtest.Buffer{}
			err := within(t, 3*time.Second, func() error {
				_, err := open(context.Background(), test.config, slog.New(slog.NewTextHandler(log, nil)))
				return err
			})
			require.Error(t, err)
			require.NotContains(t, err.Error(), password)
			require.NotContains(t, err.Error(), "broker rabbitmq", "the kernel names the plugin")
			for _, want := range test.want {
				require.ErrorContains(t, err, want)
			}
			require.Empty(t, log.String(), "the caller is told")
		})
	}
	c := testConfig(s.TLSAddr)
	c.TLS = client
	b, err := open(context.Background(), c, quiet)
	require.NoError(t, err)
	in := &inbox{}
	subscribe(t, b, "tls", in.handle)
	require.NoError(t, b.Publish(t.Context(), "tls", &broker.Message{ID: "1"}))
	require.Equal(t, "1", in.one(t).ID)
	require.NoError(t, b.Close())
}

func TestValidate(t *testing.T) {
	for want, c := range map[string]Config{
		"prefetch":    {Prefetch: -1},
		"max-message": {MaxMessage: -1},
		"drain":       {Drain: -1},
	} {
		_, err := open(context.Background(), c, quiet)
		require.ErrorContains(t, err, want)
	}
	all := Config{Config: amqp.Config{Address: []string{"", ""}}, Prefetch: -1, Drain: -1}.Validate()
	for _, want := range []string{"address 1", "address 2", "prefetch", "drain"} {
		require.ErrorContains(t, all, want)
	}
	c := Config{Prefetch: 70_000}
	require.ErrorContains(t, c.Validate(), "65535")
	require.NoError(t, Config{}.Validate())
}
