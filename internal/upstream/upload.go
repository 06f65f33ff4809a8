package upstream

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"
)

const (
	// continueWait is how long a server may take to ask for the body that it was told of by "Expect: 100-continue".
	continueWait = time.Second

	// doneWait is how long an upload may take to end after the response has ended: usually it has, and does not know yet.
	doneWait = 50 * time.Millisecond
)

// upload sends a large body while its response may come already.
type upload struct {
	tcp     *net.TCPConn
	body    io.ReadCloser
	length  int64 // -1: in chunks
	trailer http.Header
	ask     chan bool // whether to send it at all; nil: yes
	done    chan struct{}

	mu      sync.Mutex
	readErr error // of the body
	err     error // of the upload; decided when done is closed
}

func (c *conn) startUpload(req *http.Request, m *message) {
	u := &upload{tcp: c.tcp, body: m.body, length: m.length, trailer: req.Trailer, done: make(chan struct{})}
	m.body = nil
	if m.expect {
		u.ask = make(chan bool, 1)
	}
	c.upload = u
	go u.run()
}

func (u *upload) run() {
	defer close(u.done)
	err := u.send()
	u.body.Close()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err = err
	if u.readErr != nil {
		u.tcp.Close() // what the server has must not look like all
	}
}

const chunk = 32 << 10

var buffers = sync.Pool{New: func() any { return new([chunk]byte) }}

var errNotAsked = errors.New("the server did not ask for the body")

func (u *upload) send() error {
	if u.ask != nil && !u.wanted() {
		return errNotAsked
	}
	body := io.Reader(&uploadReader{u})
	if u.length < 0 {
		return u.sendChunks(body)
	}
	buf := buffers.Get().(*[chunk]byte)
	defer buffers.Put(buf)
	n, err := io.CopyBuffer(onlyWriter{u.tcp}, io.LimitReader(body, u.length), buf[:])
	if err != nil {
		return err
	}
	if n < u.length {
		return u.unreadable(errBodyTooShort)
	}
	if err := atEnd(body); err == errBodyTooLong {
		return u.unreadable(err)
	}
	return nil
}

// sendChunks writes each chunk as it comes.
func (u *upload) sendChunks(body io.Reader) error {
	w := bufio.NewWriterSize(u.tcp, chunk+16)
	chunks := httputil.NewChunkedWriter(w)
	buf := buffers.Get().(*[chunk]byte)
	defer buffers.Put(buf)
	for {
		n, err := body.Read(buf[:])
		if n > 0 {
			if _, err := chunks.Write(buf[:n]); err != nil {
				return err
			}
			if err := w.Flush(); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
	}
	if err := chunks.Close(); err != nil {
		return err
	}
	if err := checkHeader(u.trailer); err != nil {
		return u.unreadable(err)
	}
	if err := u.trailer.Write(w); err != nil {
		return err
	}
	w.WriteString("\r\n")
	return w.Flush()
}

// uploadReader reads the body and remembers its error.
type uploadReader struct{ *upload }

func (r *uploadReader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	if err != nil && err != io.EOF {
		r.unreadable(err)
	}
	return n, err
}

func (u *upload) unreadable(err error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.readErr == nil {
		u.readErr = err
	}
	return err
}

// onlyWriter has io.Copy use the buffer it is given.
type onlyWriter struct{ io.Writer }

// wanted waits for the server's word.
func (u *upload) wanted() bool {
	patience := time.NewTimer(continueWait)
	defer patience.Stop()
	select {
	case yes := <-u.ask:
		return yes
	case <-patience.C:
		return true
	}
}

// proceed is the server's word. The first counts.
func (u *upload) proceed(yes bool) {
	if u.ask == nil {
		return
	}
	select {
	case u.ask <- yes:
	default:
	}
}

// failed is why the body could not be read.
func (u *upload) failed() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.readErr
}

// isDone says whether all was sent, so that the connection can be used again.
func (u *upload) isDone() bool {
	select {
	case <-u.done:
		return u.err == nil
	default:
	}
	patience := time.NewTimer(doneWait)
	defer patience.Stop()
	select {
	case <-u.done:
		return u.err == nil
	case <-patience.C:
		return false
	}
}
