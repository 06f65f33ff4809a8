package kafka

import (
	"context"
	"sync"
	"time"

	kafka "github.com/segmentio/kafka-go"

	"github.com/plugmicro/micro/broker"
)

// growthCheck is how often a follower looks for partitions that were added.
const growthCheck = 2 * time.Second

// follower is a subscription without a group: it reads all partitions by itself, and leaves nothing on the server.
type follower struct {
	broker   *Broker
	topic    string
	queue    *broker.Queue
	consumer *broker.Consumer

	open    context.Context // ends when closing begins
	stop    context.CancelFunc
	readers sync.WaitGroup
	outage  *outage
	once    sync.Once
	err     error
}

// follow fixes where the partitions end, and begins there.
func (b *Broker) follow(ctx context.Context, work broker.ConsumerConfig, partitions int) (subscription, error) {
	var ends map[int]int64
	err := b.cluster.try(ctx, nil, func(ctx context.Context) (err error) {
		ends, err = b.cluster.ends(ctx, work.Topic, partitions)
		return err
	})
	if err != nil {
		return nil, err
	}
	f := &follower{broker: b, topic: work.Topic, queue: broker.NewQueue(b.config.Buffer, int(b.config.BufferSize))}
	f.outage = newOutage(b.log.With("topic", work.Topic), b.cluster)
	f.open, f.stop = context.WithCancel(context.Background())
	start := func() {
		f.consumer = broker.StartConsumer(f.queue, work)
		for partition, end := range ends {
			f.read(partition, end, partitions)
		}
		f.readers.Go(func() { f.grow(partitions) })
	}
	if !b.subs.Add(f, start) {
		f.stop()
		return nil, broker.ErrClosed
	}
	return f, nil
}

func (f *follower) read(partition int, offset int64, partitions int) {
	r := &reader{
		cluster: f.broker.cluster, log: f.broker.log, topic: f.topic, partition: partition, offset: offset, partitions: partitions,
		outage: f.outage,
		put:    func(ctx context.Context, m *broker.Message, _ int64) error { return f.queue.Put(ctx, m, nil) },
	}
	f.readers.Go(func() { r.run(f.open) })
}

// grow reads partitions that are added from their beginning: all that they have was published since.
func (f *follower) grow(known int) {
	tick := time.NewTicker(growthCheck)
	defer tick.Stop()
	for {
		select {
		case <-f.open.Done():
			return
		case <-tick.C:
		}
		now, err := f.broker.cluster.partitions(f.open, f.topic)
		if err != nil {
			continue
		}
		for ; known < now; known++ {
			f.read(known, kafka.FirstOffset, now)
		}
	}
}

func (f *follower) Topic() string { return f.topic }

func (f *follower) Close() error {
	ctx, cancel := context.WithTimeout(f.broker.patience, f.broker.config.Drain)
	defer cancel()
	return f.close(ctx)
}

func (f *follower) close(ctx context.Context) error {
	f.once.Do(func() {
		f.stop()
		f.err = f.consumer.Stop(ctx)
		f.queue.Close()
		f.readers.Wait()
		f.broker.subs.Forget(f)
	})
	return f.err
}
