package client_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/internal/wire"
	"github.com/plugmicro/micro/metadata"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport/tcp"
)

// TestNodeThatIsDown: a registered address where nobody listens fails no call.
func TestNodeThatIsDown(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...option) {
		w := newWorld(t, 3, opts...)
		w.nodes[1].stop()
		require.NotContains(t, w.hellos(300), "node-1")
	})
}

// TestNodeThatDoesNotAnswerTheDial holds a call for a moment at most.
func TestNodeThatDoesNotAnswerTheDial(t *testing.T) {
	w := newWorld(t, 2)
	w.net.blackhole(w.nodes[0].addr, true)
	ctx, cancel := context.WithTimeout(t.Context(), soon/2)
	defer cancel()
	for range 200 {
		rsp, err := w.call(ctx, "Greeter.Hello")
		require.NoError(t, err)
		require.Equal(t, "node-1", rsp.Node)
	}
}

// TestNodeThatComesBack is connected in the background, and called again.
func TestNodeThatComesBack(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...option) {
		w := newWorld(t, 2, append(opts, balanced(client.RoundRobin()))...)
		w.connected(2)
		w.nodes[0].kill()
		require.Equal(t, map[string]int{"node-1": 50}, w.hellos(50))
		w.start("node-0", "1.0.0", w.nodes[0].addr)
		require.Eventually(t, func() bool { return w.hellos(20)["node-0"] > 0 }, soon, time.Millisecond)
	})
}

// TestLostCalls: a call that may have run is made again only if the endpoint is idempotent.
func TestLostCalls(t *testing.T) {
	for endpoint, retried := range map[string]bool{"Greeter.Hello": false, "Greeter.Read": true} {
		t.Run(endpoint, func(t *testing.T) {
			w := newWorld(t, 2)
			hold := make(chan struct{})
			defer close(hold)
			w.nodes[0].hold.Store(&hold)
			type result struct {
				rsp *Greeting
				err error
			}
			results := make(chan result, 1)
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			first := true
			go func() {
				only0 := client.Where(func(n *client.Node) bool { // for the first attempt
					if n.ID == "node-1" && first {
						first = false
						return false
					}
					return true
				})
				rsp, err := w.call(ctx, endpoint, only0)
				results <- result{rsp, err}
			}()
			require.Eventually(t, func() bool { return w.client.InFlight() == 1 }, soon, time.Millisecond)
			w.nodes[0].kill()
			r := <-results
			if retried {
				require.NoError(t, r.err)
				require.Equal(t, "node-1", r.rsp.Node)
				return
			}
			require.Equal(t, status.Unavailable, status.CodeOf(r.err))
			require.ErrorContains(t, r.err, fmt.Sprintf("call greeter Greeter.Hello at %s: connection lost: ", w.nodes[0].addr))
			require.Zero(t, w.nodes[1].calls.Load())
		})
	}
}

// TestRetriesAreBounded by the attempts of a call, and by the budget of all.
func TestRetriesAreBounded(t *testing.T) {
	w := newWorld(t, 1, with(func(o *client.Options) { o.Attempts = 3 }))
	w.hellos(1)
	other := w.startService("other", "other", "")
	require.NoError(t, w.reg.Deregister(w.nodes[0].service("")))
	w.nodes[0].stop()
	moved := w.nodes[0].service("1.0.0")
	moved.Nodes[0].Address = other.addr // where another service refuses all
	require.NoError(t, w.reg.Register(moved))
	require.Eventually(t, func() bool {
		_, err := w.hello()
		return err != nil && err.Error() == fmt.Sprintf(`Unavailable: call greeter Greeter.Hello at %s: this address is service "other" now, not "greeter"`, other.addr)
	}, soon, time.Millisecond)

	var attempts attemptCounter
	w.client.Use(func(next client.Invoker) client.Invoker {
		return func(ctx context.Context, r *client.Request) error {
			r.Observe(&attempts)
			return next(ctx, r)
		}
	})
	var calls sync.WaitGroup
	for range 600 {
		calls.Go(func() { w.call(context.Background(), "Greeter.Hello") })
	}
	calls.Wait()
	require.LessOrEqual(t, attempts.Load(), int64(600+1000), "the budget is 1,000 retries")
	attempts.Store(0)
	for range 100 {
		_, err := w.hello()
		require.Error(t, err)
	}
	require.Equal(t, int64(100), attempts.Load(), "without a budget nothing is tried again")
}

// attemptCounter is a client.Observer.
type attemptCounter struct{ atomic.Int64 }

