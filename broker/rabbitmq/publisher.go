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

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/amqp"
)

// refusalPause is the first pause before what a queue refused is published again; each is twice as long as the one before.
const refusalPause = 10 * time.Millisecond

// aloneLimit is how long all others wait for one batch that is published alone. The server refuses at once, a queue that
// is in trouble confirms late.
const aloneLimit = time.Second

// ErrNoSubscriber is for topics that nobody has subscribed to, with Config.Mandatory.
var ErrNoSubscriber = errors.New("nobody has subscribed to it")

// publisher is one connection to publish on, that is made again when it is lost.
type publisher struct {
	dialer  *amqp.Dialer
	config  Config
	outlets *slot[outlet]
	cancel  context.CancelFunc
	ended   chan struct{}

	suspects atomic.Int32 // batches that may be why the server closed a channel: while there are any, each batch goes alone
}

func newPublisher(d *amqp.Dialer, c Config) *publisher {
	return &publisher{dialer: d, config: c, outlets: newSlot[outlet](), ended: make(chan struct{})}
}

// start returns when there is a connection, or there can be none.
func (p *publisher) start(ctx context.Context) error {
	var run context.Context
	run, p.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(p.ended)
		_ = p.dialer.Run(run, "publish", p.session, func(err error) { p.outlets.set(nil, err) })
	}()
	if err := p.outlets.first(ctx); err != nil {
		p.stop()
		return err
	}
	return nil
}

func (p *publisher) stop() {
	p.cancel()
	<-p.ended
}

// session has one outlet after the other on a connection: each error of a message costs one.
func (p *publisher) session(ctx context.Context, conn *amqp.Conn, ready func()) error {
	for ctx.Err() == nil && conn.Err() == nil {
		o, err := p.newOutlet(ctx, conn)
		if err != nil {
			return err
		}
		ready()
		p.outlets.set(o, nil)
		select {
		case <-o.done:
			p.outlets.set(nil, o.err)
		case <-ctx.Done():
		case <-conn.Lost():
		}
	}
	p.outlets.set(nil, conn.Err())
	return nil
}

// publish returns when b is confirmed. What was not is published again: when the connection is there again; when the
// server closed the channel, for what somebody else may have published, alone; when a queue refused it, until the timeout,
// as one that has just gone does, too.
func (p *publisher) publish(ctx context.Context, b *batch) error {
	suspect, pause, end := false, refusalPause, time.Now().Add(p.config.Timeout)
	var refused, err error
	for len(b.msgs) > 0 {
		var o *outlet
		if o, err = p.outlet(ctx); err == nil {
			err = o.publish(ctx, b)
		}
		var lost *lostError
		switch {
		case err == nil:
		case refused != nil && ctx.Err() != nil:
			return fmt.Errorf("%w: %w", refused, context.Cause(ctx))
		case errors.Is(err, errRefused):
			if refused = err; time.Now().Add(pause).After(end) {
				return err
			}
			select {
			case <-time.After(pause):
				pause *= 2
			case <-ctx.Done():
			}
		case !errors.As(err, &lost):
			return err
		case lost.suspect && !suspect:
			suspect = true
			p.suspects.Add(1)
			defer p.suspects.Add(-1)
		}
	}
	if b.missed > 0 {
		return fmt.Errorf("%d of %d messages: %w", b.missed, b.total, ErrNoSubscriber)
	}
	return nil
}

