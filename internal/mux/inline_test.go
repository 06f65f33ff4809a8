package mux_test

import (
	"context"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
	"github.com/plugmicro/micro/transport/memory"
	"github.com/plugmicro/micro/transport/tcp"
)

// endpoint is one that the reader may answer.
type endpoint struct {
	mux.Pace
	answer func(*mux.Call)
}

// endpoints answers by name.
type endpoints map[string]*endpoint

func (e endpoints) Find(service, name []byte, stream bool) (any, *mux.Error) {
	return e[string(name)], nil
}
func (e endpoints) Serve(c *mux.Call) { c.Target.(*endpoint).answer(c) }

func (e endpoints) add(name string, f func(*mux.Call)) { e[name] = &endpoint{answer: f} }

func newEndpoints() endpoints {
	e := make(endpoints)
	e.add("echo", echo)
	return e
}

// overAll runs a test over every transport whose connections mux treats differently.
func overAll(t *testing.T, test func(*testing.T, func(mux.Handler) *rig)) {
	transports := map[string]func() (transport.Transport, error){
		"memory": func() (transport.Transport, error) { return memory.NewPrivate(memory.Config{}) },
		"tcp":    func() (transport.Transport, error) { return tcp.New(new(plugin.Env), tcp.Config{}) },
	}
	for name, open := range transports {
		t.Run(name, func(t *testing.T) {
			test(t, func(h mux.Handler) *rig {
				tr, err := open()
				require.NoError(t, err)
				l, err := tr.Listen(t.Context(), "", transport.ListenLocal())
				require.NoError(t, err)
				t.Cleanup(func() { l.Close() })
				return connectOver(t, tr, l, h, mux.Options{}, mux.Options{})
			})
		})
	}
}

// idle waits until the server has no open call.
func (r *rig) idle(t testing.TB) {
	require.Eventually(t, func() bool { n, _ := r.server.Open(); return n == 0 }, soon, 100*time.Microsecond)
}

// where says who runs the handler that asks.
func where() string {
	if strings.Contains(string(debug.Stack()), "mux.(*Workers).loop(") {
		return "worker"
	}
	return "reader"
}

func TestPace(t *testing.T) {
	for name, c := range map[string]struct {
		calls []time.Duration // each of them a hundred times
		once  time.Duration   // after them
		fast  bool
	}{
		"unknown":               {nil, 0, false},
		"fast":                  {[]time.Duration{time.Microsecond, time.Microsecond, time.Microsecond}, 0, true},
		"slow":                  {[]time.Duration{time.Millisecond, time.Millisecond, time.Millisecond}, 0, false},
		"not for long":          {[]time.Duration{time.Microsecond}, 0, false},
		"slow, then fast":       {[]time.Duration{time.Second, 0, 0, 0, 0, 0, 0, 0}, 0, true},
		"fast, then slow once":  {[]time.Duration{0, 0, 0}, time.Second, false},
		"fast, with a hiccough": {[]time.Duration{0, 0, 0}, time.Millisecond, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := new(mux.Pace)
			for _, d := range c.calls {
				for range 100 {
					p.Took(d)
				}
			}
			if c.once > 0 {
				p.Took(c.once)
			}
			require.Equal(t, c.fast, p.Fast())
		})
	}
}

func TestWhoAnswers(t *testing.T) {
	overAll(t, func(t *testing.T, connect func(mux.Handler) *rig) {
		e := newEndpoints()
		e.add("where", func(c *mux.Call) {
			if c.Stream != nil {
				c.Stream.Send(c, codec.For([]byte{}), []byte(where()))
				c.Reply(nil)
				return
			}
			c.Reply([]byte(where()))
		})
		release := make(chan struct{})
		e.add("wait", func(c *mux.Call) { <-release; c.Reply(nil) })
		r := connect(e)
		ask := func() string {
			got, err := r.call(t, t.Context(), "where", "")
			require.NoError(t, err)
			r.idle(t)
			return got
		}
		require.Equal(t, "worker", ask(), "not proved")
		e["where"].Prove()
		require.Equal(t, "reader", ask(), "proved")
		for range 500 {
			e["where"].Took(0)
		}
		require.Equal(t, "reader", ask(), "proved by calls")

		st, err := r.Open(t.Context(), request("where", ""))
		require.NoError(t, err)
		b, err := st.Recv(t.Context())
		require.NoError(t, err)
		require.Equal(t, "worker", string(b.B), "a stream")
		b.Release()
		r.CloseStream(st)
		r.idle(t)

		var waits sync.WaitGroup
		waits.Go(func() { r.call(t, t.Context(), "wait", "") })
		require.Eventually(t, func() bool { n, _ := r.server.Open(); return n == 1 }, soon, time.Millisecond)
		got, err := r.call(t, t.Context(), "where", "")
		require.NoError(t, err)
		require.Equal(t, "worker", got, "not alone")
		close(release)
		waits.Wait()
	})
}

