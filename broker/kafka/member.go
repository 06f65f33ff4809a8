package kafka

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	kafka "github.com/segmentio/kafka-go"

	"github.com/plugmicro/micro/broker"
)

const (
	commitEvery = 250 * time.Millisecond
	ahead       = 16              // times Config.Buffer: messages handled behind one that is not, which a crash would deliver again
	leaveTime   = 2 * time.Second // for the last commit and to leave, after Config.Drain
)

// member is a subscription with a group. For each generation of the group it has a new queue, consumer and readers, which
// end with it: nothing of an older generation is handled or committed in a later one.
type member struct {
	broker *Broker
	work   broker.ConsumerConfig
	group  string
	conns  *conns
	kafka  *kafka.ConsumerGroup
	log    *slog.Logger
	outage *outage

	open    context.Context // ends when closing begins
	stop    context.CancelFunc
	bound   func()        // called with each generation
	isBound chan struct{} // closed by the first
	failure chan error    // has the last error of joining
	ended   chan struct{}
	joins   atomic.Int64

	mu       sync.Mutex
	patience context.Context // how long closing waits for handlers; nil while open
	err      error           // of closing

	once sync.Once
}

// groupID is the consumer group of a group on a topic: a name cannot have an @.
func groupID(group, topic string) string { return group + "@" + topic }

// join becomes a member, and returns once it is one.
func (b *Broker) join(ctx context.Context, work broker.ConsumerConfig, partitions int) (subscription, error) {
	m := &member{
		broker: b, work: work, group: groupID(work.Options.Group, work.Topic),
		isBound: make(chan struct{}), failure: make(chan error, 1), ended: make(chan struct{}),
	}
	m.log = b.log.With("topic", work.Topic, "group", m.group)
	m.outage = newOutage(m.log, b.cluster)
	m.bound = sync.OnceFunc(func() { close(m.isBound) })
	if b.config.Start == "newest" {
		if err := b.cluster.found(ctx, m.group, work.Topic, partitions); err != nil {
			return nil, err
		}
	}
	session := b.config.Session
	m.conns = b.cluster.conns.another()
	var err error
	m.kafka, err = kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: m.group, Topics: []string{work.Topic}, Brokers: []string{bootstrap}, Dialer: b.cluster.dialer(m.conns),
		StartOffset: kafka.FirstOffset, // of partitions that were added; a group that is new has committed its start
		// A member that cannot reach the server has stopped its handlers by the time that it is replaced.
		HeartbeatInterval: session / 10, Timeout: session / 4, SessionTimeout: session, RebalanceTimeout: session,
		WatchPartitionChanges: true, PartitionWatchInterval: session / 2,
		JoinGroupBackoff: 250 * time.Millisecond,
	})
	if err != nil {
		return nil, err
	}
	m.open, m.stop = context.WithCancel(context.Background())
	if !b.subs.Add(m, func() { go m.run() }) {
		m.conns.close()
		m.stop()
		_ = m.kafka.Close()
		return nil, broker.ErrClosed
	}
	if err := m.joined(ctx); err != nil {
		go m.Close() // which takes as long as the server; it is b's to wait for
		return nil, err
	}
	return m, nil
}

// joined waits until m is a member. Errors that may pass are waited out for as long as the settings allow.
func (m *member) joined(ctx context.Context) error {
	limit := time.NewTimer(m.broker.config.Timeout)
	defer limit.Stop()
	late := false
	var last error
	for {
		select {
		case <-m.isBound:
			return nil
		case last = <-m.failure:
			if final(last) {
				return m.broker.cluster.at(last)
			}
		case <-ctx.Done():
			return m.broker.cluster.gaveUp(ctx, last)
		case <-m.open.Done():
			return broker.ErrClosed
		case <-limit.C:
			late = true
		}
		if late && last != nil { // else it waits for the others of the group, not for a server
			return m.broker.cluster.gaveUp(ctx, last)
		}
	}
}

