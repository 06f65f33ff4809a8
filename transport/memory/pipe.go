package memory

import (
	"context"
	"sync"

	"github.com/plugmicro/micro/transport"
)

const (
	// maxPending is how many bytes wait for the receiver before senders wait; one message may always wait.
	maxPending = 256 << 10
	// overhead is what a message counts beside its bytes, so that empty ones are bounded too.
	overhead = 16
	// keepBuffer is the largest buffer that is kept while nothing is in it.
	keepBuffer = 64 << 10
)

// pipe carries messages in one direction. Senders append to pending, the receiver takes all of it at once.
type pipe struct {
	mu      sync.Mutex
	pending batch
	waiting int           // senders that wait for room
	room    chan struct{} // one of them may look again
	ready   chan struct{} // the receiver may look again

	sendErr error         // why put fails
	stop    chan struct{} // closed when sendErr is set
	recvErr error         // what get answers once pending is empty

	taken batch // the receiver's
}

// batch is messages one behind the other.
type batch struct {
	data  []byte
	sizes []int
	next  int // in sizes
	at    int // in data
}

func (b *batch) cost() int { return len(b.data) + overhead*len(b.sizes) }

// clear empties b; while nothing is to follow soon it gives up a large buffer.
func (b *batch) clear(idle bool) {
	b.data, b.sizes = b.data[:0], b.sizes[:0]
	b.next, b.at = 0, 0
	if idle && cap(b.data) > keepBuffer {
		b.data = nil
	}
}

func newPipe() *pipe {
	return &pipe{room: make(chan struct{}, 1), ready: make(chan struct{}, 1), stop: make(chan struct{})}
}

// put appends msg, or waits while there is no room.
func (p *pipe) put(ctx context.Context, msg []byte) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.waitForRoom(ctx, len(msg)); err != nil {
		return err
	}
	p.pending.data = append(p.pending.data, msg...)
	p.pending.sizes = append(p.pending.sizes, len(msg))
	p.wakeSender() // there may be room for more
	p.wakeReceiver()
	return nil
}

// waitForRoom waits until n bytes fit. p.mu is held, and again when it returns.
func (p *pipe) waitForRoom(ctx context.Context, n int) error {
	for p.sendErr == nil && len(p.pending.sizes) > 0 && p.pending.cost()+overhead+n > maxPending {
		p.waiting++
		p.mu.Unlock()
		var err error
		select {
		case <-p.room:
		case <-p.stop:
		case <-ctx.Done():
			err = ctx.Err()
		}
		p.mu.Lock()
		p.waiting--
		if err != nil {
			p.wakeSender() // the word may have come to this one
			return err
		}
	}
	return p.sendErr
}

func (p *pipe) wakeSender() {
	if p.waiting > 0 {
		signal(p.room)
	}
}

func (p *pipe) wakeReceiver() { signal(p.ready) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// get returns the next message, valid until the next get. closed ends the wait.
func (p *pipe) get(ctx context.Context, closed <-chan struct{}) ([]byte, error) {
	for p.taken.next == len(p.taken.sizes) {
		got, err := p.take()
		if err != nil {
			return nil, err
		}
		if got {
			break
		}
		select {
		case <-p.ready:
		case <-closed:
			return nil, transport.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	b := &p.taken
	end := b.at + b.sizes[b.next]
	msg := b.data[b.at:end:end]
	b.at = end
	b.next++
	return msg, nil
}

// readable says whether get would return at once. Only the receiver uses it.
func (p *pipe) readable() bool {
	if p.taken.next < len(p.taken.sizes) {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pending.sizes) > 0 || p.recvErr != nil
}

// take moves what is pending to the receiver.
func (p *pipe) take() (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	idle := len(p.pending.sizes) == 0
	p.taken.clear(idle)
	if idle {
		p.pending.clear(idle)
		return false, p.recvErr
	}
	p.pending, p.taken = p.taken, p.pending
	p.wakeSender()
	return true, nil
}

// end makes get answer recvErr behind what was sent, and put fail with sendErr.
func (p *pipe) end(recvErr, sendErr error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.recvErr == nil {
		p.recvErr = recvErr
	}
	p.failSend(sendErr)
	p.wakeReceiver()
}

// abandon drops what is pending: nobody receives it.
func (p *pipe) abandon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failSend(errPeerClosed)
	p.pending = batch{}
}

// failSend makes put fail with err, if it does not fail already. p.mu is held.
func (p *pipe) failSend(err error) {
	if p.sendErr == nil {
		p.sendErr = err
		close(p.stop)
	}
}