func (c *attemptCounter) Attempt(string, error) { c.Add(1) }
func (c *attemptCounter) End(error)             {}

// TestStaleAddress: what another service took over refuses, and is left alone for a while: the retries that it takes do
// not use up the budget.
func TestStaleAddress(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...option) {
		w := newWorld(t, 2, opts...)
		w.connected(2)
		addr := w.nodes[0].addr
		w.nodes[0].stop()
		w.startService("other", "other", addr)
		require.Equal(t, map[string]int{"node-1": 2000}, w.hellos(2000))
		_, err := client.Call[Greeting](t.Context(), w.client, "other", "Greeter.Hello", &Hello{}, client.Address(addr))
		require.NoError(t, err, "the service that is there is called")
	})
}

// TestFrozenNode: one that takes calls and answers none is ejected, and comes back.
func TestFrozenNode(t *testing.T) {
	w := newWorld(t, 3, balanced(client.RoundRobin()))
	w.connected(3)
	w.net.freeze(w.nodes[0].addr, true)
	failed := 0
	for range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if _, err := w.call(ctx, "Greeter.Hello"); err != nil {
			require.Equal(t, status.DeadlineExceeded, status.CodeOf(err))
			failed++
		}
		cancel()
	}
	require.LessOrEqual(t, failed, 5+2, "five in a row, and one more each time that it is tried again")
	w.net.freeze(w.nodes[0].addr, false)
	require.Eventually(t, func() bool { return w.hellos(10)["node-0"] > 0 }, soon, 10*time.Millisecond)
}

// TestSilentPeer: a connection that died without a word is found out by the keepalive.
func TestSilentPeer(t *testing.T) {
	w := newWorld(t, 2, balanced(client.RoundRobin()), with(func(o *client.Options) { o.KeepAlive = 50 * time.Millisecond }))
	w.connected(2)
	w.net.freeze(w.nodes[0].addr, true)
	dials := w.net.dials
	require.Eventually(t, func() bool {
		w.net.mu.Lock()
		defer w.net.mu.Unlock()
		return w.net.dials > dials
	}, soon, time.Millisecond, "it connects anew")
	require.Eventually(t, func() bool { return w.hellos(10)["node-0"] > 0 }, soon, time.Millisecond)
}

// TestFailingNode: one that fails every call fast does not attract them all.
func TestFailingNode(t *testing.T) {
	w := newWorld(t, 3, balanced(client.RoundRobin()))
	w.connected(3)
	w.nodes[0].fail.Store(&status.Error{Code: status.Internal, Message: "no database"})
	failed := 0
	for range 300 {
		if _, err := w.hello(); err != nil {
			failed++
		}
	}
	require.LessOrEqual(t, failed, 5+2)
	w.nodes[0].fail.Store(nil)
	require.Eventually(t, func() bool { return w.hellos(10)["node-0"] > 0 }, soon, 10*time.Millisecond, "it is tried again")

	w.nodes[0].fail.Store(&status.Error{Code: status.NotFound, Message: "no such user"})
	notFound := 0
	for range 300 {
		if _, err := w.hello(); err != nil {
			notFound++
		}
	}
	require.Greater(t, notFound, 20, "answers are no failures of the node")
}

// TestTooManyConnections: a listener that takes no more hangs up, and the call goes elsewhere.
func TestTooManyConnections(t *testing.T) {
	w := newWorld(t, 2, overTCP(tcp.Config{MaxConns: 1}))
	w.connected(2)
	other := client.New(w.reg, w.net, client.Options{})
	defer other.Close()
	_, err := client.Call[Greeting](t.Context(), other, "greeter", "Greeter.Hello", &Hello{})
	require.Equal(t, status.Unavailable, status.CodeOf(err))
	require.ErrorContains(t, err, "hello from "+w.nodes[0].addr[:9])
	w.start("roomy", "1.0.0")
	require.Eventually(t, func() bool {
		rsp, err := client.Call[Greeting](t.Context(), other, "greeter", "Greeter.Hello", &Hello{})
		return err == nil && rsp.Node == "roomy"
	}, soon, time.Millisecond)
}

// TestKilledNodes: half of the nodes die under load.
func TestKilledNodes(t *testing.T) {
	w := newWorld(t, 6)
	w.connected(6)
	once, again := w.load(8, "Greeter.Hello"), w.load(8, "Greeter.Read")
	once.during(t, 200)
	for _, n := range w.nodes[:3] {
		n.kill()
	}
	once.during(t, 500)
	again.during(t, 500)
	require.Empty(t, again.done(), "idempotent calls do not fail at all")
	errs := once.done()
	require.LessOrEqual(t, len(errs), 8, "no call fails that was not in flight: %v", errs)
	for _, err := range errs {
		require.ErrorContains(t, err, "connection lost")
	}
}

