//go:build unix

package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/amqp"
	"github.com/plugmicro/micro/internal/servers"
	"github.com/plugmicro/micro/internal/testcert"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/transport"
)

// TestServer is about what RabbitMQ and its client library do, and what strangers may do to the queues.
func TestServer(t *testing.T) {
	r := newRig(t)
	for _, tc := range []struct {
		name string
		run  func(*testing.T, *rig)
	}{
		{"the queues are few, exclusive and bounded", queues},
		{"an alarm ends Send and Dial by their deadlines, and holds up nothing that comes in", alarm},
		{"an alarm that is longer than a peer may be silent ends no connection", longAlarm},
		{"Close does not wait for an alarm to end", alarmClose},
		{"who has no rights is told which", rights},
		{"a queue of another program is an address in use", foreignQueue},
		{"names that RabbitMQ does not take are refused", names},
		{"a listener whose queue is removed has it again", queueRemoved},
		{"an inbox that is removed ends its connections, and is replaced", inboxRemoved},
		{"a listener and dialers find each other after a restart", restart},
		{"what strangers publish is dropped", strangersPublish},
		{"an answer goes to inboxes alone", answersInboxes},
		{"a peer that breaks the protocol loses its connection", protocolBroken},
		{"an open that is not confirmed is never accepted", neverConfirmed},
		{"connections beyond the limit are refused", tooMany},
		{"a dialer that gives up leaves nothing behind", givesUp},
		{"a transport that is closed tells its peers", closes},
		{"Close ends a Listen and a Dial that are under way", closesEarly},
		{"a process can dial itself", itself},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.run(t, r)
		})
		r.nothingLeft(t)
	}
}

