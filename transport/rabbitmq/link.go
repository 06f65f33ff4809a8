package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/plugmicro/micro/internal/amqp"
	"github.com/plugmicro/micro/internal/loglimit"
	"github.com/plugmicro/micro/transport"
)

const (
	// inboxPrefix begins the names of all inboxes.
	inboxPrefix = "micro.inbox."
	// prefetch is how many messages the server sends to a listener before the first is acknowledged: amqp091 keeps as many.
	prefetch = 128
	// missed is how many signs of life in a row may stay out.
	missed = 5
	// maxRefusals is how many answers to strangers wait to be sent; they get none when there are more.
	maxRefusals = 1024
)

// link is the two connections to RabbitMQ, the inbox, and the connections of the transport that go over them. When any of
// it is lost all is.
type link struct {
	transport *Transport
	in, out   *amqp.Conn // to consume, to publish
	inbox     string
	writer    writer
	publisher *amqp091.Channel
	strangers loglimit.Limit // the log of what should not have come
	foreign   atomic.Int64   // its number

	mu       sync.Mutex
	dialed   map[string]*conn // by id
	accepted map[string]*conn
	peers    map[string]*peer // by inbox
	err      error
	lost     chan struct{} // closed when err is set
	work     sync.WaitGroup
}

// peer is another process, as long as there are connections with it.
type peer struct {
	inbox string
	conns map[*conn]struct{}
	heard atomic.Bool // since the last look
	quiet int         // looks since it was heard
}

// newLink connects, and declares the inbox.
func newLink(t *Transport) (*link, error) {
	l := &link{
		transport: t, inbox: randomName(inboxPrefix), lost: make(chan struct{}),
		dialed: map[string]*conn{}, accepted: map[string]*conn{}, peers: map[string]*peer{},
	}
	ctx, cancel := context.WithTimeout(t.ctx, t.config.Timeout)
	defer cancel()
	var err error
	if l.in, err = t.dialer.Dial(ctx, "receive"); err != nil {
		return nil, fmt.Errorf("transport rabbitmq: %w", err)
	}
	if l.out, err = t.dialer.Dial(ctx, "send"); err != nil {
		l.in.Close()
		return nil, fmt.Errorf("transport rabbitmq: %w", err)
	}
	if err = l.open(ctx); err != nil {
		l.out.Close()
		l.in.Close()
		l.work.Wait()
		return nil, err
	}
	return l, nil
}

func (l *link) open(ctx context.Context) error {
	var err error
	if l.publisher, err = l.out.Channel(ctx); err != nil {
		return l.refused("open a channel", err)
	}
	l.writer.publish = l.publish
	returns := l.publisher.NotifyReturn(make(chan amqp091.Return, 64))
	l.work.Go(func() {
		for r := range returns {
			l.returned(r)
		}
	})
	inbox, err := l.consume(ctx, l.inbox, true)
	if err != nil {
		return err
	}
	l.work.Go(func() {
		inbox.each(l.lost, l.deliver)
		l.fail(errors.New("RabbitMQ removed the inbox " + l.inbox))
	})
	return nil
}

// isInbox says whether messages may be published to key, which somebody else has named: RabbitMQ closes the channel, and
// all connections of this process are lost, for some keys that begin with amq.
func isInbox(key string) bool { return strings.HasPrefix(key, inboxPrefix) }

// refused says what the server did not do.
func (l *link) refused(what string, err error) error {
	if lost := l.in.Err(); lost != nil {
		err = lost
	}
	return fmt.Errorf("transport rabbitmq: %s at %s: %w", what, l.in.Addr, err)
}

