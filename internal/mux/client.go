package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/internal/wire"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
)

// Client is the calling side of a connection. It is safe for concurrent use.
type Client struct {
	session

	mu       sync.Mutex
	lastID   uint64
	calls    map[uint64]*pending
	streams  map[uint64]*Stream
	draining atomic.Bool // changed under mu
	late     alarm       // for calls
	turn     turn        // to read the connection
	leaving  string      // what the peer said in GoAway; only who has the turn uses it
}

// Request is what is called.
type Request struct {
	Service, Endpoint string
	Metadata          map[string]string
	Codec             codec.Codec
	Body              any
	Timeout           time.Duration // of a call: where ctx has no deadline; of a stream: what the server is told; 0: none
}

// pending is a call that waits for its answer. It is reused.
type pending struct {
	done     chan struct{} // gets one token with the answer
	body     *wire.Buffer
	err      error
	deadline time.Time    // of a call whose context has none
	send     *sendContext // for such a call
	reads    bool         // its caller has the turn
}

var pendings = sync.Pool{New: func() any {
	return &pending{done: make(chan struct{}, 1), send: new(sendContext)}
}}

// Dial connects. ctx bounds the dialling.
func Dial(ctx context.Context, tr transport.Transport, addr string, opts Options) (*Client, error) {
	conn, err := tr.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := &Client{
		session: session{conn: conn, opts: opts.withDefaults()},
		calls:   make(map[uint64]*pending),
		streams: make(map[uint64]*Stream),
	}
	c.late.ring = c.expireCalls
	if err := c.hello(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	c.start()
	c.startTurn()
	go c.read()
	return c, nil
}

// Usable says whether new calls can be made.
func (c *Client) Usable() bool { return !c.draining.Load() }

// Closed is closed when the connection is.
func (c *Client) Closed() <-chan struct{} { return c.closed }

// Close ends the connection; calls that wait fail as Lost.
func (c *Client) Close() { c.close(transport.ErrClosed) }

// Drain lets the calls that wait finish, then closes. New ones fail as NotRun.
func (c *Client) Drain() {
	c.mu.Lock()
	c.draining.Store(true)
	idle := c.waiting() == 0
	c.mu.Unlock()
	if idle {
		c.Close()
	}
}

// Call makes a call and waits for the answer, which the caller releases. All its errors are *Error, but for a request
// that cannot be encoded.
func (c *Client) Call(ctx context.Context, req *Request) (*wire.Buffer, error) {
	timeout, err := timeLeft(ctx, req.Timeout)
	if err != nil {
		return nil, err
	}
	p := pendings.Get().(*pending)
	p.deadline = time.Time{}
	sending := ctx
	if _, ok := ctx.Deadline(); !ok && timeout > 0 {
		p.deadline = time.Now().Add(timeout)
		sending = p.sendContext(ctx)
	}
	id, err := c.add(p, nil)
	if err != nil {
		pendings.Put(p)
		return nil, err
	}
	if p.reads {
		err = c.catchUp(ctx, p)
	}
	if err == nil {
		err = c.open(sending, id, req, timeout, false)
	}
	p.sent()
	if p.reads {
		if err == nil {
			c.readFor(ctx, p)
		}
		c.passTurn()
	}
	if err != nil {
		return nil, c.abandon(id, p, err)
	}
	if ctx.Done() == nil {
		<-p.done
		return p.take()
	}
	select {
	case <-p.done:
		return p.take()
	case <-ctx.Done():
		return nil, c.giveUp(id, p, ctx.Err())
	}
}

// take empties p and gives it back to be reused.
func (p *pending) take() (*wire.Buffer, error) {
	body, err := p.body, p.err
	p.body, p.err = nil, nil
	pendings.Put(p)
	return body, err
}

// abandon ends a call that could not be sent.
func (c *Client) abandon(id uint64, p *pending, err error) error {
	if found, _ := c.remove(id); found == nil { // its answer, of whatever sort, is on its way
		<-p.done
		body, _ := p.take()
		body.Release()
		return err
	}
	pendings.Put(p)
	return err
}

// giveUp ends a call whose context ended.
func (c *Client) giveUp(id uint64, p *pending, cause error) error {
	if found, _ := c.remove(id); found == nil {
		<-p.done
		body, _ := p.take()
		body.Release()
	} else {
		c.cancel(id)
		pendings.Put(p)
	}
	return &Error{Status: *status.From(cause)}
}

func (c *Client) cancel(id uint64) {
	b := wire.GetBuffer(16)
	b.B = wire.AppendCancel(b.B, id)
	c.post(b)
}

// timeLeft is the time to tell the server: until the deadline of ctx, otherwise fallback.
func timeLeft(ctx context.Context, fallback time.Duration) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, &Error{NotRun: true, Status: *status.From(err)}
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		return fallback, nil
	}
	return max(time.Until(deadline), time.Microsecond), nil
}

