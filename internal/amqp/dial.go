package amqp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// Dialer connects to the servers of one Config. It is safe for concurrent use.
type Dialer struct {
	kind    string // of the plugin: broker, transport
	config  Config
	servers []server
	tls     *tls.Config
	log     *slog.Logger

	mu   sync.Mutex
	next int // the server to try first: the one that worked last
}

// NewDialer checks c, and does not connect yet. kind is that of the plugin, for texts: "broker".
func NewDialer(kind string, c Config, log *slog.Logger) (*Dialer, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	d := &Dialer{kind: kind, config: c.WithDefaults(), log: log}
	d.servers, _ = d.config.servers()
	var err error
	if d.tls, err = c.TLS.Client(); err != nil {
		return nil, err
	}
	if d.tls == nil {
		d.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return d, nil
}

// Config is the settings, defaults filled in.
func (d *Dialer) Config() Config { return d.config }

// Dial tries each server once, the one that worked last first, within ctx and the timeout. purpose goes into the name of
// the connection, which the server shows to who manages it. The error names the addresses, the reasons and the options to
// look at.
func (d *Dialer) Dial(ctx context.Context, purpose string) (*Conn, error) {
	end := time.Now().Add(d.config.Timeout)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(end) {
		end = deadline
	}
	d.mu.Lock()
	first := d.next
	d.mu.Unlock()
	var errs []error
	for i := range d.servers {
		n := (first + i) % len(d.servers)
		left := time.Until(end) / time.Duration(len(d.servers)-i) // one that is silent leaves time for the others
		c, err := d.dial(ctx, &d.servers[n], time.Now().Add(left), purpose)
		if err == nil {
			d.mu.Lock()
			d.next = n
			d.mu.Unlock()
			return c, nil
		}
		errs = append(errs, fmt.Errorf("connect to %s: %w", d.servers[n].addr, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (d *Dialer) dial(ctx context.Context, s *server, deadline time.Time, purpose string) (*Conn, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, d.explain(ctx, s, "", err)
	}
	// ctx bounds nothing inside amqp091: closing the socket does. The deadline would not do alone, as its heartbeats
	// set another one.
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	var rw net.Conn = nc
	if s.tls {
		if rw, err = d.handshake(ctx, nc, s); err != nil {
			stop()
			nc.Close()
			return nil, d.explain(ctx, s, "TLS: ", err)
		}
	}
	c, err := amqp091.Open(rw, d.amqpConfig(s, purpose))
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		stop()
		nc.Close()
		return nil, d.explain(ctx, s, "", err)
	}
	return newConn(c, nc, s.addr), nil
}

func (d *Dialer) handshake(ctx context.Context, nc net.Conn, s *server) (net.Conn, error) {
	config := d.tls.Clone()
	if config.ServerName == "" {
		config.ServerName = s.host
	}
	tc := tls.Client(nc, config)
	return tc, tc.HandshakeContext(ctx)
}

func (d *Dialer) amqpConfig(s *server, purpose string) amqp091.Config {
	properties := amqp091.NewConnectionProperties()
	host, _ := os.Hostname()
	properties.SetClientConnectionName(fmt.Sprintf("micro %s %s: %s[%d]@%s", d.kind, purpose, filepath.Base(os.Args[0]), os.Getpid(), host))
	return amqp091.Config{
		SASL:       []amqp091.Authentication{&login{server: s, properties: properties}},
		Vhost:      s.vhost,
		Heartbeat:  d.config.Heartbeat,
		FrameSize:  frameSize,
		Locale:     "en_US",
		Properties: properties,
	}
}

// frameSize is RabbitMQ's own default.
const frameSize = 128 << 10

// login is the mechanism PLAIN.
type login struct {
	server     *server
	properties amqp091.Table
}

func (*login) Mechanism() string { return "PLAIN" }

// Response also adds to the capabilities of the client, which amqp091 fixes before it asks for this, that it wants to be
// told why a login fails. Otherwise the server only closes the connection, after three seconds, and a wrong password
// cannot be told from a server that went away.
func (l *login) Response() string {
	if capabilities, ok := l.properties["capabilities"].(amqp091.Table); ok {
		capabilities["authentication_failure_close"] = true
	}
	return "\x00" + l.server.user + "\x00" + l.server.password.Reveal()
}

// explain says what happened and what to do. It never shows what amqp091 says of a handshake that broke off: that is a
// guess.
func (d *Dialer) explain(ctx context.Context, s *server, during string, err error) error {
	var refused *amqp091.Error
	switch {
	case errors.As(err, &refused) && refused.Server && refused.Code == amqp091.AccessRefused:
		return fmt.Errorf("user %q or the password is wrong, or the user may not log in from here: check --%s-user and --%[2]s-password, or the URL in --%[2]s-address (%w)", s.user, d.kind, err)
	case errors.As(err, &refused) && refused.Server && refused.Code == amqp091.NotAllowed:
		return fmt.Errorf("virtual host %q is not there, or user %q has no rights in it: check --%s-vhost, or the URL in --%[3]s-address (%w)", s.vhost, s.user, d.kind, err)
	case errors.As(err, &refused) && refused.Server:
		return err
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%sno answer in time: %w", during, context.DeadlineExceeded)
	case during != "":
		return explainTLS(d.kind, during, err)
	case errors.Is(err, amqp091.ErrSASL):
		return errors.New("the server takes no login with user and password (SASL PLAIN)")
	case errors.As(err, &refused):
		return fmt.Errorf("the server ended the connection during the handshake: is it RabbitMQ, and without TLS, that listens there? Check --%s-address and --%[1]s-tls-enable", d.kind)
	}
	return fmt.Errorf("%w: is RabbitMQ up, and is --%s-address right?", unreached(err), d.kind)
}

// unreached leaves out of err what is told already: the address, and that it is about connecting.
func unreached(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return err
}

func explainTLS(kind, during string, err error) error {
	var unknown x509.UnknownAuthorityError
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%s%w: set --%s-tls-ca to the certificates of the server's authorities", during, err, kind)
	case errors.As(err, &header), errors.Is(err, io.EOF):
		return fmt.Errorf("%s%w: does the server take TLS at that port? Check --%s-address and --%[3]s-tls-enable", during, err, kind)
	}
	return fmt.Errorf("%s%w", during, err)
}
