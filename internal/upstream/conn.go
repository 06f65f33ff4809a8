package upstream

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

// maxHead is for the head of a response, informational ones before it included.
const maxHead = 256 << 10

// conn is a connection. It belongs to the pool, or to the goroutine of the request that has it; once there is a response
// with a body, to that body.
type conn struct {
	pool *pool
	host *host
	tcp  *net.TCPConn
	br   *bufio.Reader // of the conn itself, for the limit of a head
	peeker

	abortFn   func()
	kept      bool      // it has been in the pool
	idleSince time.Time // when it came there
	headLeft  int64     // bytes that may be read
	readErr   error     // of the last Read

	// of the exchange

	ctx      context.Context
	stop     func() bool // of what ends the exchange with ctx; nil: ctx does not end
	upload   *upload     // nil: the request had no body, or a small one
	answered bool        // something came
	aborted  atomic.Bool // ctx has ended it
}

func newConn(p *pool, h *host, tc *net.TCPConn) *conn {
	c := &conn{pool: p, host: h, tcp: tc}
	c.br = bufio.NewReader(c)
	c.abortFn = c.abort
	c.peeker.init(tc)
	return c
}

// Read is for the bufio.Reader.
func (c *conn) Read(p []byte) (int, error) {
	if c.headLeft <= 0 {
		c.readErr = ErrHeadTooLarge
		return 0, ErrHeadTooLarge
	}
	if int64(len(p)) > c.headLeft {
		p = p[:c.headLeft]
	}
	n, err := c.tcp.Read(p)
	c.headLeft -= int64(n)
	c.readErr = err
	return n, err
}

// abort ends what is going on. It may come late, when the exchange is over: then stop was too late, and the connection is
// not kept.
func (c *conn) abort() {
	c.aborted.Store(true)
	c.tcp.Close()
}

// exchange sends a request and receives the head of its response. If it fails, the connection is gone.
func (c *conn) exchange(req *http.Request, m *message) (*http.Response, *Error) {
	c.ctx = req.Context()
	if c.ctx.Done() != nil {
		c.stop = context.AfterFunc(c.ctx, c.abortFn)
	}
	c.headLeft, c.answered, c.readErr = maxHead, false, nil
	n, failure := c.tcp.Write(m.buf)
	if m.upload && failure == nil {
		c.startUpload(req, m)
	}
	resp, err := c.readHead(req) // also after a failure: a server that closed may have said why
	switch {
	case err == nil:
		c.deliver(resp, failure == nil && !req.Close && !resp.Close)
		return resp, nil
	case failure != nil:
		return nil, c.fail(Write, n > 0, failure)
	}
	return nil, c.fail(Head, true, err)
}

// readHead reads the heads of informational responses and that of the final one.
func (c *conn) readHead(req *http.Request) (*http.Response, error) {
	for {
		resp, err := c.readOneHead(req)
		if err != nil {
			return nil, err
		}
		switch code := resp.StatusCode; {
		case code < 100:
			return nil, fmt.Errorf("its status is %q", resp.Status)
		case code >= 200, code == http.StatusSwitchingProtocols:
			if c.upload != nil {
				c.upload.proceed(false) // a server that has not asked for the body does not get it
			}
			c.headLeft = math.MaxInt64
			return resp, nil
		case code == http.StatusContinue && c.upload != nil:
			c.upload.proceed(true)
		}
		if trace := httptrace.ContextClientTrace(c.ctx); trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(resp.StatusCode, textproto.MIMEHeader(resp.Header)); err != nil {
				return nil, err
			}
		}
	}
}

// readOneHead returns the error of the connection rather than what the parser makes of it.
func (c *conn) readOneHead(req *http.Request) (*http.Response, error) {
	_, err := c.br.Peek(1)
	if err == nil {
		c.answered = true
		var resp *http.Response
		if resp, err = http.ReadResponse(c.br, req); err == nil {
			return resp, nil
		}
	}
	switch {
	case c.readErr == nil:
		return nil, err
	case c.readErr != io.EOF:
		return nil, c.readErr
	case c.answered:
		return nil, io.ErrUnexpectedEOF
	}
	return nil, errClosed
}

// fail drops the connection and says why, unless ctx or the request's body is why.
func (c *conn) fail(phase Phase, sent bool, err error) *Error {
	e := &Error{Phase: phase, Addr: c.host.addr, Sent: sent, Err: err, stale: c.kept && !c.answered}
	c.blame(e)
	if c.upload != nil {
		c.upload.proceed(false)
	}
	c.end(false)
	return e
}

// blame changes e if the exchange was ended from this side.
func (c *conn) blame(e *Error) {
	if c.aborted.Load() {
		e.Err, e.stale = ended(c.ctx), false
		return
	}
	if c.upload == nil {
		return
	}
	if err := c.upload.failed(); err != nil {
		e.Phase, e.Err, e.stale = Request, err, false
	}
}

// deliver gives the response its body.
func (c *conn) deliver(resp *http.Response, keep bool) {
	switch {
	case isSwitch(resp) && c.upload == nil:
		resp.Body = newTunnel(c)
	case resp.Body == http.NoBody:
		c.end(keep && resp.StatusCode >= 200)
	default:
		resp.Body = &body{conn: c, src: resp.Body, keep: keep, left: resp.ContentLength}
	}
}

// isSwitch says it as net/http does.
func isSwitch(resp *http.Response) bool {
	return resp.StatusCode == http.StatusSwitchingProtocols && resp.Header.Get("Upgrade") != "" &&
		httpguts.HeaderValuesContainsToken(resp.Header["Connection"], "Upgrade")
}

// end is the end of the exchange, and of the caller's right to the connection.
func (c *conn) end(keep bool) {
	keep = keep && (c.upload == nil || c.upload.isDone())
	if c.stop != nil && !c.stop() {
		keep = false
	}
	c.stop, c.upload = nil, nil
	if !keep || c.br.Buffered() > 0 {
		c.pool.drop(c)
		return
	}
	c.ctx, c.kept = nil, true
	c.pool.put(c)
}