// TestRollingRestart: every node goes as SIGTERM makes it go, and comes back, under load: no call fails.
func TestRollingRestart(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...option) {
		w := newWorld(t, 4, opts...)
		w.connected(4)
		l := w.load(16, "Greeter.Hello")
		for i, n := range w.nodes[:4] {
			if i%2 == 0 {
				n.deregister() // clients hear it before, or find out
			}
			n.stop()
			w.start(n.id, "1.0.1", n.addr)
			l.during(t, 300)
		}
		require.Empty(t, l.done())
	})
}

// TestBrokenConnections cuts them all the time; idempotent calls do not fail.
func TestBrokenConnections(t *testing.T) {
	w := newWorld(t, 4)
	w.connected(4)
	l := w.load(8, "Greeter.Read")
	for range 50 {
		w.net.cut(w.nodes[rand.IntN(4)].addr)
		l.during(t, 20)
	}
	require.Empty(t, l.done())
	require.Zero(t, w.client.InFlight())
}

// TestDeregisteredNode: no call goes to it while there are others, though it still lives.
func TestDeregisteredNode(t *testing.T) {
	w := newWorld(t, 2, balanced(client.RoundRobin()))
	w.connected(2)
	w.nodes[0].deregister()
	require.Eventually(t, func() bool { return w.hellos(20)["node-0"] == 0 }, soon, time.Millisecond)
	w.start("node-2", "1.0.0")
	require.Eventually(t, func() bool { return w.hellos(20)["node-2"] > 0 }, soon, time.Millisecond)
}

// flaky is a registry that can be away.
type flaky struct {
	registry.Registry
	mu      sync.Mutex
	away    bool
	watcher []registry.Watcher
	during  func() // called within GetService, once
}

func (f *flaky) isAway() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.away
}

// leave makes the registry fail, watches included, or ends that.
func (f *flaky) leave(away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = away
	for _, w := range f.watcher {
		w.Stop()
	}
	f.watcher = nil
}

func (f *flaky) GetService(name string) ([]*registry.Service, error) {
	if f.isAway() {
		return nil, io.ErrUnexpectedEOF
	}
	found, err := f.Registry.GetService(name)
	f.mu.Lock()
	during := f.during
	f.during = nil
	f.mu.Unlock()
	if during != nil {
		during()
	}
	return found, err
}

func (f *flaky) Watch() (registry.Watcher, error) {
	if f.isAway() {
		return nil, io.ErrUnexpectedEOF
	}
	w, err := f.Registry.Watch()
	if err == nil {
		f.mu.Lock()
		f.watcher = append(f.watcher, w)
		f.mu.Unlock()
	}
	return w, err
}

func withFlaky(f *flaky) option {
	return withRegistry(func(r registry.Registry) registry.Registry { f.Registry = r; return f })
}

// TestRegistryOutage does not stop calls.
func TestRegistryOutage(t *testing.T) {
	f := new(flaky)
	w := newWorld(t, 3, withFlaky(f), balanced(client.RoundRobin()))
	w.connected(3)
	f.leave(true)
	w.nodes[0].kill()
	require.NotContains(t, w.hellos(100), "node-0")
	_, err := client.Call[Greeting](t.Context(), w.client, "unheard-of", "X.Y", &Hello{})
	require.EqualError(t, err, "Unavailable: look up unheard-of in registry memory: unexpected EOF")
	w.start("node-3", "1.0.0")
	f.leave(false)
	require.Eventually(t, func() bool { return w.hellos(20)["node-3"] > 0 }, soon, time.Millisecond, "what was missed is read")
}

// TestRegistryThatLostEverything: nodes whose connection lives are called, until it does not.
func TestRegistryThatLostEverything(t *testing.T) {
	w := newWorld(t, 2, balanced(client.RoundRobin()))
	w.connected(2)
	w.store.Wipe()
	w.client.ReadRegistry()
	require.Len(t, w.hellos(100), 2)
	w.nodes[0].kill()
	require.Eventually(t, func() bool { return len(w.hellos(20)) == 1 }, soon, time.Millisecond)
	w.nodes[1].kill()
	require.Eventually(t, func() bool {
		_, err := w.hello()
		return err != nil && err.Error() == `Unavailable: no node of service "greeter" is known to registry memory`
	}, soon, time.Millisecond)
	w.start("node-2", "1.0.0")
	require.Equal(t, map[string]int{"node-2": 10}, w.hellos(10))
}

