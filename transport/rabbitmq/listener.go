package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/plugmicro/micro/internal/amqp"
	"github.com/plugmicro/micro/transport"
)

// Listen implements transport.Transport. The empty address means a new one, micro. and random letters.
func (t *Transport) Listen(ctx context.Context, addr string, opts ...transport.ListenOption) (transport.Listener, error) {
	if addr == "" {
		addr = randomName("micro.")
	}
	if err := checkAddr(addr); err != nil {
		return nil, fmt.Errorf("listen at %q: %w", addr, err)
	}
	l := &listener{transport: t, addr: addr, limit: int(t.config.MaxMessage), opening: map[*conn]struct{}{}, news: make(chan struct{}, 1), done: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(t.ctx)
	if o := transport.NewListenOptions(opts...); o.MaxMessage > 0 {
		l.limit = min(o.MaxMessage, math.MaxInt32)
	}
	if err := l.begin(ctx); err != nil {
		l.cancel()
		return nil, fmt.Errorf("listen at %s: %w", addr, t.orClosed(err))
	}
	return l, nil
}

// listener keeps a queue, and takes the opens that come to it.
type listener struct {
	transport *Transport
	addr      string
	limit     int // bytes of one message
	ctx       context.Context
	cancel    context.CancelFunc
	running   sync.WaitGroup

	mu      sync.Mutex
	opening map[*conn]struct{} // not confirmed by their dialers
	backlog []*conn            // for Accept
	count   int                // of connections that were not closed
	news    chan struct{}      // the backlog is not empty, perhaps
	done    chan struct{}      // closed by Close
	closed  bool
}

// begin declares the queue.
func (l *listener) begin(ctx context.Context) error {
	t := l.transport
	// RabbitMQ lets a connection declare its own exclusive queue again.
	if err := t.remember(l); err != nil {
		return err
	}
	link, q, err := l.declare(ctx)
	if err == nil && !l.start(link, q) {
		l.remove(link, q)
		err = transport.ErrClosed
	}
	if err != nil {
		t.forget(l)
	}
	return err
}

// start serves the queue, unless the transport was closed while it was declared.
func (l *listener) start(link *link, q *queue) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.running.Go(func() { l.run(link, q) })
	}
	return !l.closed
}

// remember has Close close l.
func (t *Transport) remember(l *listener) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return transport.ErrClosed
	case t.listeners[l.addr] != nil:
		return fmt.Errorf("%w: this process listens there", transport.ErrAddrInUse)
	}
	t.listeners[l.addr] = l
	return nil
}

func (t *Transport) forget(l *listener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.listeners, l.addr)
}

// run takes opens from the queue, and declares it anew when it is lost, until Close.
func (l *listener) run(link *link, q *queue) {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval = 100 * time.Millisecond
	pauses.MaxInterval = 5 * time.Second
	var outage amqp.Outage
	log := l.transport.log.With("address", l.addr)
	for {
		if q != nil {
			pauses.Reset()
			l.serve(link, q)
		}
		select {
		case <-l.ctx.Done():
			return
		case <-time.After(pauses.NextBackOff()):
		}
		var err error
		link, q, err = l.declare(l.ctx)
		switch {
		case err == nil:
			outage.Over(log, "listening again")
		case l.ctx.Err() == nil:
			outage.Failed(log, "nobody reaches this listener, will try again", err)
		}
	}
}

func (l *listener) declare(ctx context.Context) (*link, *queue, error) {
	link, err := l.transport.connected(ctx)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.transport.config.Timeout)
	defer cancel()
	q, err := link.consume(ctx, l.addr, false)
	return link, q, err
}

// serve returns when the queue is lost, or the listener closed.
func (l *listener) serve(link *link, q *queue) {
	removed := make(chan struct{})
	stop := context.AfterFunc(l.ctx, func() {
		l.remove(link, q)
		close(removed)
	})
	q.each(removed, func(d *amqp091.Delivery) { l.open(link, d) })
	if !stop() {
		<-removed
	}
}