// run is a member of one generation after the other.
func (m *member) run() {
	defer close(m.ended)
	var ghosts sync.WaitGroup
	defer ghosts.Wait()
	defer m.kafka.Close()
	id := ""
	for {
		generation, err := m.kafka.Next(m.open)
		if m.open.Err() != nil {
			return
		}
		if err == nil {
			m.outage.works(m, "member of the group again")
			m.joins.Add(1)
			m.bound()
			m.serve(generation)
			id = generation.MemberID
			continue
		}
		if id != "" && !errors.Is(err, kafka.RebalanceInProgress) {
			ghost := id
			id = ""
			ghosts.Go(func() { m.bury(ghost) })
		}
		switch {
		case errors.Is(err, kafka.RebalanceInProgress):
			m.log.Debug("the group changed while it was joined, joining again")
		case m.joins.Load() > 0: // before that Subscribe tells
			m.outage.fails(m, time.Now(), err, "joining the group fails")
		}
		select {
		case m.failure <- err:
		default: // nobody waits any more
		}
	}
}

// bury makes the server forget what m was before it lost the connection: kafka-go joins as somebody else, and the group would
// wait for the one that is no more until its session is over, which begins anew when a server does. It goes on until m has
// joined.
func (m *member) bury(id string) {
	for before := m.joins.Load(); m.open.Err() == nil && m.joins.Load() == before; {
		answer, err := m.broker.cluster.client.LeaveGroup(m.open, &kafka.LeaveGroupRequest{
			GroupID: m.group, Members: []kafka.LeaveGroupRequestMember{{ID: id}},
		})
		if err == nil && (answer.Error == nil || final(answer.Error) || errors.Is(answer.Error, kafka.UnknownMemberId)) {
			return
		}
		m.broker.cluster.refresh()
		select {
		case <-m.open.Done():
		case <-time.After(commitEvery):
		}
	}
}

// serve works for one generation, and leaves with its end if m is closing.
func (m *member) serve(g *kafka.Generation) {
	over := make(chan struct{})
	g.Start(func(ctx context.Context) {
		defer close(over)
		m.handle(ctx, g)
		if m.open.Err() != nil {
			go m.kafka.Close() // before the end of this function makes it join again
			<-ctx.Done()
		}
	})
	<-over
}

// handle reads, handles and commits until the generation ends, a commit fails or m is closed. Then it waits for the handlers
// that run, and commits what they did.
func (m *member) handle(ctx context.Context, g *kafka.Generation) {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	config := m.broker.config
	queue := broker.NewQueue(config.Buffer, int(config.BufferSize))
	consumer := broker.StartConsumer(queue, m.work)
	assigned := g.Assignments[m.work.Topic]
	done := map[int]*progress{}
	var readers sync.WaitGroup
	for _, a := range assigned {
		p := newProgress(ahead * config.Buffer)
		done[a.ID] = p
		r := &reader{
			cluster: m.broker.cluster, log: m.broker.log, topic: m.work.Topic, partition: a.ID, offset: a.Offset, partitions: len(assigned),
			outage: m.outage,
			put: func(ctx context.Context, msg *broker.Message, offset int64) error {
				return put(ctx, queue, p, msg, offset)
			},
		}
		readers.Go(func() { r.run(reading) })
	}

	m.commitUntilTheEnd(ctx, g, done)
	stop()
	patience, cancel := m.forHandlers(ctx)
	defer cancel()
	err := consumer.Stop(patience)
	queue.Close()
	readers.Wait()
	if m.commit(g, done) == nil {
		m.note(err)
		return
	}
	if err := m.commitAnyway(g, done); err != nil {
		m.log.Info("the last messages were handled but not committed, they will be delivered again", "error", m.broker.cluster.at(err))
	}
	m.note(err)
}

func put(ctx context.Context, queue *broker.Queue, p *progress, m *broker.Message, offset int64) error {
	begun, err := p.begin(ctx, offset)
	if err != nil {
		return err
	}
	return queue.Put(ctx, m, func(acked bool) {
		if acked {
			p.finish(begun)
		}
	})
}