// TestReaderThatIsHeldUp: an endpoint that was fast takes long this time. Whatever concerns its call and others goes on.
func TestReaderThatIsHeldUp(t *testing.T) {
	wait := func(c *mux.Call) { <-c.Done() }
	for name, c := range map[string]struct {
		handler func(*rig, *mux.Call)
		test    func(t *testing.T, r *rig, cancel context.CancelFunc) // while the handler runs
		answer  string
		code    status.Code
	}{
		"another call comes": {
			handler: func(r *rig, c *mux.Call) {
				if body, err := r.Call(c, request("echo", "inner")); err == nil { // over the same connection
					c.Reply(body.B)
					body.Release()
				}
			},
			answer: "inner",
		},
		"a stream is opened": {
			handler: func(r *rig, c *mux.Call) {
				st, err := r.Open(c, request("stream", ""))
				if err == nil {
					c.Reply([]byte("opened"))
					r.CloseStream(st)
				}
			},
			answer: "opened",
		},
		"it never returns": {
			handler: func(r *rig, c *mux.Call) { wait(c) },
			test: func(t *testing.T, r *rig, cancel context.CancelFunc) {
				for range 100 {
					got, err := r.call(t, t.Context(), "echo", "others")
					require.NoError(t, err)
					require.Equal(t, "others", got)
				}
				cancel()
			},
			code: status.Canceled,
		},
		"its caller gives up": {
			handler: func(r *rig, c *mux.Call) { wait(c) },
			test:    func(t *testing.T, r *rig, cancel context.CancelFunc) { cancel() },
			code:    status.Canceled,
		},
		"its goroutine ends": {
			handler: func(r *rig, c *mux.Call) { runtime.Goexit() },
			code:    status.Internal,
		},
		"the server drains": {
			handler: func(r *rig, c *mux.Call) { r.server.Drain(); c.Reply([]byte("the last")) },
			test:    func(t *testing.T, r *rig, cancel context.CancelFunc) { <-r.server.Drained(); <-r.Closed() },
			answer:  "the last",
		},
		"the server closes": {
			handler: func(r *rig, c *mux.Call) { r.server.Close(); wait(c) },
			code:    status.Unavailable,
		},
		"the client closes": {
			handler: func(r *rig, c *mux.Call) { wait(c) },
			test:    func(t *testing.T, r *rig, cancel context.CancelFunc) { r.Client.Close() },
			code:    status.Unavailable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			overAll(t, func(t *testing.T, connect func(mux.Handler) *rig) {
				e := newEndpoints()
				e.add("stream", wait)
				var r *rig
				running, over := make(chan string, 1), make(chan struct{})
				e.add("slow", func(call *mux.Call) {
					defer close(over)
					running <- where()
					c.handler(r, call)
				})
				r = connect(e)
				e["slow"].Prove()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				type result struct {
					answer string
					err    error
				}
				results := make(chan result, 1)
				go func() {
					answer, err := r.call(t, ctx, "slow", "")
					results <- result{answer, err}
				}()
				require.Equal(t, "reader", <-running)
				if c.test != nil {
					c.test(t, r, cancel)
				}
				got := <-results
				require.Equal(t, c.code, status.CodeOf(got.err), got.err)
				require.Equal(t, c.answer, got.answer)
				<-over
				r.idle(t)
				if !r.Usable() {
					return
				}
				answer, err := r.call(t, t.Context(), "echo", "still works")
				require.NoError(t, err)
				require.Equal(t, "still works", answer)
			})
		})
	}
}

func TestEndpointThatHeldUpTheReader(t *testing.T) {
	overAll(t, func(t *testing.T, connect func(mux.Handler) *rig) {
		e := newEndpoints()
		release := make(chan struct{})
		e.add("slow", func(c *mux.Call) { <-release; c.Reply(nil) })
		r := connect(e)
		e["slow"].Prove()
		e["echo"].Prove()
		var calls sync.WaitGroup
		calls.Go(func() { r.call(t, t.Context(), "slow", "") })
		require.Eventually(t, func() bool { return !e["slow"].Fast() }, soon, time.Millisecond, "while it still runs")
		require.True(t, e["echo"].Fast(), "another endpoint is not concerned")
		close(release)
		calls.Wait()
	})
}

// TestLargeBodies: what is taken over from the connection is nobody else's until it is released.
func TestLargeBodies(t *testing.T) {
	overAll(t, func(t *testing.T, connect func(mux.Handler) *rig) {
		e := newGates()
		r := connect(e)
		var callers sync.WaitGroup
		for i := range 8 {
			callers.Go(func() {
				for j := range 20 {
					body := strings.Repeat(string(rune('a'+i)), 10<<10+j*(8<<10))
					got, err := r.call(t, t.Context(), "echo", body)
					if err != nil || got != body {
						t.Errorf("got %d bytes, want %d: %v", len(got), len(body), err)
					}
				}
			})
		}
		callers.Go(func() {
			st, err := r.Open(t.Context(), request("chat", ""))
			require.NoError(t, err)
			defer r.CloseStream(st)
			for j := range 20 {
				r.say(t, st, strings.Repeat("z", j*(8<<10)))
			}
		})
		callers.Wait()
		require.Zero(t, r.server.Queued())
	})
}
