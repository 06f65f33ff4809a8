package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/transport"
)

// alpn tells servers of other protocols at once that this is none of theirs.
const alpn = "micro"

// ready is what a listener sends when it has accepted a dialer: in TLS 1.3 the dialer's handshake is over before the
// listener has seen its certificate.
const ready = 0

// dialTLS is nil if TLS is not enabled.
func dialTLS(settings plugin.TLS) (*tls.Config, error) {
	c, err := settings.Client()
	return tuned(c), err
}

// listenTLS is nil if TLS is not enabled.
func listenTLS(settings plugin.TLS, mutual bool) (*tls.Config, error) {
	c, err := settings.Server()
	if err == nil && mutual {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return tuned(c), err
}

func tuned(c *tls.Config) *tls.Config {
	if c != nil {
		c.NextProtos = []string{alpn}
		c.DynamicRecordSizingDisabled = true // frames are of use only when they are whole
	}
	return c
}

// dialHandshake returns nc with TLS on it, ready for use, or closes it. ctx has a deadline.
func (t *Transport) dialHandshake(ctx context.Context, nc net.Conn, addr string) (net.Conn, error) {
	config := t.tls
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName, _, _ = net.SplitHostPort(addr)
	}
	tc := tls.Client(nc, config)
	err := tc.HandshakeContext(ctx)
	if err == nil {
		err = awaitReady(ctx, tc)
	}
	if err != nil {
		nc.Close()
		return nil, t.dialTLSError(ctx, addr, err)
	}
	return tc, nil
}

// awaitReady reads the byte that says that the listener accepted.
func awaitReady(ctx context.Context, tc *tls.Conn) error {
	stop := context.AfterFunc(ctx, func() { tc.SetReadDeadline(past) })
	var b [1]byte
	_, err := io.ReadFull(tc, b[:])
	if !stop() {
		return ctx.Err()
	}
	if err == nil && b[0] != ready {
		err = fmt.Errorf("%w: it speaks TLS, and then sent %q", transport.ErrProtocol, b[:])
	}
	return err
}

// dialTLSError says what to do about a handshake that failed.
func (t *Transport) dialTLSError(ctx context.Context, addr string, err error) error {
	wrap := func(format string, args ...any) error {
		return fmt.Errorf("dial %s: "+format, append([]any{addr}, args...)...)
	}
	var header tls.RecordHeaderError
	var verify *tls.CertificateVerificationError
	var remote *net.OpError
	switch {
	case context.Cause(ctx) == errTimeout:
		return wrap("the TLS handshake did not end within %s: the peer may not speak TLS, or not be a micro service", t.config.Timeout)
	case ctx.Err() != nil:
		return wrap("TLS handshake: %w", ctx.Err())
	case errors.As(err, &header):
		return wrap("%w: TLS was expected, but %s", transport.ErrProtocol, describe(header.RecordHeader[:]))
	case errors.As(err, &verify):
		return wrap("the peer's certificate is refused: %w; trusted are %s", verify.Err, t.trusted())
	case errors.As(err, &remote) && remote.Op == "remote error":
		return wrap("the peer refused the TLS handshake: %w; %s", remote.Err, t.shown())
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return wrap("the peer ended the TLS handshake: %w; it may listen without TLS, or have too many connections", err)
	}
	return wrap("TLS handshake: %w", err)
}

func (t *Transport) trusted() string {
	if ca := t.config.TLS.CA; ca != "" {
		return "the authorities in " + ca + " (--transport-tls-ca)"
	}
	return "the authorities of the system: set --transport-tls-ca for others"
}

func (t *Transport) shown() string {
	if cert := t.config.TLS.Cert; cert != "" {
		return "it was shown the certificate in " + cert + " (--transport-tls-cert)"
	}
	return "it was shown no certificate: set --transport-tls-cert and --transport-tls-key if it wants one"
}

// handshake turns nc into a connection with TLS, or says why it could not be done; nc is closed then.
func (l *listener) handshake(nc net.Conn) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(l.ctx, l.config.Timeout, errTimeout)
	defer cancel()
	tc := tls.Server(nc, l.tls)
	err := tc.HandshakeContext(ctx)
	if err == nil {
		tc.SetWriteDeadline(time.Now().Add(l.config.Timeout))
		_, err = tc.Write([]byte{ready})
		tc.SetWriteDeadline(time.Time{})
	}
	if err == nil {
		return tc, nil
	}
	err = l.handshakeError(ctx, nc, err)
	nc.Close()
	return nil, err
}

func (l *listener) handshakeError(ctx context.Context, nc net.Conn, err error) error {
	from := nc.RemoteAddr()
	var header tls.RecordHeaderError
	switch {
	case context.Cause(ctx) == errTimeout, errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("accept from %s: the TLS handshake did not end within %s", from, l.config.Timeout)
	case errors.As(err, &header):
		answerPlain(nc)
		return fmt.Errorf("accept from %s: %w: TLS was expected, but %s; a micro peer needs --transport-tls-ca or --transport-tls-enable",
			from, transport.ErrProtocol, describe(header.RecordHeader[:]))
	}
	return fmt.Errorf("accept from %s: TLS handshake: %w", from, err)
}

// answerPlain tells a peer that speaks no TLS that it should, with the alert "unexpected message", which Recv of a micro
// peer recognises. What the peer sent is read, or the kernel would take the answer back.
func answerPlain(nc net.Conn) {
	nc.SetDeadline(time.Now().Add(time.Second))
	if _, err := nc.Write([]byte{0x15, 3, 1, 0, 2, 2, 10}); err != nil {
		return
	}
	if tcp, ok := nc.(*net.TCPConn); ok {
		tcp.CloseWrite()
	}
	io.CopyN(io.Discard, nc, 64<<10)
}
