package rpc

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/gateway"
)

const events = "text/event-stream"

// settle is how long the head of an answer waits for the first message, so that a stream that fails at once has a status.
const settle = time.Second

var errStopping = errors.New("the gateway stops")

// stream is one that is open to a service.
type stream struct {
	*client.Stream[codec.Raw, codec.Raw]
	ctx    context.Context
	cancel context.CancelCauseFunc // ends it, with what its client is told
	done   func()
}

// open opens the stream that t is, with the time that r gives it; what a route says is for opening it, as for calls. The
// stream ends with r, and when the gateway stops.
func (h *Handler) open(r *http.Request, info *gateway.Info, t *target, as bodyType) (*stream, error) {
	if err := info.Admit(t.service, t.endpoint); err != nil {
		return nil, err
	}
	timeout, err := h.timeout(r, t)
	if err != nil {
		return nil, err
	}
	if !h.begin() {
		return nil, gateway.NewProblem(http.StatusServiceUnavailable, "the gateway stops: try again")
	}
	ctx, cancel := context.WithCancelCause(h.context(r, info))
	stopping := context.AfterFunc(h.stopping, func() { cancel(errStopping) })
	late := context.CancelFunc(func() {})
	if timeout > 0 {
		ctx, late = context.WithTimeout(ctx, timeout)
	}
	s := &stream{ctx: ctx, cancel: cancel, done: func() {
		stopping()
		cancel(nil)
		late()
		h.streams.Done()
	}}
	s.Stream, err = client.Open[codec.Raw, codec.Raw](ctx, h.client, t.service, t.endpoint, t.byType[as]...)
	if err != nil {
		defer s.done()
		return nil, h.why(ctx, t, err)
	}
	return s, nil
}

// begin counts a stream, unless it is too late.
func (h *Handler) begin() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopping.Err() != nil {
		return false
	}
	h.streams.Add(1)
	return true
}

// serveStream serves a stream in the bodies of request and answer.
func (h *Handler) serveStream(w http.ResponseWriter, r *http.Request, info *gateway.Info, t *target) error {
	if r.Method == http.MethodHead {
		w.Header().Set("Allow", "GET, POST")
		return gateway.NewProblem(http.StatusMethodNotAllowed, "%s is a stream, which has no end to be asked for with HEAD", t.route)
	}
	if t.stream != serverStream {
		return h.streamRequests(w, r, info, t)
	}
	c := calls.Get().(*call)
	defer c.release()
	as, err := h.readRequest(w, r, info, t, c)
	switch {
	case err != nil:
		return err
	case as != typeJSON:
		return unsupported(t, "Content-Type "+typeNames[as])
	}
	return h.streamAnswers(w, r, info, t, c)
}

// streamAnswers serves an endpoint that streams its answers to the request that c has.
func (h *Handler) streamAnswers(w http.ResponseWriter, r *http.Request, info *gateway.Info, t *target, c *call) error {
	out, err := h.newOutput(w, r)
	if err != nil {
		return err
	}
	s, err := h.open(r, info, t, typeJSON)
	if err != nil {
		return err
	}
	defer s.done()
	defer s.Close()
	if p := notSent(t, s.Send(&c.request)); p != nil {
		return p
	}
	_ = s.CloseSend()
	return h.copyAnswers(s, t, out, func() error { return nil })
}

// copyAnswers sends the answers of s until its end. It returns an error if nothing was sent yet. What readError says
// is why the stream was ended by this side.
func (h *Handler) copyAnswers(s *stream, t *target, out *output, readError func() error) error {
	ctx, cancel := context.WithCancel(s.ctx)
	var beating sync.WaitGroup
	beating.Go(func() { out.beatUntil(ctx) })
	err := h.copyUntilError(s, out)
	cancel()
	beating.Wait()
	if err == io.EOF {
		out.end()
		return nil
	}
	if !errors.As(err, new(*gateway.Problem)) {
		err = h.why(s.ctx, t, err) // before readError may end the request
	}
	return out.fail(cmp.Or(readError(), err))
}

func (h *Handler) copyUntilError(s *stream, out *output) error {
	for {
		message, err := s.Recv()
		if err != nil {
			return err
		}
		if err := out.send(*message); err != nil {
			return err
		}
	}
}