// within is for what must happen soon.
func within(t testing.TB, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func soon(t testing.TB) context.Context { return within(t, 30*time.Second) }

func listen(t testing.TB, tr *Transport, addr string) transport.Listener {
	l, err := tr.Listen(soon(t), addr)
	require.NoError(t, err)
	return l
}

// pair is a connection over l.
func pair(t testing.TB, tr *Transport, l transport.Listener) (dialed, accepted *conn) {
	a, err := tr.Dial(soon(t), l.Addr())
	require.NoError(t, err)
	b, err := l.Accept(soon(t))
	require.NoError(t, err)
	return a.(*conn), b.(*conn)
}

func passes(t testing.TB, from, to transport.Conn, msg string) {
	t.Helper()
	require.NoError(t, from.Send(soon(t), []byte(msg)))
	got, err := to.Recv(soon(t))
	require.NoError(t, err)
	require.Equal(t, msg, string(got))
}

func queues(t *testing.T, r *rig) {
	l, tr := listen(t, open(t, config(r.Addr)), ""), open(t, config(r.Addr))
	for range 20 {
		pair(t, tr, l)
	}
	all := r.Queues(t)
	require.Len(t, all, 3, "an inbox of each process, and the listener")
	for _, q := range all {
		require.True(t, strings.HasPrefix(q.Name, "micro."), q.Name)
		require.True(t, q.Exclusive, "4.x denies others that are not durable")
		require.False(t, q.Durable)
		require.Equal(t, 1, q.Consumers)
	}
	require.Equal(t, 4, r.Connections(t), "two of each process")
	// Two of the queues have consumers that need not acknowledge.
	prefetches := r.Eval(t, `io_lib:format("~p", [lists:sort([proplists:get_value(prefetch_count, C) || C <- rabbit_amqqueue:consumers_all(<<"/">>)])])`)
	require.Equal(t, fmt.Sprintf("[0,0,%d]", prefetch), prefetches)
}

func alarm(t *testing.T, r *rig) {
	l, tr := listen(t, open(t, config(r.Addr)), ""), open(t, config(r.Addr))
	a, b := pair(t, tr, l)
	passes(t, a, b, "before")
	for range 10 {
		require.NoError(t, b.Send(soon(t), []byte("on its way")))
	}
	clear := r.Alarm(t)
	const size = 10_000
	sent := 0
	for {
		err := a.Send(within(t, 300*time.Millisecond), make([]byte, size))
		if err == nil {
			sent++
			require.Less(t, sent*size, 8<<20, "bounded")
			continue
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
		if strings.Contains(err.Error(), "takes nothing for now") {
			break
		}
	}
	for range 10 {
		got, err := a.Recv(soon(t))
		require.NoError(t, err)
		require.Equal(t, "on its way", string(got))
	}
	_, err := tr.Dial(within(t, 300*time.Millisecond), l.Addr())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "takes nothing for now")
	clear()
	for range sent {
		got, err := b.Recv(soon(t))
		require.NoError(t, err)
		require.Len(t, got, size)
	}
	passes(t, a, b, "after")
	passes(t, b, a, "and back")
	pair(t, tr, l)
}

func longAlarm(t *testing.T, r *rig) {
	c := config(r.Addr)
	c.KeepAlive = 200 * time.Millisecond
	l, tr := listen(t, open(t, c), ""), open(t, c)
	a, b := pair(t, tr, l)
	clear := r.Alarm(t)
	require.Eventually(t, func() bool { return a.link.out.Blocked() != nil && b.link.out.Blocked() != nil }, 10*time.Second, time.Millisecond, "both ask for signs of life")
	_, err := a.Recv(within(t, 2*missed*c.KeepAlive))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	clear()
	passes(t, a, b, "after")
	passes(t, b, a, "and back")
	_, err = a.Recv(within(t, 2*missed*c.KeepAlive))
	require.ErrorIs(t, err, context.DeadlineExceeded, "signs of life are given again")
}

func alarmClose(t *testing.T, r *rig) {
	l, tr := listen(t, open(t, config(r.Addr)), ""), open(t, config(r.Addr))
	a, b := pair(t, tr, l)
	clear := r.Alarm(t)
	defer clear()
	for a.Send(within(t, 100*time.Millisecond), make([]byte, 10_000)) == nil {
	}
	for what, close := range map[string]func() error{"connection": a.Close, "listener": l.Close, "dialer": tr.Close, "far end": b.Close, "transport": b.link.transport.Close} {
		began := time.Now()
		require.NoError(t, close(), what)
		require.Less(t, time.Since(began), 8*time.Second, what)
	}
}

func rights(t *testing.T, r *rig) {
	const password = "tell-nobody"
	l := listen(t, open(t, config(r.Addr)), "micro.rights")
	for _, tc := range []struct {
		user, configure, write, read string
		want                         string
	}{
		{"no-configure", "", ".*", ".*", "configure, write and read"},
		{"no-read", ".*", ".*", "", "configure, write and read"},
		{"no-write", ".*", "^micro", ".*", "write to the exchange amq.default"},
	} {
		r.AddUser(t, tc.user, password, tc.configure, tc.write, tc.read)
		c := config("amqp://" + tc.user + ":" + password + "@" + r.Addr)
		_, err := open(t, c).Dial(soon(t), l.Addr())
		require.ErrorContains(t, err, tc.want)
		require.ErrorContains(t, err, "ACCESS_REFUSED")
		require.ErrorContains(t, err, tc.user)
		require.NotContains(t, err.Error(), password)
	}
	r.AddUser(t, "enough", password, "^micro\\.", `^(micro\..*|amq\.default)$`, "^micro\\.")
	tr := open(t, config("amqp://enough:"+password+"@"+r.Addr))
	a, b := pair(t, tr, l)
	passes(t, a, b, "allowed")
	_, err := tr.Listen(soon(t), "elsewhere")
	require.ErrorContains(t, err, "configure, write and read")
	require.ErrorContains(t, err, "elsewhere")
	passes(t, b, a, "still allowed")

	c := config(r.Addr)
	c.User, c.Password = "enough", plugin.NewSecret(password+"!")
	began := time.Now()
	_, err = open(t, c).Listen(soon(t), "")
	require.ErrorContains(t, err, "transport rabbitmq: connect to "+r.Addr)
	require.ErrorContains(t, err, "--transport-password")
	require.NotContains(t, err.Error(), password)
	require.Less(t, time.Since(began), 5*time.Second)
}

// stranger is a plain AMQP client.
func stranger(t testing.TB, r *rig) *amqp091.Channel {
	c, err := amqp091.Dial("amqp://guest:guest@" + r.Addr + "/")
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	ch, err := c.Channel()
	require.NoError(t, err)
	return ch
}

func foreignQueue(t *testing.T, r *rig) {
	ch, tr := stranger(t, r), open(t, config(r.Addr))
	for _, durable := range []bool{true, false} {
		_, err := ch.QueueDeclare("foreign", durable, false, !durable, false, nil)
		require.NoError(t, err)
		_, err = tr.Listen(soon(t), "foreign")
		require.ErrorIs(t, err, transport.ErrAddrInUse)
		require.ErrorContains(t, err, "foreign")
		_, err = ch.QueueDelete("foreign", false, false, false)
		require.NoError(t, err)
	}
	l := listen(t, tr, "foreign")
	_, err := tr.Listen(soon(t), "foreign")
	require.ErrorIs(t, err, transport.ErrAddrInUse, "in the same process too")
	pair(t, tr, l)
}

func names(t *testing.T, r *rig) {
	tr := open(t, config(r.Addr))
	for _, name := range []string{"amq.mine", strings.Repeat("x", 256), "\xff"} {
		_, err := tr.Listen(soon(t), name)
		require.Error(t, err)
		_, err = tr.Dial(soon(t), name)
		require.Error(t, err)
	}
	for _, name := range []string{"127.0.0.1:4100", strings.Repeat("x", 255), "grüße an alle"} {
		l := listen(t, tr, name)
		require.Equal(t, name, l.Addr())
		pair(t, tr, l)
	}
}

func remove(t testing.TB, r *rig, queue string) {
	r.Eval(t, fmt.Sprintf(`{ok, Q} = rabbit_amqqueue:lookup({resource, <<"/">>, queue, <<%q>>}), {ok, _} = rabbit_amqqueue:delete(Q, false, false, <<"test">>), ""`, queue))
}

func queueRemoved(t *testing.T, r *rig) {
	l, tr := listen(t, open(t, config(r.Addr)), ""), open(t, config(r.Addr))
	a, b := pair(t, tr, l)
	remove(t, r, l.Addr())
	eventuallyPair(t, tr, l)
	passes(t, a, b, "nothing happened")
}

// eventuallyPair allows for the time in which a fault is overcome.
func eventuallyPair(t testing.TB, tr *Transport, l transport.Listener) (a, b transport.Conn) {
	require.Eventually(t, func() bool {
		var err error
		a, err = tr.Dial(within(t, 5*time.Second), l.Addr())
		return err == nil
	}, 30*time.Second, 10*time.Millisecond)
	b, err := l.Accept(soon(t))
	require.NoError(t, err)
	passes(t, a, b, "once more")
	passes(t, b, a, "and back")
	return a, b
}

func inboxRemoved(t *testing.T, r *rig) {
	l, tr := listen(t, open(t, config(r.Addr)), ""), open(t, config(r.Addr))
	a, b := pair(t, tr, l)
	old := a.link.inbox
	remove(t, r, old)
	for _, c := range []transport.Conn{a, b} {
		_, err := c.Recv(soon(t))
		require.ErrorContains(t, err, "connection lost")
		require.ErrorContains(t, c.Send(soon(t), nil), "connection lost")
	}
	c, _ := eventuallyPair(t, tr, l)
	require.NotEqual(t, old, c.(*conn).link.inbox)
}

func restart(t *testing.T, r *rig) {
	l, tr := listen(t, r.open(t), ""), r.open(t)
	a, b := pair(t, tr, l)
	r.Kill(t)
	for _, c := range []transport.Conn{a, b} {
		_, err := c.Recv(soon(t))
		require.ErrorContains(t, err, "connection lost")
		require.NotErrorIs(t, err, io.EOF)
	}
	require.Eventually(t, func() bool {
		_, err := tr.Dial(soon(t), l.Addr())
		return err != nil && strings.Contains(err.Error(), "transport rabbitmq: connect to "+r.proxy(tr).Addr())
	}, 10*time.Second, 10*time.Millisecond)
	r.Start(t)
	began := time.Now()
	eventuallyPair(t, tr, l)
	require.Less(t, time.Since(began), 10*time.Second)
	require.Len(t, r.Queues(t), 3)
}

func strangersPublish(t *testing.T, r *rig) {
	l, tr := listen(t, open(t, config(r.Addr)), ""), open(t, config(r.Addr))
	a, b := pair(t, tr, l)
	ch := stranger(t, r)
	garbage := [][]byte{nil, {}, []byte("hello"), make([]byte, headerSize), make([]byte, 1<<20)}
	for _, typ := range []frameType{0, frameOpen, frameAccept, frameData, framePing, framePong, frameReset, 99} {
		body := make([]byte, headerSize)
		header{dialer: true}.put(body)
		garbage = append(garbage, appendFrame(body, typ, []byte("nonsense")))
	}
	before := heap()
	for n := range 200 {
		for _, body := range garbage {
			if len(body) > 1<<10 && n%20 != 0 {
				continue
			}
			for _, key := range []string{l.Addr(), a.link.inbox, b.link.inbox} {
				for _, id := range []string{"", "made up"} {
					require.NoError(t, ch.PublishWithContext(t.Context(), "", key, false, false, amqp091.Publishing{CorrelationId: id, ReplyTo: "nobody", Body: body}))
				}
			}
		}
	}
	passes(t, a, b, "unimpressed")
	passes(t, b, a, "as well")
	pair(t, tr, l)
	require.Less(t, heap()-before, int64(prefetch+64)<<20)
	require.Greater(t, b.link.foreign.Load(), int64(1000))
}

// answersInboxes has strangers who want answers where RabbitMQ takes none, and closes the channel that sends one.
func answersInboxes(t *testing.T, r *rig) {
	l, tr := listen(t, open(t, config(r.Addr)), ""), open(t, config(r.Addr))
	a, b := pair(t, tr, l)
	p := newPlayer(t, r)
	own := p.name
	hello := terms{minWindow, 1 << 20}.append(nil)
	for _, name := range []string{"", "amq.rabbitmq.reply-to.AAAA.x", "amq.rabbitmq.reply-to.g1h2AA5yZXBseUAx.x", "\xff\xfe", inboxPrefix + "\xff", inboxPrefix + "nobody"} {
		p.name = name
		p.publish(l.Addr(), randomName(""), header{}, appendFrame(nil, frameOpen, hello))
		for _, key := range []string{a.link.inbox, b.link.inbox} {
			p.publish(key, randomName(""), header{}, appendFrame(nil, frameAccept, hello))
			p.publish(key, "", header{}, appendFrame(nil, framePing, nil))
		}
	}
	p.name = own
	p.dial(l) // all of the above was taken, and answered
	passes(t, a, b, "unimpressed")
	passes(t, b, a, "as well")

	// A listener who is one: the dialer has a connection only where it can answer.
	result := make(chan error, 1)
	go func() {
		_, err := tr.Dial(soon(t), own)
		result <- err
	}()
	d := <-p.inbox
	p.name = "amq.rabbitmq.reply-to.AAAA.x"
	body := make([]byte, headerSize)
	header{}.put(body)
	require.NoError(t, p.ch.PublishWithContext(t.Context(), "", d.ReplyTo, true, false, amqp091.Publishing{CorrelationId: d.CorrelationId, ReplyTo: p.name, Body: appendFrame(body, frameAccept, hello)}))
	require.ErrorIs(t, <-result, transport.ErrProtocol)
	passes(t, a, b, "still")
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// player speaks the protocol by hand.
type player struct {
	t     *testing.T
	ch    *amqp091.Channel
	inbox <-chan amqp091.Delivery
	name  string
	peer  string // its inbox
}

func newPlayer(t *testing.T, r *rig) *player {
	ch := stranger(t, r)
	q, err := ch.QueueDeclare(randomName(inboxPrefix), false, false, true, false, nil)
	require.NoError(t, err)
	inbox, err := ch.Consume(q.Name, "", true, true, false, false, nil)
	require.NoError(t, err)
	return &player{t: t, ch: ch, inbox: inbox, name: q.Name}
}

func (p *player) publish(key, id string, h header, frames []byte) {
	body := make([]byte, headerSize)
	h.dialer = true
	h.put(body)
	require.NoError(p.t, p.ch.PublishWithContext(p.t.Context(), "", key, true, false, amqp091.Publishing{CorrelationId: id, ReplyTo: p.name, Body: append(body, frames...)}))
}

// dial returns the connection's id when it is accepted.
func (p *player) dial(l transport.Listener) string {
	id := randomName("")
	p.publish(l.Addr(), id, header{}, appendFrame(nil, frameOpen, terms{minWindow, 1 << 20}.append(nil)))
	typ, _ := p.receive(id)
	require.Equal(p.t, frameAccept, typ)
	return id
}

func (p *player) receive(id string) (frameType, []byte) {
	select {
	case d := <-p.inbox:
		require.Equal(p.t, id, d.CorrelationId)
		_, frames, err := parseHeader(d.Body)
		require.NoError(p.t, err)
		if len(frames) == 0 {
			return 0, nil // credit
		}
		typ, payload, _, err := nextFrame(frames)
		require.NoError(p.t, err)
		if typ == frameAccept {
			p.peer = d.ReplyTo
		}
		return typ, payload
	case <-soon(p.t).Done():
		require.FailNow(p.t, "nothing came")
		return 0, nil
	}
}

func protocolBroken(t *testing.T, r *rig) {
	tr := open(t, config(r.Addr))
	l, err := tr.Listen(soon(t), "", transport.ListenMaxMessage(1<<20))
	require.NoError(t, err)
	data := appendFrame(nil, frameData, []byte("x"))
	part := appendFrame(nil, framePart, make([]byte, maxChunk))
	for name, play := range map[string]func(p *player, id string){
		"a message is missing":     func(p *player, id string) { p.publish(p.peer, id, header{number: 2}, data) },
		"a message comes twice":    func(p *player, id string) { p.publish(p.peer, id, header{number: 0}, data) },
		"half a frame":             func(p *player, id string) { p.publish(p.peer, id, header{number: 1}, data[:3]) },
		"a frame of another place": func(p *player, id string) { p.publish(p.peer, id, header{number: 1}, appendFrame(nil, framePing, nil)) },
		"too much credit":          func(p *player, id string) { p.publish(p.peer, id, header{number: 1, credit: 1 << 30}, nil) },
		"accept of what is accepted": func(p *player, id string) {
			p.publish(p.peer, id, header{number: 1}, appendFrame(nil, frameAccept, terms{minWindow, 1}.append(nil)))
		},
		"more after the end": func(p *player, id string) {
			p.publish(p.peer, id, header{number: 1}, append(appendFrame(nil, frameFin, nil), data...))
		},
		"more than the credit": func(p *player, id string) {
			for n := range uint64(6) { // in two messages that are never received
				p.publish(p.peer, id, header{number: n + 1}, append(appendFrame(nil, frameData, make([]byte, 1000)), appendFrame(nil, frameData, make([]byte, maxChunk-2000))...))
			}
		},
		"a message beyond the limit": func(p *player, id string) {
			for n := range uint64(1<<20/maxChunk + 2) {
				p.publish(p.peer, id, header{number: n + 1}, part)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlayer(t, r)
			id := p.dial(l)
			play(p, id)
			for {
				typ, reason := p.receive(id)
				if typ == frameReset {
					require.NotEmpty(t, reason)
					break
				}
				require.Equal(t, frameType(0), typ)
			}
		})
	}
	for { // those that were confirmed were accepted
		c, err := l.Accept(within(t, 100*time.Millisecond))
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		require.NoError(t, err)
		c.Close()
	}
	pair(t, tr, l)
}

func neverConfirmed(t *testing.T, r *rig) {
	c := config(r.Addr)
	c.Timeout = time.Second
	l := listen(t, open(t, c), "")
	p := newPlayer(t, r)
	id := p.dial(l)
	typ, reason := p.receive(id)
	require.Equal(t, frameReset, typ)
	require.Contains(t, string(reason), "did not confirm")
	_, err := l.Accept(within(t, 100*time.Millisecond))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Eventually(t, func() bool {
		l := l.(*listener)
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.count == 0
	}, 10*time.Second, time.Millisecond)
}

func tooMany(t *testing.T, r *rig) {
	c := config(r.Addr)
	c.MaxConns = 2
	l, tr := listen(t, open(t, c), ""), open(t, config(r.Addr))
	a, b := pair(t, tr, l)
	pair(t, tr, l)
	_, err := tr.Dial(soon(t), l.Addr())
	require.ErrorIs(t, err, transport.ErrUnreachable)
	require.ErrorContains(t, err, "takes no more")
	require.NoError(t, a.Close())
	_, err = b.Recv(soon(t))
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, b.Close())
	pair(t, tr, l)
}

// givesUp has a dialer whose answer comes too late.
func givesUp(t *testing.T, r *rig) {
	tr := open(t, config(r.Addr))
	p := newPlayer(t, r) // a listener that takes its time
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := tr.Dial(ctx, p.name)
		result <- err
	}()
	d := <-p.inbox
	cancel()
	require.ErrorIs(t, <-result, context.Canceled)
	body := make([]byte, headerSize)
	header{}.put(body)
	accept := appendFrame(body, frameAccept, terms{minWindow, 1}.append(nil))
	require.NoError(t, p.ch.PublishWithContext(t.Context(), "", d.ReplyTo, true, false, amqp091.Publishing{CorrelationId: d.CorrelationId, ReplyTo: p.name, Body: accept}))
	typ, _ := p.receive(d.CorrelationId)
	require.Equal(t, frameReset, typ, "a listener is told that it has no connection")

	// The answer comes in the moment of giving up, before the writer has seen that.
	l, err := tr.connected(soon(t))
	require.NoError(t, err)
	c := newConn(l, randomName(""), true, 1)
	c.queued = true
	require.NoError(t, l.add(c))
	c.reset(errors.New("the dialer gave up"))
	_, frames, err := parseHeader(accept)
	require.NoError(t, err)
	require.False(t, c.receive(header{}, frames, p.name))
	l.remove(c)
	require.False(t, c.receive(header{}, frames, p.name))
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Empty(t, l.dialed)
	require.Empty(t, l.peers, "nobody is asked for signs of life")
}

