package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/amqp"
)

// work is what a subscription has on one connection. Nothing of it is used on the next one, so that a late ack fails
// instead of acknowledging another message.
type work struct {
	sub      *subscription
	conn     *amqp.Conn
	queue    *broker.Queue
	consumer *broker.Consumer
	control  *amqp091.Channel // for what is declared and asked
	sources  []*source        // the shared queue first, then the partitions
	running  [partitions]atomic.Int32
	acks     *acker
	failed   chan error

	life   context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	acking    context.Context // until all handlers are stopped
	endAcking context.CancelFunc
	acked     chan struct{} // closed when all acks are sent
}

func newWork(s *subscription, conn *amqp.Conn) *work {
	w := &work{sub: s, conn: conn, acks: newAcker(), failed: make(chan error, 1)}
	w.life, w.cancel = context.WithCancel(s.life)
	w.acking, w.endAcking = context.WithCancel(context.Background())
	w.acked = make(chan struct{})
	go func() {
		defer close(w.acked)
		w.acks.run(w.acking)
	}()
	w.queue = broker.NewQueue(w.prefetch()*(1+partitions), math.MaxInt) // so that Put never waits
	return w
}

func (w *work) prefetch() int {
	return min(max(w.sub.broker.config.Prefetch, w.sub.options.Concurrency), maxPrefetch)
}

func (w *work) fail(err error) {
	select {
	case w.failed <- err:
	default:
	}
}

// begin declares and consumes.
func (w *work) begin() error {
	if err := w.declare(); err != nil {
		return err
	}
	for _, s := range w.sources {
		if err := s.open(); err != nil {
			return err
		}
	}
	w.consumer = broker.StartConsumer(w.queue, broker.ConsumerConfig{
		Topic: w.sub.topic, Handler: w.handle, Options: w.sub.options, Publish: w.sub.broker.bury, Logger: w.sub.broker.log.With("group", w.sub.options.Group),
	})
	if w.control != nil {
		w.tasks.Go(w.balance)
	}
	return nil
}

// declare makes sure that a group has its queues. One that is not for a group is declared where it is consumed: it goes
// with its consumer, and must not stay without one.
func (w *work) declare() (err error) {
	topic, group := w.sub.topic, w.sub.options.Group
	if group == "" {
		name := exchangeOf(topic) + "::" + strings.ToLower(broker.NewID())
		w.sources = []*source{{work: w, name: name, partition: -1, prepare: func(ch *amqp091.Channel) error {
			return declareOwn(ch, topic, name)
		}}}
		return nil
	}
	names := groupQueues(topic, group)
	w.control, err = w.channel(func(ch *amqp091.Channel) error { return declareGroup(ch, topic, names) })
	for i, name := range names {
		w.sources = append(w.sources, &source{work: w, name: name, partition: i - 1})
	}
	return err
}

// channel opens one and sets it up. When that is given up, what the server does of it later is undone: a consumer that
// nobody listens to would keep what it is sent.
func (w *work) channel(setUp func(*amqp091.Channel) error) (*amqp091.Channel, error) {
	var result struct {
		sync.Mutex
		ch      *amqp091.Channel
		givenUp bool
	}
	err := w.ask(func() error {
		ch, err := w.conn.Channel(context.Background())
		if err != nil {
			return err
		}
		err = setUp(ch)
		result.Lock()
		defer result.Unlock()
		if err != nil || result.givenUp {
			_ = ch.Close()
			return err
		}
		result.ch = ch
		return nil
	})
	result.Lock()
	defer result.Unlock()
	if err != nil {
		result.givenUp = true
		if result.ch != nil {
			go result.ch.Close()
		}
		return nil, w.explain(err)
	}
	return result.ch, nil
}

// explain says where an error came from, and what to do about missing rights.
func (w *work) explain(err error) error {
	var e *amqp091.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e) && e.Code == amqp091.AccessRefused:
		return fmt.Errorf("broker rabbitmq: %s: %w: the user needs the rights to configure, write and read ^micro:.*", w.conn.Addr, err)
	case errors.As(err, &e) && e.Code == amqp091.PreconditionFailed:
		return fmt.Errorf("broker rabbitmq: %s: %w: it was declared otherwise before, delete it", w.conn.Addr, err)
	}
	return fmt.Errorf("broker rabbitmq: %s: %w", w.conn.Addr, err)
}

