package rpc

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/clip"
)

// The subprotocols of WebSockets.
const (
	protocolJSON  = "micro.json"
	protocolProto = "micro.protobuf"
)

// closeStatus plus the status of HTTP is the code with which a stream that broke is closed.
const closeStatus = 4000

// serveWebSocket serves a stream over a WebSocket. The stream is opened first, so that what is wrong with it can be said
// with a status.
func (h *Handler) serveWebSocket(w http.ResponseWriter, r *http.Request, info *gateway.Info, t *target) error {
	if err := h.checkHandshake(w, r, info, t); err != nil {
		return err
	}
	as, protocol := typeJSON, protocolJSON
	if offers(r.Header, protocolProto) {
		as, protocol = typeProto, protocolProto
	}
	first, err := firstRequest(r, info, t, as)
	if err != nil {
		return err
	}
	s, err := h.open(r, info, t, as)
	if err != nil {
		return err
	}
	defer s.done()
	defer s.Close()
	x := &socket{h: h, stream: s, target: t, text: as == typeJSON, first: first}
	x.conn, err = websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{protocol}, InsecureSkipVerify: true, // checkHandshake has
		OnPongReceived: func(context.Context, []byte) { x.heard.Store(time.Now().UnixNano()) },
	})
	if err != nil {
		return nil // which Accept has answered
	}
	x.conn.SetReadLimit(h.opts.MaxBody)
	x.run()
	return nil
}

// checkHandshake says in the form of the gateway's errors what is wrong.
func (h *Handler) checkHandshake(w http.ResponseWriter, r *http.Request, info *gateway.Info, t *target) error {
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-Websocket-Key"))
	switch {
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", "GET")
		return gateway.NewProblem(http.StatusMethodNotAllowed, "a WebSocket begins with GET")
	case r.ProtoMajor != 1 || r.ProtoMinor != 1:
		return gateway.NewProblem(http.StatusBadRequest, "a WebSocket begins with HTTP/1.1")
	case r.Header.Get("Sec-Websocket-Version") != "13":
		w.Header().Set("Sec-Websocket-Version", "13")
		return gateway.NewProblem(http.StatusUpgradeRequired, "only version 13 of WebSocket is spoken")
	case err != nil || len(key) != 16 || !hasToken(r.Header["Connection"], "upgrade"):
		return gateway.NewProblem(http.StatusBadRequest, "the handshake of the WebSocket is malformed")
	case !h.mayConnect(r, info):
		return gateway.NewProblem(http.StatusForbidden, "pages of another origin may not open WebSockets here")
	case t.stream == noStream:
		return gateway.NewProblem(http.StatusBadRequest, "%s is a call, not a stream: use POST", t.route)
	}
	return nil
}

// mayConnect says whether the page that asks, if it is one, may: a browser asks nobody before it connects.
func (h *Handler) mayConnect(r *http.Request, info *gateway.Info) bool {
	if info.CrossOrigin || !gateway.FromOtherOrigin(r) {
		return true
	}
	origin := r.Header["Origin"]
	if len(origin) != 1 {
		return false
	}
	for _, pattern := range h.opts.Origins {
		if pattern == "*" || matchOrigin(strings.ToLower(origin[0]), pattern) {
			return true
		}
	}
	return false
}

// matchOrigin takes an asterisk for the first labels of the host.
func matchOrigin(origin, pattern string) bool {
	scheme, host, _ := strings.Cut(pattern, "://")
	s, name, ok := strings.Cut(origin, "://")
	return ok && s == scheme && gateway.MatchHost(name, host)
}

func hasToken(header []string, token string) bool {
	for _, line := range header {
		for one := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(one), token) {
				return true
			}
		}
	}
	return false
}

func offers(header http.Header, protocol string) bool {
	return hasToken(header["Sec-Websocket-Protocol"], protocol)
}

// firstRequest is the one request of an endpoint that streams its answers, if the query or the path has it; nil: it is the
// first message.
func firstRequest(r *http.Request, info *gateway.Info, t *target, as bodyType) (codec.Raw, error) {
	var params map[string]string
	if info.Target != nil {
		params = info.Params
	}
	switch {
	case r.URL.RawQuery == "" && len(params) == 0:
		return nil, nil
	case t.stream != serverStream:
		return nil, gateway.NewProblem(http.StatusBadRequest, "%s takes a stream: its fields come from messages alone", t.route)
	case as != typeJSON:
		return nil, unsupported(nil, "a body of another type together with fields in the path or the query")
	}
	return merge(t.described.Request, params, r.URL.RawQuery, nil)
}

// socket is a WebSocket and the stream behind it.
type socket struct {
	h      *Handler
	conn   *websocket.Conn
	stream *stream
	target *target
	text   bool
	first  codec.Raw

	reading atomic.Bool  // the client is being listened to, and not waited for by the service
	heard   atomic.Int64 // when it was last heard, or listening began; in Unix nanoseconds

	mu  sync.Mutex
	err error // why reading ended
}

