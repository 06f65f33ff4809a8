package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/amqp"
)

// subscription is one handler, over all connections that it needs in its life.
type subscription struct {
	broker  *Broker
	topic   string
	handler broker.Handler
	options broker.SubscribeOptions
	log     *slog.Logger
	outage  amqp.Outage

	life   context.Context // until Close
	end    context.CancelFunc
	bound  chan struct{} // closed when it consumes, or never will
	failed error         // why it never will; set before
	ended  chan struct{} // closed when run has returned

	mu       sync.Mutex
	why      error           // it is not bound yet
	patience context.Context // of Close
	stopped  error           // of the handlers, for Close
}

func newSubscription(b *Broker, topic string, h broker.Handler, o broker.SubscribeOptions) *subscription {
	s := &subscription{broker: b, topic: topic, handler: h, options: o, bound: make(chan struct{}), ended: make(chan struct{})}
	s.log = b.log.With("topic", topic, "group", o.Group)
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

func (s *subscription) start() {
	s.broker.consume.start()
	go s.run()
}

func (s *subscription) Topic() string { return s.topic }

// bind waits until it consumes.
func (s *subscription) bind(ctx context.Context) error {
	select {
	case <-s.bound:
		return s.failed
	case <-s.life.Done():
		return broker.ErrClosed
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := fmt.Errorf("broker rabbitmq: not bound in time: %w", ctx.Err())
	if s.why != nil {
		return fmt.Errorf("%w (%w)", err, s.why)
	}
	return err
}

func (s *subscription) Close() error {
	ctx, cancel := context.WithTimeout(s.broker.patience, s.broker.config.Drain)
	defer cancel()
	return s.close(ctx)
}

// close is bounded because all that run waits for is: handlers by ctx, the server by the timeout of its requests.
func (s *subscription) close(ctx context.Context) error {
	s.mu.Lock()
	if s.patience == nil {
		s.patience = ctx
	}
	s.mu.Unlock()
	s.end()
	<-s.ended
	s.broker.subs.Forget(s)
	return s.stopped
}

// run has one session after the other, until Close.
func (s *subscription) run() {
	defer close(s.ended)
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval = 100 * time.Millisecond
	pauses.MaxInterval = 5 * time.Second
	for {
		conn, err := s.connection()
		if s.life.Err() != nil {
			return
		}
		if err != nil {
			s.note(err) // the connection is being made, with pauses of its own
			continue
		}
		began := time.Now()
		err = s.session(conn)
		if s.life.Err() != nil || s.isFailed() {
			return
		}
		if s.isBound() && !conn.IsLost() { // or else Subscribe tells it, or what has lost its connection is logged once
			s.outage.Failed(s.log, "the subscription is interrupted, will try again", err)
		}
		s.note(err)
		if time.Since(began) > pauses.MaxInterval {
			pauses.Reset()
		}
		select {
		case <-time.After(pauses.NextBackOff()):
		case <-s.life.Done():
			return
		}
	}
}

// connection waits for one, for a while: then the error says why there is none.
func (s *subscription) connection() (*amqp.Conn, error) {
	ctx, cancel := context.WithTimeout(s.life, s.broker.config.Timeout/4)
	defer cancel()
	conn, err := s.broker.consume.conns.get(ctx)
	if _, _, why := s.broker.consume.conns.now(); err != nil && why != nil {
		return nil, why
	}
	return conn, err
}

func (s *subscription) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why = err
}

func (s *subscription) isBound() bool {
	select {
	case <-s.bound:
		return true
	default:
		return false
	}
}

func (s *subscription) isFailed() bool { return s.isBound() && s.failed != nil }

// session consumes on one connection, until that fails or s is closed.
func (s *subscription) session(conn *amqp.Conn) error {
	w := newWork(s, conn)
	err := w.begin()
	if err != nil {
		w.end(s.life)
		s.refused(err)
		return err
	}
	if !s.isBound() {
		close(s.bound)
	}
	s.outage.Over(s.log, "subscribed again")
	select {
	case err = <-w.failed:
	case <-conn.Lost():
		err = conn.Err()
	case <-s.life.Done():
		s.stopped = w.end(s.closing())
		return nil
	}
	// Its messages come again, maybe to this same handler: that waits for those that still run.
	ctx, cancel := context.WithTimeout(s.broker.patience, s.broker.config.Drain)
	defer cancel()
	if left := w.end(ctx); left != nil {
		s.log.Warn("handlers of a lost connection still run", "error", left)
	}
	return err
}

// closing is the time that Close has.
func (s *subscription) closing() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.patience
}

// refused ends the subscribing when the server says that it cannot be.
func (s *subscription) refused(err error) {
	var e *amqp091.Error
	if s.isBound() || !errors.As(err, &e) || !e.Server {
		return
	}
	switch e.Code {
	case amqp091.AccessRefused, amqp091.PreconditionFailed, amqp091.NotAllowed, amqp091.NotImplemented:
		s.failed = err
		close(s.bound)
	}
}