// run returns when the link is lost, or the transport is closed.
func (l *link) run() {
	closed := l.publisher.NotifyClose(make(chan *amqp091.Error, 1))
	tick := time.NewTicker(l.transport.config.KeepAlive)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.lookForPeers()
			continue
		case err := <-closed:
			if err != nil && err.Recover { // it closed the channel alone
				l.fail(fmt.Errorf("RabbitMQ refused a message, does the user have the right to write to the exchange amq.default? %s (%d)", err.Reason, err.Code))
			} else {
				<-l.out.Lost()
				l.fail(l.out.Err())
			}
		case <-l.in.Lost():
			l.fail(l.in.Err())
		case <-l.out.Lost():
			l.fail(l.out.Err())
		case <-l.transport.ctx.Done():
			l.leave()
			l.fail(transport.ErrClosed)
		case <-l.lost:
		}
		break
	}
	l.close()
}

// fail ends the link, and all connections over it.
func (l *link) fail(err error) {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	l.err = err
	close(l.lost)
	conns := l.all()
	l.mu.Unlock()
	l.writer.end()
	for _, c := range conns {
		c.lost(err)
	}
	if l.transport.ctx.Err() == nil {
		l.transport.outage.Failed(l.transport.log.With("connections", len(conns)), "RabbitMQ is lost, and the connections over it are", err)
	}
}

// all is the connections there are. l.mu is held.
func (l *link) all() []*conn {
	var conns []*conn
	for _, of := range []map[string]*conn{l.dialed, l.accepted} {
		for _, c := range of {
			conns = append(conns, c)
		}
	}
	return conns
}

// leave tells the peers of connections that were not closed, and waits a moment until all is published.
func (l *link) leave() {
	l.mu.Lock()
	conns := l.all()
	l.mu.Unlock()
	timer := time.NewTimer(flushTimeout)
	defer timer.Stop()
	for _, c := range conns { // all, before a peer is told: it may be in this process, and answer
		c.end(transport.ErrClosed)
	}
	for _, c := range conns {
		c.reset(errors.New("the peer's process closed its transport"))
	}
	for _, c := range conns {
		select {
		case <-c.flushed:
		case <-timer.C:
			return
		}
	}
}

// close leaves nothing behind.
func (l *link) close() {
	var both sync.WaitGroup
	both.Go(func() { l.out.Close() })
	both.Go(func() { l.in.Close() })
	both.Wait()
	l.work.Wait()
	l.writer.done.Wait()
}

func (l *link) isLost() bool {
	select {
	case <-l.lost:
		return true
	default:
		return false
	}
}

func (l *link) why() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// publish is the writer's.
func (l *link) publish(o outgoing) error {
	for b := l.out.Blocked(); b != nil; b = l.out.Blocked() {
		l.transport.log.Warn("RabbitMQ takes nothing for now", "reason", b.Reason)
		select {
		case <-b.Ended:
		case <-l.lost:
			return l.why()
		}
	}
	o.msg.DeliveryMode = amqp091.Transient
	const mandatory, immediate = true, false
	if err := l.publisher.PublishWithContext(context.Background(), "", o.key, mandatory, immediate, o.msg); err != nil {
		select {
		case <-l.lost: // run has a better reason
		case <-time.After(flushTimeout):
			l.fail(fmt.Errorf("publishing failed: %w", err))
		}
		return err
	}
	return nil
}

// queue is one of this process, which consumes it.
type queue struct {
	name       string
	autoAck    bool
	declared   bool
	ch         *amqp091.Channel
	deliveries <-chan amqp091.Delivery
}

// consume declares an exclusive queue and begins to consume it. Without autoAck each acknowledges what it took.
func (l *link) consume(ctx context.Context, name string, autoAck bool) (*queue, error) {
	ch, err := l.in.Channel(ctx)
	if err != nil {
		return nil, l.refused("open a channel", err)
	}
	q := &queue{name: name, autoAck: autoAck, ch: ch}
	var late atomic.Bool // the second of two: the one who declares, the one who waits for it
	err = l.in.Within(ctx, func() error {
		err := q.begin()
		if late.Swap(true) {
			q.remove()
		}
		return err
	})
	if err == nil {
		return q, nil
	}
	if late.Swap(true) {
		go q.remove()
	}
	var refused *amqp091.Error
	if errors.As(err, &refused) {
		switch refused.Code {
		case amqp091.ResourceLocked, amqp091.PreconditionFailed:
			return nil, fmt.Errorf("%w: another process, or program, has a queue of that name: stop that one, or choose another address (%s)", transport.ErrAddrInUse, refused.Reason)
		case amqp091.AccessRefused:
			err = fmt.Errorf("the user needs the rights to configure, write and read it: %s (%d)", refused.Reason, refused.Code)
		}
	}
	return nil, l.refused("declare the queue "+name, err)
}

