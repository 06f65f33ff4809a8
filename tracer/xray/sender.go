package xray

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/plugmicro/micro/internal/otelsdk"
)

const (
	// maxDatagram is what goes through UDP: 65,507 bytes at most, over IPv4.
	maxDatagram = 65392
	// minDatagram is how small documents are made where the system takes less.
	minDatagram = 4 << 10

	dialTimeout  = 2 * time.Second
	writeTimeout = time.Second
	redialAfter  = time.Second // of an error
	resolveAfter = time.Minute // a name may have moved, and UDP does not tell
)

// sender sends segment documents to the daemon, one in a datagram. Its methods are for one goroutine at a time.
type sender struct {
	address    string
	named      bool // the address is a name
	config     Config
	translator *translator // made of the first span: it knows the resource
	encoder    *encoder
	limit      int

	conn    net.Conn
	dialed  time.Time // when that was last tried
	dialErr error

	lost    int // of a batch
	lastErr error

	sent, shortened atomic.Uint64
}

var _ sdktrace.SpanExporter = (*sender)(nil)

func newSender(address string, c Config) *sender {
	host, _, _ := net.SplitHostPort(address)
	_, err := netip.ParseAddr(host)
	return &sender{address: address, named: err != nil, config: c, encoder: newEncoder(), limit: maxDatagram}
}

// ExportSpans sends what it can until ctx ends. Its error is an *otelsdk.Lost.
func (s *sender) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	s.lost, s.lastErr = 0, nil
	for i, span := range spans {
		if ctx.Err() != nil {
			s.lose(len(spans)-i, context.Cause(ctx))
			break
		}
		if s.translator == nil {
			s.translator = newTranslator(s.config, span.Resource())
		}
		if err := s.export(ctx, s.translator.document(span)); err != nil {
			s.lose(1, err)
		}
	}
	if s.lost == 0 {
		return nil
	}
	return &otelsdk.Lost{Spans: s.lost, Err: fmt.Errorf("send segments to the X-Ray daemon at %s: %w", s.address, s.lastErr)}
}

// export makes the document smaller as long as the system does not take it.
func (s *sender) export(ctx context.Context, d *document) error {
	data, cut, err := s.encoder.datagram(d, s.limit)
	if err == nil {
		err = s.send(ctx, data)
	}
	for errors.Is(err, syscall.EMSGSIZE) && len(data) > minDatagram {
		s.limit = max(len(data)/2, minDatagram)
		var cutMore bool
		if data, cutMore, err = s.encoder.datagram(d, s.limit); err == nil {
			err = s.send(ctx, data)
		}
		cut = cut || cutMore
	}
	if err != nil {
		return err
	}
	s.sent.Add(1)
	if cut {
		s.shortened.Add(1)
	}
	return nil
}

// send writes a datagram. An error of an earlier one, such as that nobody listens at the port, comes with the next
// write, which then sends nothing: so that is done again.
func (s *sender) send(ctx context.Context, data []byte) error {
	if s.conn != nil && s.named && time.Since(s.dialed) > resolveAfter {
		s.disconnect()
	}
	err := s.write(ctx, data)
	if err == nil || errors.Is(err, syscall.EMSGSIZE) {
		return err
	}
	if errors.Is(err, syscall.ECONNREFUSED) && s.conn != nil {
		s.lose(1, err) // the earlier one
	}
	if time.Since(s.dialed) > redialAfter {
		s.disconnect()
	}
	return s.write(ctx, data)
}

func (s *sender) write(ctx context.Context, data []byte) error {
	if s.conn == nil {
		if time.Since(s.dialed) < redialAfter {
			return s.dialErr
		}
		if err := s.connect(ctx); err != nil {
			return err
		}
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := s.conn.Write(data)
	return err
}

func (s *sender) connect(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	s.conn, err = d.DialContext(ctx, "udp", s.address)
	s.dialed = time.Now()
	s.dialErr = err
	if err != nil {
		s.conn = nil
	}
	return err
}

func (s *sender) disconnect() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

// lose counts n documents that did not reach the daemon.
func (s *sender) lose(n int, err error) {
	s.lost += n
	s.lastErr = err
}

// Shutdown closes the socket.
func (s *sender) Shutdown(context.Context) error {
	s.disconnect()
	return nil
}