func (x *socket) run() {
	ctx, cancel := context.WithCancel(x.stream.ctx)
	var work sync.WaitGroup
	work.Go(x.read)
	work.Go(func() { x.ping(ctx) })
	err := x.copyAnswers()
	cancel()
	code, reason := x.verdict(err)
	x.stream.cancel(nil)
	_ = x.conn.Close(code, reason) // best effort: it waits for the client's part, for some seconds
	work.Wait()
}

func (x *socket) copyAnswers() error {
	for {
		message, err := x.stream.Recv()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(x.stream.ctx, x.h.opts.WriteTimeout)
		err = x.conn.Write(ctx, x.kind(), *message)
		cancel()
		if err != nil {
			return gateway.NewProblem(gateway.ClientClosed, "the client does not take the answers")
		}
	}
}

func (x *socket) kind() websocket.MessageType {
	if x.text {
		return websocket.MessageText
	}
	return websocket.MessageBinary
}

// closing is an error of the client's with the code that it is told.
type closing struct {
	code   websocket.StatusCode
	reason string
}

func (c *closing) Error() string { return c.reason }

// verdict is how the socket is closed.
func (x *socket) verdict(err error) (websocket.StatusCode, string) {
	x.mu.Lock()
	why := x.err
	x.mu.Unlock()
	var c *closing
	switch {
	case errors.As(why, &c):
		return c.code, c.reason
	case err == io.EOF:
		return websocket.StatusNormalClosure, ""
	case errors.Is(context.Cause(x.stream.ctx), errStopping):
		return websocket.StatusGoingAway, "the gateway stops"
	case !errors.As(err, new(*gateway.Problem)):
		err = x.h.why(x.stream.ctx, x.target, err)
	}
	p := gateway.ProblemOf(err)
	gateway.FromContext(x.stream.ctx).StreamError = p
	return websocket.StatusCode(closeStatus + p.Status), clip.Text(p.Code+": "+p.Detail, maxReason)
}

// maxReason is what a close frame has room for.
const maxReason = 123

// read sends to the service what comes from the client. It goes on to the end, because that is how one learns that
// the client is gone.
func (x *socket) read() {
	err := x.copyRequests()
	x.mu.Lock()
	x.err = err
	x.mu.Unlock()
	x.stream.cancel(context.Canceled)
}

func (x *socket) copyRequests() error {
	over := false
	if x.first != nil {
		if err := x.send(x.first); err != nil {
			return err
		}
		_ = x.stream.CloseSend()
		over = true
	}
	for {
		message, last, err := x.next()
		switch {
		case err != nil:
			return err
		case over && last:
			continue
		case over:
			return &closing{websocket.StatusPolicyViolation, "a message after the end of what the client sends"}
		case last:
			_ = x.stream.CloseSend()
			over = true
			continue
		}
		if err := x.send(message); err != nil {
			return err
		}
		if x.target.stream == serverStream {
			_ = x.stream.CloseSend()
			over = true
		}
	}
}

// send leaves it to who receives to say why a stream ended.
func (x *socket) send(message codec.Raw) error {
	err := x.stream.Send(&message)
	if p := notSent(x.target, err); p != nil {
		return &closing{websocket.StatusMessageTooBig, p.Detail}
	}
	if err != nil {
		<-x.stream.ctx.Done()
	}
	return err
}

// next returns the next message of the client, or says that it was the last.
func (x *socket) next() (message codec.Raw, last bool, err error) {
	x.heard.Store(time.Now().UnixNano())
	x.reading.Store(true)
	defer x.reading.Store(false)
	kind, data, err := x.conn.Read(context.Background()) // ended by closing
	switch {
	case err != nil:
		return nil, false, err
	case kind == websocket.MessageText && len(data) == 0:
		return nil, true, nil
	case kind != x.kind():
		return nil, false, &closing{websocket.StatusUnsupportedData, "messages are text with JSON, or binary with the subprotocol " + protocolProto}
	}
	return data, false, nil
}

// ping asks for signs of life while the client is listened to, and ends the socket of one that gives none.
func (x *socket) ping(ctx context.Context) {
	interval := x.h.opts.Heartbeat
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if x.reading.Load() && time.Since(time.Unix(0, x.heard.Load())) > 2*interval+interval/2 {
			_ = x.conn.CloseNow()
			return
		}
		waiting, cancel := context.WithTimeout(ctx, x.h.opts.WriteTimeout)
		err := x.conn.Ping(waiting)
		late := waiting.Err() != nil
		cancel()
		if err != nil && !late { // whether it was answered in time is seen the next time
			x.stream.cancel(context.Canceled)
			return
		}
	}
}
