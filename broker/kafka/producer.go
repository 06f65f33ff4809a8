package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	kafka "github.com/segmentio/kafka-go"

	"github.com/plugmicro/micro/broker"
)

// A batch is one request. What is larger than maxBatch by itself goes alone.
const (
	maxBatch   = 1_000_000 // bytes; by default a server takes 48 KB more
	maxRecords = 10_000
	stickTo    = 64 // messages without a key that go to one partition, before the next one's turn
)

// producer writes records, a partition at a time: what comes while a request is under way is the next request. So a message
// that is alone does not wait for others, and many share their requests, in order.
//
// kafka-go's Writer cannot do both, because it waits for a batch to fill up; it also goes on for many seconds when its
// context has ended, or it is closed.
type producer struct {
	cluster     *cluster
	compression kafka.Compression
	keyless     atomic.Uint32
	outage      *outage

	ending context.Context // ends when what is being written is given up
	end    context.CancelFunc

	mu      sync.Mutex
	closed  bool
	active  int             // calls under way
	idle    chan struct{}   // closed when there are none and there will be none
	lanes   map[place]*lane // those that have something to write
	workers sync.WaitGroup
}

type place struct {
	topic     string
	partition int
}

// lane is the queue before one partition.
type lane struct {
	waiting []*write
	failure error // of the last try, while it fails
}

// drop takes away what nobody waits for any more.
func (l *lane) drop() {
	l.waiting = slices.DeleteFunc(l.waiting, func(w *write) bool { return w.ctx.Err() != nil })
}

// write is what one call has for one partition.
type write struct {
	ctx     context.Context // of who waits
	records []record
	size    int
	lane    *lane
	done    chan error
}

func newProducer(c *cluster, log *slog.Logger) *producer {
	p := &producer{cluster: c, compression: compressions[c.config.Compression], outage: newOutage(log, c), idle: make(chan struct{}), lanes: map[place]*lane{}}
	p.ending, p.end = context.WithCancel(context.Background())
	return p
}

func (p *producer) publish(ctx context.Context, topic string, msgs []*broker.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !p.enter() {
		return broker.ErrClosed
	}
	defer p.leave()
	if len(msgs) == 0 {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, p.cluster.config.Timeout)
	defer cancel()
	partitions, err := p.topic(ctx, topic)
	if err != nil {
		return err
	}
	writes := p.spread(limited, partitions, msgs)
	for _, w := range writes {
		p.enqueue(topic, w)
	}
	for _, w := range writes {
		if err := p.await(ctx, limited, w.write); err != nil {
			cancel()
			p.withdraw(writes)
			return err
		}
	}
	return nil
}

// await is for the answer to w, until limited, which is ctx with the limit of the settings, ends.
func (p *producer) await(ctx, limited context.Context, w *write) error {
	select {
	case err := <-w.done:
		if err != nil {
			return p.failed(err)
		}
		return nil
	case <-limited.Done():
		return p.cluster.gaveUp(ctx, p.lastFailure(w.lane))
	case <-p.ending.Done():
		return broker.ErrClosed
	}
}

// withdraw leaves nothing of writes in memory but what is in a request already, whose answer may take long.
func (p *producer) withdraw(writes []placed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range writes {
		w.lane.drop()
	}
}

func (p *producer) topic(ctx context.Context, topic string) (int, error) {
	call := &topic
	defer p.outage.gaveUp(call)
	return p.cluster.topic(ctx, topic, func(begun time.Time, err error) { p.fails(call, begun, err, topic) })
}

// fails is for a try to publish of who, a lane or a call that does not know the partitions.
func (p *producer) fails(who any, begun time.Time, err error, topic string) {
	if p.ending.Err() == nil {
		p.outage.fails(who, begun, err, "publishing fails", "topic", topic)
	}
}

func (p *producer) failed(err error) error {
	if errors.Is(err, kafka.MessageSizeTooLarge) || errors.Is(err, kafka.RecordListTooLarge) {
		return fmt.Errorf("more than the max.message.bytes of the topic: %w (%w)", broker.ErrTooLarge, err)
	}
	return p.cluster.at(err)
}

func (p *producer) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.active++
	return true
}

func (p *producer) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active--
	if p.closed && p.active == 0 {
		close(p.idle)
	}
}

// placed is a write and where it goes.
type placed struct {
	*write
	partition int
}

// spread makes one write for each partition, more if they are large, which keep the order of the messages.
func (p *producer) spread(ctx context.Context, partitions int, msgs []*broker.Message) []placed {
	var writes []placed
	last := make(map[int]int, min(partitions, len(msgs))) // index of the write that is open, by partition
	for i, m := range msgs {
		r := newRecord(m)
		to := p.partition(r.key, i, partitions)
		at, open := last[to]
		if w := writes; open && w[at].size+r.size <= maxBatch && len(w[at].records) < maxRecords {
			w[at].records, w[at].size = append(w[at].records, r), w[at].size+r.size
			continue
		}
		last[to] = len(writes)
		writes = append(writes, placed{&write{ctx: ctx, records: []record{r}, size: r.size, done: make(chan error, 1)}, to})
	}
	return writes
}

