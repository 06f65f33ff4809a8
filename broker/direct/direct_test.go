package direct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/logtest"
	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	memreg "github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
)

// world is what the brokers of a test have in common.
type world struct {
	*testing.T
	store     *memreg.Store
	transport transport.Transport
	log       *slog.Logger
}

func newWorld(t *testing.T) *world {
	return &world{t, memreg.NewStore(), memoryTransport(t), quiet}
}

func (w *world) open(c Config) *Broker {
	b, err := Open(w.store.Open(), w.transport, c, w.log)
	require.NoError(w, err)
	w.Cleanup(func() { b.Close() })
	return b
}

func (w *world) subscribe(b *Broker, h broker.Handler, opts ...broker.SubscribeOption) broker.Subscription {
	s, err := b.Subscribe(w.Context(), "t", h, opts...)
	require.NoError(w, err)
	return s
}

func (w *world) publish(b *Broker, bodies ...string) {
	for _, body := range bodies {
		require.NoError(w, b.Publish(w.Context(), "t", &broker.Message{Key: "k", Body: []byte(body)}))
	}
}

// inbox keeps bodies in the order in which they are handled.
type inbox struct {
	mu  sync.Mutex
	got []string
}

func (in *inbox) handle(_ context.Context, m *broker.Message) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.got = append(in.got, string(m.Body))
	return nil
}

func (in *inbox) bodies() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]string{}, in.got...)
}

func (w *world) arrive(in *inbox, bodies ...string) {
	w.Helper()
	require.Eventually(w, func() bool { return len(in.bodies()) >= len(bodies) }, 10*time.Second, time.Millisecond)
	require.Equal(w, bodies, in.bodies())
}

func stuck(ctx context.Context, _ *broker.Message) error { <-ctx.Done(); return ctx.Err() }

func TestZeroConfigIsTheDeclaredDefault(t *testing.T) {
	got := reflect.ValueOf(Config{}.withDefaults())
	for i := range got.NumField() {
		require.Equal(t, got.Type().Field(i).Tag.Get("default"), fmt.Sprint(got.Field(i)), got.Type().Field(i).Name)
	}
}

func TestBadConfig(t *testing.T) {
	for says, c := range map[string]Config{
		"buffer -1":        {Buffer: -1},
		"buffer-size -1B":  {BufferSize: -1},
		"max-message -1B":  {MaxMessage: -1},
		"max-message 2GiB": {MaxMessage: 2 << 30},
		"timeout -1s":      {Timeout: -time.Second},
		"grace -1s":        {Grace: -time.Second},
		"drain -1s":        {Drain: -time.Second},
	} {
		_, err := New(new(plugin.Env), c)
		require.ErrorContains(t, err, says)
		_, err = Open(nil, nil, c, nil)
		require.ErrorContains(t, err, says)
	}
}

// opened counts what brokers do with a transport.
type opened struct {
	transport.Transport
	dials, listens atomic.Int32
}

func (o *opened) Dial(ctx context.Context, addr string, opts ...transport.DialOption) (transport.Conn, error) {
	o.dials.Add(1)
	return o.Transport.Dial(ctx, addr, opts...)
}

func (o *opened) Listen(ctx context.Context, addr string, opts ...transport.ListenOption) (transport.Listener, error) {
	o.listens.Add(1)
	return o.Transport.Listen(ctx, addr, opts...)
}

func TestNothingIsOpenedThatIsNotNeeded(t *testing.T) {
	w := newWorld(t)
	o := &opened{Transport: w.transport}
	w.transport = o
	idle, publisher, subscriber := w.open(Config{}), w.open(Config{}), w.open(Config{})
	require.NoError(t, idle.Close())
	w.publish(publisher, "nobody is there")
	require.Zero(t, o.dials.Load()+o.listens.Load())
	in := &inbox{}
	w.subscribe(subscriber, in.handle)
	w.subscribe(subscriber, in.handle, broker.Group("g"))
	w.publish(publisher, "1")
	w.arrive(in, "1", "1")
	require.EqualValues(t, 1, o.listens.Load(), "one listener for all subscriptions of a process, none for a publisher")
	require.EqualValues(t, 1, o.dials.Load(), "one connection for all of them")
}

