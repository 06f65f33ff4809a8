package httpd

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/tracing/httptrace"
)

// exchange is one request and its answer: the ResponseWriter that the chain gets, and what is to be known at the end. It is
// one allocation, and never reused, since a handler may leave a goroutine behind that has it.
type exchange struct {
	http.ResponseWriter
	info      gateway.Info
	in        body
	span      *httptrace.Span // nil: it is not traced
	id        [1]string       // backs the header X-Request-Id
	silent    time.Duration
	hijackers *tracker
	extended  time.Time // when the limit for writing was last set
	written   int64
	status    int // 0: no head was written
	hijacked  bool
	h2        bool
	last      bool // the connection ends with the answer
	failed    bool // writing did
}

var (
	_ http.Flusher  = (*exchange)(nil)
	_ http.Hijacker = (*exchange)(nil)
)

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader implements http.ResponseWriter. Of several the first counts that is final.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		x.status = status
		x.endIfLast()
	}
	x.ResponseWriter.WriteHeader(status)
}

// endIfLast comes right before the final head, because handlers may have changed the header in any way: ReverseProxy clears it
// with every answer of 1xx.
func (x *exchange) endIfLast() {
	if x.last && x.status != http.StatusSwitchingProtocols {
		x.Header().Set("Connection", "close")
	}
}

// Write implements http.ResponseWriter.
func (x *exchange) Write(p []byte) (int, error) {
	x.begin()
	n, err := x.ResponseWriter.Write(p)
	x.end(err)
	x.written += int64(n)
	return n, err
}

// WriteString implements io.StringWriter.
func (x *exchange) WriteString(s string) (int, error) {
	x.begin()
	n, err := io.WriteString(x.ResponseWriter, s)
	x.end(err)
	x.written += int64(n)
	return n, err
}

// Flush implements http.Flusher.
func (x *exchange) Flush() { _ = x.FlushError() }

// FlushError is what http.ResponseController asks for before Flush.
func (x *exchange) FlushError() error {
	x.begin()
	err := http.NewResponseController(x.ResponseWriter).Flush()
	x.end(err)
	return err
}

// Hijack implements http.Hijacker.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err == nil {
		x.hijacked = true
		x.hijackers.add()
		x.status = http.StatusSwitchingProtocols
	}
	return c, rw, err
}

// begin comes before something is written.
func (x *exchange) begin() {
	if x.status == 0 {
		x.status = http.StatusOK
		x.endIfLast()
	}
	x.extend()
}

// extend gives the client another SilentTimeout to take something of the answer. The server gives the first one when the
// head of the request is read: most answers need no other. With HTTP/2 there is a limit only while something is written,
// because it would end the stream also when there is nothing to write.
func (x *exchange) extend() {
	now := time.Now()
	if !x.h2 && now.Sub(x.extended) < x.silent/2 {
		return
	}
	x.extended = now
	_ = http.NewResponseController(x.ResponseWriter).SetWriteDeadline(now.Add(x.silent))
}

// leave leaves the rest to the server: the head, if nothing was written, and what it has not sent yet.
func (x *exchange) leave(gone bool) {
	if x.status == 0 {
		x.endIfLast()
	}
	if !gone {
		x.extend()
	}
}

// end comes after it. Some errors are the handler's own, and say nothing of the client.
func (x *exchange) end(err error) {
	if err != nil && !errors.Is(err, http.ErrBodyNotAllowed) && !errors.Is(err, http.ErrContentLength) && !errors.Is(err, errors.ErrUnsupported) {
		x.failed = true
	}
	if x.h2 {
		_ = http.NewResponseController(x.ResponseWriter).SetWriteDeadline(time.Time{})
	}
}

// body is the body of a request. It counts, and gives the client another SilentTimeout whenever something came.
type body struct {
	io.ReadCloser
	writer   http.ResponseWriter
	silent   time.Duration
	extended time.Time // when the limit for reading was last set; zero: not by this
	chunked  bool
	h2       bool
	read     atomic.Int64 // whoever sends the body on may still be at it when the request is over
	cut      atomic.Bool  // the client went in the middle of it
	late     atomic.Bool  // reading it ended because of the time: net/http ends the request's context, too
}

func (b *body) Read(p []byte) (int, error) {
	b.extend()
	n, err := b.ReadCloser.Read(p)
	if b.h2 {
		_ = http.NewResponseController(b.writer).SetReadDeadline(time.Time{})
	}
	b.read.Add(int64(n))
	if err != nil && err != io.EOF {
		err = b.explain(err)
	}
	return n, err
}

// extend gives the client another SilentTimeout to send something. With HTTP/2 there is a limit only while something is
// read: it would end the body also when nobody wants more of it yet.
func (b *body) extend() {
	now := time.Now()
	if !b.h2 && now.Sub(b.extended) < b.silent/2 {
		return
	}
	b.extended = now
	_ = http.NewResponseController(b.writer).SetReadDeadline(now.Add(b.silent))
}

// explain makes a Problem of what went wrong, where the client is to be told.
func (b *body) explain(err error) error {
	var network net.Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return errors.Join(tooLargeProblem(tooLarge.Limit), err)
	case errors.As(err, &network) && network.Timeout():
		b.late.Store(true)
		return errors.Join(gateway.NewProblem(http.StatusRequestTimeout, "nothing of the body came for %s", b.silent), err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		b.cut.Store(true)
		return errors.Join(gateway.NewProblem(gateway.ClientClosed, "the client went while it sent the body"), err)
	case b.chunked && network == nil && !errors.Is(err, http.ErrBodyReadAfterClose):
		return errors.Join(gateway.NewProblem(http.StatusBadRequest, "the chunks of the body are malformed: %v", err), err)
	}
	return err
}

func tooLargeProblem(limit int64) *gateway.Problem {
	return gateway.NewProblem(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes, which is the limit", limit)
}
