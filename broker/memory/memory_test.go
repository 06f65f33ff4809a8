package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/plugin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, h *hub, c Config) *Broker {
	t.Helper()
	b, err := newBroker(context.Background(), h, c, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

func subscribe(t *testing.T, b broker.Broker, topic string, h broker.Handler, opts ...broker.SubscribeOption) broker.Subscription {
	t.Helper()
	s, err := b.Subscribe(t.Context(), topic, h, opts...)
	require.NoError(t, err)
	return s
}

func publish(t *testing.T, b broker.Broker, topic string, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		require.NoError(t, b.Publish(t.Context(), topic, &broker.Message{Body: []byte(body)}))
	}
}

func TestNewSharesTheProcess(t *testing.T) {
	one, err := New(new(plugin.Env), Config{})
	require.NoError(t, err)
	defer one.Close()
	other, err := New(new(plugin.Env), Config{})
	require.NoError(t, err)
	defer other.Close()

	got := make(chan string, 1)
	subscribe(t, one, "shared", func(_ context.Context, m *broker.Message) error {
		got <- string(m.Body)
		return nil
	})
	publish(t, other, "shared", "hello")
	require.Equal(t, "hello", <-got)
	require.Equal(t, "memory", one.String())
}

func TestZeroConfigIsTheDeclaredDefault(t *testing.T) {
	values := reflect.ValueOf(Config{}.withDefaults())
	for i := range values.NumField() {
		require.Equal(t, values.Type().Field(i).Tag.Get("default"), fmt.Sprint(values.Field(i)), values.Type().Field(i).Name)
	}
}

func TestBadConfig(t *testing.T) {
	for says, c := range map[string]Config{
		"buffer -1":      {Buffer: -1},
		"buffer-size -1": {BufferSize: -1},
		"max-message -1": {MaxMessage: -1},
		"drain -1s":      {Drain: -time.Second},
	} {
		_, err := New(new(plugin.Env), c)
		require.ErrorContains(t, err, "memory broker: "+says)
	}
}

func TestCloseIsCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, giveUp := context.WithCancel(t.Context())
		b, err := newBroker(ctx, newHub(), Config{Drain: time.Hour}, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		subscribe(t, b, "t", func(ctx context.Context, _ *broker.Message) error { <-ctx.Done(); return ctx.Err() })
		publish(t, b, "t", "1")
		closed := make(chan error)
		go func() { closed <- b.Close() }()
		synctest.Wait()
		start := time.Now()
		giveUp()
		require.NoError(t, <-closed)
		require.Less(t, time.Since(start), time.Minute)
	})
}

func TestTopicsEndWithTheirSubscribers(t *testing.T) {
	h := newHub()
	b := open(t, h, Config{})
	one := subscribe(t, b, "t", ignore)
	two := subscribe(t, b, "t", ignore, broker.Group("g"))
	three := subscribe(t, b, "t", ignore, broker.Group("g"))
	require.Len(t, h.topics["t"], 2)
	require.NoError(t, one.Close())
	require.NoError(t, two.Close())
	require.Len(t, h.topics["t"], 1)
	require.NoError(t, three.Close())
	require.Empty(t, h.topics)
	require.Empty(t, b.subs.Seal())
}

func ignore(context.Context, *broker.Message) error { return nil }

func TestCloseWorksOffWhatIsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, newHub(), Config{Drain: time.Minute})
		var done []string
		subscribe(t, b, "last", func(_ context.Context, m *broker.Message) error {
			done = append(done, string(m.Body))
			return nil
		})
		subscribe(t, b, "first", func(ctx context.Context, m *broker.Message) error {
			<-time.After(time.Second)
			return b.Publish(ctx, "last", m)
		})
		publish(t, b, "first", "1", "2", "3")
		require.NoError(t, b.Close())
		require.Equal(t, []string{"1", "2", "3"}, done)
	})
}

func TestCloseOfTwoMembersWorksOffToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		done := make(chan string, 10)
		slow := func(_ context.Context, m *broker.Message) error {
			<-time.After(time.Second)
			done <- string(m.Body)
			return nil
		}
		one, two := open(t, h, Config{Drain: time.Minute}), open(t, h, Config{Drain: time.Minute})
		subscribe(t, one, "t", slow, broker.Group("g"))
		subscribe(t, two, "t", slow, broker.Group("g"))
		publish(t, one, "t", "1", "2", "3", "4", "5", "6")
		closed := make(chan error)
		go func() { closed <- one.Close() }()
		require.NoError(t, two.Close())
		require.NoError(t, <-closed)
		require.Len(t, done, 6)
	})
}

func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, newHub(), Config{Drain: time.Minute})
		free := make(chan struct{})
		subscribe(t, b, "t", func(context.Context, *broker.Message) error { <-free; return nil })
		publish(t, b, "t", "1", "2")
		synctest.Wait()
		start := time.Now()
		require.ErrorContains(t, b.Close(), `"t": 1 handlers still run`)
		require.Equal(t, 61*time.Second, time.Since(start))
		close(free)
	})
}

func TestHandlerThatClosesItsOwnSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, newHub(), Config{Drain: time.Minute})
		self, closed := make(chan broker.Subscription, 1), make(chan error, 1)
		self <- subscribe(t, b, "t", func(context.Context, *broker.Message) error {
			closed <- (<-self).Close()
			return nil
		})
		publish(t, b, "t", "1")
		require.ErrorContains(t, <-closed, "still run", "it waits for itself, but not for ever")
	})
}

func TestCloseFreesAPublisher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		b, other := open(t, h, Config{}), open(t, h, Config{Buffer: 1, Drain: time.Second})
		free := make(chan struct{})
		subscribe(t, other, "t", func(context.Context, *broker.Message) error { <-free; return nil })
		publish(t, b, "t", "1")
		waits := make(chan error)
		go func() { waits <- b.Publish(t.Context(), "t", &broker.Message{}) }()
		synctest.Wait()
		require.NoError(t, b.Close())
		require.ErrorIs(t, <-waits, broker.ErrClosed)
		close(free)
	})
}

func TestLeavingFreesAPublisher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, newHub(), Config{Buffer: 1, Drain: time.Second})
		s := subscribe(t, b, "t", func(ctx context.Context, _ *broker.Message) error { <-ctx.Done(); return ctx.Err() })
		publish(t, b, "t", "1")
		waits := make(chan error)
		go func() { waits <- b.Publish(t.Context(), "t", &broker.Message{}) }()
		synctest.Wait()
		require.NoError(t, s.Close())
		require.NoError(t, <-waits, "nobody is there who would miss it")
	})
}

func TestLastMemberSaysWhatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		b, err := newBroker(context.Background(), newHub(), Config{}, slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)
		s := subscribe(t, b, "t", func(context.Context, *broker.Message) error { return errors.New("boom") }, broker.Group("g"))
		publish(t, b, "t", "1", "2")
		synctest.Wait()
		require.NoError(t, s.Close())
		require.Contains(t, log.String(), "topic=t group=g messages=2")
		require.NoError(t, b.Close())
	})
}
