package brokertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
)

var failureTests = []test{
	{"ErrorIsTriedAgain", needs{"Retry"}, errorIsTriedAgain},
	{"PanicIsTriedAgain", needs{"Retry"}, panicIsTriedAgain},
	{"TriesAreCounted", needs{"Retry"}, triesAreCounted},
	{"PermanentIsNotTriedAgain", needs{"Retry", "DeadLetter"}, permanentIsNotTriedAgain},
	{"OrderIsKeptOverRetries", needs{"Retry", "Ordered"}, orderIsKeptOverRetries},
	{"PoisonDoesNotBlockOthers", needs{"Retry"}, poisonDoesNotBlockOthers},
	{"DeadLetter", needs{"Retry", "DeadLetter"}, deadLetter},
	{"DeadLetterOfAPanic", needs{"Retry", "DeadLetter"}, deadLetterOfAPanic},
	{"DeadLetterOfTheLargest", needs{"Retry", "DeadLetter"}, deadLetterOfTheLargest},
	{"DeadLetterIsPublishedAgain", needs{"Retry", "DeadLetter"}, deadLetterIsPublishedAgain},
}

var errBoom = errors.New("boom: größer als «zehn»")

// stubborn fails the first tries of each message and notes all of them.
type stubborn struct {
	failures int
	fail     func() error

	mu    sync.Mutex
	tries map[string][]*broker.Message
}

func (s *stubborn) handle(_ context.Context, m *broker.Message) error {
	s.mu.Lock()
	if s.tries == nil {
		s.tries = map[string][]*broker.Message{}
	}
	s.tries[m.ID] = append(s.tries[m.ID], m.Clone())
	fails := len(s.tries[m.ID]) <= s.failures
	s.mu.Unlock()
	m.ID, m.Header, m.Body = "changed", nil, nil // the next try must not see it
	if fails {
		return s.fail()
	}
	return nil
}

func (s *stubborn) count(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tries[id])
}

func boom() error      { return errBoom }
func panicBoom() error { panic(errBoom) }

func errorIsTriedAgain(r *rig) { triedAgain(r, boom) }
func panicIsTriedAgain(r *rig) { triedAgain(r, panicBoom) }

func triedAgain(r *rig, fail func() error) {
	b, topic := r.open(), r.name()
	s := &stubborn{failures: 2, fail: fail}
	r.own(b, topic, s.handle, quick(10))
	sent := r.messages(10, 5)
	sent[0].Header = map[string]string{"a": "b"}
	r.publish(b, topic, sent...)
	for _, m := range sent {
		r.eventually("three tries", func() bool { return s.count(m.ID) == 3 })
	}
	r.quiet(b, topic, func() bool { return s.count(sent[0].ID) == 3 })
	r.eventually("the last message here as well", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.tries) > len(sent)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Len(r, s.tries, len(sent)+1, "a redelivered message keeps its ID")
	for _, m := range sent {
		require.Len(r, s.tries[m.ID], 3)
		for _, got := range s.tries[m.ID] {
			requireEqual(r, m, got)
		}
	}
}

// quiet waits until the subscribers of a topic have handled another message, and checks that something still holds.
func (r *rig) quiet(b broker.Broker, topic string, cond func() bool) {
	r.Helper()
	in, last := &inbox{}, r.messages(1, 1)
	r.own(b, topic, in.handle)
	r.publish(b, topic, last...)
	r.all(last, in)
	require.True(r, cond())
}

func triesAreCounted(r *rig) {
	b, topic := r.open(), r.name()
	for _, attempts := range []int{1, 4} {
		s, in := &stubborn{failures: forever, fail: boom}, &inbox{}
		sub := r.own(b, topic, func(ctx context.Context, m *broker.Message) error {
			if m.Header["good"] != "" {
				return in.handle(ctx, m)
			}
			return s.handle(ctx, m)
		}, quick(attempts))
		bad, good := r.messages(1, 1)[0], r.messages(1, 1)[0]
		good.Header = map[string]string{"good": "yes"}
		r.publish(b, topic, bad, good)
		r.all([]*broker.Message{good}, in)
		r.eventually("all tries", func() bool { return s.count(bad.ID) >= attempts })
		require.NoError(r, sub.Close())
		require.Equal(r, attempts, s.count(bad.ID))
	}
}

func permanentIsNotTriedAgain(r *rig) {
	b, topic, dead := r.open(), r.name(), r.name()
	s := &stubborn{failures: forever, fail: func() error { return fmt.Errorf("wrapped: %w", broker.Permanent(errBoom)) }}
	letters := &inbox{}
	r.own(b, dead, letters.handle)
	r.own(b, topic, s.handle, quick(forever), broker.DeadLetter(dead))
	sent := r.messages(3, 1)
	r.publish(b, topic, sent...)
	r.once(sent, letters)
	for _, letter := range letters.messages() {
		require.Equal(r, 1, s.count(letter.ID))
		require.Equal(r, "1", letter.Header[broker.HeaderAttempts])
		require.Contains(r, letter.Header[broker.HeaderDeadReason], errBoom.Error())
	}
}