func closes(t *testing.T, r *rig) {
	l := listen(t, open(t, config(r.Addr)), "")
	tr, err := New(new(plugin.Env), config(r.Addr))
	require.NoError(t, err)
	a, b := pair(t, tr.(*Transport), l)
	require.NoError(t, a.Send(soon(t), []byte("last words")))
	c, d := pair(t, tr.(*Transport), l)
	require.NoError(t, c.Send(soon(t), []byte("farewell")))
	require.NoError(t, c.Close())
	own := listen(t, tr.(*Transport), "")
	ends := []transport.Conn{a}
	for range 50 {
		e, f := pair(t, tr.(*Transport), own)
		ends = append(ends, e, f)
	}
	p := newPlayer(t, r) // a listener that never answers
	dialed := make(chan error, 1)
	go func() {
		_, err := tr.Dial(soon(t), p.name)
		dialed <- err
	}()
	<-p.inbox
	require.NoError(t, tr.(*Transport).Close())
	require.NoError(t, tr.(*Transport).Close(), "once more")
	require.ErrorIs(t, <-dialed, transport.ErrClosed)
	for _, e := range ends {
		_, err := e.Recv(soon(t))
		require.ErrorIs(t, err, transport.ErrClosed)
		require.ErrorIs(t, e.Send(soon(t), nil), transport.ErrClosed)
	}
	got, err := d.Recv(soon(t))
	require.NoError(t, err)
	require.Equal(t, "farewell", string(got))
	_, err = d.Recv(soon(t))
	require.ErrorIs(t, err, io.EOF)
	for err = nil; err == nil; {
		_, err = b.Recv(within(t, 900*time.Millisecond)) // before any sign of life is missed
	}
	require.ErrorContains(t, err, "closed its transport")
	_, err = tr.Dial(soon(t), l.Addr())
	require.ErrorIs(t, err, transport.ErrClosed)
	_, err = tr.Listen(soon(t), "")
	require.ErrorIs(t, err, transport.ErrClosed)
}

