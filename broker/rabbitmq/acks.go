package rabbitmq

import (
	"context"
	"slices"
	"sync"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// acker sends the acks of one connection, so that no handler waits for the network, and several with one frame where
// they follow each other: each frame is a system call here and work for the server.
type acker struct {
	mu      sync.Mutex
	pending []ack
	wake    chan struct{}
}

type ack struct {
	source *source
	tags   *tags
	tag    uint64
}

// tags are the delivery tags of one channel.
type tags struct {
	ch   *amqp091.Channel
	next uint64          // all before it are acked
	done map[uint64]bool // those behind it that are
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
		x.source.settled()
	}
}

// ack acknowledges fresh tags. An error means that the channel is gone: the messages come again.
func (t *tags) ack(fresh []uint64) {
	slices.Sort(fresh)
	upTo, multiple := uint64(0), 0
	for _, tag := range fresh {
		t.done[tag] = true
	}
	for t.done[t.next] {
		delete(t.done, t.next)
		if len(fresh) > multiple && fresh[multiple] == t.next {
			upTo = t.next
			multiple++
		}
		t.next++
	}
	if multiple > 0 {
		_ = t.ch.Ack(upTo, multiple > 1)
	}
	for _, tag := range fresh[multiple:] {
		_ = t.ch.Ack(tag, false)
	}
}
