package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plugmicro/micro/internal/loglimit"
	"github.com/plugmicro/micro/transport"
)

// Listen implements transport.Transport.
func (t *Transport) Listen(ctx context.Context, addr string, opts ...transport.ListenOption) (transport.Listener, error) {
	o := transport.NewListenOptions(opts...)
	where := addr
	switch {
	case where == "" && o.Local:
		where = "127.0.0.1:0"
	case where == "":
		where = ":0"
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("listen at %s: %w", where, ctx.Err())
	}
	secure, err := listenTLS(t.config.TLS, t.config.TLSMutual)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", where, err)
	}
	lc := net.ListenConfig{KeepAliveConfig: t.keepAlive(), Control: t.control}
	nl, err := lc.Listen(ctx, "tcp", where)
	if err != nil {
		return nil, listenError(where, err)
	}
	limit := int(t.config.MaxMessage)
	if o.MaxMessage > 0 {
		limit = min(o.MaxMessage, maxFrame)
	}
	l := &listener{
		nl:       nl,
		addr:     reachable(nl.Addr()),
		config:   t.config,
		tls:      secure,
		limit:    limit,
		log:      t.log,
		accepted: make(chan accepted),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.running.Go(l.serve)
	return l, nil
}

// listener takes connections in a goroutine of its own; with TLS each handshake has one too, of which there are no more
// than connections.
type listener struct {
	nl     net.Listener
	addr   string
	config Config
	tls    *tls.Config // nil: no TLS
	limit  int         // bytes of one message
	log    *slog.Logger

	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	running  sync.WaitGroup
	accepted chan accepted

	conns    atomic.Int64 // that live, or are in a handshake
	warnings loglimit.Limit
}

// accepted is a connection that is ready, or why there is none.
type accepted struct {
	nc  net.Conn
	err error
}

// serve takes connections until Close.
func (l *listener) serve() {
	pause := acceptPause{}
	for {
		nc, err := l.nl.Accept()
		if l.ctx.Err() != nil {
			if err == nil {
				nc.Close()
			}
			return
		}
		if err != nil {
			l.warnings.Warn(l.log, "accept failed, trying again", "address", l.addr, "error", err)
			pause.wait(l.ctx)
			continue
		}
		pause = acceptPause{}
		if l.conns.Add(1) > int64(l.config.MaxConns) {
			l.warnings.Warn(l.log, "too many connections, closing a new one", "address", l.addr,
				"from", nc.RemoteAddr().String(), "max-conns", l.config.MaxConns)
			l.drop(nc)
			continue
		}
		if l.tls == nil {
			l.deliver(accepted{nc: nc})
			continue
		}
		l.running.Go(func() {
			tc, err := l.handshake(nc)
			if errors.Is(err, io.EOF) {
				l.release() // somebody looked whether the port is open
				return
			}
			l.deliver(accepted{tc, err})
		})
	}
}

// deliver hands a to Accept.
func (l *listener) deliver(a accepted) {
	select {
	case l.accepted <- a:
		if a.err != nil {
			l.release()
		}
	case <-l.ctx.Done():
		l.drop(a.nc)
	}
}

// drop closes a connection that nobody gets.
func (l *listener) drop(nc net.Conn) {
	if nc != nil {
		rawConn(nc).Close()
	}
	l.release()
}

func (l *listener) release() { l.conns.Add(-1) }

// Accept implements transport.Listener.
func (l *listener) Accept(ctx context.Context) (transport.Conn, error) {
	if l.ctx.Err() != nil {
		return nil, l.closedError()
	}
	select {
	case a := <-l.accepted:
		if a.err != nil {
			return nil, a.err
		}
		return newConn(a.nc, l.limit, l.config.Timeout, l.release), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("accept at %s: %w", l.addr, ctx.Err())
	case <-l.ctx.Done():
		return nil, l.closedError()
	}
}

func (l *listener) closedError() error {
	return fmt.Errorf("accept at %s: %w", l.addr, transport.ErrClosed)
}

func (l *listener) Addr() string { return l.addr }

// Close implements transport.Listener.
func (l *listener) Close() error {
	l.cancel()
	l.nl.Close()
	l.running.Wait()
	return nil
}

// acceptPause grows while accepting fails, as it does without free file descriptors.
type acceptPause struct{ next time.Duration }

func (p *acceptPause) wait(ctx context.Context) {
	p.next = min(max(5*time.Millisecond, 2*p.next), time.Second)
	select {
	case <-time.After(p.next):
	case <-ctx.Done():
	}
}