// closesEarly has calls that wait for a server that says nothing: for a connection to it, and over one.
func closesEarly(t *testing.T, r *rig) {
	for _, connected := range []bool{false, true} {
		tr := r.open(t)
		if connected {
			_, err := tr.connected(soon(t))
			require.NoError(t, err)
		}
		p := r.proxy(tr)
		p.Blackhole()
		listened, dialed := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := tr.Listen(soon(t), "micro.early")
			listened <- err
		}()
		go func() {
			_, err := tr.Dial(soon(t), "micro.early")
			dialed <- err
		}()
		require.Eventually(t, func() bool {
			tr.mu.Lock()
			defer tr.mu.Unlock()
			return tr.attempt != nil && tr.listeners["micro.early"] != nil
		}, 10*time.Second, time.Millisecond)
		began := time.Now()
		require.NoError(t, tr.Close())
		require.Less(t, time.Since(began), 5*time.Second)
		require.ErrorIs(t, <-listened, transport.ErrClosed)
		require.ErrorIs(t, <-dialed, transport.ErrClosed)
		p.Close()
	}
}

func itself(t *testing.T, r *rig) {
	tr := open(t, config(r.Addr))
	l := listen(t, tr, "")
	a, b := pair(t, tr, l)
	passes(t, a, b, strings.Repeat("there", 100_000))
	passes(t, b, a, "and back")
	require.NoError(t, a.Close())
	_, err := b.Recv(soon(t))
	require.ErrorIs(t, err, io.EOF)
}

