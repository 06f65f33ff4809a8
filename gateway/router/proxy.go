package router

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/plugmicro/micro/gateway"
	outbound "github.com/plugmicro/micro/internal/upstream"
	"github.com/plugmicro/micro/tracing/httptrace"
)

// replayable is how large a body may be that is read before it is sent, so that it can be sent again.
const replayable = 16 << 10

// lingering is how long a client that was answered before it had sent all may go on, so that it comes to read the answer.
const lingering = time.Second

// What can end an exchange, beside what the client and the upstream do.
var (
	errSilent  = errors.New("the upstream did not answer in time")
	errStalled = errors.New("nothing moved for too long")
	errReading = errors.New("the client did not send its body in time")
)

// exchange is one request that is passed on to an upstream, and its answer.
type exchange struct {
	m      *Router
	route  *route
	pool   *upstream
	in     *http.Request // with the context that ends the exchange
	client *http.Request // as it came
	w      writer
	info   *gateway.Info
	path   string // that is forwarded
	out    *http.Request
	said   [6]string // values of headers

	upload  requestBody  // what the client sends
	body    *requestBody // that is sent while it comes; nil: there is none, or it is small
	small   []byte       // a body that can be sent again
	copied  *capture     // what a mirror gets of the body
	trailer http.Header  // that is passed on

	sent   bool      // a server can have seen something of the request
	tunnel io.Closer // the connection of a 101

	cancel  context.CancelCauseFunc
	mu      sync.Mutex
	timer   *time.Timer
	why     error // what the timer ends the exchange with
	head    bool  // the head of the answer is there
	over    bool
	outcome outcome
}

// proxy passes r on.
func (m *Router) proxy(w http.ResponseWriter, r *http.Request, rt *route, pool *upstream, path string, info *gateway.Info) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	x := &exchange{m: m, route: rt, pool: pool, client: r, info: info, path: path, cancel: cancel, why: errSilent, outcome: answered}
	x.in, x.upload.x = r.WithContext(ctx), x
	x.w = writer{ResponseWriter: w, x: x}
	x.timer = time.AfterFunc(rt.timeout, x.expire)
	var linger time.Duration
	defer func() { // also when the proxy panics, which is how it cuts an answer
		x.end(linger)
		m.metrics.count(rt, pool, x.outcome)
	}()
	if err := x.prepareBody(w); err != nil {
		x.fail(&x.w, x.in, err)
		linger = lingering
		return
	}
	pool.budget.pay()
	proxy := httputil.ReverseProxy{
		Rewrite: x.rewrite, Transport: x, ModifyResponse: x.answer, ErrorHandler: x.fail, BufferPool: buffers, ErrorLog: silent,
	}
	proxy.ServeHTTP(&x.w, x.in)
	linger = lingering
	if x.outcome == answered && errors.Is(context.Cause(ctx), errStalled) {
		x.outcome = stalled // a tunnel
	}
	if rt.mirror != nil {
		m.mirror(x)
	}
}

// silent takes what ReverseProxy says of errors that the exchange logs itself.
var silent = log.New(io.Discard, "", 0)

// buffers are what bodies are copied with.
var buffers = new(bufferPool)

type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte {
	if buf, ok := b.pool.Get().(*[32 << 10]byte); ok {
		return buf[:]
	}
	return make([]byte, 32<<10)
}

func (b *bufferPool) Put(buf []byte) { b.pool.Put((*[32 << 10]byte)(buf)) }

// prepareBody reads a small body, and limits and watches a large one. A client that expects to be told to continue is
// told so by the upstream, so that its body is left alone.
func (x *exchange) prepareBody(w http.ResponseWriter) error {
	r := x.in
	if !httpguts.ValidHeaderFieldName(r.Method) {
		return errMethod
	}
	limit := x.route.maxBody
	if limit > 0 && r.ContentLength > limit {
		return &http.MaxBytesError{Limit: limit}
	}
	x.upload.src = r.Body
	switch {
	case r.ContentLength == 0:
		r.Body = nil
	case r.ContentLength > 0 && r.ContentLength <= replayable && r.Header.Get("Expect") == "":
		x.small = make([]byte, r.ContentLength)
		if _, err := io.ReadFull(&x.upload, x.small); err != nil {
			return &clientError{err}
		}
		x.upload.ended()
		r.Body = http.NoBody // each attempt gets a reader of its own
	default:
		x.body = &x.upload
		if limit > 0 {
			x.body.src = http.MaxBytesReader(w, r.Body, limit)
		}
		if x.route.mirror != nil {
			x.copied = &capture{limit: x.route.mirror.maxBody}
		}
		r.Body = x.body
		_ = http.NewResponseController(w).EnableFullDuplex() // an answer can begin before the body has ended
	}
	return nil
}

// expire is what the timer does.
func (x *exchange) expire() {
	x.mu.Lock()
	why := x.why
	x.mu.Unlock()
	x.cancel(why)
	if errors.Is(why, errReading) {
		x.upload.interrupt()
	}
}

