package rabbitmq

import (
	"maps"
	"slices"
	"time"

	"github.com/plugmicro/micro/broker"
)

// balanceEvery is how often a member that works off several partitions looks whether others have too few.
const balanceEvery = time.Second

// balance hands partitions over. The server gives a partition to the consumer that came first, so the first member
// has all of them. Who has more than its share begins again with those, behind all others. A partition counts when
// something came from it: those that nobody publishes to need no balance, and asking is for those with work to do only.
func (w *work) balance() {
	tick := time.NewTicker(balanceEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.life.Done():
			return
		case <-tick.C:
		}
		active := w.active()
		if len(active) < 2 {
			continue
		}
		members, err := w.members()
		if err != nil {
			w.fail(err)
			return
		}
		share := (partitions + members - 1) / members
		for _, s := range active[min(share, len(active)):] {
			w.tasks.Go(s.handOver)
		}
	}
}

// active are the partitions that are this member's, those of which a message is being handled first.
func (w *work) active() []*source {
	var active []*source
	for _, s := range w.sources[1:] {
		s.mu.Lock()
		if s.active && !s.leaving {
			active = append(active, s)
		}
		s.mu.Unlock()
	}
	slices.SortStableFunc(active, func(a, b *source) int {
		return int(w.running[b.partition].Load() - w.running[a.partition].Load())
	})
	return active
}

// members is how many consume the shared queue.
func (w *work) members() (int, error) {
	members := make(chan int, 1)
	if err := w.ask(func() error {
		q, err := w.control.QueueDeclarePassive(w.sources[0].name, true, false, false, false, nil)
		members <- max(q.Consumers, 1)
		return err
	}); err != nil {
		return 0, w.explain(err)
	}
	return <-members, nil
}

// handOver gives a partition to who waits for it: what is not being handled goes back, after what is.
func (s *source) handOver() {
	s.mu.Lock()
	s.leaving = true
	mine := maps.Clone(s.held) // not by key: that can have come from another queue, too
	s.mu.Unlock()
	again := time.NewTicker(balanceEvery / 10)
	defer again.Stop()
	for settled := s.allSettled(); ; {
		s.work.queue.Discard(func(m *broker.Message) bool { return mine[m] }) // a failed one, too
		select {
		case <-again.C:
			continue
		case <-s.work.life.Done():
			return
		case <-settled:
		}
		break
	}
	if err := s.close(); err != nil {
		s.work.fail(err)
		return
	}
	s.receiving.Wait()
	if err := s.open(); err != nil {
		s.work.fail(err)
	}
}

// allSettled is closed when nothing of the source is in the hands of handlers.
func (s *source) allSettled() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	idle := s.idle
	if len(s.held) == 0 {
		close(s.idle)
		s.idle = nil
	}
	return idle
}