// streamRequests serves an endpoint that takes a stream: the values in the body.
func (h *Handler) streamRequests(w http.ResponseWriter, r *http.Request, info *gateway.Info, t *target) error {
	as, err := requestType(r, info, t)
	switch {
	case err != nil:
		return err
	case as != typeJSON:
		return unsupported(t, "Content-Type "+typeNames[as])
	case r.URL.RawQuery != "" || info.Target != nil && len(info.Params) > 0:
		return gateway.NewProblem(http.StatusBadRequest, "%s takes a stream: its fields come from the body alone", t.route)
	}
	var out *output
	if t.stream == bothStreams {
		out, err = h.newOutput(w, r)
	} else {
		err = checkAccept(r, codec.JSON)
	}
	if err != nil {
		return err
	}
	s, err := h.open(r, info, t, typeJSON)
	if err != nil {
		return err
	}
	defer s.done()
	defer s.Close()
	_ = http.NewResponseController(w).EnableFullDuplex() // or the answer would wait for all of the body
	in := h.newInput(w, r, s, t)
	in.start()
	defer in.stop()
	if t.stream == bothStreams {
		return h.copyAnswers(s, t, out, in.why)
	}
	message, err := s.Recv()
	if err == nil {
		in.stop()
		answer(w, r, typeJSON, *message)
		return nil
	}
	if err == io.EOF {
		err = gateway.NewProblem(http.StatusBadGateway, "service %s ended the stream without an answer", t.service)
	} else {
		err = h.why(s.ctx, t, err)
	}
	return cmp.Or(in.why(), err)
}

// input reads the values in a body and sends them to a service.
type input struct {
	h          *Handler
	r          *http.Request
	stream     *stream
	target     *target
	connection *http.ResponseController
	decoder    *json.Decoder
	left       int64 // bytes that may be read for the value that is being read
	over       bool  // the body is
	done       chan struct{}
	stopped    sync.Once
	cut        atomic.Bool // reading was ended from here

	mu  sync.Mutex
	err error // what is wrong with the body
}

func (h *Handler) newInput(w http.ResponseWriter, r *http.Request, s *stream, t *target) *input {
	in := &input{h: h, r: r, stream: s, target: t, connection: http.NewResponseController(w), done: make(chan struct{})}
	in.decoder = json.NewDecoder(in)
	return in
}

// Read is for the decoder: within the limit of one value.
func (in *input) Read(p []byte) (int, error) {
	if in.left <= 0 {
		return 0, gateway.NewProblem(http.StatusRequestEntityTooLarge, "a value in the body is larger than %d bytes, which is the limit", in.h.opts.MaxBody)
	}
	n, err := in.r.Body.Read(p[:min(int64(len(p)), in.left)])
	in.left -= int64(n)
	in.over = err == io.EOF
	return n, err
}

// start begins to read for s.
func (in *input) start() {
	go func() {
		defer close(in.done)
		if err := in.copy(); err != nil && !in.cut.Load() {
			in.end(err)
		}
	}()
}

// end ends the stream because of what is wrong with the body.
func (in *input) end(err error) {
	in.mu.Lock()
	in.err = err
	in.mu.Unlock()
	in.stream.cancel(err)
}

// copy returns an error if it is the body's.
func (in *input) copy() error {
	held := time.AfterFunc(in.h.opts.WriteTimeout, in.heldUp)
	held.Stop()
	defer held.Stop()
	for n := 1; ; n++ {
		var value json.RawMessage
		in.left = in.h.opts.MaxBody + 1
		err := in.decoder.Decode(&value)
		var syntax *json.SyntaxError
		switch {
		case err == io.EOF:
			_ = in.connection.SetReadDeadline(time.Time{}) // from here on it would end the request
			_ = in.stream.CloseSend()
			return nil
		case errors.As(err, &syntax), in.over && errors.Is(err, io.ErrUnexpectedEOF):
			return gateway.NewProblem(http.StatusBadRequest, "value %d in the body is no JSON: %v", n, err)
		case err != nil:
			return in.h.whyUnread(in.r, err)
		}
		message := codec.Raw(value)
		held.Reset(in.h.opts.WriteTimeout)
		err = in.stream.Send(&message)
		held.Stop()
		if p := notSent(in.target, err); p != nil {
			return p
		}
		if err != nil {
			return nil // whoever receives is told why
		}
	}
}

// heldUp ends a stream whose service takes nothing more: while nobody reads, it is not seen that the client went.
func (in *input) heldUp() {
	in.end(gateway.NewProblem(http.StatusGatewayTimeout, "the service did not take a value of the body within %s", in.h.opts.WriteTimeout))
}

// why ends the reading, and says what was wrong with the body, if that is why the stream ended.
func (in *input) why() error {
	in.stop()
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.err
}