// wait says for what the exchange waits from now on, and for how long at most.
func (x *exchange) wait(why error, d time.Duration, isHead bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.over:
		return
	case isHead:
		x.head = true
	case x.head: // the rest of a body that is sent while the answer comes
		why, d = errStalled, x.route.idle
	}
	x.why = why
	x.timer.Reset(d)
}

// end is when the handler returns: who still sends the client's body must not read it any more. net/http reads what is left of
// it for some time.
func (x *exchange) end(linger time.Duration) {
	x.mu.Lock()
	x.over = true
	x.timer.Stop()
	x.mu.Unlock()
	if x.tunnel != nil {
		x.tunnel.Close() // ReverseProxy leaves one open that nobody asked for
	}
	if x.client.ContentLength == 0 || x.upload.wasWhole() {
		return
	}
	x.upload.interrupt()
	if x.client.ProtoMajor == 1 && !x.upload.wasWhole() {
		_ = http.NewResponseController(x.w.ResponseWriter).SetReadDeadline(time.Now().Add(linger))
	}
}

func (x *exchange) hasHead() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.head
}

func (x *exchange) isOver() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.over
}

// rewrite makes the request for the upstream, apart from which server is asked.
func (x *exchange) rewrite(pr *httputil.ProxyRequest) {
	out, h := pr.Out, pr.Out.Header
	out.URL.RawQuery = pr.In.URL.RawQuery
	if h.Get("Upgrade") != "" && !(gateway.IsWebSocket(pr.In.Header) && pr.In.ProtoAtLeast(1, 1)) { // RFC 9110, 7.8
		h.Del("Upgrade")
		h.Del("Connection")
	}
	x.forwarded(h)
	if rewritten := x.route.rewrite.host; rewritten != "" && rewritten != upstreamHost {
		out.Host = rewritten
	}
	x.route.request.apply(h)
	out.Trailer = x.announceTrailer(h)
	x.out = out
}

// sayOfClient are headers by which servers are told who the client is. What a client sends under these names is not
// passed on: who it is was found out before.
var sayOfClient = []string{"X-Real-Ip", "X-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "Forwarded"}

// forwarded says who the client is, as the gateway found it.
func (x *exchange) forwarded(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "X-Forwarded-") {
			delete(h, name)
		}
	}
	for _, name := range sayOfClient {
		delete(h, name)
	}
	proto := "http"
	if x.info.Secure {
		proto = "https"
	}
	var room [128]byte
	who := room[:0]
	if client := x.info.Client; client.IsValid() {
		ip := client.String()
		x.say(h, 0, "X-Forwarded-For", ip)
		x.say(h, 1, "X-Real-Ip", ip)
		who = appendNode(append(who, "for="...), client, ip)
	}
	x.say(h, 2, "X-Forwarded-Host", x.client.Host)
	x.say(h, 3, "X-Forwarded-Proto", proto)
	who = appendHost(append(who, "host="...), x.client.Host)
	x.say(h, 4, "Forwarded", string(append(append(who, ";proto="...), proto...)))
	if x.info.ID != "" {
		x.say(h, 5, "X-Request-Id", x.info.ID)
	}
}

// say sets a header without an allocation of its own.
func (x *exchange) say(h http.Header, i int, name, value string) {
	x.said[i] = value
	h[name] = x.said[i : i+1 : i+1]
}

// appendNode writes an address, whose text is ip, as RFC 7239 has it.
func appendNode(b []byte, a netip.Addr, ip string) []byte {
	if a.Is6() {
		return append(append(append(b, `"[`...), ip...), `]";`...)
	}
	return append(append(b, ip...), ';')
}

// appendHost quotes a host with a port, which is no token. Prepare left nothing in it that would need an escape.
func appendHost(b []byte, host string) []byte {
	if strings.ContainsAny(host, ":[]") {
		return strconv.AppendQuote(b, host)
	}
	return append(b, host...)
}

// RoundTrip asks one server of the upstream after the other, as far as the route allows it.
func (x *exchange) RoundTrip(out *http.Request) (*http.Response, error) {
	var tried []*server
	for attempt := 0; ; attempt++ {
		s, report, err := x.pool.choose(tried)
		if err != nil {
			return nil, err
		}
		res, err := x.ask(out, s)
		report(x.verdict(res, err))
		x.sent = x.sent || !isConnect(err)
		if attempt >= x.route.retries.attempts || !x.again(out, res, err) {
			if err == nil {
				x.wait(errStalled, x.route.idle, true)
			}
			return res, err
		}
		if res != nil {
			res.Body.Close()
		}
		out = another(out)
		x.m.metrics.retries.WithLabelValues(x.route.name, x.pool.spec.name).Inc()
		tried = append(tried, s)
	}
}

// another is a copy for the next attempt: something may still read what the last one had.
func another(out *http.Request) *http.Request {
	out = out.WithContext(out.Context())
	u := *out.URL
	out.URL = &u
	return out
}

