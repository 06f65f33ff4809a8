// Package rabbitmq is the transport over RabbitMQ: connections between processes that reach one RabbitMQ, and need not
// reach each other. An address is the name of a queue.
//
//	t, err := rabbitmq.New(env, rabbitmq.Config{Config: amqp.Config{Address: []string{"rabbit:5672"}}})
//
// # On the wire
//
// Each Transport has two AMQP connections, one to publish and one to consume, so that a server which holds back
// publishers (an alarm of its memory) does not hold back what comes in; and one inbox, an exclusive queue named
// micro.inbox. and random letters. Each listener has an exclusive queue named as its address. All is published to the
// default exchange, transient and mandatory: what has no queue comes back, which is how an unknown address and a peer
// that is gone are noticed within milliseconds. A user needs the rights to configure and read queues named micro.*, or as
// the addresses given to listeners, and to write to the exchange amq.default.
//
// A dialer publishes an open to the listener's queue, with its inbox as reply-to and an unguessable connection id as
// correlation id. The listener's process answers to that inbox with an accept, or a reset, and has its own inbox as
// reply-to: all that follows goes from inbox to inbox. The dialer confirms with its next message, an empty one if it has
// nothing to say: only then the listener's Accept returns the connection. The messages of a connection are numbered in each direction from 0:
// one that is missing, doubled or out of order ends the connection. A message holds several frames when several wait
// (frame.go): data and part carry messages of the connection, cut up where they are larger than 64 KiB; fin says that
// nothing more is sent, close that nothing more is received, reset that the connection is over. A side sends what it has
// credit for, its own for each connection, so that a slow reader holds up nobody else and memory is bounded; with credit
// the reader says that it has read. Credit rides in the headers of messages that go anyway, and has one of its own when
// half a window is due. Processes that have connections and are silent are asked for a sign of life (ping, pong): a ping
// to one that died comes back, and one that is frozen is lost after five times the keep-alive. While RabbitMQ takes
// nothing from publishers, the time does not count.
//
// Answers go to the names of inboxes alone: whoever has another reply-to is a stranger.
//
// amqp091 keeps all that the server sends until somebody takes it. Anybody can publish to a listener's queue: there the
// bound is a prefetch, with an acknowledgement for every 64 messages. The name of an inbox is told to peers alone, and
// what they send is bounded by their credit; it is taken by a goroutine that never waits. So it is consumed without
// acknowledgements, which cost a call a twentieth. What is not of the format above, or names no connection, is dropped.
//
// Connections end with an error when RabbitMQ, or the way to it, is lost: what was on its way is lost then. The inbox,
// under a new name, and the listeners' queues, under theirs, are declared again as soon as the server is back.
package rabbitmq

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/plugmicro/micro/internal/amqp"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/transport"
)

// Config is what --transport-* and MICRO_TRANSPORT_* set. Fields that are zero have the defaults.
type Config struct {
	amqp.Config
	MaxMessage plugin.Size   `default:"4MiB" help:"largest message"`
	MaxConns   int           `default:"10000" help:"connections that one listener holds; more are refused"`
	Window     plugin.Size   `default:"256KiB" help:"how much of a connection waits here to be read before the peer stops sending"`
	KeepAlive  time.Duration `default:"3s" help:"how often a silent peer is asked for a sign of life; one that gives none for five times as long is lost"`
}

