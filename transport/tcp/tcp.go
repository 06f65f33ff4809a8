// Package tcp is the default transport: length-prefixed messages over TCP, with TLS and mutual TLS by settings.
//
//	t, err := tcp.New(env, tcp.Config{})
//
// On the wire a message is its length, four bytes, big endian, and its bytes. The length 0xffffffff says that no
// message follows; a connection that ends without it was lost.
// With TLS the listener sends one byte, zero, before all else: it has accepted the certificate of the dialer, so that a
// refusal is an error of Dial.
//
// Listening at the empty address, or at one without a host, takes connections on all interfaces: whoever reaches the
// machine reaches the service, and without TLS reads and writes all that it says. Give 127.0.0.1:0, or
// transport.ListenLocal, to keep to the machine, or settings of TLS with TLSMutual to take known peers only.
package tcp

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/transport"
)

// Config is what --transport-* and MICRO_TRANSPORT_* set. Fields that are zero have the defaults.
type Config struct {
	TLS        plugin.TLS
	TLSMutual  bool          `help:"listeners take only peers with a certificate of the authorities in tls-ca"`
	MaxMessage plugin.Size   `default:"4MiB" help:"largest message, the same on both sides"`
	MaxConns   int           `default:"10000" help:"connections that one listener holds; more are closed at once"`
	Timeout    time.Duration `default:"10s" help:"limit for dialling, for a TLS handshake, and for a message once it has begun to arrive"`
	KeepAlive  time.Duration `default:"15s" help:"how often a silent peer is probed; one that takes nothing for four times as long is lost; negative: never"`
}

// Validate implements plugin's check of settings.
func (c Config) Validate() error {
	switch {
	case c.TLSMutual && c.TLS.CA == "":
		return errors.New("tls-mutual needs tls-ca, the authorities of the peers' certificates")
	case c.MaxMessage < 0 || c.MaxMessage > maxFrame:
		return fmt.Errorf("max-message %s: want 1B to %dB", c.MaxMessage, maxFrame)
	case c.MaxConns < 0:
		return fmt.Errorf("max-conns %d: want at least 1", c.MaxConns)
	case c.Timeout < 0:
		return fmt.Errorf("timeout %s: want more than 0", c.Timeout)
	}
	return nil
}

func (c Config) withDefaults() Config {
	c.MaxMessage = cmp.Or(c.MaxMessage, transport.DefaultMaxMessage)
	c.MaxConns = cmp.Or(c.MaxConns, 10000)
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.KeepAlive = cmp.Or(c.KeepAlive, 15*time.Second)
	return c
}

func init() { plugin.Register("tcp", New, plugin.Doc("TCP, with TLS and mutual TLS")) }

// Transport makes TCP connections.
type Transport struct {
	config Config
	tls    *tls.Config // for dialling; nil: no TLS
	log    *slog.Logger
}

var _ transport.Transport = (*Transport)(nil)

// New makes the transport. Certificates that cannot be used are an error.
func New(env *plugin.Env, c Config) (transport.Transport, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	t := &Transport{config: c.withDefaults(), log: env.Logger()}
	var err error
	t.tls, err = dialTLS(c.TLS)
	return t, err
}

func (t *Transport) String() string { return "tcp" }

// Dial implements transport.Transport.
func (t *Transport) Dial(ctx context.Context, addr string, opts ...transport.DialOption) (transport.Conn, error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, fmt.Errorf("dial %q: want HOST:PORT: %w", addr, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.config.Timeout, errTimeout)
	defer cancel()
	d := net.Dialer{KeepAliveConfig: t.keepAlive(), Control: t.control}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, dialError(ctx, addr, err)
	}
	if t.tls != nil {
		if nc, err = t.dialHandshake(ctx, nc, addr); err != nil {
			return nil, err
		}
	}
	limit := int(t.config.MaxMessage)
	if o := transport.NewDialOptions(opts...); o.MaxMessage > 0 {
		limit = min(o.MaxMessage, maxFrame)
	}
	return newConn(nc, limit, t.config.Timeout, nil), nil
}

// errTimeout is why a context ended that has the time of the Timeout setting.
var errTimeout = errors.New("timed out")

// missed is the limit of probes that stay without an answer.
const missed = 4

func (t *Transport) keepAlive() net.KeepAliveConfig {
	every := t.config.KeepAlive
	return net.KeepAliveConfig{Enable: every > 0, Idle: every, Interval: every, Count: missed}
}

// control sets up a socket before it is used.
func (t *Transport) control(_, _ string, raw syscall.RawConn) error {
	if t.config.KeepAlive < 0 {
		return nil
	}
	return setUserTimeout(raw, missed*t.config.KeepAlive)
}

// dialError tells an address where nobody listens from other failures.
func dialError(ctx context.Context, addr string, err error) error {
	if cause := context.Cause(ctx); cause == errTimeout {
		return fmt.Errorf("dial %s: %w: no answer in time", addr, transport.ErrUnreachable)
	} else if cause != nil {
		return fmt.Errorf("dial %s: %w", addr, ctx.Err())
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && !dns.IsNotFound {
		return fmt.Errorf("dial %s: %w", addr, dns)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Errorf("dial %s: %w: %w", addr, transport.ErrUnreachable, err)
}

// listenError says what to do about an address that is taken.
func listenError(addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen at %s: %w: another process has it; stop that one, or choose another port (0 takes a free one)", addr, transport.ErrAddrInUse)
	}
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("listen at %s: %w: ports below 1024 need privileges", addr, err)
	}
	return fmt.Errorf("listen at %s: %w", addr, err)
}