// stop ends the reading and the stream, and waits for the reader.
func (in *input) stop() {
	in.stopped.Do(func() {
		_ = in.stream.Close() // so that nothing waits to be sent
		for !in.hasEnded() {
			in.cut.Store(true)
			_ = in.connection.SetReadDeadline(time.Unix(1, 0)) // again and again: something between may set its own
		}
		if in.over {
			_ = in.connection.SetReadDeadline(time.Time{}) // the connection is used for other requests
		}
	})
}

// hasEnded waits a moment for it: a reader who is at the end of the body must not be disturbed.
func (in *input) hasEnded() bool {
	select {
	case <-in.done:
		return true
	case <-time.After(10 * time.Millisecond):
		return false
	}
}

// output sends messages to a client, as lines or as events.
type output struct {
	h          *Handler
	w          http.ResponseWriter
	request    *http.Request
	connection *http.ResponseController
	events     bool

	mu    sync.Mutex
	begun bool
	buf   bytes.Buffer
}

func (h *Handler) newOutput(w http.ResponseWriter, r *http.Request) (*output, error) {
	o := &output{h: h, w: w, request: r, connection: http.NewResponseController(w), events: asksFor(r.Header, events)}
	if !o.events && !accepts(r.Header, lines) && !accepts(r.Header, codec.JSON) {
		return nil, gateway.NewProblem(http.StatusNotAcceptable, "a stream is %s or %s, which Accept does not take", lines, events)
	}
	_ = o.connection.SetReadDeadline(time.Time{}) // what the server set for the request would end the stream
	return o, nil
}

// begin sends the head. o.mu is held.
func (o *output) begin() {
	if o.begun {
		return
	}
	o.begun = true
	header := o.w.Header()
	header["Content-Type"] = []string{lines}
	if o.events {
		header["Content-Type"] = []string{events}
	}
	header["X-Content-Type-Options"] = noSniff
	header["Cache-Control"] = []string{"no-store"}
	header["X-Accel-Buffering"] = []string{"no"} // what proxies in between may go by
	o.w.WriteHeader(http.StatusOK)
}

// flush sends what is in o.buf, which the client has to take in time. o.mu is held.
func (o *output) flush() error {
	o.begin()
	_ = o.connection.SetWriteDeadline(time.Now().Add(o.h.opts.WriteTimeout))
	_, err := o.w.Write(o.buf.Bytes())
	if err == nil {
		err = o.connection.Flush()
	}
	_ = o.connection.SetWriteDeadline(time.Time{})
	o.buf.Reset()
	if err != nil {
		return gateway.NewProblem(gateway.ClientClosed, "the client does not take the answers: %v", err)
	}
	return nil
}

// send sends one message.
func (o *output) send(message []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.write("", message)
}

func (o *output) write(event string, message []byte) error {
	if o.events {
		if event != "" {
			o.buf.WriteString("event: " + event + "\n")
		}
		o.buf.WriteString("data: ")
	}
	if bytes.IndexByte(message, '\n') < 0 && bytes.IndexByte(message, '\r') < 0 {
		o.buf.Write(message)
	} else if err := json.Compact(&o.buf, message); err != nil {
		o.buf.Reset()
		return gateway.NewProblem(http.StatusBadGateway, "the service sent what is no JSON")
	}
	o.buf.WriteByte('\n')
	if o.events {
		o.buf.WriteByte('\n')
	}
	return o.flush()
}

// beatUntil shows that the stream lives, until ctx ends.
func (o *output) beatUntil(ctx context.Context) {
	t := time.NewTimer(min(settle, o.h.opts.Heartbeat))
	defer t.Stop()
	for {
		select {
		case <-t.C:
			o.beat()
			t.Reset(o.h.opts.Heartbeat)
		case <-ctx.Done():
			return
		}
	}
}

// beat sends a comment; lines have none.
func (o *output) beat() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.begun && !o.events {
		return
	}
	if o.events {
		o.buf.WriteString(":\n\n")
	}
	_ = o.flush() // who does not take it does not take the next message either
}

// end says that all is sent.
func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.events {
		_ = o.write("end", emptyObject)
		return
	}
	_ = o.flush()
}

// fail says that the stream broke. It returns the error if that can be said with a status.
func (o *output) fail(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.begun {
		return err
	}
	info, problem := gateway.Of(o.request), *gateway.ProblemOf(err)
	problem.ID, info.StreamError = info.ID, &problem
	if o.events {
		text, _ := json.Marshal(&problem) // a Problem always can
		_ = o.write("error", text)
		return nil
	}
	text, _ := json.Marshal(struct {
		Error *gateway.Problem `json:"error"`
	}{&problem})
	_ = o.write("", text)
	return nil
}
