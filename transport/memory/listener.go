package memory

import (
	"context"
	"fmt"
	"sync"

	"github.com/plugmicro/micro/transport"
)

type listener struct {
	space   *space
	addr    string
	limit   int
	backlog chan *conn
	once    sync.Once
	closed  chan struct{}
}

var _ transport.Listener = (*listener)(nil)

// offer puts c in line for Accept.
func (l *listener) offer(ctx context.Context, c *conn) error {
	select {
	case l.backlog <- c:
	case <-l.closed:
		return fmt.Errorf("dial %s: %w", l.addr, transport.ErrUnreachable)
	case <-ctx.Done():
		return fmt.Errorf("dial %s: %w", l.addr, ctx.Err())
	}
	if l.isClosed() {
		l.refuse() // Close may have emptied the line before c was in it
	}
	return nil
}

func (l *listener) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// Accept implements transport.Listener.
func (l *listener) Accept(ctx context.Context) (transport.Conn, error) {
	if l.isClosed() {
		return nil, l.closedError()
	}
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.closed:
		return nil, l.closedError()
	case <-ctx.Done():
		return nil, fmt.Errorf("accept at %s: %w", l.addr, ctx.Err())
	}
}

func (l *listener) closedError() error {
	return fmt.Errorf("accept at %s: %w", l.addr, transport.ErrClosed)
}

func (l *listener) Addr() string { return l.addr }

// Close implements transport.Listener.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.space.remove(l)
		close(l.closed)
		l.refuse()
	})
	return nil
}

// refuse ends the connections that nobody accepted.
func (l *listener) refuse() {
	for {
		select {
		case c := <-l.backlog:
			c.refuse()
		default:
			return
		}
	}
}