// Validate implements plugin's check of settings.
func (c Config) Validate() error {
	c = c.withDefaults()
	errs := c.Problems()
	if c.MaxMessage < 1 || c.MaxMessage > math.MaxInt32 {
		errs = append(errs, fmt.Errorf("max-message %s: want 1B to %dB", c.MaxMessage, math.MaxInt32))
	}
	if c.MaxConns < 1 {
		errs = append(errs, fmt.Errorf("max-conns %d: want at least 1", c.MaxConns))
	}
	if c.Window < minWindow || c.Window > math.MaxInt32 {
		errs = append(errs, fmt.Errorf("window %s: want %s to %dB", c.Window, plugin.Size(minWindow), math.MaxInt32))
	}
	if c.KeepAlive <= 0 {
		errs = append(errs, fmt.Errorf("keep-alive %s: want more than 0", c.KeepAlive))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.Config = c.Config.WithDefaults()
	c.MaxMessage = cmp.Or(c.MaxMessage, transport.DefaultMaxMessage)
	c.MaxConns = cmp.Or(c.MaxConns, 10000)
	c.Window = cmp.Or(c.Window, 256<<10)
	c.KeepAlive = cmp.Or(c.KeepAlive, 3*time.Second)
	return c
}

func init() {
	plugin.Register("rabbitmq", New, plugin.Doc("streams over RabbitMQ, for processes that reach only that"))
}

// Transport makes connections over one RabbitMQ. It connects when it is first used.
type Transport struct {
	config Config
	dialer *amqp.Dialer
	log    *slog.Logger
	outage amqp.Outage

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup
	close  sync.Once

	mu        sync.Mutex
	closed    bool                 // or about to be: nothing new begins
	attempt   *attempt             // to connect: the one that is under way, or was last
	listeners map[string]*listener // by address
}

// attempt is one to connect to RabbitMQ.
type attempt struct {
	done chan struct{} // closed when link or err is set
	link *link
	err  error
}

var _ transport.Transport = (*Transport)(nil)

// New checks the settings, and does not connect yet.
func New(env *plugin.Env, c Config) (transport.Transport, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	t := &Transport{config: c.withDefaults(), log: env.Logger(), listeners: map[string]*listener{}}
	var err error
	if t.dialer, err = amqp.NewDialer("transport", c.Config, t.log); err != nil {
		return nil, err
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t, nil
}

func (t *Transport) String() string { return "rabbitmq" }

// Close ends all connections and listeners, after what was sent, and removes the queues.
func (t *Transport) Close() error {
	t.close.Do(t.shutdown)
	return nil
}

func (t *Transport) shutdown() {
	t.mu.Lock()
	t.closed = true
	var listeners []*listener
	for _, l := range t.listeners {
		listeners = append(listeners, l)
	}
	t.mu.Unlock()
	for _, l := range listeners {
		l.Close()
	}
	t.cancel()
	t.work.Wait()
}

// orClosed is err, or that t was closed: whatever failed then, it is the reason.
func (t *Transport) orClosed(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil && t.closed {
		return transport.ErrClosed
	}
	return err
}

// Dial implements transport.Transport.
func (t *Transport) Dial(ctx context.Context, addr string, opts ...transport.DialOption) (transport.Conn, error) {
	if err := checkAddr(addr); err != nil {
		return nil, fmt.Errorf("dial %q: %w", addr, err)
	}
	l, err := t.connected(ctx)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, t.orClosed(err))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.config.Timeout, errTimeout)
	defer cancel()
	limit := int(t.config.MaxMessage)
	if o := transport.NewDialOptions(opts...); o.MaxMessage > 0 {
		limit = min(o.MaxMessage, math.MaxInt32)
	}
	c, err := l.dial(ctx, addr, limit)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, t.orClosed(err))
	}
	return c, nil
}

// errTimeout is why a context ended that has the time of the Timeout setting.
var errTimeout = errors.New("timed out")

// checkAddr says whether addr can be the name of a queue.
func checkAddr(addr string) error {
	switch {
	case addr == "":
		return errors.New("the address is empty")
	case len(addr) > 255:
		return fmt.Errorf("the address has %d bytes, the name of a queue 255 at most", len(addr))
	case strings.HasPrefix(addr, "amq."):
		return errors.New("names of queues that begin with amq. are RabbitMQ's own")
	case !utf8.ValidString(addr):
		return errors.New("the address is not valid UTF-8")
	}
	return nil
}

// randomName is unguessable and unique.
func randomName(prefix string) string { return prefix + strings.ToLower(rand.Text()) }

// connected returns the link to RabbitMQ, which is made, within the timeout, if there is none.
func (t *Transport) connected(ctx context.Context) (*link, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, transport.ErrClosed
	}
	if t.attempt == nil || t.attempt.over() {
		a := &attempt{done: make(chan struct{})}
		t.attempt = a
		t.work.Go(func() { t.connect(a) })
	}
	a := t.attempt
	t.mu.Unlock()
	select {
	case <-a.done:
		return a.link, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("connecting to RabbitMQ: %w", ctx.Err())
	}
}

// over says whether another attempt is needed.
func (a *attempt) over() bool {
	select {
	case <-a.done:
		return a.err != nil || a.link.isLost()
	default:
		return false
	}
}

// connect makes a link, and runs it until it is lost or t is closed.
func (t *Transport) connect(a *attempt) {
	if a.link, a.err = newLink(t); a.err == nil {
		t.outage.Over(t.log, "connected to RabbitMQ again", "address", a.link.in.Addr)
	}
	close(a.done)
	if a.err == nil {
		a.link.run()
	}
}