func TestListenErrorIsAnswered(t *testing.T) {
	w := newWorld(t)
	w.transport = tcpTransport(t)
	b := w.open(Config{Address: "256.0.0.1:0"})
	for range 2 {
		_, err := b.Subscribe(t.Context(), "t", stuck)
		require.ErrorContains(t, err, "256.0.0.1")
	}
}

// flaky is a registry that can fail.
type flaky struct {
	registry.Registry
	down atomic.Bool
}

var errDown = errors.New("the registry is down")

func (f *flaky) GetService(name string) ([]*registry.Service, error) {
	if f.down.Load() {
		return nil, errDown
	}
	return f.Registry.GetService(name)
}

func (f *flaky) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	if f.down.Load() {
		return errDown
	}
	return f.Registry.Register(s, opts...)
}

func (f *flaky) Watch() (registry.Watcher, error) {
	if f.down.Load() {
		return nil, errDown
	}
	return f.Registry.Watch()
}

func TestRegistryThatIsDown(t *testing.T) {
	w := newWorld(t)
	reg := &flaky{Registry: w.store.Open()}
	b, err := Open(reg, w.transport, Config{}, w.log)
	require.NoError(t, err)
	defer b.Close()

	reg.down.Store(true)
	require.ErrorIs(t, b.Publish(t.Context(), "t", &broker.Message{}), errDown, "it cannot know who subscribed")
	_, err = b.Subscribe(t.Context(), "t", stuck)
	require.ErrorIs(t, err, errDown)
	require.Empty(t, b.subs)

	reg.down.Store(false)
	in, other := &inbox{}, &inbox{}
	subscriber := w.open(Config{})
	w.subscribe(subscriber, in.handle)
	_, err = subscriber.Subscribe(t.Context(), "other", other.handle)
	require.NoError(t, err)
	w.publish(b, "1")
	reg.down.Store(true)
	require.NoError(t, b.Publish(t.Context(), "other", &broker.Message{Body: []byte("known")}))
	w.arrive(other, "known")
	w.store.Wipe() // everybody's registrations are lost, and the watch tells so
	w.publish(b, "2", "3")
	w.arrive(in, "1", "2", "3")
}

// cutter is a transport whose connections can be cut.
type cutter struct {
	transport.Transport
	mu    sync.Mutex
	conns []transport.Conn
	down  atomic.Bool
}

func (c *cutter) Dial(ctx context.Context, addr string, opts ...transport.DialOption) (transport.Conn, error) {
	if c.down.Load() {
		return nil, fmt.Errorf("dial %s: %w", addr, transport.ErrUnreachable)
	}
	conn, err := c.Transport.Dial(ctx, addr, opts...)
	if err == nil {
		c.mu.Lock()
		c.conns = append(c.conns, conn)
		c.mu.Unlock()
	}
	return conn, err
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

func TestCutConnectionsLoseAndDoubleNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := &cutter{Transport: w.transport}
		w.transport = c
		publisher, subscriber := w.open(Config{}), w.open(Config{})
		in := &inbox{}
		w.subscribe(subscriber, func(ctx context.Context, m *broker.Message) error {
			time.Sleep(10 * time.Millisecond)
			return in.handle(ctx, m)
		}, broker.Group("g"))
		var want []string
		for i := range 500 {
			want = append(want, fmt.Sprint(i))
		}
		w.publish(publisher, want...)
		for range 2 {
			time.Sleep(settled + 500*time.Millisecond)
			c.cut()
		}
		require.NoError(t, publisher.Close())
		require.Equal(t, want, in.bodies())
		require.NoError(t, subscriber.Close())
	})
}

