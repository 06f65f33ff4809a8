package kafka

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/plugmicro/micro/broker"
)

// How long the server holds a request for records that do not come yet, and how much it answers at most, unless a single
// record is larger.
const (
	maxWait  = 500 * time.Millisecond
	maxFetch = 1 << 20
	minFetch = 64 << 10
)

// reader reads one partition, from an offset on, which may be kafka.FirstOffset.
type reader struct {
	cluster    *cluster
	log        *slog.Logger
	topic      string
	partition  int
	offset     int64
	partitions int     // that share the buffer
	outage     *outage // of all of them
	put        func(ctx context.Context, m *broker.Message, offset int64) error
}

// run puts what it reads, until ctx ends or put fails. It goes on over every failure.
func (r *reader) run(ctx context.Context) {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 50*time.Millisecond, time.Second
	defer r.outage.gaveUp(r)
	for ctx.Err() == nil {
		begun := time.Now()
		err := r.fetch(ctx)
		switch {
		case ctx.Err() != nil, errors.Is(err, broker.ErrClosed):
			return
		case err == nil:
			pauses.Reset()
			r.outage.works(r, "reading goes on")
			continue
		case errors.Is(err, kafka.OffsetOutOfRange):
			r.log.Warn("messages are gone before they were read, going on with the oldest", "topic", r.topic, "partition", r.partition, "offset", r.offset)
			r.offset = kafka.FirstOffset
		default:
			r.outage.fails(r, begun, err, "reading fails", "partition", r.partition)
		}
		r.cluster.refresh()
		select {
		case <-ctx.Done():
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

func (r *reader) fetch(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, maxWait+r.cluster.config.Timeout/2)
	defer cancel()
	if r.offset == kafka.FirstOffset {
		first, err := r.cluster.first(limited, r.topic, r.partition)
		if err != nil {
			return err
		}
		r.offset = first
	}
	size := min(max(int(r.cluster.config.BufferSize)/4/max(r.partitions, 1), minFetch), maxFetch)
	answer, err := r.cluster.client.Fetch(limited, &kafka.FetchRequest{
		Topic: r.topic, Partition: r.partition, Offset: r.offset, MinBytes: 1, MaxBytes: int64(size), MaxWait: maxWait,
	})
	if err != nil {
		if _, why := r.cluster.partitions(limited, r.topic); why != nil && limited.Err() == nil {
			return why // it says more than that the topic is not known, as it is to nobody without a server
		}
		return err
	}
	if answer.Error != nil {
		return answer.Error
	}
	return r.take(ctx, answer.Records)
}

// take puts the records of an answer. The marks of transactions among them are none, and those before the offset, which are
// in the same batch, were had before.
func (r *reader) take(ctx context.Context, answer kafka.RecordReader) error {
	stream, ok := answer.(*protocol.RecordStream)
	if !ok {
		return nil // nothing came
	}
	before := r.offset
	for _, batch := range stream.Records {
		_, control := batch.(*protocol.ControlBatch)
		if err := r.takeBatch(ctx, batch, !control); err != nil {
			return err
		}
	}
	if r.offset == before {
		r.offset++ // the rest of the batch was compacted away, and kafka-go does not tell how long it was
	}
	return nil
}

func (r *reader) takeBatch(ctx context.Context, batch kafka.RecordReader, wanted bool) error {
	for {
		rec, err := batch.ReadRecord()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.takeRecord(ctx, rec, wanted); err != nil {
			return err
		}
	}
}

func (r *reader) takeRecord(ctx context.Context, rec *kafka.Record, wanted bool) error {
	defer closeRecord(rec)
	if rec.Offset < r.offset {
		return nil
	}
	if wanted {
		m, err := newMessage(r.topic, r.partition, rec)
		if err != nil {
			return err
		}
		if err := r.put(ctx, m, rec.Offset); err != nil {
			return err
		}
	}
	r.offset = rec.Offset + 1
	return nil
}

func closeRecord(r *kafka.Record) {
	if r.Key != nil {
		r.Key.Close()
	}
	if r.Value != nil {
		r.Value.Close()
	}
}

// progress is how far a partition is handled: messages are done in any order, and committed up to the first that is not.
type progress struct {
	limit int // of messages that were begun and cannot be committed
	room  chan struct{}

	mu        sync.Mutex
	begun     []*mark // in order; the first is not done
	next      int64   // to be committed
	committed int64
}

type mark struct {
	offset int64
	done   bool
}

func newProgress(limit int) *progress {
	return &progress{limit: limit, room: make(chan struct{}, 1)}
}

// begin waits while too many have been begun since one that is not done. It is for one goroutine.
func (p *progress) begin(ctx context.Context, offset int64) (*mark, error) {
	for {
		if m := p.tryToBegin(offset); m != nil {
			return m, nil
		}
		select {
		case <-p.room:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *progress) tryToBegin(offset int64) *mark {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.begun) >= p.limit {
		return nil
	}
	m := &mark{offset: offset}
	p.begun = append(p.begun, m)
	return m
}

func (p *progress) finish(m *mark) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m.done = true
	n := 0
	for n < len(p.begun) && p.begun[n].done {
		p.next = p.begun[n].offset + 1
		n++
	}
	if n == 0 {
		return
	}
	clear(p.begun[:n])
	p.begun = p.begun[n:]
	select {
	case p.room <- struct{}{}:
	default:
	}
}

// uncommitted is the offset to commit, and false if it has been.
func (p *progress) uncommitted() (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next, p.next != p.committed
}

func (p *progress) commit(offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.committed = offset
}