// ask sends the request to one server.
func (x *exchange) ask(out *http.Request, s *server) (*http.Response, error) {
	out.URL.Scheme, out.URL.Host = s.url.Scheme, s.url.Host
	setPath(out.URL, joinPath(s.url.Path, x.path))
	if x.route.rewrite.host == upstreamHost {
		out.Host = s.url.Host
	}
	if x.body != nil {
		out.Body = x.body // what ReverseProxy put around it cannot be read again once an attempt has closed it
	}
	if x.small != nil {
		out.Body = io.NopCloser(bytes.NewReader(x.small))
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(x.small)), nil }
	}
	return httptrace.Send(out, x.m.roundTrip) // each attempt is a span, if the request is traced
}

// again says whether the request is sent once more: only if that cannot do anything twice, and the budget allows it.
func (x *exchange) again(out *http.Request, res *http.Response, err error) bool {
	r := &x.route.retries
	switch {
	case err == nil && !slices.Contains(r.statuses, res.StatusCode): // as nearly always
		return false
	case x.in.Context().Err() != nil || x.body.wasRead():
		return false
	case isConnect(err): // nothing of it has reached a server
		return r.connect && x.pool.budget.take()
	case !isSafe(out):
		return false
	case err != nil:
		return r.connect && x.pool.budget.take()
	}
	return x.pool.budget.take()
}

// isSafe says whether a request can be sent twice: by its method, or because its sender says so with an Idempotency-Key.
func isSafe(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return r.Header.Get("Upgrade") == ""
	}
	return r.Header.Get("Idempotency-Key") != ""
}

// isConnect says that there was no connection to send anything on. Of https it may be wrong about a request that is safe to send
// twice: net/http does so without a word, if a connection fails that was kept.
func isConnect(err error) bool {
	if err == nil {
		return false
	}
	var ours *outbound.Error
	if errors.As(err, &ours) {
		return ours.Phase == outbound.Dial && !ours.Sent
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// verdict is what a breaker hears.
func (x *exchange) verdict(res *http.Response, err error) error {
	switch {
	case err == nil && slices.Contains(x.pool.spec.breaker.statuses, res.StatusCode):
		return errors.New(res.Status)
	case err == nil:
		return nil
	case x.blame(err).ofClient():
		return errNotTheServer
	}
	return err
}

// blame finds out why there is no answer, or not all of it.
func (x *exchange) blame(err error) outcome {
	cause := context.Cause(x.in.Context())
	if ofClient := x.body.failure(); ofClient != nil {
		err = ofClient
	}
	var large *http.MaxBytesError
	var fault *clientError
	var ours *outbound.Error
	switch {
	case errors.As(err, &large):
		return tooLarge
	case errors.Is(cause, errReading):
		return clientSlow
	case errors.Is(cause, errSilent):
		return silentUpstream
	case errors.Is(cause, errStalled):
		return stalled
	case x.client.Context().Err() != nil, errors.As(err, &fault):
		return clientGone
	case errors.Is(err, errNoServer):
		return noServer
	case x.out == nil, errors.As(err, &ours) && ours.Phase == outbound.Request:
		return badRequest // it cannot be sent as it is
	case x.hasHead():
		return broken
	}
	return unreachable
}

// answer is called with the head of the answer.
func (x *exchange) answer(res *http.Response) error {
	x.w.final = true
	if x.info.ID != "" {
		delete(res.Header, "X-Request-Id") // the gateway has set it
	}
	x.route.response.apply(res.Header)
	x.dropTrailer(res)
	leaveType(x.w.Header()) // before the proxy adds what the answer has
	switch tunnel, ok := res.Body.(io.ReadWriteCloser); {
	case res.StatusCode == http.StatusSwitchingProtocols && ok:
		x.tunnel = tunnel
		res.Body = &tunnelBody{ReadWriteCloser: tunnel, x: x}
	case res.Body != http.NoBody:
		res.Body = &responseBody{src: res.Body, x: x, res: res}
	}
	return nil
}

// fail answers for an upstream that did not.
func (x *exchange) fail(w http.ResponseWriter, _ *http.Request, err error) {
	x.w.final = true
	x.outcome = x.blame(err)
	x.m.logFailure(x, err)
	if x.outcome == noServer {
		w.Header().Set("Retry-After", "1")
	}
	var said *gateway.Problem // by the gateway, of the body
	if ofClient := x.body.failure(); ofClient != nil && errors.As(ofClient, &said) || errors.As(err, &said) {
		if x.outcome != clientSlow { // which is this side's word
			gateway.Fail(w, x.client, said)
			return
		}
	}
	if x.outcome == unreachable && x.unsent(err) {
		gateway.Fail(w, x.client, gateway.NewProblem(http.StatusBadGateway, "no connection to the server behind; the request was not sent"))
		return
	}
	gateway.Fail(w, x.client, x.outcome.problem(x.route))
}

// unsent says that no server has seen anything of the request, in any attempt, so that it can have done nothing.
func (x *exchange) unsent(err error) bool {
	return isConnect(err) && !x.sent && (x.out.URL.Scheme == "http" || !isSafe(x.out))
}

// cut is the end of an answer in its middle. The proxy cuts it for the client, too, who never takes it for a whole one.
func (x *exchange) cut(err error) {
	x.outcome = x.blame(err)
	x.m.logFailure(x, err)
}
