package direct

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
)

// serviceName is the service in the registry whose nodes are the subscriptions of all processes, and the name under
// which a process answers publishers.
const serviceName = "_direct"

// sourceKey is the metadata of a stream that says whose deliveries it carries: when a publisher connects again and has
// given none of them to others in between, it is the same as before.
const sourceKey = "source"

const (
	// maxDialTime bounds one attempt to reach a member, within Config.Timeout.
	maxDialTime = 5 * time.Second
	// settled is how old a connection must be for its loss to be worth another attempt without a pause.
	settled = time.Second
)

// link connects a member of an outbox to its subscription, again and again, until the subscription is gone.
type link struct {
	*member
	conns     *conns
	dial      time.Duration   // limit for one attempt
	forgotten func(id string) // called when the subscription answers that it is gone
	ctx       context.Context // ends with the broker

	registered atomic.Bool   // as far as the registry tells
	news       chan struct{} // holds a token when registered has changed
}

func (l *link) register(is bool) {
	l.registered.Store(is)
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// run returns when the member has been removed from its outbox, or ctx ended.
func (l *link) run() {
	c := l.conns.acquire(l.addr)
	defer c.release()
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval = 100 * time.Millisecond
	pauses.MaxInterval = maxDialTime
	for {
		began := time.Now()
		connected, err := l.session(c)
		switch {
		case l.ctx.Err() != nil:
			return
		case errors.Is(err, io.EOF), isGone(err):
			l.forgotten(l.id)
			l.box.remove(l.member, errors.Is(err, io.EOF))
			return
		case connected && time.Since(began) > settled: // lost; once more at once, before others get what it has
			pauses.Reset()
			l.box.log.Info("connection to a member lost, connecting again", "member", l.id, "address", l.addr, "error", err)
			continue
		}
		l.box.down(l.member)
		if !l.registered.Load() {
			l.box.remove(l.member, false)
			return
		}
		l.box.log.Warn("member cannot be reached, will try again", "member", l.id, "address", l.addr, "error", err)
		select {
		case <-l.ctx.Done():
			return
		case <-l.news:
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

// isGone says whether a process answered that it has no such subscription.
func isGone(err error) bool { return status.CodeOf(err) == status.NotFound }

// session sends until the stream ends, and says how: io.EOF if the subscription took its leave.
func (l *link) session(c *conn) (connected bool, err error) {
	client, st, err := l.open(c)
	if err != nil {
		return false, err
	}
	defer client.CloseStream(st)
	l.box.up(l.member)
	ctx, cancel := context.WithCancel(l.ctx)
	var sender sync.WaitGroup
	sender.Go(func() {
		if errors.Is(l.send(ctx, st), transport.ErrTooLarge) {
			client.CloseStream(st)
		}
		// Any other error is the end of the stream, which recv finds behind the acks that came before it.
	})
	err = l.recv(ctx, st)
	cancel()
	sender.Wait()
	return true, err
}

func (l *link) open(c *conn) (*mux.Client, *mux.Stream, error) {
	ctx, cancel := context.WithTimeout(l.ctx, l.dial)
	defer cancel()
	return c.open(ctx, &mux.Request{
		Service: serviceName, Endpoint: l.id, Codec: bytesCodec, Metadata: map[string]string{sourceKey: l.source()},
	})
}

func (l *link) source() string {
	l.box.mu.Lock()
	defer l.box.mu.Unlock()
	return l.token
}

// send sends what the outbox gives.
func (l *link) send(ctx context.Context, st *mux.Stream) error {
	var batch []*entry
	for {
		batch = l.box.take(l.member, batch[:0])
		if len(batch) == 0 {
			select {
			case <-l.ready:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		err := st.Send(ctx, deliveries{bytesCodec}, batch)
		if errors.Is(err, transport.ErrTooLarge) {
			err = l.refused(batch, err)
		}
		if err != nil {
			return err
		}
		clear(batch)
	}
}

// refused drops a message that the connection does not take: it would be refused for ever.
func (l *link) refused(batch []*entry, err error) error {
	if len(batch) > 1 {
		return err
	}
	l.box.log.Error("message dropped: the subscriber takes none of that size", "member", l.id, "address", l.addr,
		"bytes", len(batch[0].data), "error", err)
	l.box.drop(l.member, batch[0])
	return nil
}

// recv takes acks until the stream ends.
func (l *link) recv(ctx context.Context, st *mux.Stream) error {
	var acks []uint64
	for {
		b, err := st.Recv(ctx)
		if err != nil {
			return err
		}
		var leaving bool
		acks, leaving, err = parseAnswer(b.B, acks[:0])
		b.Release()
		if err != nil {
			return err
		}
		l.box.acked(l.member, acks)
		if leaving {
			l.forgotten(l.id)
			l.box.leave(l.member)
		}
	}
}

var bytesCodec = codec.For([]byte(nil))

// deliveries encodes a batch straight into the frame that is sent.
type deliveries struct{ codec.Codec }

func (deliveries) Append(b []byte, v any) ([]byte, error) {
	for _, e := range v.([]*entry) {
		b = appendDelivery(b, e.seq, e.data)
	}
	return b, nil
}
