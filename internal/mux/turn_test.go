package mux_test

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/internal/wire"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport/tcp"
)

// letGo makes calls until nobody reads.
func (r *rig) letGo(t testing.TB) {
	require.Eventually(t, func() bool {
		got, err := r.call(t, t.Context(), "echo", "alone")
		require.NoError(t, err)
		require.Equal(t, "alone", got)
		return r.NobodyReads()
	}, soon, time.Microsecond)
}

// gates are endpoints that wait until they are opened.
type gates struct {
	endpoints
	open map[string]chan struct{}
}

func newGates(names ...string) *gates {
	g := &gates{newEndpoints(), make(map[string]chan struct{})}
	for _, name := range names {
		open := make(chan struct{})
		g.open[name] = open
		g.add(name, func(c *mux.Call) {
			select {
			case <-open:
				c.Reply([]byte(name))
			case <-c.Done():
				c.Fail(c.Err())
			}
		})
	}
	g.add("chat", func(c *mux.Call) {
		for {
			b, err := c.Stream.Recv(c)
			if err != nil {
				return
			}
			c.Stream.Send(c, codec.For([]byte{}), b.B)
			b.Release()
		}
	})
	return g
}

// begin makes a call, returns when the server has it, and lets wait return the answer.
func (r *rig) begin(t testing.TB, ctx context.Context, endpoint string) (wait func() (string, error)) {
	before, _ := r.server.Open()
	var answer string
	var err error
	var call sync.WaitGroup
	call.Go(func() { answer, err = r.call(t, ctx, endpoint, "") })
	require.Eventually(t, func() bool { n, _ := r.server.Open(); return n > before }, soon, 100*time.Microsecond)
	return func() (string, error) {
		call.Wait()
		return answer, err
	}
}

