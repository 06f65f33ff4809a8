package router

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/plugmicro/micro/gateway"
)

// requestBody is a body on its way from the client to the upstream.
type requestBody struct {
	x   *exchange
	src io.ReadCloser

	reading, interrupting sync.Mutex // held while one does that

	mu          sync.Mutex
	read, whole bool
	err         error // of the client
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.x.isOver() {
		return 0, http.ErrBodyReadAfterClose
	}
	b.mu.Lock()
	b.read = true
	b.mu.Unlock()
	b.x.wait(errReading, b.x.route.idle, false)
	n, err := b.src.Read(p)
	b.x.wait(errSilent, b.x.route.timeout, false)
	if err == io.EOF {
		b.x.receiveTrailer()
		b.ended()
	}
	if b.x.copied != nil {
		b.x.copied.add(p[:n], err)
	}
	if err != nil && err != io.EOF {
		b.mu.Lock()
		b.err = &clientError{err}
		b.mu.Unlock()
	}
	return n, err
}

// interrupt ends what reads, and waits for that: net/http bears no Read after the handler has returned.
func (b *requestBody) interrupt() {
	b.interrupting.Lock()
	defer b.interrupting.Unlock()
	connection := http.NewResponseController(b.x.w.ResponseWriter)
	for !b.reading.TryLock() {
		if connection.SetReadDeadline(time.Unix(1, 0)) != nil {
			return // it is no connection, or gone
		}
		time.Sleep(time.Millisecond) // again and again: something between may set its own
	}
	b.reading.Unlock()
}

// ended says that all has come.
func (b *requestBody) ended() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.whole = true
}

func (b *requestBody) wasWhole() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.whole
}

// Close leaves the client's body to its server: another attempt may need it.
func (b *requestBody) Close() error { return nil }

// wasRead and failure are asked of requests without such a body, too.
func (b *requestBody) wasRead() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read
}

// failure is what went wrong on the client's side.
func (b *requestBody) failure() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// limitBody bounds a body that is not passed on, but read by who makes a call of it.
func limitBody(w http.ResponseWriter, r *http.Request, rt *route) error {
	if rt.maxBody == 0 || r.Body == nil {
		return nil
	}
	problem := tooLarge.problem(rt)
	if r.ContentLength > rt.maxBody {
		gateway.EndAfterAnswer(w)
		return problem
	}
	r.Body = &limitedBody{http.MaxBytesReader(w, r.Body, rt.maxBody), problem}
	return nil
}

// limitedBody says by a Problem that the body is too large, as the gateway's own does.
type limitedBody struct {
	io.ReadCloser
	problem *gateway.Problem
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.As(err, new(*http.MaxBytesError)) && !errors.As(err, new(*gateway.Problem)) {
		err = errors.Join(b.problem, err)
	}
	return n, err
}

// clientError is an error of reading what the client sends.
type clientError struct{ error }

func (e *clientError) Unwrap() error { return e.error }

var errMethod = errors.New("the method is no token")

var errClientGone = &clientError{errors.New("the client is gone")}

// responseBody is a body on its way from the upstream to the client. One goroutine reads and closes it.
type responseBody struct {
	src   io.ReadCloser
	x     *exchange
	res   *http.Response
	ended bool
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.src.Read(p)
	switch {
	case err == nil:
		b.x.wait(errStalled, b.x.route.idle, true)
	case !b.ended:
		b.ended = true
		b.x.dropTrailer(b.res)
		if err != io.EOF {
			b.x.cut(err)
		}
	}
	return n, err
}

// Close before the end comes of a client to which nothing can be written any more.
func (b *responseBody) Close() error {
	if !b.ended {
		b.ended = true
		b.x.cut(errClientGone)
	}
	return b.src.Close()
}

// tunnelBody is a connection that speaks another protocol now, which has no idle time as long as something moves.
type tunnelBody struct {
	io.ReadWriteCloser
	x *exchange
}

func (t *tunnelBody) Read(p []byte) (int, error) {
	n, err := t.ReadWriteCloser.Read(p)
	t.moved(err)
	return n, err
}

func (t *tunnelBody) Write(p []byte) (int, error) {
	n, err := t.ReadWriteCloser.Write(p)
	t.moved(err)
	return n, err
}

func (t *tunnelBody) moved(err error) {
	if err == nil {
		t.x.wait(errStalled, t.x.route.idle, true)
	}
}

// CloseWrite ends one direction, if the connection can.
func (t *tunnelBody) CloseWrite() error {
	if c, ok := t.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}
