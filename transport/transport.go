// Package transport is the contract of connections: opaque messages, in order, both ways, with backpressure.
//
// Calls and streams are one protocol above it (docs/wire.md), the same over every transport. A plugin implements
// Transport and registers itself:
//
//	func init() { plugin.Register("tcp", New, plugin.Doc("TCP, with TLS")) }
//	func New(env *plugin.Env, c Config) (transport.Transport, error) { … }
package transport

import (
	"context"
	"errors"

	"github.com/plugmicro/micro/plugin"
)

// Plugins is the kind: --transport, MICRO_TRANSPORT.
var Plugins = plugin.NewKind[Transport]("transport",
	plugin.KindDoc("carries calls and streams"), plugin.Known("memory", "rabbitmq", "tcp"))

// Transport makes connections. All methods are safe for concurrent use. One that holds resources of its own (a
// connection that its Conns share) also implements io.Closer.
type Transport interface {
	// Dial connects to addr, as a Listener's Addr gives it. ctx bounds the dialling, not the connection. An
	// address where nobody listens fails fast, with ErrUnreachable.
	Dial(ctx context.Context, addr string, opts ...DialOption) (Conn, error)

	// Listen takes connections at addr; the empty address means: choose one. ctx bounds the listening call only.
	Listen(ctx context.Context, addr string, opts ...ListenOption) (Listener, error)

	// String is the name under which the plugin is registered.
	String() string
}

// Listener takes connections.
type Listener interface {
	// Accept waits for the next connection, which is ready for use: handshakes are done, and a peer that is slow
	// with its own holds up nobody else. ErrClosed after Close; any other error is about one connection.
	Accept(ctx context.Context) (Conn, error)
	// Addr is what a peer dials. For a listener on all interfaces the host is one that others on the network reach.
	Addr() string
	// Close stops listening; connections that were accepted live on.
	Close() error
}

// Conn is one connection. One goroutine may Send while another one Recvs; Send is safe for concurrent use, Recv
// is not. Close may be called at any time by anyone.
type Conn interface {
	// Send queues msg after those sent before, whole or not at all, and waits while the peer does not keep up. msg
	// may be reused when it returns. ErrTooLarge leaves the connection usable, and so does a ctx that ended.
	Send(ctx context.Context, msg []byte) error

	// Recv returns the next message, which stays valid until the next call of Recv. io.EOF after the peer's
	// CloseSend or Close, once all that it sent was received; ErrClosed after Close here; any other error means
	// that the connection was lost. A ctx that ended leaves the connection usable.
	Recv(ctx context.Context) ([]byte, error)

	// CloseSend tells the peer that no message follows, after those sent, and does not wait for it; Recv goes on,
	// Send answers ErrClosed.
	CloseSend() error

	// Close flushes what was sent, for a moment at most, and ends the connection in both directions.
	Close() error

	// MaxMessage is the size in bytes of the largest message that Send takes.
	MaxMessage() int

	LocalAddr() string
	RemoteAddr() string
}

// Errors that every transport answers, to be matched with errors.Is.
var (
	ErrClosed      = errors.New("connection closed")
	ErrTooLarge    = errors.New("message too large") // wrapped with the size and the limit, in bytes
	ErrUnreachable = errors.New("nobody listens")    // wrapped with the address
	ErrProtocol    = errors.New("not a micro peer")  // the peer speaks something else; wrapped with what was seen
	ErrAddrInUse   = errors.New("address in use")    // wrapped with the address
)

// DefaultMaxMessage is the limit, in bytes, of one message where no setting changes it.
const DefaultMaxMessage = 4 << 20

// DialOptions is what the options of one Dial call add up to.
type DialOptions struct {
	MaxMessage int // bytes; 0: the transport's own setting
}

// DialOption changes one Dial.
type DialOption func(*DialOptions)

// DialMaxMessage sets the limit, in bytes, of one message on the connection.
func DialMaxMessage(n int) DialOption { return func(o *DialOptions) { o.MaxMessage = n } }

// NewDialOptions is for implementations: it adds up opts.
func NewDialOptions(opts ...DialOption) (o DialOptions) {
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// ListenOptions is what the options of one Listen call add up to.
type ListenOptions struct {
	MaxMessage int  // bytes; 0: the transport's own setting
	Local      bool // the empty address means one that only this machine reaches
}

// ListenOption changes one Listen.
type ListenOption func(*ListenOptions)

// ListenMaxMessage sets the limit, in bytes, of one message on the connections that the listener accepts.
func ListenMaxMessage(n int) ListenOption { return func(o *ListenOptions) { o.MaxMessage = n } }

// ListenLocal keeps a listener to this machine, where its address is left to the transport.
func ListenLocal() ListenOption { return func(o *ListenOptions) { o.Local = true } }

// NewListenOptions is for implementations: it adds up opts.
func NewListenOptions(opts ...ListenOption) (o ListenOptions) {
	for _, opt := range opts {
		opt(&o)
	}
	return o
}
