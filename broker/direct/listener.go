package direct

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/metadata"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
)

// Limits of what publishers may open, and of what they may send before it is read.
const (
	maxStreams = 4096 // of a process
	window     = 64 << 10
)

// listener takes the connections of publishers.
type listener struct {
	broker    *Broker
	transport transport.Listener
	workers   *mux.Workers
	open      context.Context
	stop      context.CancelFunc
	work      sync.WaitGroup
	streams   atomic.Int64

	mu     sync.Mutex
	closed bool
	conns  map[*mux.Server]struct{}
}

func listen(ctx context.Context, b *Broker) (*listener, error) {
	where := []transport.ListenOption{transport.ListenMaxMessage(b.maxFrame())}
	if registry.OneMachine(b.registry) {
		where = append(where, transport.ListenLocal())
	}
	tl, err := b.transport.Listen(ctx, b.config.Address, where...)
	if err != nil {
		return nil, err
	}
	l := &listener{broker: b, transport: tl, workers: mux.NewWorkers(), conns: map[*mux.Server]struct{}{}}
	l.open, l.stop = context.WithCancel(context.Background())
	l.work.Go(l.accept)
	return l, nil
}

func (l *listener) addr() string { return l.transport.Addr() }

func (l *listener) accept() {
	for {
		conn, err := l.transport.Accept(l.open)
		switch {
		case err == nil:
			l.work.Go(func() { l.serve(conn) })
		case l.open.Err() != nil, errors.Is(err, transport.ErrClosed):
			return
		default:
			l.broker.log.Warn("connection refused", "error", err)
		}
	}
}

func (l *listener) serve(conn transport.Conn) {
	c, err := mux.Accept(l.open, conn, l, l.workers, l.broker.muxOptions())
	if err != nil {
		if l.open.Err() == nil {
			l.broker.log.Warn("connection refused", "peer", conn.RemoteAddr(), "error", err)
		}
		return
	}
	l.mu.Lock()
	l.conns[c] = struct{}{}
	if l.closed {
		c.Drain()
	}
	l.mu.Unlock()
	if err := c.Run(); err != nil {
		l.broker.log.Debug("connection of a publisher lost", "peer", conn.RemoteAddr(), "error", err)
	}
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
}

// Find implements mux.Handler: an endpoint is the ID of a subscription.
func (l *listener) Find(service, endpoint []byte, _ bool) (any, *mux.Error) {
	if string(service) != serviceName {
		return nil, refusal(status.Unimplemented, "only messages are taken here, this is no service to call")
	}
	s := l.broker.subscription(string(endpoint))
	if s == nil {
		return nil, refusal(status.NotFound, noSubscription)
	}
	return s, nil
}

func refusal(code status.Code, message string) *mux.Error {
	return &mux.Error{NotRun: true, Status: status.Error{Code: code, Message: message}}
}

// Serve implements mux.Handler: a stream brings deliveries, a call says that a publisher knows of the subscription.
func (l *listener) Serve(c *mux.Call) {
	if c.Stream == nil {
		c.Target.(*subscription).confirmed(c, metadata.Get(c, metaPublisher))
		c.Reply(nil)
		return
	}
	defer l.streams.Add(-1)
	if l.streams.Add(1) > maxStreams {
		c.Fail(status.Errorf(status.ResourceExhausted, "the process has %d publishers, which is the limit", maxStreams))
		return
	}
	c.Target.(*subscription).serve(c)
}

// close lets publishers hang up, now that their streams have ended: a connection that ends from here may take with it
// acks that are under way.
func (l *listener) close(limit time.Duration) {
	l.transport.Close()
	l.mu.Lock()
	l.closed = true
	for c := range l.conns {
		c.Drain()
	}
	l.mu.Unlock()
	deadline := time.After(limit)
	for l.waitForOne(deadline) {
	}
	l.kill()
}

// waitForOne waits until a connection has ended; false if there is none, or no time left.
func (l *listener) waitForOne(deadline <-chan time.Time) bool {
	l.mu.Lock()
	var one *mux.Server
	for one = range l.conns {
		break
	}
	l.mu.Unlock()
	if one == nil {
		return false
	}
	select {
	case <-one.Closed():
		l.mu.Lock()
		delete(l.conns, one)
		l.mu.Unlock()
		return true
	case <-deadline:
		return false
	}
}

// kill ends everything at once.
func (l *listener) kill() {
	l.transport.Close()
	l.stop()
	l.mu.Lock()
	l.closed = true
	for c := range l.conns {
		c.Close()
	}
	l.mu.Unlock()
	l.work.Wait()
	l.workers.Close()
}