// open sends the frame that begins a call or a stream.
func (c *Client) open(ctx context.Context, id uint64, req *Request, timeout time.Duration, stream bool) error {
	b := c.buffer()
	call := wire.Call{ID: id, Stream: stream, Timeout: timeout}
	var scratch [128]byte
	var pairs [256]byte
	text := append(scratch[:0], req.Service...)
	text = append(text, req.Endpoint...)
	text = append(text, req.Codec.ContentType()...)
	s, e := len(req.Service), len(req.Service)+len(req.Endpoint)
	call.Service, call.Endpoint, call.ContentType = text[:s], text[s:e], text[e:]
	if len(req.Metadata) > 0 {
		call.Metadata = wire.AppendMetadata(pairs[:0], req.Metadata)
	}
	b.B = wire.AppendCall(b.B, &call)
	if len(req.Metadata) > wire.MaxMetadata || len(b.B) > wire.MaxHeader {
		defer b.Release()
		return notRun(status.InvalidArgument, "metadata of %d pairs, a header of %d bytes: the limits are %d and %d",
			len(req.Metadata), len(b.B), wire.MaxMetadata, wire.MaxHeader)
	}
	if !stream {
		var err error
		if b.B, err = req.Codec.Append(b.B, req.Body); err != nil {
			defer b.Release()
			return notRun(status.InvalidArgument, "encode %T: %v", req.Body, err)
		}
	}
	if err := c.send(ctx, b); err != nil {
		return c.notSent(err)
	}
	return nil
}

// notSent is why a frame did not reach the peer, and so cannot have run.
func (c *Client) notSent(err error) *Error {
	switch {
	case errors.Is(err, transport.ErrTooLarge):
		return &Error{Status: status.Error{Code: status.ResourceExhausted, Message: err.Error()}, Cause: err} // no node would take it
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &Error{NotRun: true, Status: *status.From(err)}
	}
	e := lost(c.reason(err))
	e.NotRun = true
	return e
}

// reason is why the connection is closed, if it is; else err.
func (c *Client) reason(err error) error {
	select {
	case <-c.closed:
		return c.err
	default:
		return err
	}
}

var errLeaving = errors.New("the peer takes no new calls")

// add enters a call or a stream among those that wait for answers.
func (c *Client) add(p *pending, st *Stream) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining.Load() {
		return 0, c.notSent(errLeaving)
	}
	if limit := c.peer.MaxCalls; limit > 0 && uint64(c.waiting()) >= limit {
		return 0, notRun(status.ResourceExhausted, "%d calls are open on the connection, the peer takes no more", limit)
	}
	c.lastID++
	if st != nil {
		st.id = c.lastID
		c.streams[c.lastID] = st
		c.sendReader()
		return c.lastID, nil
	}
	c.calls[c.lastID] = p
	p.reads = c.takeTurn()
	c.late.notLater(p.deadline)
	return c.lastID, nil
}

// waiting is how many calls and streams are open. c.mu is held.
func (c *Client) waiting() int { return len(c.calls) + len(c.streams) }

// remove takes out a call, if it is still there, and says how much is left.
func (c *Client) remove(id uint64) (p *pending, left int) {
	c.mu.Lock()
	p = c.calls[id]
	delete(c.calls, id)
	left = c.waiting()
	done := c.finished()
	c.mu.Unlock()
	if done {
		c.Close()
	}
	return p, left
}

func (c *Client) removeStream(id uint64) *Stream {
	c.mu.Lock()
	st := c.streams[id]
	delete(c.streams, id)
	done := c.finished()
	c.mu.Unlock()
	if done {
		c.Close()
	}
	return st
}

// finished says that a draining connection has nothing left to wait for.
func (c *Client) finished() bool { return c.draining.Load() && c.waiting() == 0 }

func (c *Client) expireCalls() {
	now := time.Now()
	var late []*pending
	var next time.Time
	interrupt := false
	c.mu.Lock()
	for id, p := range c.calls {
		switch {
		case p.deadline.IsZero():
		case !p.deadline.After(now):
			delete(c.calls, id)
			c.cancel(id)
			late = append(late, p)
			interrupt = interrupt || p.reads
		case next.IsZero() || p.deadline.Before(next):
			next = p.deadline
		}
	}
	c.late.rung()
	c.late.notLater(next)
	done := c.finished()
	c.mu.Unlock()
	for _, p := range late {
		p.answer(nil, &Error{Status: status.Error{Code: status.DeadlineExceeded, Message: "no answer in time"}})
	}
	if interrupt {
		c.interruptReader()
	}
	if done {
		c.Close()
	}
}

func (p *pending) answer(body *wire.Buffer, err error) {
	p.body, p.err = body, err
	p.done <- struct{}{}
}

