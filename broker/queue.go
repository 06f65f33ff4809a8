package broker

import (
	"cmp"
	"container/list"
	"context"
	"slices"
	"sync"
	"time"
)

// Queue is for implementations: it holds messages between a source and Consumers, bounded, and hands out at most one
// message of a key at a time, in order. A plugin whose server knows groups has one for each subscription; a plugin that
// makes groups itself, one for each group, shared by the members. It is safe for concurrent use.
type Queue struct {
	maxMessages, maxBytes int

	available chan struct{} // at least as many as ready has
	closing   chan struct{} // closed by Close

	mu              sync.Mutex
	closed          bool
	messages, bytes int // what was put and is not settled, in flight or not
	next            uint64
	ready           list.List                 // of *Delivery
	behind          map[string][]*Delivery    // an entry for each key that is ready, paused or in flight: what waits for it
	paused          map[*Delivery]*time.Timer // to become ready
	waiting         list.List                 // of *put, first come first served
	empty           chan struct{}             // closed when messages is 0; nil if nobody asked
}

// put is a Put that waits for room.
type put struct {
	d    *Delivery
	over chan struct{}
	err  error // set before over is closed
}

// Delivery is a message that was taken from a Queue: to be settled by Ack or Return, of which the first call counts.
type Delivery struct {
	Message  *Message // not to be changed
	Attempts int      // how often it failed so far

	reason error // of the last failure
	dead   bool  // its tries are used up, only its dead letter is missing

	queue   *Queue
	order   uint64
	settled func(acked bool)
	over    bool
}

// NewQueue returns a queue for at most that many messages and bytes, both at least 1. A message that is larger than
// maxBytes has the queue to itself.
func NewQueue(maxMessages, maxBytes int) *Queue {
	return &Queue{
		maxMessages: max(maxMessages, 1),
		maxBytes:    max(maxBytes, 1),
		available:   make(chan struct{}, max(maxMessages, 1)),
		closing:     make(chan struct{}),
		behind:      map[string][]*Delivery{},
		paused:      map[*Delivery]*time.Timer{},
	}
}

// Put adds m, which must not be changed after that, and waits while the queue is full. settled, if not nil, is called
// once: with true when m was acked, with false when the queue was closed before that. Errors are ErrClosed and ctx's.
func (q *Queue) Put(ctx context.Context, m *Message, settled func(acked bool)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if settled == nil {
		settled = func(bool) {}
	}
	p := &put{d: &Delivery{Message: m, queue: q, settled: settled}}
	if entered, err := q.enter(p); entered || err != nil {
		return err
	}
	select {
	case <-p.over:
		return p.err
	case <-ctx.Done():
		return q.leave(ctx, p)
	}
}

// enter adds p's message, or lines it up if there is no room.
func (q *Queue) enter(p *put) (bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false, ErrClosed
	}
	if q.waiting.Len() == 0 && q.fits(p.d) {
		q.add(p.d)
		return true, nil
	}
	p.over = make(chan struct{})
	q.waiting.PushBack(p)
	return false, nil
}

// leave takes p out of the line, unless its turn came in the meantime.
func (q *Queue) leave(ctx context.Context, p *put) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for e := q.waiting.Front(); e != nil; e = e.Next() {
		if e.Value == p {
			q.waiting.Remove(e)
			q.admit()
			return ctx.Err()
		}
	}
	return p.err
}

// Take waits for a message whose key is free and hands it out. Errors are ErrClosed and ctx's.
func (q *Queue) Take(ctx context.Context) (*Delivery, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-q.closing:
			return nil, ErrClosed
		case <-q.available:
		}
		if d, err := q.take(); d != nil || err != nil {
			return d, err
		}
	}
}

// take returns nil if the message was discarded in the meantime.
func (q *Queue) take() (*Delivery, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, ErrClosed
	}
	if q.ready.Len() == 0 {
		return nil, nil
	}
	return q.ready.Remove(q.ready.Front()).(*Delivery), nil
}

