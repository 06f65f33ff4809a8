package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
)

// How long a consumer waits for handlers whose context has ended, how long it tries to publish one dead letter, and how
// long it pauses until it tries that again.
const (
	stopGrace       = time.Second
	deadLetterTime  = 10 * time.Second
	deadLetterPause = time.Second
	maxReason       = 1 << 10 // bytes of HeaderDeadReason
)

// ErrKept is for ConsumerConfig.Publish: the dead letter is safe, though not in its topic. The error around it says where.
var ErrKept = errors.New("kept")

// ConsumerConfig is what a Consumer works with.
type ConsumerConfig struct {
	Topic   string
	Handler Handler
	Options SubscribeOptions                                                // Concurrency, Retry and DeadLetter
	Publish func(ctx context.Context, topic string, msgs ...*Message) error // of dead letters
	Logger  *slog.Logger
}

// Consumer is for implementations: the workers of one subscription. They take messages from a Queue and run them
// through the handler: a panic is an error; a message that failed is returned to the queue until its tries are used
// up, and then published to the dead letter topic, or logged and dropped if there is none. A message is acked once the
// handler is done with it or its dead letter is published, never before.
type Consumer struct {
	config ConsumerConfig
	queue  *Queue

	taking     context.Context
	stopTaking context.CancelFunc
	handling   context.Context // of the handlers
	interrupt  context.CancelFunc
	workers    sync.WaitGroup

	mu      sync.Mutex
	running map[*Delivery]struct{}
}

// StartConsumer starts the workers. Stop ends them.
func StartConsumer(q *Queue, c ConsumerConfig) *Consumer {
	c.Logger = cmp.Or(c.Logger, slog.Default())
	w := &Consumer{config: c, queue: q, running: map[*Delivery]struct{}{}}
	w.taking, w.stopTaking = context.WithCancel(context.Background())
	w.handling, w.interrupt = context.WithCancel(context.Background())
	for range max(c.Options.Concurrency, 1) {
		w.workers.Go(w.work)
	}
	return w
}

// Stop takes no more messages and waits for the handlers that run. When ctx ends, so does theirs; one that does not
// come back within another second is left behind, its message is returned to the queue, and Stop answers an error.
// Afterwards the queue holds all that was not acked.
func (c *Consumer) Stop(ctx context.Context) error {
	defer c.interrupt()
	c.stopTaking()
	idle := make(chan struct{})
	go func() {
		c.workers.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		c.interrupt()
	}
	select {
	case <-idle:
		return nil
	case <-time.After(stopGrace):
		return c.abandon()
	}
}

// abandon gives back what still runs.
func (c *Consumer) abandon() error {
	c.mu.Lock()
	stuck := maps.Clone(c.running)
	c.mu.Unlock()
	for d := range stuck {
		d.Return(0)
	}
	return fmt.Errorf("close the subscription to %q: %d handlers still run though their context has ended, their messages are handed back",
		c.config.Topic, len(stuck))
}

func (c *Consumer) work() {
	done := false
	defer func() {
		if !done { // the handler called runtime.Goexit
			c.workers.Go(c.work)
		}
	}()
	for {
		d, err := c.queue.Take(c.taking)
		if err != nil {
			done = true
			return
		}
		c.handle(d)
	}
}

// handle runs d through the handler, unless only its dead letter is missing, and settles it.
func (c *Consumer) handle(d *Delivery) {
	c.track(d, true)
	defer c.track(d, false)
	if d.dead {
		c.bury(d)
		return
	}
	err := errors.New("the handler ended its goroutine")
	defer func() { c.settle(d, err) }()
	err = c.call(d.Message)
}

func (c *Consumer) track(d *Delivery, running bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if running {
		c.running[d] = struct{}{}
	} else {
		delete(c.running, d)
	}
}

// call gives the handler a copy of its own: what it does to it is not seen by the next try.
func (c *Consumer) call(m *Message) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
			c.config.Logger.Error("handler panicked", "topic", c.config.Topic, "id", m.ID, "panic", r, "stack", string(debug.Stack()))
		}
	}()
	return c.config.Handler(c.handling, m.Clone())
}

func (c *Consumer) settle(d *Delivery, err error) {
	switch {
	case err == nil:
		d.Ack()
		return
	case c.handling.Err() != nil: // interrupted: this try does not count
		d.Return(0)
		return
	}
	attempts := c.config.Options.Retry.Attempts
	if isPermanent(err) {
		attempts = 1
	}
	d.fail(err, attempts)
	if d.dead {
		c.bury(d)
		return
	}
	c.config.Logger.Warn("handler failed, will try again", "topic", c.config.Topic, "id", d.Message.ID, "attempt", d.Attempts, "error", err)
	d.Return(c.config.Options.Retry.pause(d.Attempts))
}

// bury ends a message that failed as often as it may.
func (c *Consumer) bury(d *Delivery) {
	log := c.config.Logger.With("topic", c.config.Topic, "id", d.Message.ID, "attempts", d.Attempts, "error", d.reason)
	if c.config.Options.DeadLetter == "" {
		log.Error("message dropped: its handler failed and there is no dead letter topic")
		d.Ack()
		return
	}
	ctx, cancel := context.WithTimeout(c.handling, deadLetterTime)
	defer cancel()
	err := c.config.Publish(ctx, c.config.Options.DeadLetter, deadLetter(c.config.Topic, d))
	switch {
	case err == nil:
		log.Error("message moved to the dead letter topic", "dead_letter", c.config.Options.DeadLetter)
		d.Ack()
	case errors.Is(err, ErrKept):
		log.Warn("message kept as a dead letter, outside of the dead letter topic", "dead_letter", c.config.Options.DeadLetter, "where", err)
		d.Ack()
	case errors.Is(err, ErrTooLarge), errors.Is(err, ErrInvalid), errors.Is(err, ErrUnsupported):
		log.Error("message dropped: the dead letter topic does not take it", "dead_letter", c.config.Options.DeadLetter, "cause", err)
		d.Ack()
	default:
		log.Warn("dead letter not published, will try again", "dead_letter", c.config.Options.DeadLetter, "cause", err)
		d.Return(deadLetterPause)
	}
}

func deadLetter(topic string, d *Delivery) *Message {
	m := d.Message.Clone()
	if m.Header == nil {
		m.Header = map[string]string{}
	}
	m.Header[HeaderDeadTopic] = topic
	m.Header[HeaderDeadReason] = reason(d.reason)
	m.Header[HeaderAttempts] = strconv.Itoa(d.Attempts)
	return m
}

// reason is the text of err, as a header can carry it.
func reason(err error) string {
	if err == nil {
		return "unknown"
	}
	s := err.Error()
	if len(s) > maxReason {
		s = s[:maxReason]
	}
	return strings.ToValidUTF8(s, "")
}

// pause is how long to wait after the n-th try, n from 1.
func (p RetryPolicy) pause(n int) time.Duration {
	d := p.Min
	for ; n > 1 && 0 < d && d < p.Max; n-- {
		d += min(d, p.Max-d)
	}
	return d - time.Duration(rand.Int64N(int64(d/2)+1))
}
