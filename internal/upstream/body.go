package upstream

import (
	"io"
	"net/http"
	"sync"
)

// body is that of a response. At its end the connection goes back to the pool. Close may be called while another
// goroutine reads, which ends that.
type body struct {
	conn *conn
	src  io.ReadCloser // net/http's
	keep bool          // the connection can be kept
	left int64         // bytes; below 0: unknown

	mu      sync.Mutex
	reading bool
	closed  bool
	err     error // what Read returns from now on; the connection is no longer the body's
}

func (b *body) Read(p []byte) (int, error) {
	if err := b.begin(); err != nil {
		return 0, err
	}
	n, err := b.src.Read(p)
	b.left -= int64(n)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = false
	switch {
	case b.closed:
		b.finish(false, http.ErrBodyReadAfterClose)
	case err == io.EOF:
		b.finish(b.keep, io.EOF)
	case err != nil:
		e := &Error{Phase: Body, Addr: b.conn.host.addr, Sent: true, Err: err}
		b.conn.blame(e)
		b.finish(false, e)
	}
	return n, b.err
}

func (b *body) begin() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return http.ErrBodyReadAfterClose
	}
	b.reading = b.err == nil
	return b.err
}

// Close gives the connection up, unless what is left of the body is here already.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return nil
	case b.reading:
		b.conn.tcp.Close() // Read will see to the rest
	case b.err == nil:
		keep := b.keep && b.left >= 0 && b.left <= int64(b.conn.br.Buffered())
		if keep {
			_, err := io.Copy(io.Discard, b.src)
			keep = err == nil
		}
		b.finish(keep, http.ErrBodyReadAfterClose)
	}
	b.closed = true
	return nil
}

func (b *body) finish(keep bool, err error) {
	b.err = err
	b.conn.end(keep)
}

// tunnel is the body of a 101: the connection as it is.
type tunnel struct {
	conn *conn
	once sync.Once
}

var _ io.ReaderFrom = (*tunnel)(nil)

func newTunnel(c *conn) *tunnel {
	if c.stop != nil {
		c.stop() // it ends when it is closed
	}
	return &tunnel{conn: c}
}

func (t *tunnel) Read(p []byte) (int, error) {
	if n := t.conn.br.Buffered(); n > 0 {
		return t.conn.br.Read(p[:min(n, len(p))])
	}
	return t.conn.tcp.Read(p)
}

func (t *tunnel) Write(p []byte) (int, error) { return t.conn.tcp.Write(p) }

// ReadFrom lets the kernel copy, where it can.
func (t *tunnel) ReadFrom(r io.Reader) (int64, error) { return t.conn.tcp.ReadFrom(r) }

// CloseWrite is the end of what is written.
func (t *tunnel) CloseWrite() error { return t.conn.tcp.CloseWrite() }

func (t *tunnel) Close() error {
	t.once.Do(func() { t.conn.pool.drop(t.conn) })
	return nil
}