// Drain waits until everything that was put is settled.
func (q *Queue) Drain(ctx context.Context) error {
	q.mu.Lock()
	if q.messages == 0 {
		q.mu.Unlock()
		return nil
	}
	if q.empty == nil {
		q.empty = make(chan struct{})
	}
	empty := q.empty
	q.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends every Put and Take, settles what is not in flight as not acked, in order, and returns how many that were.
// What is in flight is settled by its Ack or Return: stop the consumers first.
func (q *Queue) Close() int {
	rest := q.close()
	for _, d := range rest {
		d.settled(false)
	}
	return len(rest)
}

func (q *Queue) close() []*Delivery {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	q.closed = true
	close(q.closing)
	for e := q.waiting.Front(); e != nil; e = e.Next() {
		p := e.Value.(*put)
		p.err = ErrClosed
		close(p.over)
	}
	q.waiting.Init()

	var rest []*Delivery
	for e := q.ready.Front(); e != nil; e = e.Next() {
		rest = append(rest, e.Value.(*Delivery))
	}
	for d, timer := range q.paused {
		timer.Stop()
		rest = append(rest, d)
	}
	for _, behind := range q.behind {
		rest = append(rest, behind...)
	}
	q.ready.Init()
	clear(q.paused)
	clear(q.behind)
	slices.SortFunc(rest, byOrder)
	for _, d := range rest {
		q.remove(d)
	}
	return rest
}

// Discard settles as not acked, in order, what is not in flight and matches, and returns how many that were. It is for
// who may no longer handle those messages, because another member of the group does. match gets what was put, and must
// not call q.
func (q *Queue) Discard(match func(*Message) bool) int {
	rest := q.discard(match)
	for _, d := range rest {
		d.settled(false)
	}
	return len(rest)
}

func (q *Queue) discard(match func(*Message) bool) []*Delivery {
	q.mu.Lock()
	defer q.mu.Unlock()
	var rest []*Delivery
	for key, behind := range q.behind {
		q.behind[key] = slices.DeleteFunc(behind, func(d *Delivery) bool {
			matches := match(d.Message)
			if matches {
				rest = append(rest, d)
			}
			return matches
		})
	}
	for d, timer := range q.paused {
		if match(d.Message) {
			timer.Stop()
			delete(q.paused, d)
			q.release(d.Message.Key)
			rest = append(rest, d)
		}
	}
	var next *list.Element
	for e := q.ready.Front(); e != nil; e = next {
		next = e.Next()
		if d := e.Value.(*Delivery); match(d.Message) {
			q.ready.Remove(e)
			select {
			case <-q.available:
			default: // somebody is about to take it, and finds nothing
			}
			q.release(d.Message.Key)
			rest = append(rest, d)
		}
	}
	slices.SortFunc(rest, byOrder)
	for _, d := range rest {
		q.remove(d)
	}
	q.admit()
	return rest
}

func byOrder(a, b *Delivery) int { return cmp.Compare(a.order, b.order) }

// Ack says that the message is done with.
func (d *Delivery) Ack() {
	if d.finish() {
		d.settled(true)
	}
}

// Return gives the message back, before all others of its key, to be taken again after the pause. Until then its key is
// held back, others are not.
func (d *Delivery) Return(pause time.Duration) {
	if !d.giveBack(pause) {
		d.settled(false)
	}
}

// fail notes a failed try, of as many as are allowed.
func (d *Delivery) fail(err error, allowed int) {
	d.queue.mu.Lock()
	defer d.queue.mu.Unlock()
	d.Attempts++
	d.reason = err
	d.dead = d.Attempts >= allowed
}

// finish reports whether d was still to be settled.
func (d *Delivery) finish() bool {
	q := d.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if d.over {
		return false
	}
	q.remove(d)
	q.release(d.Message.Key)
	q.admit()
	return true
}

// giveBack reports false if the queue is closed, so that there is nowhere to give it back to.
func (d *Delivery) giveBack(pause time.Duration) bool {
	q := d.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if d.over {
		return true
	}
	if q.closed {
		q.remove(d)
		return false
	}
	d.over = true
	again := *d // a new one, so that who still holds d cannot settle it any more
	again.over = false
	if pause <= 0 {
		q.makeReady(&again, q.ready.PushFront)
		return true
	}
	q.paused[&again] = time.AfterFunc(pause, func() { q.resume(&again) })
	return true
}

func (q *Queue) resume(d *Delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.paused[d]; !ok {
		return
	}
	delete(q.paused, d)
	q.makeReady(d, q.ready.PushFront)
}

// The rest is called with mu held.

func (q *Queue) fits(d *Delivery) bool {
	return q.messages == 0 || q.messages < q.maxMessages && q.bytes+d.Message.size() <= q.maxBytes
}

func (q *Queue) admit() {
	for e := q.waiting.Front(); e != nil; e = q.waiting.Front() {
		p := e.Value.(*put)
		if !q.fits(p.d) {
			return
		}
		q.waiting.Remove(e)
		q.add(p.d)
		close(p.over)
	}
}

func (q *Queue) add(d *Delivery) {
	q.next++
	d.order = q.next
	q.messages++
	q.bytes += d.Message.size()
	if key := d.Message.Key; key != "" {
		behind, busy := q.behind[key]
		if busy {
			q.behind[key] = append(behind, d)
			return
		}
		q.behind[key] = nil
	}
	q.makeReady(d, q.ready.PushBack)
}

func (q *Queue) makeReady(d *Delivery, push func(any) *list.Element) {
	push(d)
	select {
	case q.available <- struct{}{}:
	default: // it has one for each of maxMessages already
	}
}

func (q *Queue) remove(d *Delivery) {
	d.over = true
	q.messages--
	q.bytes -= d.Message.size()
	if q.messages == 0 && q.empty != nil {
		close(q.empty)
		q.empty = nil
	}
}

// release lets the next message of a key follow.
func (q *Queue) release(key string) {
	behind, busy := q.behind[key]
	switch {
	case !busy: // no key, or closed
	case len(behind) == 0:
		delete(q.behind, key)
	default:
		q.behind[key] = behind[1:]
		q.makeReady(behind[0], q.ready.PushBack)
	}
}