// begin declares the queue and consumes it. It waits as long as the server takes.
func (q *queue) begin() error {
	if !q.autoAck { // with it the server looks at no prefetch
		if err := q.ch.Qos(prefetch, 0, false); err != nil {
			return err
		}
	}
	const durable, autoDelete, exclusive, noWait = false, false, true, false
	if _, err := q.ch.QueueDeclare(q.name, durable, autoDelete, exclusive, noWait, nil); err != nil {
		return err
	}
	q.declared = true
	const noLocal = false
	var err error
	q.deliveries, err = q.ch.Consume(q.name, q.name, q.autoAck, exclusive, noLocal, noWait, nil)
	return err
}

// remove removes the queue, so that its name is free. It waits as long as the server takes.
func (q *queue) remove() error {
	var err error
	if q.declared {
		_, err = q.ch.QueueDelete(q.name, false, false, false)
	}
	return errors.Join(err, q.ch.Close())
}

// each calls f for every delivery, until the queue or the link is gone, or end is closed.
func (q *queue) each(end <-chan struct{}, f func(*amqp091.Delivery)) {
	unacked := 0
	for {
		select {
		case d, ok := <-q.deliveries:
			if !ok {
				return
			}
			f(&d)
			if q.autoAck {
				continue
			}
			if unacked++; unacked == prefetch/2 {
				unacked = 0
				_ = d.Ack(true) // if it fails the channel is gone, and the deliveries end
			}
		case <-end:
			return
		}
	}
}

// deliver takes what came to the inbox.
func (l *link) deliver(d *amqp091.Delivery) {
	h, frames, err := parseHeader(d.Body)
	if err != nil {
		l.strange("what is no message of this transport came to the inbox and is dropped", "error", err)
		return
	}
	if d.CorrelationId == "" {
		l.sign(frames, d.ReplyTo)
		return
	}
	if c := l.find(d.CorrelationId, !h.dialer); c != nil && c.receive(h, frames, d.ReplyTo) {
		return
	}
	// It was closed; but a listener whose dialer gave up must not think that it has a connection.
	if t, _, _, err := nextFrame(frames); err == nil && t == frameAccept && isInbox(d.ReplyTo) {
		l.refuse(d.ReplyTo, d.CorrelationId, header{dialer: true, number: 1}, "the dialer gave up")
	}
}

func (l *link) find(id string, dialer bool) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if dialer {
		return l.dialed[id]
	}
	return l.accepted[id]
}

// refuse ends a connection that is none here.
func (l *link) refuse(key, id string, h header, reason string) {
	if l.writer.backlog() > maxRefusals {
		return
	}
	body := make([]byte, headerSize)
	h.put(body)
	l.writer.add(&outgoing{key, amqp091.Publishing{CorrelationId: id, ReplyTo: l.inbox, Body: appendFrame(body, frameReset, []byte(reason))}})
}

// returned is what no queue was there for.
func (l *link) returned(r amqp091.Return) {
	if c := l.find(r.CorrelationId, true); c != nil && c.remote == r.RoutingKey && c.neverAnswered() {
		c.lost(fmt.Errorf("%w: RabbitMQ has no queue of that name", transport.ErrUnreachable))
		return
	}
	l.mu.Lock()
	p := l.peers[r.RoutingKey]
	l.mu.Unlock()
	if p != nil {
		l.lose(p, errors.New("the peer's inbox is gone: its process ended, or it lost RabbitMQ"), (*conn).lost)
	}
}

// lose ends the connections with a peer.
func (l *link) lose(p *peer, err error, end func(*conn, error)) {
	l.mu.Lock()
	var conns []*conn
	for c := range p.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	for _, c := range conns {
		end(c, err)
	}
}