// all is 0, 1, 2, …, as the balancer wants it.
var all = sync.OnceValue(func() []int {
	list := make([]int, 4096)
	for i := range list {
		list[i] = i
	}
	return list
})

func (p *producer) partition(key []byte, i, partitions int) int {
	if key == nil {
		if i%stickTo == 0 {
			p.keyless.Add(1)
		}
		return int(p.keyless.Load() % uint32(partitions))
	}
	choice := all()
	if partitions > len(choice) {
		choice = make([]int, partitions)
		for i := range choice {
			choice[i] = i
		}
	}
	return kafka.Murmur2Balancer{}.Balance(kafka.Message{Key: key}, choice[:partitions]...)
}

func (p *producer) enqueue(topic string, w placed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	to := place{topic, w.partition}
	l, busy := p.lanes[to]
	if !busy {
		l = &lane{}
		p.lanes[to] = l
		p.workers.Go(func() { p.work(to, l) })
	}
	w.lane = l
	l.waiting = append(l.waiting, w.write)
}

// work writes what waits before a partition, until nothing does.
func (p *producer) work(to place, l *lane) {
	for batch := p.next(to, l); batch != nil; batch = p.next(to, l) {
		p.send(to, l, batch)
	}
}

// next takes what fits into one request.
func (p *producer) next(to place, l *lane) []*write {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.drop()
	if len(l.waiting) == 0 {
		delete(p.lanes, to)
		return nil
	}
	n, size, count := 0, 0, 0
	for _, w := range l.waiting {
		if n > 0 && (size+w.size > maxBatch || count+len(w.records) > maxRecords) {
			break
		}
		n, size, count = n+1, size+w.size, count+len(w.records)
	}
	batch := slices.Clone(l.waiting[:n])
	l.waiting = slices.Delete(l.waiting, 0, n)
	return batch
}

// send answers each write of a batch. If the topic takes only smaller batches it is sent in halves.
func (p *producer) send(to place, l *lane, batch []*write) {
	err := p.tryToSend(to, l, batch)
	if errors.Is(err, kafka.MessageSizeTooLarge) {
		if one, other := halves(batch); other != nil {
			p.send(to, l, one)
			p.send(to, l, other)
			return
		}
	}
	for _, w := range batch {
		w.done <- err
	}
}

// halves are nil, nil for a single record.
func halves(batch []*write) (one, other []*write) {
	if half := len(batch) / 2; half > 0 {
		return batch[:half], batch[half:]
	}
	w := batch[0]
	half := len(w.records) / 2
	if half == 0 {
		return nil, nil
	}
	first, second := *w, *w
	first.records, second.records = w.records[:half], w.records[half:]
	first.done, second.done = make(chan error, 1), make(chan error, 1)
	go func() { w.done <- errors.Join(<-first.done, <-second.done) }()
	return []*write{&first}, []*write{&second}
}

// tryToSend goes on while somebody waits for it.
func (p *producer) tryToSend(to place, l *lane, batch []*write) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 20*time.Millisecond, time.Second
	defer p.outage.gaveUp(l)
	for {
		begun := time.Now()
		err := p.produce(to, batch)
		if err == nil {
			p.outage.works(l, "publishing goes on", "topic", to.topic)
		}
		if err == nil || final(err) || p.ending.Err() != nil {
			p.note(l, nil)
			return err
		}
		p.note(l, err)
		p.fails(l, begun, err, to.topic)
		p.cluster.refresh()
		select {
		case <-time.After(pauses.NextBackOff()):
		case <-p.ending.Done():
			return err
		}
		if !slices.ContainsFunc(batch, func(w *write) bool { return w.ctx.Err() == nil }) {
			return err
		}
	}
}

func (p *producer) produce(to place, batch []*write) error {
	ctx, cancel := context.WithTimeout(p.ending, p.cluster.config.Timeout/2) // so that there is time for another try
	defer cancel()
	answer, err := p.cluster.client.Produce(ctx, &kafka.ProduceRequest{
		Topic: to.topic, Partition: to.partition, RequiredAcks: kafka.RequireAll, Compression: p.compression,
		Records: &records{writes: batch},
	})
	if err != nil {
		if _, why := p.cluster.partitions(ctx, to.topic); why != nil && ctx.Err() == nil {
			return why // it says more than that there is no leader
		}
		return err
	}
	return answer.Error
}

func (p *producer) note(l *lane, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.failure = err
}

func (p *producer) lastFailure(l *lane) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return l.failure
}

// close refuses further calls and waits for those that are under way, until ctx ends.
func (p *producer) close(ctx context.Context) error {
	defer p.end()
	if p.refuse() {
		return nil
	}
	select {
	case <-p.idle:
		return nil
	case <-ctx.Done():
		return errors.New("kafka broker: closed while messages were being published: they may not have arrived")
	}
}

// refuse reports whether nothing is under way.
func (p *producer) refuse() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.active == 0 {
		close(p.idle)
		return true
	}
	return false
}

// wait returns when nothing of the producer runs any more, soon after the connections were closed.
func (p *producer) wait() {
	<-p.idle
	p.workers.Wait()
}