func (p *publisher) outlet(ctx context.Context) (*outlet, error) {
	if o, _, _ := p.outlets.now(); o != nil && !o.over() {
		return o, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	for {
		o, err := p.outlets.get(ctx)
		if err != nil {
			return nil, fmt.Errorf("broker rabbitmq: no connection: %w", err)
		}
		if !o.over() {
			return o, nil
		}
		select { // the slot is about to change
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// batch is what one Publish has not had confirmed yet.
type batch struct {
	exchange      string
	declare       func(*amqp091.Channel) error // the exchange, once on each channel
	declareAlways bool
	mandatory     bool // ErrNoSubscriber if there is no queue
	msgs          []amqp091.Publishing
	keys          []string
	total, missed int // messages, and those that no queue took, if mandatory
}

func newBatch(topic string, mandatory bool, msgs ...*broker.Message) *batch {
	b := &batch{exchange: exchangeOf(topic), mandatory: mandatory, total: len(msgs), msgs: make([]amqp091.Publishing, len(msgs)), keys: make([]string, len(msgs))}
	b.declare = func(ch *amqp091.Channel) error { return declareExchange(ch, topic) }
	for i, m := range msgs {
		b.msgs[i], b.keys[i] = publishing(m), routingKey(m.Key)
		if mandatory {
			b.msgs[i].CorrelationId = broker.NewID() // two that are on their way may have the same ID
		}
	}
	return b
}

// outlet is a channel in confirm mode, until it fails. One goroutine writes to it: writing is not bounded by a context
// where the server does not read, and publishers must be.
type outlet struct {
	conn     *amqp.Conn
	ch       *amqp091.Channel
	writes   chan *write
	done     chan struct{} // closed when ch is
	err      error         // why; set before that
	returned returned
	suspects *atomic.Int32 // of the publisher
}

// write is a batch on its way to the writer.
type write struct {
	batch    *batch
	written  chan struct{} // closed when it is
	confirms []*amqp091.DeferredConfirmation
	err      error
	sent     bool // some of it may have reached the server
	alone    bool // what the server refuses is this
}

func (p *publisher) newOutlet(ctx context.Context, conn *amqp.Conn) (*outlet, error) {
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	ch, err := conn.Channel(ctx)
	if err != nil {
		return nil, err
	}
	if err := conn.Within(ctx, func() error { return ch.Confirm(false) }); err != nil {
		return nil, err
	}
	o := &outlet{conn: conn, ch: ch, writes: make(chan *write), done: make(chan struct{}), suspects: &p.suspects}
	closed := ch.NotifyClose(make(chan *amqp091.Error, 1))
	o.returned.ids = map[string]bool{}
	o.returned.flush = make(chan chan struct{})
	go o.returned.collect(ch.NotifyReturn(make(chan amqp091.Return)))
	go func() {
		o.err = errors.New("the channel was closed")
		if err := <-closed; err != nil {
			o.err = err
		}
		close(o.done)
	}()
	go o.write()
	return o, nil
}

func (o *outlet) over() bool {
	select {
	case <-o.done:
		return true
	default:
		return false
	}
}

// write is the writer.
func (o *outlet) write() {
	declared := map[string]bool{}
	for {
		select {
		case w := <-o.writes:
			if o.suspects.Load() > 0 {
				o.sendAlone(w, declared)
			} else {
				o.send(w, declared)
			}
			close(w.written)
		case <-o.done:
			return
		}
	}
}

func (o *outlet) send(w *write, declared map[string]bool) {
	b := w.batch
	w.sent = true
	if b.declareAlways || !declared[b.exchange] {
		w.err = b.declare(o.ch)
		declared[b.exchange] = w.err == nil
	}
	for i := 0; i < len(b.msgs) && w.err == nil; i++ {
		var c *amqp091.DeferredConfirmation
		c, w.err = o.ch.PublishWithDeferredConfirm(b.exchange, b.keys[i], b.mandatory, false, b.msgs[i])
		w.confirms = append(w.confirms, c)
	}
}

// sendAlone has nothing before w that the server may still refuse, and nothing behind it.
func (o *outlet) sendAlone(w *write, declared map[string]bool) {
	if w.err = o.ch.Confirm(false); w.err != nil { // is answered after all before is taken
		return
	}
	w.alone = true
	o.send(w, declared)
	if w.err != nil {
		return
	}
	limit := time.NewTimer(aloneLimit)
	defer limit.Stop()
	for _, c := range w.confirms {
		select {
		case <-c.Done(): // also when the channel is closed
		case <-limit.C:
			w.alone = false
			return
		}
	}
}

// publish takes what was confirmed out of b. A lostError says that the rest can be published again.
func (o *outlet) publish(ctx context.Context, b *batch) error {
	if err := o.unblocked(ctx); err != nil {
		return err
	}
	mine := *b // the writer may go on when this gives up
	if mine.mandatory {
		o.returned.expect(mine.msgs)
		defer o.returned.forget(mine.msgs)
	}
	w := &write{batch: &mine, written: make(chan struct{})}
	select {
	case o.writes <- w:
	case <-o.done:
		return o.lost(b, w, o.err)
	case <-ctx.Done():
		return o.late(ctx)
	}
	select {
	case <-w.written:
	case <-ctx.Done():
		return o.late(ctx)
	}
	if w.err != nil {
		return o.lost(b, w, w.err)
	}
	return o.confirmed(ctx, b, w)
}

// unblocked waits while the server takes nothing.
func (o *outlet) unblocked(ctx context.Context) error {
	b := o.conn.Blocked()
	if b == nil {
		return nil
	}
	select {
	case <-b.Ended:
		return nil
	case <-ctx.Done():
		return o.late(ctx)
	}
}

// late says why nothing happened while ctx lasted.
func (o *outlet) late(ctx context.Context) error {
	if b := o.conn.Blocked(); b != nil {
		return fmt.Errorf("broker rabbitmq: %s takes no messages for now (%s): %w", o.conn.Addr, b.Reason, context.Cause(ctx))
	}
	return fmt.Errorf("broker rabbitmq: %s has not confirmed it: %w", o.conn.Addr, context.Cause(ctx))
}

// confirmed stops at what a queue refused: what is behind it follows it again, so that the last one of a key stays last.
func (o *outlet) confirmed(ctx context.Context, b *batch, w *write) error {
	for _, c := range w.confirms {
		select {
		case <-c.Done():
		case <-ctx.Done():
			return o.late(ctx)
		}
		if !c.Acked() {
			if o.ch.IsClosed() {
				<-o.done
				return o.lost(b, w, o.err)
			}
			return fmt.Errorf("broker rabbitmq: %s %w", o.conn.Addr, errRefused)
		}
		if b.mandatory && o.returned.has(b.msgs[0].CorrelationId, o.done) {
			b.missed++
		}
		b.msgs, b.keys = b.msgs[1:], b.keys[1:]
	}
	return nil
}

var errRefused = errors.New("refused it: a queue is full, or cannot be reached")

// lostError is that the channel is gone, and what was not confirmed can be published again.
type lostError struct {
	err     error
	suspect bool // the server closed the channel, maybe because of this
}

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// lost tells whether b is the reason why the channel was closed: all that publish share it.
func (o *outlet) lost(b *batch, w *write, err error) error {
	var refused *amqp091.Error
	if !errors.As(o.cause(err), &refused) || !refused.Server {
		return &lostError{err: err}
	}
	wrapped := fmt.Errorf("broker rabbitmq: %s: %w", o.conn.Addr, refused)
	switch {
	case refused.Code == amqp091.AccessRefused && strings.Contains(refused.Reason, "'"+b.exchange+"'"):
		return fmt.Errorf("%w: the user needs the rights to configure and write %s", wrapped, b.exchange)
	case refused.Code == amqp091.PreconditionFailed && b.contains(refused.Reason):
		return fmt.Errorf("%w: %w", wrapped, broker.ErrTooLarge)
	case refused.Code == amqp091.PreconditionFailed && strings.Contains(refused.Reason, "exchange '"+b.exchange+"'"):
		return fmt.Errorf("%w: somebody else has made that exchange, delete it", wrapped)
	}
	if w.alone && refusal(refused) {
		return wrapped
	}
	return &lostError{err: wrapped, suspect: w.sent && refusal(refused)}
}

// refusal reports whether e is about what was published, not about the connection or an exchange that was deleted.
func refusal(e *amqp091.Error) bool {
	switch e.Code {
	case amqp091.ContentTooLarge, amqp091.AccessRefused, amqp091.PreconditionFailed, amqp091.ResourceLocked, amqp091.ResourceError:
		return true
	}
	return false
}

// cause is why the channel was closed, where err only says that it was.
func (o *outlet) cause(err error) error {
	if errors.Is(err, amqp091.ErrClosed) && o.ch.IsClosed() {
		<-o.done
		return o.err
	}
	return err
}

// contains reports whether the server complains about the size of one of b.
func (b *batch) contains(reason string) bool {
	if !strings.Contains(reason, "message size") {
		return false
	}
	for i := range b.msgs {
		if strings.Contains(reason, fmt.Sprintf("message size %d ", len(b.msgs[i].Body))) {
			return true
		}
	}
	return false
}

// returned notes what the server has sent back because no queue takes it, for those that wait to hear of it.
type returned struct {
	mu    sync.Mutex
	ids   map[string]bool // correlation ids that are expected, and whether they came back
	flush chan chan struct{}
}

// collect ends with the channel.
func (r *returned) collect(returns <-chan amqp091.Return) {
	for {
		select {
		case m, ok := <-returns:
			if !ok {
				return
			}
			r.mu.Lock()
			if _, expected := r.ids[m.CorrelationId]; expected {
				r.ids[m.CorrelationId] = true
			}
			r.mu.Unlock()
		case noted := <-r.flush:
			close(noted)
		}
	}
}

func (r *returned) expect(msgs []amqp091.Publishing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range msgs {
		r.ids[msgs[i].CorrelationId] = false
	}
}

func (r *returned) forget(msgs []amqp091.Publishing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range msgs {
		delete(r.ids, msgs[i].CorrelationId)
	}
}

// has reports whether a message that is confirmed was returned, which the server says before.
func (r *returned) has(id string, done <-chan struct{}) bool {
	noted := make(chan struct{})
	select {
	case r.flush <- noted:
		<-noted
	case <-done:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ids[id]
}
