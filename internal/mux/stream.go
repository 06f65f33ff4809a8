package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/internal/wire"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
)

// messageCost is what a message costs of the credit beside its bytes, so that empty messages are bounded too.
const messageCost = 64

// maxCredit keeps the arithmetic safe from a peer that gives credit without end.
const maxCredit = 1 << 40

var errStreamEnded = &Error{Status: status.Error{Code: status.FailedPrecondition, Message: "send on a stream that has ended"}}
var errCredit = fmt.Errorf("%w: more data than the credit of its stream", wire.ErrMalformed)

// errFull ends one stream, because so much waits to be read on all of a connection.
var errFull error = &Error{Status: status.Error{Code: status.ResourceExhausted, Message: "the messages that wait to be read on all streams of the connection pass its limit"}}

// Stream is one side of a stream. One goroutine may Send while another one Recvs.
type Stream struct {
	s  *session
	id uint64

	readable chan struct{} // a token when there may be something for Recv
	writable chan struct{} // a token when there may be something for Send

	mu       sync.Mutex
	queue    []*wire.Buffer
	unread   int   // cost of what came in and is not credited back yet
	owed     int   // the part of unread that Recv has taken
	credit   int64 // what may be sent; one message may overdraw it
	accepted bool  // the first credit, or a first message, has come
	sentEnd  bool
	over     bool  // nothing more comes in
	finished bool  // nothing more goes out either: the peer has ended the stream
	err      error // what ended it early
}

func newStream(s *session, id uint64, credit int64) *Stream {
	return &Stream{s: s, id: id, credit: credit, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Send sends one message, and waits while the peer has not read enough of those before. It returns the error that ended
// the stream, if it has.
func (st *Stream) Send(ctx context.Context, c codec.Codec, v any) error {
	b := st.s.buffer()
	b.B = wire.AppendData(b.B, st.id)
	head := len(b.B)
	var err error
	if b.B, err = c.Append(b.B, v); err != nil {
		b.Release()
		return status.Errorf(status.Internal, "encode a message of the stream: %w", err)
	}
	cost := len(b.B) - head + messageCost
	if err := st.takeCredit(ctx, cost); err != nil {
		b.Release()
		return err
	}
	if err := st.s.send(ctx, b); err != nil {
		st.giveCredit(uint64(cost))
		return st.sendError(err)
	}
	return nil
}

func (st *Stream) sendError(err error) error {
	switch {
	case errors.Is(err, transport.ErrTooLarge):
		return &Error{Status: status.Error{Code: status.ResourceExhausted, Message: err.Error()}, Cause: err} // the stream lives on
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.From(err)
	}
	return lost(err)
}

func (st *Stream) takeCredit(ctx context.Context, cost int) error {
	for {
		st.mu.Lock()
		switch {
		case st.err != nil:
			defer st.mu.Unlock()
			return st.err
		case st.finished, st.sentEnd:
			st.mu.Unlock()
			return errStreamEnded
		case st.credit > 0:
			st.credit -= int64(cost)
			st.mu.Unlock()
			return nil
		}
		st.mu.Unlock()
		select {
		case <-st.writable:
		case <-ctx.Done():
			return status.From(ctx.Err())
		}
	}
}

// giveCredit is the peer's, or that of a message that was not sent.
func (st *Stream) giveCredit(n uint64) {
	st.mu.Lock()
	st.credit = min(st.credit+int64(min(n, maxCredit)), maxCredit)
	st.accepted = true
	st.mu.Unlock()
	wake(st.writable)
}

// Recv returns the next message, which the caller releases; io.EOF after the last one; the error that ended the stream.
func (st *Stream) Recv(ctx context.Context) (*wire.Buffer, error) {
	for {
		b, credit, err := st.take()
		if credit > 0 {
			st.s.postCredit(st.id, uint64(credit))
		}
		if b != nil || err != nil {
			return b, err
		}
		select {
		case <-st.readable:
		case <-ctx.Done():
			return nil, status.From(ctx.Err())
		}
	}
}

// take returns the first message that waits, and the credit to give back.
func (st *Stream) take() (b *wire.Buffer, credit int, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.queue) == 0 {
		if st.err != nil {
			return nil, 0, st.err
		}
		if st.over {
			return nil, 0, io.EOF
		}
		return nil, 0, nil
	}
	b = st.queue[0]
	st.queue[0] = nil
	st.queue = st.queue[1:]
	st.s.queued.Add(-int64(len(b.B) + messageCost))
	st.owed += len(b.B) + messageCost
	if st.owed >= st.s.opts.Window/2 && !st.over {
		credit = st.owed
		st.unread -= credit
		st.owed = 0
	}
	return b, credit, nil
}

// data is called by the reader with what came in. After errFull the caller ends the stream.
func (st *Stream) data(body []byte) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.over {
		return nil // a peer that has not heard yet
	}
	if st.unread >= st.s.opts.Window {
		return errCredit
	}
	cost := len(body) + messageCost
	if waiting := st.s.queued.Add(int64(cost)); waiting > int64(st.s.opts.MaxBytes) {
		st.s.queued.Add(-int64(cost))
		return errFull
	}
	st.unread += cost
	st.queue = append(st.queue, st.s.keep(body))
	wake(st.readable)
	if !st.accepted {
		st.accepted = true
		wake(st.writable)
	}
	return nil
}

// CloseSend tells the peer that no message follows.
func (st *Stream) CloseSend() error {
	st.mu.Lock()
	ended := st.sentEnd || st.err != nil
	st.sentEnd = true
	st.mu.Unlock()
	wake(st.writable)
	if ended {
		return nil
	}
	b := wire.GetBuffer(16)
	b.B = wire.AppendEnd(b.B, st.id)
	if err := st.s.send(context.Background(), b); err != nil {
		return lost(err)
	}
	return nil
}

// end marks that nothing more comes in, and after an error or a finish that nothing more goes out. What came before is
// still read.
func (st *Stream) end(finished bool, err error) {
	st.mu.Lock()
	if !st.finished && st.err == nil {
		st.err = err
	}
	st.over = true
	st.finished = st.finished || finished
	st.mu.Unlock()
	wake(st.readable)
	wake(st.writable)
}

// discard drops what nobody will read.
func (st *Stream) discard() {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, b := range st.queue {
		st.s.queued.Add(-int64(len(b.B) + messageCost))
		b.Release()
	}
	st.queue = nil
	st.over = true
}