// TestPublisherThatIsBackBeforeItsLossIsNoticed has a delivery wait for room on a stream that its publisher has given up.
func TestPublisherThatIsBackBeforeItsLossIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b := w.open(Config{Buffer: 1})
		next := make(chan struct{})
		in := &inbox{}
		s := w.subscribe(b, func(ctx context.Context, m *broker.Message) error { <-next; return in.handle(ctx, m) }).(*subscription)
		var frame []byte
		for i, body := range []string{"1", "2"} {
			frame = appendDelivery(frame, uint64(i), appendMessage(nil, &broker.Message{Body: []byte(body)}, body))
		}
		connect := func() *mux.Client {
			c, err := mux.Dial(t.Context(), w.transport, b.listener.addr(), mux.Options{})
			require.NoError(t, err)
			t.Cleanup(c.Close)
			st, err := c.Open(t.Context(), &mux.Request{
				Service: serviceName, Endpoint: s.id, Codec: bytesCodec, Metadata: map[string]string{sourceKey: "x"}})
			require.NoError(t, err)
			require.NoError(t, st.Send(t.Context(), bytesCodec, frame))
			synctest.Wait()
			return c
		}
		old := connect()
		connect()
		old.Close()
		synctest.Wait()
		close(next)
		synctest.Wait()
		require.Equal(t, []string{"1", "2"}, in.bodies())
		require.NoError(t, b.Close())
	})
}

func TestUnreachableMemberIsRelievedAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := &cutter{Transport: w.transport}
		far, err := Open(w.store.Open(), w.transport, Config{}, quiet)
		require.NoError(t, err)
		w.transport = c
		publisher := w.open(Config{Grace: time.Minute})
		in := &inbox{}
		w.subscribe(far, in.handle, broker.Group("g"))
		w.publish(publisher, "1")
		synctest.Wait()
		c.down.Store(true)
		c.cut()
		w.publish(publisher, "2")
		time.Sleep(50 * time.Second)
		require.Equal(t, []string{"1"}, in.bodies())
		c.down.Store(false)
		time.Sleep(10 * time.Second)
		require.Equal(t, []string{"1", "2"}, in.bodies())
		require.NoError(t, publisher.Close())
		require.NoError(t, far.Close())
	})
}

func TestSilentMemberIsRelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		silent := &silencer{Transport: w.transport}
		w.transport = silent
		frozen, other, publisher := w.open(Config{}), w.open(Config{}), w.open(Config{})
		w.subscribe(frozen, func(context.Context, *broker.Message) error {
			silent.addr.Store(frozen.listener.addr())
			time.Sleep(time.Hour)
			return nil
		}, broker.Group("g"))
		w.publish(publisher, "1")
		synctest.Wait()
		in := &inbox{}
		w.subscribe(other, in.handle, broker.Group("g"))
		began := time.Now()
		require.NoError(t, publisher.table.all()[0].wait(t.Context()))
		require.Equal(t, []string{"1"}, in.bodies())
		require.LessOrEqual(t, time.Since(began), 15*time.Second+maxDialTime+time.Second, "as the documentation says")
		silent.addr.Store("")
		require.NoError(t, publisher.Close())
		require.NoError(t, other.Close())
		require.Error(t, frozen.Close())
		time.Sleep(time.Hour)
	})
}

// silencer drops what comes from one address.
type silencer struct {
	transport.Transport
	addr atomic.Value
}

func (s *silencer) Dial(ctx context.Context, addr string, opts ...transport.DialOption) (transport.Conn, error) {
	conn, err := s.Transport.Dial(ctx, addr, opts...)
	return &silentConn{conn, s, addr}, err
}

type silentConn struct {
	transport.Conn
	s    *silencer
	addr string
}

func (c *silentConn) Recv(ctx context.Context) ([]byte, error) {
	for {
		msg, err := c.Conn.Recv(ctx)
		if err != nil || c.s.addr.Load() != c.addr {
			return msg, err
		}
	}
}

func TestCloseSaysWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		subscriber, publisher := w.open(Config{Drain: time.Minute}), w.open(Config{})
		w.subscribe(subscriber, stuck, broker.Group("g"))
		w.publish(publisher, "1", "2", "3")
		began := time.Now()
		require.ErrorContains(t, publisher.Close(), `3 messages for topic "t", group "g"`)
		require.Equal(t, 10*time.Second, time.Since(began))
		require.NoError(t, subscriber.Close())
	})
}

func TestSingleProcessWorksOffItsOwnMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b := w.open(Config{})
		in := &inbox{}
		_, err := b.Subscribe(t.Context(), "last", in.handle, broker.Group("g"))
		require.NoError(t, err)
		w.subscribe(b, func(ctx context.Context, m *broker.Message) error {
			time.Sleep(time.Second)
			return b.Publish(ctx, "last", m)
		}, broker.Group("g"))
		require.NoError(t, b.Publish(t.Context(), "last", &broker.Message{Key: "k", Body: []byte("0")}))
		w.publish(b, "1", "2", "3")
		require.NoError(t, b.Close())
		require.Equal(t, []string{"0", "1", "2", "3"}, in.bodies())
	})
}

func TestLossIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		log := &logtest.Buffer{}
		w.log = slog.New(slog.NewTextHandler(log, nil))
		publisher, subscriber := w.open(Config{Grace: time.Minute}), w.open(Config{})
		w.subscribe(subscriber, stuck, broker.Group("g"))
		w.publish(publisher, "1", "2")
		synctest.Wait()
		kill(subscriber)
		require.NoError(t, subscriber.registry.(*memreg.Registry).Close())
		time.Sleep(2 * time.Minute)
		require.Contains(t, log.String(), "messages dropped: their group has had no member that could be reached")
		require.Contains(t, log.String(), "topic=t group=g messages=2")
		require.Empty(t, publisher.table.all(), "the group is forgotten")
		require.NoError(t, publisher.Close())
		subscriber.Close()
	})
}

func TestSlowSubscriberHoldsUpNobodyElse(t *testing.T) {
	w := newWorld(t)
	w.transport = tcpTransport(t)
	c := loopback(Config{Buffer: 10_000, BufferSize: 4 << 20, Drain: 100 * time.Millisecond})
	publisher, subscriber := w.open(c), w.open(c)
	w.subscribe(subscriber, stuck)
	var handled atomic.Int32
	_, err := subscriber.Subscribe(t.Context(), "quick", func(context.Context, *broker.Message) error {
		handled.Add(1)
		return nil
	})
	require.NoError(t, err)

	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	taken := 0
	for ; ; taken++ {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err := publisher.Publish(ctx, "t", &broker.Message{Body: make([]byte, 64<<10)})
		cancel()
		if err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded)
			break
		}
	}
	require.Less(t, taken*64<<10, 4<<20+1)
	var after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(16<<20), "both sides keep to the limit")

	for range 1000 {
		require.NoError(t, publisher.Publish(t.Context(), "quick", &broker.Message{Body: make([]byte, 1000)}))
	}
	require.Eventually(t, func() bool { return handled.Load() == 1000 }, 10*time.Second, time.Millisecond)
}

func TestMessageTooLargeForTheSubscriber(t *testing.T) {
	w := newWorld(t)
	publisher, subscriber := w.open(Config{MaxMessage: 1 << 20}), w.open(Config{MaxMessage: 1 << 10})
	in := &inbox{}
	w.subscribe(subscriber, in.handle, broker.Group("g"))
	w.publish(publisher, "1")
	require.NoError(t, publisher.Publish(t.Context(), "t", &broker.Message{Body: make([]byte, 1<<20)}))
	w.publish(publisher, "2")
	w.arrive(in, "1", "2")
	require.NoError(t, publisher.Close())
}