func (m *member) commitUntilTheEnd(ctx context.Context, g *kafka.Generation, done map[int]*progress) {
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.open.Done():
			return
		case <-tick.C:
			if err := m.commit(g, done); err != nil {
				m.notCommitted(err)
				return
			}
		}
	}
}

// notCommitted is told at once if joining again, which is what follows, is of no use.
func (m *member) notCommitted(err error) {
	if final(err) {
		m.log.Warn("offsets cannot be committed, joining the group again", "error", m.broker.cluster.at(err))
		return
	}
	m.outage.fails(m, time.Now(), err, "committing fails")
}

// commit is by the generation that owned the partitions: the server refuses it once there is a later one.
func (m *member) commit(g *kafka.Generation, done map[int]*progress) error {
	return m.commitBy(done, func(offsets map[int]int64) error {
		return g.CommitOffsets(map[string]map[int]int64{m.work.Topic: offsets})
	})
}

// commitAnyway does the same over a new connection: that of a generation is lost with it, if that is why it ended.
func (m *member) commitAnyway(g *kafka.Generation, done map[int]*progress) error {
	ctx, cancel := context.WithTimeout(context.Background(), m.broker.config.Session/4)
	defer cancel()
	return m.commitBy(done, func(offsets map[int]int64) (err error) {
		for {
			err = m.broker.cluster.commit(ctx, m.group, m.work.Topic, g, offsets)
			if err == nil || final(err) || errors.Is(err, kafka.UnknownMemberId) || errors.Is(err, kafka.IllegalGeneration) {
				return err
			}
			m.broker.cluster.refresh()
			select {
			case <-ctx.Done():
				return err
			case <-time.After(commitEvery / 5):
			}
		}
	})
}

func (m *member) commitBy(done map[int]*progress, commit func(map[int]int64) error) error {
	offsets := map[int]int64{}
	for partition, p := range done {
		if offset, is := p.uncommitted(); is {
			offsets[partition] = offset
		}
	}
	if len(offsets) == 0 {
		return nil
	}
	if err := commit(offsets); err != nil {
		return err
	}
	for partition, offset := range offsets {
		done[partition].commit(offset)
	}
	return nil
}

// forHandlers ends when handlers that still run are given up: with what closing allows, or in a rebalance before the server
// gives the partitions to others.
func (m *member) forHandlers(generation context.Context) (context.Context, context.CancelFunc) {
	m.mu.Lock()
	patience := m.patience
	m.mu.Unlock()
	if patience == nil {
		patience = context.Background()
	}
	ctx, cancel := context.WithCancel(patience)
	unhook := context.AfterFunc(generation, func() {
		select {
		case <-ctx.Done():
		case <-time.After(m.broker.config.Session / 2):
			cancel()
		}
	})
	return ctx, func() { unhook(); cancel() }
}

// note keeps the error of handlers that were left behind.
func (m *member) note(err error) {
	if err == nil {
		return
	}
	m.log.Error("handlers left behind", "error", err)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.patience != nil {
		m.err = err
	}
}

func (m *member) Topic() string { return m.work.Topic }

func (m *member) Close() error {
	ctx, cancel := context.WithTimeout(m.broker.patience, m.broker.config.Drain)
	defer cancel()
	return m.close(ctx)
}

func (m *member) close(ctx context.Context) error {
	m.once.Do(func() {
		m.mu.Lock()
		m.patience = ctx
		m.mu.Unlock()
		m.stop()
		m.end(ctx)
		m.broker.subs.Forget(m)
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// end waits until m has left the group, or gives up its connections.
func (m *member) end(ctx context.Context) {
	select {
	case <-m.ended:
		return
	case <-ctx.Done():
	}
	select {
	case <-m.ended:
		return
	case <-time.After(leaveTime):
	}
	m.conns.close()
	<-m.ended
}
