package httpd

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/plugmicro/micro/internal/loglimit"
)

// unixPrefix begins addresses that are paths.
const unixPrefix = "unix:"

// listen listens at an address of the settings; option is its name.
func listen(option, addr string) (net.Listener, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
		network, addr = "unix", path
		removeStale(path)
	}
	l, err := net.Listen(network, addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s %s is taken, perhaps by another gateway: stop that one, or listen elsewhere with --gateway-%s", option, addr, option)
	case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		return nil, fmt.Errorf("%s %s: the system does not allow it: ports below 1024 need a privilege (setcap cap_net_bind_service=+ep on the program), others can be set with --gateway-%s: %w",
			option, addr, option, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w: set it with --gateway-%s", option, err, option)
	}
	return l, nil
}

// removeStale removes a socket that a process left behind that did not end in order.
func removeStale(path string) {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return
	}
	os.Remove(path)
}

// limiter is a listener that has no more than so many connections open. More wait in the backlog of the system, which is
// bounded, and idle ones are closed for them.
type limiter struct {
	net.Listener
	slots   chan struct{}
	metrics *metrics
	log     *slog.Logger
	full    func(bool) // is told when connections wait, and when they no longer do
	warned  loglimit.Limit
	closed  chan struct{}
	once    sync.Once
}

func newLimiter(l net.Listener, most int, m *metrics, log *slog.Logger, full func(bool)) *limiter {
	return &limiter{Listener: l, slots: make(chan struct{}, most), metrics: m, log: log, full: full, closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *limiter) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	select {
	case l.slots <- struct{}{}:
	default:
		if err := l.wait(); err != nil {
			c.Close()
			return nil, err
		}
	}
	l.metrics.connections.Inc()
	return &conn{Conn: c, limiter: l}, nil
}

// wait has one connection wait here, and those that come after it in the backlog.
func (l *limiter) wait() error {
	l.metrics.waited.Inc()
	l.warned.Warn(l.log, "too many connections: new ones wait, and idle ones are closed for them", "max-connections", cap(l.slots))
	l.full(true)
	defer l.full(false)
	select {
	case l.slots <- struct{}{}:
		return nil
	case <-l.closed:
		return net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *limiter) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// conn gives its slot back once.
type conn struct {
	net.Conn
	limiter *limiter
	once    sync.Once
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(func() {
		<-c.limiter.slots
		c.limiter.metrics.connections.Dec()
	})
	return c.Conn.Close()
}

// CloseWrite is what net/http and crypto/tls look for.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