// TestChangesWhileReading: what the watch brings while the registry is read is not overwritten by what was read before.
func TestChangesWhileReading(t *testing.T) {
	f := new(flaky)
	w := newWorld(t, 1, withFlaky(f), balanced(client.RoundRobin()))
	late := func(id string, known int) func() {
		return func() {
			w.start(id, "1.0.0")
			require.Eventually(t, func() bool {
				_, nodes, _ := w.client.Known()
				return nodes == known
			}, soon, time.Millisecond, "the watch tells")
		}
	}
	f.during = late("during the first reading", 1)
	require.Eventually(t, func() bool { return w.hellos(10)["during the first reading"] > 0 }, soon, time.Millisecond)
	f.during = late("during another", 3)
	w.client.ReadRegistry()
	_, nodes, _ := w.client.Known()
	require.Equal(t, 3, nodes)
}

// TestNothingIsKeptOfNodesThatCameAndWent, nor of services that do not exist.
func TestNothingIsKeptOfNodesThatCameAndWent(t *testing.T) {
	w := newWorld(t, 1, balanced(client.RoundRobin()))
	w.connected(1)
	addr := ""
	for i := range 30 {
		n := w.startService("greeter", fmt.Sprint("short-lived-", i), addr)
		addr = n.addr // the next one has the same
		n.register("1.0.0")
		require.Eventually(t, func() bool { return w.hellos(10)[n.id] > 0 }, soon, time.Millisecond)
		n.deregister()
		n.stop()
		_, err := client.Call[Greeting](t.Context(), w.client, fmt.Sprint("made-up-", i), "X.Y", &Hello{})
		require.Error(t, err)
	}
	require.Eventually(t, func() bool {
		w.hellos(1)
		services, nodes, peers := w.client.Known()
		return services == 1 && nodes == 1 && peers == 1 && w.net.live() == 1
	}, soon, time.Millisecond)
}

// TestTooMuchMetadata is told before anything is sent.
func TestTooMuchMetadata(t *testing.T) {
	w := newWorld(t, 2)
	ctx := t.Context()
	for i := range wire.MaxMetadata + 1 {
		ctx = metadata.With(ctx, fmt.Sprint("key-", i), "")
	}
	_, err := w.call(ctx, "Greeter.Hello")
	require.Equal(t, status.InvalidArgument, status.CodeOf(err))
	require.ErrorContains(t, err, "metadata of 257 pairs")
	require.Zero(t, w.nodes[0].calls.Load()+w.nodes[1].calls.Load())
}

// TestManyNodesDieTogether has more calls in flight on nodes that die than a small budget of retries would allow.
func TestManyNodesDieTogether(t *testing.T) {
	w := newWorld(t, 4)
	w.connected(4)
	for _, n := range w.nodes {
		n.delay.Store(int64(50 * time.Millisecond))
	}
	l := w.load(600, "Greeter.Read")
	l.during(t, 1200)
	w.nodes[0].kill()
	w.nodes[1].kill()
	l.during(t, 1200)
	require.Empty(t, l.done())
}

// TestCloseIsNotHeldUp closes a client whose peers have stopped to read: it takes as long as for one of them.
func TestCloseIsNotHeldUp(t *testing.T) {
	w := newWorld(t, 0, overTCP(tcp.Config{}))
	const peers = 5
	for i := range peers {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { l.Close() })
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			c.(*net.TCPConn).SetReadBuffer(4096)
			hello := wire.AppendHello(nil, wire.Settings{MaxMessage: 4 << 20, MaxCalls: 1000, Window: 1 << 18})
			c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(hello))), hello...))
		}()
		require.NoError(t, w.store.Open().Register(&registry.Service{Name: "greeter",
			Nodes: []*registry.Node{{ID: fmt.Sprint(i), Address: l.Addr().String()}}}))
	}
	body := make([]byte, 1<<20)
	var callers sync.WaitGroup
	for range 100 { // more than the kernel keeps for them
		callers.Go(func() { client.Call[[]byte](context.Background(), w.client, "greeter", "Greeter.Echo", &body) })
	}
	require.Eventually(t, func() bool { return w.client.InFlight() == 100 && w.net.live() == peers }, soon, time.Millisecond)
	began := time.Now()
	require.NoError(t, w.client.Close())
	require.Less(t, time.Since(began), 4*time.Second, "one second is given to each connection")
	callers.Wait()
}
