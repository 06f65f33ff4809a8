package direct

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/mux"
)

// The tests in this file hold up one of those who take part when a member leaves in good order. What it has done must not
// be done again.

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
