package clientip

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/pires/go-proxyproto"
)

// headerTimeout is how long a PROXY header may take: it is to come at once.
const headerTimeout = 5 * time.Second

// Listener has RemoteAddr of l's connections say what a trusted proxy says in a PROXY header, if settings have it so. Trusted
// peers must send one; one of another peer is an error of the first Read. What says LOCAL, a proxy that speaks for itself,
// comes from the proxy; for UNKNOWN, and for what did not come by TCP, there is no client.
//
// The header is read by the first Read, Write, RemoteAddr or LocalAddr: a loop around Accept must call none of them, as
// net/http's does not. TLS comes above it.
func (c *Resolver) Listener(l net.Listener) net.Listener {
	if !c.proxyProtocol {
		return l
	}
	return &listener{
		Listener: &proxyproto.Listener{Listener: l, ConnPolicy: c.policy, ValidateHeader: forgetUnknown, ReadHeaderTimeout: headerTimeout},
		resolver: c,
	}
}

func (c *Resolver) policy(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
	trusted := false
	switch peer := o.Upstream.(type) {
	case *net.TCPAddr:
		trusted = c.trusted.Contains(Normal(peer.AddrPort().Addr()))
	case *net.UnixAddr:
		trusted = c.unix
	}
	if trusted {
		return proxyproto.REQUIRE, nil
	}
	return proxyproto.REJECT, nil
}

// forgetUnknown puts no address where the header knows none. The connection's own would be the proxy's, which may be
// allowed what nobody else is; and the name of a Unix socket may look like an address.
func forgetUnknown(h *proxyproto.Header) error {
	if h.Version == 2 && h.Command.IsLocal() {
		return nil
	}
	if _, ok := h.SourceAddr.(*net.TCPAddr); !ok {
		h.Command = proxyproto.PROXY
		h.SourceAddr, h.DestinationAddr = unknown{}, unknown{}
	}
	return nil
}

// unknown is an address that is none.
type unknown struct{}

func (unknown) Network() string { return "unknown" }
func (unknown) String() string  { return "unknown" }

type listener struct {
	net.Listener
	resolver *Resolver
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{accepted.(*proxyproto.Conn), l.resolver}, nil
}

// conn tells the log why it is refused.
type conn struct {
	*proxyproto.Conn
	resolver *Resolver
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.resolver.logRefused(c.Conn, err)
	}
	return n, err
}

// CloseWrite is what net/http looks for, so that the client reads the answer before the end.
func (c *conn) CloseWrite() error {
	if half, ok := c.Raw().(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *Resolver) logRefused(p *proxyproto.Conn, err error) {
	var network net.Error
	if errors.Is(err, io.EOF) || errors.As(err, &network) {
		return
	}
	log := c.Log
	if log == nil {
		log = slog.Default()
	}
	c.refused.Warn(log, "connection refused: wrong PROXY protocol header", "peer", p.Raw().RemoteAddr().String(), "error", err)
}