// stranger is a stream to a subscription that says what it wants.
func (w *world) stranger(addr, endpoint string) (*mux.Client, *mux.Stream, error) {
	c, err := mux.Dial(w.Context(), limited{w.transport, 8 << 20}, addr, mux.Options{})
	require.NoError(w, err)
	w.Cleanup(c.Close)
	st, err := c.Open(w.Context(), &mux.Request{Service: serviceName, Endpoint: endpoint, Codec: bytesCodec})
	return c, st, err
}

func TestStrangers(t *testing.T) {
	w := newWorld(t)
	subscriber, publisher := w.open(Config{}), w.open(Config{})
	in := &inbox{}
	s := w.subscribe(subscriber, in.handle).(*subscription)
	addr := subscriber.listener.addr()

	c, _, err := w.stranger(addr, "unknown")
	require.Equal(t, status.NotFound, status.CodeOf(err))
	_, err = c.Call(t.Context(), &mux.Request{Service: "greeter", Endpoint: s.id, Codec: bytesCodec})
	require.Equal(t, status.Unimplemented, status.CodeOf(err))
	_, err = c.Call(t.Context(), &mux.Request{Service: serviceName, Endpoint: s.id, Codec: bytesCodec})
	require.NoError(t, err, "a confirmation that comes late is nothing bad")

	invalid := func(m *broker.Message) []byte { return appendDelivery(nil, 1, appendMessage(nil, m, "id")) }
	for name, frame := range map[string][]byte{
		"nonsense":         []byte("GET / HTTP/1.1\r\n\r\n"),
		"cut":              invalid(&broker.Message{Body: []byte("body")})[:8],
		"reserved header":  invalid(&broker.Message{Header: map[string]string{"Micro-Secret": "x"}}),
		"key that is long": invalid(&broker.Message{Key: string(make([]byte, 300))}),
		"not UTF-8":        invalid(&broker.Message{Key: "\xff"}),
	} {
		_, st, err := w.stranger(addr, s.id)
		require.NoError(t, err, name)
		require.NoError(t, st.Send(t.Context(), bytesCodec, frame), name)
		_, err = st.Recv(t.Context())
		require.Equal(t, status.InvalidArgument, status.CodeOf(err), name)
	}
	w.publish(publisher, "1")
	w.arrive(in, "1")
	require.Eventually(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.sources) == 1 }, 10*time.Second, time.Millisecond,
		"nothing is kept of them")
}

func TestHostileSubscriberHarmsNobody(t *testing.T) {
	w := newWorld(t)
	l, err := w.transport.Listen(t.Context(), "hostile")
	require.NoError(t, err)
	defer l.Close()
	var answers atomic.Int32
	h := hostile{&answers}
	workers := mux.NewWorkers()
	defer workers.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept(ctx)
			if err != nil {
				return
			}
			if s, err := mux.Accept(ctx, conn, h, workers, mux.Options{}); err == nil {
				serving.Go(func() {
					defer context.AfterFunc(ctx, s.Close)()
					_ = s.Run()
				})
			}
		}
	})
	defer serving.Wait()
	defer cancel()
	reg := w.store.Open()
	require.NoError(t, reg.Register(&registry.Service{Name: serviceName, Nodes: []*registry.Node{
		{ID: "bad", Address: "hostile", Metadata: map[string]string{metaTopic: "t", metaGroup: "g", metaConcurrency: "-99999999999999999999"}},
		{ID: "alien", Address: "nowhere"},
	}}))
	in := &inbox{}
	w.subscribe(w.open(Config{}), in.handle, broker.Group("g"))
	publisher := w.open(Config{})
	var want []string
	for i := range 50 {
		want = append(want, fmt.Sprint(i))
	}
	w.publish(publisher, want...)
	require.NoError(t, publisher.Close())
	require.Equal(t, want, in.bodies())
	require.NotZero(t, answers.Load())
}

