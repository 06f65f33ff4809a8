// Package memory connects services of one process: nothing is encoded, nothing leaves the process.
//
//	t, err := memory.New(env, memory.Config{})
//
// All that New makes share one address space. Tests that want their own take NewPrivate.
package memory

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/transport"
)

// Config is what --transport-* and MICRO_TRANSPORT_* set.
type Config struct {
	MaxMessage plugin.Size `default:"4MiB" help:"largest message"`
}

func init() { plugin.Register("memory", New, plugin.Doc("one process, for tests and single binaries")) }

// process is the address space that all of New share.
var process = newSpace()

// New makes a transport that reaches every other one that New made in this process.
func New(_ *plugin.Env, c Config) (transport.Transport, error) {
	return newTransport(process, c)
}

// NewPrivate makes a transport with an address space of its own.
func NewPrivate(c Config) (transport.Transport, error) {
	return newTransport(newSpace(), c)
}

func newTransport(s *space, c Config) (transport.Transport, error) {
	if c.MaxMessage == 0 {
		c.MaxMessage = transport.DefaultMaxMessage
	}
	if c.MaxMessage < 0 {
		return nil, fmt.Errorf("max-message %s: want at least 1 byte", c.MaxMessage)
	}
	return &Transport{space: s, limit: int(c.MaxMessage)}, nil
}

// Transport makes connections within the process.
type Transport struct {
	space *space
	limit int // bytes of one message
}

var _ transport.Transport = (*Transport)(nil)

func (t *Transport) String() string { return "memory" }

// Dial implements transport.Transport.
func (t *Transport) Dial(ctx context.Context, addr string, opts ...transport.DialOption) (transport.Conn, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, ctx.Err())
	}
	l := t.space.find(addr)
	if l == nil {
		return nil, fmt.Errorf("dial %s: %w", addr, transport.ErrUnreachable)
	}
	limit := t.limit
	if o := transport.NewDialOptions(opts...); o.MaxMessage > 0 {
		limit = o.MaxMessage
	}
	near, far := newPair(t.space.dialer(), addr, limit, l.limit)
	if err := l.offer(ctx, far); err != nil {
		return nil, err
	}
	return near, nil
}

// Listen implements transport.Transport. An address may be any string; an empty one and the port 0 mean: choose.
func (t *Transport) Listen(ctx context.Context, addr string, opts ...transport.ListenOption) (transport.Listener, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("listen at %s: %w", addr, ctx.Err())
	}
	limit := t.limit
	if o := transport.NewListenOptions(opts...); o.MaxMessage > 0 {
		limit = o.MaxMessage
	}
	return t.space.listen(addr, limit)
}

// space is where addresses live.
type space struct {
	mu        sync.Mutex
	listeners map[string]*listener
	last      int // number that was given out to an address
}

func newSpace() *space { return &space{listeners: make(map[string]*listener)} }

func (s *space) find(addr string) *listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listeners[addr]
}

// dialer names the near end of a dialled connection.
func (s *space) dialer() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	return "memory-dialer:" + strconv.Itoa(s.last)
}

func (s *space) listen(addr string, limit int) (*listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if addr == "" {
		addr = "memory:0"
	}
	if host, ok := strings.CutSuffix(addr, ":0"); ok {
		addr = s.free(host)
	}
	if s.listeners[addr] != nil {
		return nil, fmt.Errorf("listen at %s: %w: choose another address, or none", addr, transport.ErrAddrInUse)
	}
	l := &listener{space: s, addr: addr, limit: limit, backlog: make(chan *conn, 128), closed: make(chan struct{})}
	s.listeners[addr] = l
	return l, nil
}

// free returns an address at host that nobody has. s.mu is held.
func (s *space) free(host string) string {
	for {
		s.last++
		addr := host + ":" + strconv.Itoa(s.last)
		if s.listeners[addr] == nil {
			return addr
		}
	}
}

func (s *space) remove(l *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listeners[l.addr] == l {
		delete(s.listeners, l.addr)
	}
}
