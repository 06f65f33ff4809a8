package rabbitmq

import (
	"context"
	"slices"
	"sync"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/plugmicro/micro/broker"
)

// acker sends the acks of one connection, so that no handler waits for the network, and several with one frame where
// they follow each other: each frame is a system call here and work for the server.
type acker struct {
	mu      sync.Mutex
	pending []ack
	wake    chan struct{}
}

type ack struct {
	source  *source
	message *broker.Message
	tags    *tags
	tag     uint64
}

// tags are the delivery tags of one channel.
type tags struct {
	ch *amqp091.Channel

	mu   sync.Mutex
	open []uint64 // that came and are not acked, no more than the prefetch, in order
}

// came notes a tag; each is greater than those before.
func (t *tags) came(tag uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open = append(t.open, tag)
}

// leave takes off fresh tags, which are in order, and returns how many of them have no other open one before.
func (t *tags) leave(fresh []uint64) (together int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for together < len(fresh) && t.open[together] == fresh[together] {
		together++
	}
	rest := fresh[together:]
	t.open = slices.DeleteFunc(slices.Delete(t.open, 0, together), func(tag uint64) bool {
		if len(rest) == 0 || rest[0] != tag {
			return false
		}
		rest = rest[1:]
		return true
	})
	return together
}

func newAcker() *acker { return &acker{wake: make(chan struct{}, 1)} }

func (a *acker) add(x ack) {
	a.mu.Lock()
	a.pending = append(a.pending, x)
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// run sends until life ends; what was added before that is sent as well.
func (a *acker) run(life context.Context) {
	for {
		select {
		case <-a.wake:
			a.send()
		case <-life.Done():
			a.send()
			return
		}
	}
}

func (a *acker) send() {
	a.mu.Lock()
	batch := a.pending
	a.pending = nil
	a.mu.Unlock()
	fresh := map[*tags][]uint64{}
	for _, x := range batch {
		fresh[x.tags] = append(fresh[x.tags], x.tag)
	}
	for t, list := range fresh {
		t.ack(list)
	}
	for _, x := range batch {
		x.source.settled(x.message)
	}
}

// ack acknowledges fresh tags. An error means that the channel is gone: the messages come again.
func (t *tags) ack(fresh []uint64) {
	slices.Sort(fresh)
	together := t.leave(fresh)
	if together > 0 {
		_ = t.ch.Ack(fresh[together-1], together > 1)
	}
	for _, tag := range fresh[together:] {
		_ = t.ch.Ack(tag, false)
	}
}