// Open begins a stream and returns when the server has taken it. ctx bounds only the opening; the request's Timeout is
// what the server is told of the stream's. CloseStream must be called in the end.
func (c *Client) Open(ctx context.Context, req *Request) (*Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, &Error{NotRun: true, Status: *status.From(err)}
	}
	st := newStream(&c.session, 0, 0)
	if _, err := c.add(nil, st); err != nil {
		return nil, err
	}
	if err := c.open(ctx, st.id, req, req.Timeout, true); err != nil {
		c.removeStream(st.id)
		return nil, err
	}
	if err := st.waitAccepted(ctx); err != nil {
		c.CloseStream(st)
		return nil, err
	}
	return st, nil
}

// waitAccepted waits for the first credit, which is the server's yes. The first message may overtake it, and so may the
// end, good or bad, of an endpoint that did run: whoever receives is told of that.
func (st *Stream) waitAccepted(ctx context.Context) error {
	for {
		st.mu.Lock()
		accepted, done, err := st.accepted, st.finished, st.err
		st.mu.Unlock()
		if accepted || done && (err == nil || hasRun(err)) {
			wake(st.writable)
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-st.writable:
		case <-ctx.Done():
			return &Error{Status: *status.From(ctx.Err())}
		}
	}
}

func hasRun(err error) bool {
	e, ok := err.(*Error)
	return ok && e.Remote && !e.NotRun
}

// CloseStream ends a stream at once, and tells the server if it has not ended it itself.
func (c *Client) CloseStream(st *Stream) {
	if c.removeStream(st.id) != nil {
		c.cancel(st.id)
	}
	st.end(true, &Error{Status: status.Error{Code: status.Canceled, Message: "the stream was closed"}})
	st.discard()
}

// read hands every answer to who waits for it.
func (c *Client) read() {
	c.close(c.whyEnded(c.readAll()))
	c.mu.Lock()
	c.draining.Store(true)
	calls, streams := c.calls, c.streams
	c.calls, c.streams = map[uint64]*pending{}, map[uint64]*Stream{}
	c.late.stop()
	c.mu.Unlock()
	for _, p := range calls {
		p.answer(nil, lost(c.err))
	}
	for _, st := range streams {
		st.end(true, lost(c.err))
	}
}

// whyEnded is what callers are told when reading ended with err.
func (c *Client) whyEnded(err error) error {
	switch {
	case errors.Is(err, io.EOF) && c.leaving != "":
		return fmt.Errorf("the peer closed it: %s", c.leaving)
	case errors.Is(err, io.EOF):
		return errors.New("the peer closed it")
	}
	return err
}

func (c *Client) handle(t wire.Type, msg []byte) error {
	switch t {
	case wire.Reply:
		id, body, err := wire.ParseBody(msg)
		if err != nil {
			return err
		}
		c.finish(id, body, nil)
	case wire.Error:
		f, err := wire.ParseError(msg)
		if err != nil {
			return err
		}
		c.finish(f.ID, nil, remote(&f))
	case wire.Data:
		id, body, err := wire.ParseBody(msg)
		if err != nil {
			return err
		}
		if st := c.stream(id); st != nil {
			return c.data(st, body)
		}
	case wire.Credit:
		id, n, err := wire.ParseCredit(msg)
		if err != nil {
			return err
		}
		if st := c.stream(id); st != nil {
			st.giveCredit(n)
		}
	case wire.GoAway:
		c.leaving = wire.ParseGoAway(msg)
		c.Drain()
	default:
		return fmt.Errorf("%w: type %s does not come from a server", wire.ErrMalformed, t)
	}
	return nil
}

// remote is the peer's answer as an error, which OK never is.
func remote(f *wire.Failure) *Error {
	code := status.Code(f.Code)
	if code == status.OK {
		code = status.Unknown
	}
	return &Error{Remote: true, NotRun: f.NotRun, Status: status.Error{Code: code, Message: string(f.Message)}}
}

// data takes in what came for a stream, or ends it when there is too much.
func (c *Client) data(st *Stream, body []byte) error {
	err := st.data(body)
	if err != errFull {
		return err
	}
	c.removeStream(st.id)
	c.cancel(st.id)
	st.end(true, errFull)
	return nil
}

// finish ends the call or the stream with that id; one that is not there any more was given up.
func (c *Client) finish(id uint64, body []byte, failed *Error) {
	if p, left := c.remove(id); p != nil {
		var b *wire.Buffer
		var err error
		if failed != nil {
			err = failed
		} else {
			b = c.keep(body)
		}
		c.letTurnGo(left)
		p.answer(b, err)
		return
	}
	st := c.removeStream(id)
	switch {
	case st == nil:
	case failed != nil:
		st.end(true, failed)
	default:
		st.end(true, nil)
	}
}

func (c *Client) stream(id uint64) *Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams[id]
}