func TestTurn(t *testing.T) {
	for name, test := range map[string]func(*testing.T, *gates, *rig){
		"the background reader comes back when it is quiet": func(t *testing.T, g *gates, r *rig) {
			require.Eventually(t, func() bool { return !r.NobodyReads() }, soon, time.Millisecond)
		},
		"another call while a caller reads": func(t *testing.T, g *gates, r *rig) {
			first := r.begin(t, t.Context(), "first")
			require.False(t, r.NobodyReads())
			for range 10 {
				_, err := r.call(t, t.Context(), "echo", "")
				require.NoError(t, err)
			}
			close(g.open["first"])
			got, err := first()
			require.NoError(t, err)
			require.Equal(t, "first", got)
		},
		"the caller who reads is answered first": func(t *testing.T, g *gates, r *rig) {
			first, second := r.begin(t, t.Context(), "first"), r.begin(t, t.Context(), "second")
			close(g.open["first"])
			_, err := first()
			require.NoError(t, err)
			close(g.open["second"])
			_, err = second()
			require.NoError(t, err)
		},
		"the caller who reads gives up": func(t *testing.T, g *gates, r *rig) {
			ctx, cancel := context.WithCancel(t.Context())
			first, second := r.begin(t, ctx, "first"), r.begin(t, t.Context(), "second")
			cancel()
			_, err := first()
			require.Equal(t, status.Canceled, status.CodeOf(err))
			close(g.open["second"])
			_, err = second()
			require.NoError(t, err)
		},
		"the time of the caller who reads is over": func(t *testing.T, g *gates, r *rig) {
			for _, timeout := range []time.Duration{time.Microsecond, time.Millisecond, 5 * time.Millisecond} {
				r.letGo(t)
				req := request("first", "")
				req.Timeout = timeout
				_, err := r.Call(context.Background(), req)
				require.Equal(t, status.DeadlineExceeded, status.CodeOf(err))
				r.letGo(t)
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				_, err = r.Call(ctx, req)
				cancel()
				require.Equal(t, status.DeadlineExceeded, status.CodeOf(err))
			}
		},
		"a stream is opened when nobody reads": func(t *testing.T, g *gates, r *rig) { r.chat(t) },
		"a stream is opened while a caller reads": func(t *testing.T, g *gates, r *rig) {
			first := r.begin(t, t.Context(), "first")
			r.chat(t)
			close(g.open["first"])
			_, err := first()
			require.NoError(t, err)
			r.chat(t)
		},
		"a stream outlives the call of who reads": func(t *testing.T, g *gates, r *rig) {
			first := r.begin(t, t.Context(), "first")
			st, err := r.Open(t.Context(), request("chat", ""))
			require.NoError(t, err)
			close(g.open["first"])
			_, err = first()
			require.NoError(t, err)
			r.say(t, st, "hello")
			r.CloseStream(st)
		},
		"a request that cannot be sent": func(t *testing.T, g *gates, r *rig) {
			req := request("echo", "")
			req.Body = 7
			_, err := r.Call(t.Context(), req)
			require.ErrorContains(t, err, "encode int")
		},
		"the server closes when nobody reads": func(t *testing.T, g *gates, r *rig) {
			r.server.Close()
			<-time.After(time.Millisecond)
			_, err := r.call(t, t.Context(), "echo", "")
			require.True(t, failure(t, err).NotRun, "it is known to be lost")
			<-r.Closed()
		},
		"the server closes while a caller reads": func(t *testing.T, g *gates, r *rig) {
			first := r.begin(t, t.Context(), "first")
			r.server.Close()
			_, err := first()
			require.True(t, failure(t, err).Lost)
			require.False(t, failure(t, err).NotRun)
			<-r.Closed()
		},
		"the server drains when nobody reads": func(t *testing.T, g *gates, r *rig) {
			r.server.Drain()
			<-r.Closed()
		},
		"the server drains while a caller reads": func(t *testing.T, g *gates, r *rig) {
			first := r.begin(t, t.Context(), "first")
			r.server.Drain()
			require.Eventually(t, func() bool { return !r.Usable() }, soon, time.Millisecond)
			close(g.open["first"])
			got, err := first()
			require.NoError(t, err)
			require.Equal(t, "first", got)
			<-r.Closed()
		},
		"the client closes when nobody reads": func(t *testing.T, g *gates, r *rig) {
			r.Client.Close()
			_, err := r.call(t, t.Context(), "echo", "")
			require.True(t, failure(t, err).NotRun)
			<-r.Closed()
		},
		"the client closes while a caller reads": func(t *testing.T, g *gates, r *rig) {
			first := r.begin(t, t.Context(), "first")
			r.Client.Close()
			_, err := first()
			require.True(t, failure(t, err).Lost)
		},
	} {
		t.Run(name, func(t *testing.T) {
			overAll(t, func(t *testing.T, connect func(mux.Handler) *rig) {
				g := newGates("first", "second")
				r := connect(g)
				r.letGo(t)
				r.idle(t)
				test(t, g, r)
				require.Eventually(t, func() bool { return r.Waiting() == 0 }, soon, time.Millisecond)
				select {
				case <-r.Closed():
				default:
					r.letGo(t)
				}
			})
		})
	}
}

// chat opens a stream, uses it and closes it.
func (r *rig) chat(t testing.TB) {
	st, err := r.Open(t.Context(), request("chat", ""))
	require.NoError(t, err)
	r.say(t, st, "hello")
	r.CloseStream(st)
}

func (r *rig) say(t testing.TB, st *mux.Stream, text string) {
	require.NoError(t, st.Send(t.Context(), codec.For([]byte{}), []byte(text)))
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	b, err := st.Recv(ctx)
	require.NoError(t, err)
	require.Equal(t, text, string(b.B))
	b.Release()
}