// hostile answers with acks of what was never sent, and nonsense.
type hostile struct{ answers *atomic.Int32 }

func (hostile) Find(_, _ []byte, _ bool) (any, *mux.Error) { return nil, nil }

func (h hostile) Serve(c *mux.Call) {
	h.answers.Add(1)
	_ = c.Stream.Send(c, bytesCodec, appendAcks(nil, []uint64{1 << 63, 1 << 40}))
	_ = c.Stream.Send(c, bytesCodec, []byte("nonsense"))
	for {
		b, err := c.Stream.Recv(c)
		if errors.Is(err, io.EOF) || err != nil {
			return
		}
		b.Release()
	}
}

func TestSubscribeObeysItsContext(t *testing.T) {
	w := newWorld(t)
	free := make(chan struct{})
	b, err := Open(&hanging{w.store.Open(), free}, w.transport, Config{}, w.log)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = b.Subscribe(ctx, "t", stuck)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	close(free)
	require.NoError(t, b.Close())
	require.Eventually(t, func() bool {
		_, err := w.store.Open().GetService(serviceName)
		return errors.Is(err, registry.ErrNotFound)
	}, 10*time.Second, time.Millisecond, "what was registered too late does not stay")
}

// hanging is a registry that takes its time to register.
type hanging struct {
	registry.Registry
	free chan struct{}
}

func (h *hanging) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	<-h.free
	return h.Registry.Register(s, opts...)
}

func TestStaleRegistrationsDoNotStopAPublisher(t *testing.T) {
	w := newWorld(t)
	w.transport = tcpTransport(t)
	dead, alive := w.open(loopback(Config{})), w.open(loopback(Config{}))
	w.subscribe(dead, stuck, broker.Group("g"))
	in := &inbox{}
	w.subscribe(alive, in.handle, broker.Group("g"))
	kill(dead)
	publisher := w.open(Config{})
	var want []string
	for i := range 100 {
		want = append(want, fmt.Sprint(i))
	}
	w.publish(publisher, want...)
	require.NoError(t, publisher.Close())
	require.Equal(t, want, in.bodies())
}

func TestNewGroupMissesNothingOfABusyPublisher(t *testing.T) {
	w := newWorld(t)
	publisher, first := w.open(Config{}), w.open(Config{})
	w.subscribe(first, (&inbox{}).handle, broker.Group("first"))
	w.publish(publisher, "before")
	for i := range 20 {
		in := &inbox{}
		w.subscribe(w.open(Config{}), in.handle, broker.Group(fmt.Sprint(i)))
		w.publish(publisher, "after")
		w.arrive(in, "after")
	}
}

func TestDeadPublishersHoldUpNobodyForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		require.NoError(t, w.store.Open().Register(&registry.Service{Name: serviceName, Nodes: []*registry.Node{
			{ID: "dead", Address: noAddress, Metadata: map[string]string{metaPublisher: "true"}},
		}}))
		b := w.open(Config{})
		began := time.Now()
		w.subscribe(b, stuck)
		require.Equal(t, spreadTime, time.Since(began))
		require.NoError(t, b.Close())
	})
}

func TestNothingStaysRegistered(t *testing.T) {
	w := newWorld(t)
	publisher, subscriber := w.open(Config{}), w.open(Config{})
	s := w.subscribe(subscriber, (&inbox{}).handle)
	w.subscribe(subscriber, (&inbox{}).handle)
	w.publish(publisher, "1")
	nodes := func() int {
		versions, err := w.store.Open().GetService(serviceName)
		if errors.Is(err, registry.ErrNotFound) {
			return 0
		}
		require.NoError(t, err)
		return len(versions[0].Nodes)
	}
	require.Equal(t, 3, nodes())
	require.NoError(t, s.Close())
	require.Equal(t, 2, nodes())
	require.NoError(t, subscriber.Close())
	require.Equal(t, 1, nodes())
	require.NoError(t, publisher.Close())
	require.Zero(t, nodes())
}