// remove gives the address free.
func (l *listener) remove(link *link, q *queue) {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	_ = link.in.Within(ctx, q.remove) // a queue that cannot be removed goes with the link
}

// open takes the first message of a connection.
func (l *listener) open(link *link, d *amqp091.Delivery) {
	c, err := l.newConn(link, d)
	if err != nil {
		link.strange("what is no message of this transport came to a listener and is dropped", "address", l.addr, "error", err)
		return
	}
	if refusal := l.admit(c); refusal != "" {
		link.remove(c)
		link.refuse(d.ReplyTo, d.CorrelationId, header{}, refusal)
		return
	}
	timer := time.AfterFunc(l.transport.config.Timeout, c.expire)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onOpen = func() {
		timer.Stop()
		l.confirmed(c)
	}
	c.schedule()
}

func (l *listener) newConn(link *link, d *amqp091.Delivery) (*conn, error) {
	h, frames, err := parseHeader(d.Body)
	if err != nil {
		return nil, err
	}
	t, payload, _, err := nextFrame(frames)
	switch {
	case err != nil:
		return nil, err
	case !h.dialer, h.number != 0, t != frameOpen, d.CorrelationId == "", !isInbox(d.ReplyTo):
		return nil, fmt.Errorf("%w open", errMalformed)
	}
	terms, err := parseTerms(payload)
	if err != nil {
		return nil, err
	}
	c := newConn(link, d.CorrelationId, false, l.limit)
	c.local, c.remote, c.nextIn = l.addr, d.ReplyTo, 1
	c.onClose = func() { l.release(c) }
	c.pending = append(c.pending, c.hello(frameAccept)...)
	c.mu.Lock()
	c.agree(link.join(c, d.ReplyTo), terms)
	c.mu.Unlock()
	if err := link.add(c); err != nil {
		link.remove(c)
		return nil, err
	}
	return c, nil
}

// admit gives c a place, or says why not.
func (l *listener) admit(c *conn) (refusal string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return "the listener was closed"
	case l.count >= l.transport.config.MaxConns:
		c.link.strange("too many connections, refusing a new one", "address", l.addr, "max-conns", l.transport.config.MaxConns)
		return fmt.Sprintf("the listener has %d connections and takes no more", l.count)
	}
	l.count++
	l.opening[c] = struct{}{}
	return ""
}

// confirmed puts c into the backlog.
func (l *listener) confirmed(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.opening[c]; ok {
		delete(l.opening, c)
		l.backlog = append(l.backlog, c)
		wake(l.news)
	}
}

func (l *listener) release(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.opening, c)
	l.count--
}

// Accept implements transport.Listener.
func (l *listener) Accept(ctx context.Context) (transport.Conn, error) {
	for {
		c, err := l.next()
		if err != nil {
			return nil, err
		}
		switch {
		case c == nil:
		case c.aborted():
			c.Close()
			continue
		default:
			return c, nil
		}
		select {
		case <-l.news:
		case <-l.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("accept at %s: %w", l.addr, ctx.Err())
		}
	}
}

// next is the first of the backlog; nil: there is none.
func (l *listener) next() (*conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("accept at %s: %w", l.addr, transport.ErrClosed)
	}
	if len(l.backlog) == 0 {
		return nil, nil
	}
	c := l.backlog[0]
	l.backlog[0] = nil
	l.backlog = l.backlog[1:]
	if len(l.backlog) > 0 {
		wake(l.news) // others may be waiting
	}
	return c, nil
}

// Addr implements transport.Listener.
func (l *listener) Addr() string { return l.addr }

// Close implements transport.Listener.
func (l *listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	close(l.done)
	unaccepted := l.backlog
	for c := range l.opening {
		unaccepted = append(unaccepted, c)
	}
	l.backlog, l.opening = nil, nil
	l.mu.Unlock()
	l.cancel()
	for _, c := range unaccepted {
		c.reset(errors.New("the listener closed before it was accepted"))
		c.Close()
	}
	l.running.Wait()
	l.transport.forget(l)
	return nil
}