func TestTLS(t *testing.T) {
	tls := testcert.New(t).TLS()
	s := servers.RabbitMQ(t, servers.RabbitTLS(tls)...)
	c := config(s.TLSAddr)
	c.TLS = tls
	a, b := pair(t, open(t, c), listen(t, open(t, c), ""))
	passes(t, a, b, strings.Repeat("secret", 100_000))

	for name, wrong := range map[string]plugin.TLS{"no authority": {Enable: true}, "no certificate": {CA: tls.CA}, "another name": {CA: tls.CA, Cert: tls.Cert, Key: tls.Key, ServerName: "elsewhere"}} {
		c.TLS = wrong
		_, err := open(t, c).Dial(soon(t), "anybody")
		require.ErrorContains(t, err, "transport rabbitmq: connect to "+s.TLSAddr, name)
	}
}

// A frozen process is lost, and is told when it wakes up.
func TestFrozen(t *testing.T) {
	r := newRig(t)
	p := r.spawn(t)
	tr := open(t, config(r.Addr))
	a, err := tr.Dial(soon(t), p.Addr)
	require.NoError(t, err)
	require.NoError(t, a.Send(soon(t), []byte("hello")))
	_, err = a.Recv(soon(t))
	require.NoError(t, err)
	p.Stop()
	_, err = a.Recv(soon(t))
	require.ErrorContains(t, err, "no sign of life")
	require.ErrorContains(t, a.Send(soon(t), nil), "no sign of life")
	require.NoError(t, a.Close())
	p.Continue()
	require.Eventually(t, func() bool {
		b, err := tr.Dial(soon(t), p.Addr)
		if err != nil {
			return false
		}
		defer b.Close()
		passesEcho(t, b)
		return true
	}, 30*time.Second, 10*time.Millisecond)
}

func passesEcho(t testing.TB, c transport.Conn) {
	require.NoError(t, c.Send(soon(t), []byte("again")))
	got, err := c.Recv(soon(t))
	require.NoError(t, err)
	require.Equal(t, "again", string(got))
}

func TestValidate(t *testing.T) {
	require.NoError(t, Config{}.Validate())
	for want, c := range map[string]Config{
		"max-message": {MaxMessage: -1},
		"max-conns":   {MaxConns: -1},
		"window":      {Window: minWindow - 1},
		"keep-alive":  {KeepAlive: -1},
		"address 1":   {Config: amqp.Config{Address: []string{"http://x"}}},
	} {
		require.ErrorContains(t, c.Validate(), want)
	}
}