// lookForPeers asks the silent ones for a sign of life, and gives up those that gave none for too long.
// While RabbitMQ takes nothing from publishers, on either side, it does not count.
func (l *link) lookForPeers() {
	var silent, gone []*peer
	blocked := l.out.Blocked() != nil
	l.mu.Lock()
	for _, p := range l.peers {
		switch {
		case blocked:
			p.quiet = 0
		case p.heard.Swap(false):
			p.quiet = 0
		case p.quiet == missed-1:
			gone = append(gone, p)
		default:
			p.quiet++
			silent = append(silent, p)
		}
	}
	l.mu.Unlock()
	for _, p := range silent {
		l.writer.add(l.about(framePing, p.inbox))
	}
	for _, p := range gone {
		err := fmt.Errorf("the peer gave no sign of life for %s", missed*l.transport.config.KeepAlive)
		l.lose(p, err, (*conn).reset) // if it wakes up, it is to know
	}
}

// about is a message that is not about one connection.
func (l *link) about(t frameType, inbox string) *outgoing {
	body := make([]byte, headerSize)
	header{}.put(body)
	return &outgoing{inbox, amqp091.Publishing{ReplyTo: l.inbox, Body: appendFrame(body, t, nil)}}
}

// sign takes a ping or a pong of a peer.
func (l *link) sign(frames []byte, from string) {
	t, _, _, err := nextFrame(frames)
	l.mu.Lock()
	p := l.peers[from]
	l.mu.Unlock()
	if err != nil || p == nil || t != framePing && t != framePong {
		return // of one whose connections are closed here, or of somebody else
	}
	p.heard.Store(true)
	if t == framePing && l.writer.backlog() < maxRefusals {
		l.writer.add(l.about(framePong, p.inbox))
	}
}

// dial opens a connection.
func (l *link) dial(ctx context.Context, addr string, limit int) (*conn, error) {
	c := newConn(l, randomName(""), true, limit)
	c.local, c.remote = l.inbox, addr
	c.pending = append(c.pending, c.hello(frameOpen)...)
	if err := l.add(c); err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.schedule()
	c.mu.Unlock()
	var err error
	select {
	case err = <-c.opened:
	case <-ctx.Done():
		if err = ctx.Err(); context.Cause(ctx) == errTimeout {
			err = fmt.Errorf("%w: no answer within %s", transport.ErrUnreachable, l.transport.config.Timeout)
		}
		if b := l.out.Blocked(); b != nil {
			err = fmt.Errorf("%w: RabbitMQ takes nothing for now: %s", err, b.Reason)
		}
		c.reset(errors.New("the dialer gave up"))
	}
	if err != nil {
		l.remove(c)
		return nil, err
	}
	return c, nil
}

// add makes c known to those that receive. An id is used once.
func (l *link) add(c *conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	of := l.accepted
	if c.dialer {
		of = l.dialed
	}
	if of[c.id] != nil {
		return fmt.Errorf("connection %s is there already", c.id)
	}
	of[c.id] = c
	return nil
}

// join makes c one of the connections with a peer.
func (l *link) join(c *conn, inbox string) *peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.peers[inbox]
	if p == nil {
		p = &peer{inbox: inbox, conns: map[*conn]struct{}{}}
		p.heard.Store(true)
		l.peers[inbox] = p
	}
	p.conns[c] = struct{}{}
	return p
}

func (l *link) remove(c *conn) {
	c.mu.Lock()
	p := c.peer
	c.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.accepted
	if c.dialer {
		of = l.dialed
	}
	if of[c.id] == c {
		delete(of, c.id)
	}
	if p == nil {
		return
	}
	if delete(p.conns, c); len(p.conns) == 0 && l.peers[p.inbox] == p {
		delete(l.peers, p.inbox)
	}
}

// strange is for what should not have come.
func (l *link) strange(msg string, args ...any) {
	l.foreign.Add(1)
	l.strangers.Warn(l.transport.log, msg, args...)
}