// TestTurnAndProtocolErrors: a caller who reads finds them as well.
func TestTurnAndProtocolErrors(t *testing.T) {
	r, client := rawServer(t, mux.Options{})
	go func() {
		for range 50 {
			msg, err := r.Recv(context.Background())
			var c wire.Call
			if err != nil || wire.ParseCall(msg, &c) != nil {
				return
			}
			r.Send(context.Background(), wire.AppendReply(nil, c.ID))
		}
		r.Recv(context.Background())
		r.Send(context.Background(), []byte{200})
	}()
	for range 50 {
		b, err := client.Call(t.Context(), request("echo", ""))
		require.NoError(t, err)
		b.Release()
	}
	_, err := client.Call(t.Context(), request("echo", ""))
	require.True(t, failure(t, err).Lost)
	require.ErrorContains(t, err, "connection lost: protocol broken by memory:")
	<-client.Closed()
}

// TestHalfAFrameBeforeACall: a peer that stops within a frame while nobody reads holds up the next caller no longer than
// that one would wait for an answer.
func TestHalfAFrameBeforeACall(t *testing.T) {
	for name, ctx := range map[string]func() (context.Context, context.CancelFunc){
		"time of the request": func() (context.Context, context.CancelFunc) { return context.Background(), func() {} },
		"time of the context": func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), 20*time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer l.Close()
			conns := make(chan net.Conn, 1)
			go answerFrames(l, conns)
			tr, err := tcp.New(new(plugin.Env), tcp.Config{})
			require.NoError(t, err)
			c, err := mux.Dial(t.Context(), tr, l.Addr().String(), mux.Options{})
			require.NoError(t, err)
			defer c.Close()
			conn := <-conns
			defer conn.Close()
			require.Eventually(t, func() bool {
				b, err := c.Call(t.Context(), request("echo", ""))
				require.NoError(t, err)
				b.Release()
				return c.NobodyReads()
			}, soon, time.Microsecond)
			_, err = conn.Write([]byte{0, 0, 1, 0, byte(wire.Reply)})
			require.NoError(t, err)
			ctx, cancel := ctx()
			defer cancel()
			req := request("echo", "")
			req.Timeout = 20 * time.Millisecond
			_, err = c.Call(ctx, req)
			require.Equal(t, status.DeadlineExceeded, status.CodeOf(err))
			require.Zero(t, c.Waiting())
		})
	}
}

// answerFrames is a server that answers all calls of one connection, on the bare network.
func answerFrames(l net.Listener, conns chan<- net.Conn) {
	conn, err := l.Accept()
	if err != nil {
		return
	}
	conns <- conn
	send := func(msg []byte) { conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(msg))), msg...)) }
	send(wire.AppendHello(nil, wire.Settings{MaxMessage: 1 << 20, MaxCalls: 10_000, Window: 1000}))
	for {
		head := make([]byte, 4)
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		msg := make([]byte, binary.BigEndian.Uint32(head)%(1<<20))
		if _, err := io.ReadFull(conn, msg); err != nil {
			return
		}
		var call wire.Call
		if wire.Type(msg[0]) == wire.CallT && wire.ParseCall(msg, &call) == nil {
			send(wire.AppendReply(nil, call.ID))
		}
	}
}

// TestTurnsOfMany: callers come and go, give up, open streams; every call ends, with its own answer.
func TestTurnsOfMany(t *testing.T) {
	overAll(t, func(t *testing.T, connect func(mux.Handler) *rig) {
		g := newGates("never")
		r := connect(g)
		g.endpoints["echo"].Prove()
		var callers sync.WaitGroup
		for i := range 4 {
			callers.Go(func() {
				text := string(rune('a' + i))
				for range 200 {
					switch rand.IntN(12) {
					case 0:
						r.chat(t)
					case 1:
						ctx, cancel := context.WithTimeout(t.Context(), rand.N(time.Millisecond))
						r.call(t, ctx, "never", "")
						cancel()
					case 2:
						req := request("never", "")
						req.Timeout = rand.N(time.Millisecond)
						r.Call(context.Background(), req)
					case 3:
						time.Sleep(rand.N(time.Millisecond))
					default:
						got, err := r.call(t, t.Context(), "echo", text)
						if err != nil || got != text {
							t.Errorf("got %q, %v", got, err)
						}
					}
				}
			})
		}
		callers.Wait()
		require.Zero(t, r.Waiting())
		r.idle(t)
		r.letGo(t)
	})
}