func orderIsKeptOverRetries(r *rig) {
	b, topic := r.open(), r.name()
	var mu sync.Mutex
	failed := map[string]bool{}
	in, busy := &inbox{}, &oneOfAKey{}
	r.own(b, topic, busy.watch(func(ctx context.Context, m *broker.Message) error {
		mu.Lock()
		again := failed[m.ID]
		failed[m.ID] = true
		mu.Unlock()
		if !again && m.Body[len(m.Body)-1]%3 == 0 {
			return errBoom
		}
		return in.handle(ctx, m)
	}), broker.Concurrency(8), quick(5))
	sent := r.messages(200, 10)
	r.publish(b, topic, sent...)
	r.once(sent, in)
	requireOrder(r, sent, in)
	require.Zero(r, busy.broken.Load(), "two messages of one key were handled at the same time")
}

func poisonDoesNotBlockOthers(r *rig) {
	b, topic := r.open(), r.name()
	in := &inbox{}
	r.own(b, topic, func(ctx context.Context, m *broker.Message) error {
		if m.Header["poison"] != "" {
			return errBoom
		}
		return in.handle(ctx, m)
	}, broker.Concurrency(2), quick(forever))
	poison := &broker.Message{Header: map[string]string{"poison": "yes"}}
	r.publish(b, topic, poison)
	sent := r.messages(100, 0)
	r.publish(b, topic, sent...)
	r.once(sent, in)
}

func deadLetter(r *rig)         { buried(r, boom, errBoom.Error()) }
func deadLetterOfAPanic(r *rig) { buried(r, panicBoom, errBoom.Error()) }

func buried(r *rig, fail func() error, reason string) {
	b, topic, dead := r.open(), r.name(), r.name()
	s, in, letters := &stubborn{failures: forever, fail: fail}, &inbox{}, &inbox{}
	r.own(b, dead, letters.handle)
	r.own(b, topic, func(ctx context.Context, m *broker.Message) error {
		if m.Header["bad"] != "" {
			return s.handle(ctx, m)
		}
		return in.handle(ctx, m)
	}, quick(3), broker.DeadLetter(dead))
	sent := r.messages(21, 3)
	bad := sent[10]
	bad.Header = map[string]string{"bad": "yes"}
	r.publish(b, topic, sent...)
	r.once([]*broker.Message{bad}, letters)
	r.once(append(append([]*broker.Message{}, sent[:10]...), sent[11:]...), in)

	require.Equal(r, 3, s.count(bad.ID))
	letter := letters.messages()[0]
	require.Contains(r, letter.Header[broker.HeaderDeadReason], reason)
	want := bad.Clone()
	want.Header[broker.HeaderDeadTopic] = topic
	want.Header[broker.HeaderAttempts] = "3"
	want.Header[broker.HeaderDeadReason] = letter.Header[broker.HeaderDeadReason]
	requireEqual(r, want, letter)
}

// deadLetterOfTheLargest: what a dead letter has beside the message does not make it too large.
func deadLetterOfTheLargest(r *rig) {
	b, topic, dead := r.open(), r.name(), r.name()
	letters := &inbox{}
	r.own(b, dead, letters.handle)
	s := &stubborn{failures: forever, fail: func() error { return errors.New(strings.Repeat("why? ", 1000)) }}
	r.own(b, topic, s.handle, quick(2), broker.DeadLetter(dead))
	m := r.messages(1, 1)[0]
	m.Body = r.largest()
	m.Header = map[string]string{"k": strings.Repeat("v", broker.MaxHeaderBytes-1)}
	r.publish(b, topic, m)
	r.once([]*broker.Message{m}, letters)
	letter := letters.messages()[0]
	require.Equal(r, "2", letter.Header[broker.HeaderAttempts])
	require.Contains(r, letter.Header[broker.HeaderDeadReason], "why? ")
	require.True(r, string(m.Body) == string(letter.Body), "the body differs")
}

// deadLetterIsPublishedAgain does what an operator does once the handler is mended.
func deadLetterIsPublishedAgain(r *rig) {
	b, topic, dead := r.open(), r.name(), r.name()
	in, letters := &inbox{}, &inbox{}
	var mu sync.Mutex
	mended := false
	r.own(b, dead, letters.handle)
	r.own(b, topic, func(ctx context.Context, m *broker.Message) error {
		mu.Lock()
		defer mu.Unlock()
		if !mended {
			return errBoom
		}
		return in.handle(ctx, m)
	}, quick(2), broker.DeadLetter(dead))
	sent := r.messages(1, 1)
	r.publish(b, topic, sent...)
	r.all(sent, letters)
	mu.Lock()
	mended = true
	mu.Unlock()
	letter := letters.messages()[0]
	r.publish(b, letter.Header[broker.HeaderDeadTopic], letter)
	r.all(sent, in)
}
