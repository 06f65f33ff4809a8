package direct

import (
	"context"
	"crypto/rand"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/status"
)

// The tests in this file hold up one of those who take part when a member leaves in good order. What it has done must not
// be done again.

// slowReader is a publisher whose process is slow: it reads an answer when the test says so, and has no room for more
// than one.
type slowReader struct {
	*world
	st  *mux.Stream
	seq uint64
}

func (w *world) slowReader(s *subscription) *slowReader {
	c, err := mux.Dial(w.Context(), limited{w.transport, 8 << 20}, s.broker.listener.addr(), mux.Options{Window: 1})
	require.NoError(w, err)
	w.Cleanup(c.Close)
	st, err := c.Open(w.Context(), &mux.Request{Service: serviceName, Endpoint: s.id, Codec: bytesCodec,
		Metadata: map[string]string{sourceKey: rand.Text()}})
	require.NoError(w, err)
	return &slowReader{w, st, 0}
}

func (p *slowReader) publish(n int) {
	var frame []byte
	for range n {
		p.seq++
		frame = appendDelivery(frame, p.seq, appendMessage(nil, &broker.Message{}, "id"))
	}
	require.NoError(p, p.st.Send(p.Context(), bytesCodec, frame))
}

// read returns the acks until the subscription takes its leave, or until the stream ends, with why.
func (p *slowReader) read() (acks []uint64, leaving bool, err error) {
	for !leaving {
		b, err := p.st.Recv(p.Context())
		if err != nil {
			return acks, false, err
		}
		acks, leaving, err = parseAnswer(b.B, acks)
		b.Release()
		require.NoError(p, err)
	}
	return acks, true, nil
}

func TestLeavingMemberAcksToASlowPublisher(t *testing.T) {
	for name, pause := range map[string]time.Duration{"that reads soon": 0, "that reads late": 5 * lastWords} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const buffer = 10_000 // closing takes a moment
				w := newWorld(t)
				b := w.open(Config{Buffer: buffer})
				next := make(chan struct{})
				s := w.subscribe(b, func(context.Context, *broker.Message) error { <-next; return nil }).(*subscription)
				p := w.slowReader(s)
				p.publish(3)
				next <- struct{}{}
				next <- struct{}{} // whose ack has to wait for the reader
				synctest.Wait()
				w.slowReader(s).publish(buffer)
				synctest.Wait()
				p.publish(2) // which wait for room until there is none any more
				synctest.Wait()
				closed := make(chan error, 1)
				go func() { closed <- b.Close() }()
				synctest.Wait()
				next <- struct{}{}
				synctest.Wait()
				time.Sleep(pause)
				acks, _, err := p.read()
				if err == nil {
					var rest []uint64
					rest, _, err = p.read()
					acks = append(acks, rest...)
				}
				require.Equal(t, []uint64{1, 2, 3}, acks)
				require.ErrorIs(t, err, io.EOF)
				require.NoError(t, <-closed)
			})
		})
	}
}

func TestStreamThatBreaksIsNoLeave(t *testing.T) {
	w := newWorld(t)
	handling, goOn := make(chan struct{}), make(chan struct{})
	s := w.subscribe(w.open(Config{}), func(context.Context, *broker.Message) error {
		close(handling)
		<-goOn
		return nil
	}).(*subscription)
	p := w.slowReader(s)
	p.publish(1)
	<-handling
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	_, leaving, err := p.read()
	require.NoError(t, err)
	require.True(t, leaving)
	require.NoError(t, p.st.CloseSend())
	_, err = p.st.Recv(t.Context())
	require.Equal(t, status.Unavailable, status.CodeOf(err), "others are not to be given what is being handled: %v", err)
	close(goOn)
	require.NoError(t, <-closed)
}

// leaver is a member that acks and leaves when the test says so.
type leaver struct{ answers chan []byte }

func (l *leaver) Find(_, _ []byte, _ bool) (any, *mux.Error) { return nil, nil }

func (l *leaver) Serve(c *mux.Call) {
	for frame := range l.answers {
		_ = c.Stream.Send(c, bytesCodec, frame)
	}
	c.Reply(nil)
}

func TestSlowPublisherReadsTheAcksOfAMemberThatLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := memoryTransport(t)
		listener, err := tr.Listen(t.Context(), "leaver")
		require.NoError(t, err)
		defer listener.Close()
		workers := mux.NewWorkers()
		defer workers.Close()
		far := &leaver{make(chan []byte)}
		go func() {
			conn, err := listener.Accept(t.Context())
			if err != nil {
				return
			}
			if s, err := mux.Accept(t.Context(), conn, far, workers, mux.Options{Window: 1}); err == nil {
				_ = s.Run()
			}
		}()

		d := newDesk(t, "g", Config{})
		m := &member{id: "m", addr: "leaver"}
		require.True(t, m.joined(d.outbox, 1))
		d.publish("k", 1, 2)
		goOn := make(chan struct{})
		l := &link{member: m, conns: newConns(tr, mux.Options{}), dial: time.Second, ctx: t.Context(), news: make(chan struct{}, 1),
			forgotten: func(string) { <-goOn }} // this process is slow
		ran := make(chan struct{})
		go func() { l.run(); close(ran) }()
		synctest.Wait()
		d.publish("k", 3) // for which the member has no room
		synctest.Wait()
		far.answers <- []byte{answerLeaving}
		far.answers <- appendAcks(nil, []uint64{1})
		far.answers <- appendAcks(nil, []uint64{2})
		close(far.answers)
		synctest.Wait()
		close(goOn)
		<-ran
		require.Equal(t, []int{3}, d.given(d.connected("other")))
	})
}