// ask is bounded by the life of w and by the timeout.
func (w *work) ask(f func() error) error {
	ctx, cancel := context.WithTimeout(w.life, w.sub.broker.config.Timeout)
	defer cancel()
	return w.conn.Within(ctx, f)
}

func (w *work) handle(ctx context.Context, m *broker.Message) error {
	if m.Key != "" {
		running := &w.running[partitionOf(m.Key)]
		running.Add(1)
		defer running.Add(-1)
	}
	return w.sub.handler(ctx, m)
}

// end stops the handlers within ctx and gives back what was not acked: the server does when the channels are closed, all
// of a queue at once and in order.
func (w *work) end(ctx context.Context) error {
	var err error
	if w.consumer != nil {
		err = w.consumer.Stop(ctx)
	}
	w.cancel()
	w.tasks.Wait()
	w.queue.Close()
	w.endAcking()
	select {
	case <-w.acked:
	case <-time.After(closeTimeout): // the server reads nothing
	}
	var all sync.WaitGroup
	for _, s := range w.sources {
		all.Go(func() { _ = s.close() })
	}
	if w.control != nil {
		all.Go(func() { _ = w.closeChannel(w.control) })
	}
	all.Wait()
	return err
}

// closeChannel does not wait for a server that does not answer longer than for others.
func (w *work) closeChannel(ch *amqp091.Channel) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return w.conn.Within(ctx, ch.Close)
}

const closeTimeout = time.Second

// source is one queue that is consumed, on a channel of its own, so that it can be given back alone.
type source struct {
	work      *work
	name      string
	partition int                          // -1: not one
	prepare   func(*amqp091.Channel) error // before it is consumed; may be nil

	mu      sync.Mutex
	ch      *amqp091.Channel
	tags    *tags                    // of ch
	closed  bool                     // for good, or to be opened again
	leaving bool                     // what comes is not taken any more
	active  bool                     // something came
	held    map[*broker.Message]bool // what is not settled
	idle    chan struct{}            // closed when nothing is held; nil if nobody waits

	receiving sync.WaitGroup
}

// open consumes.
func (s *source) open() error {
	var deliveries <-chan amqp091.Delivery
	ch, err := s.work.channel(func(ch *amqp091.Channel) error {
		if s.prepare != nil {
			if err := s.prepare(ch); err != nil {
				return err
			}
		}
		if err := ch.Qos(s.work.prefetch(), 0, false); err != nil {
			return err
		}
		d, err := ch.Consume(s.name, "", false, false, false, false, nil)
		deliveries = d
		return err
	})
	if err != nil {
		return err
	}
	lost := ch.NotifyClose(make(chan *amqp091.Error, 1))
	s.mu.Lock()
	s.ch, s.tags = ch, &tags{ch: ch}
	s.closed, s.leaving, s.active = false, false, false
	s.held = map[*broker.Message]bool{}
	s.mu.Unlock()
	s.receiving.Go(func() {
		for d := range deliveries {
			s.receive(&d)
		}
		s.over(lost)
	})
	return nil
}

// over fails the work, unless the end of the deliveries was its own wish.
func (s *source) over(lost <-chan *amqp091.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	err := errors.New("the server cancelled the consumer: the queue was deleted, or has moved")
	select {
	case e := <-lost:
		if e != nil {
			err = e
		}
	default:
	}
	s.work.fail(fmt.Errorf("broker rabbitmq: %s: queue %s: %w", s.work.conn.Addr, s.name, err))
}

func (s *source) receive(d *amqp091.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = true
	s.tags.came(d.DeliveryTag)
	if s.leaving || s.closed {
		return // goes back when the channel is closed
	}
	m, of, tag := message(d), s.tags, d.DeliveryTag
	err := s.work.queue.Put(context.Background(), m, func(acked bool) {
		if acked {
			s.work.acks.add(ack{s, m, of, tag})
		} else {
			s.settled(m)
		}
	})
	if err == nil {
		s.held[m] = true
	}
}

func (s *source) settled(m *broker.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, m)
	if len(s.held) == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// close gives back what was not acked.
func (s *source) close() error {
	s.mu.Lock()
	ch := s.ch
	s.closed = true
	s.mu.Unlock()
	if ch == nil {
		return nil
	}
	return s.work.closeChannel(ch)
}
