package httpd

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/clip"
	"github.com/plugmicro/micro/tracer"
	"github.com/plugmicro/micro/tracing/httptrace"
)

const (
	idHeader   = "X-Request-Id"
	maxID      = 128
	maxHeaders = 256 // lines of a head: each costs more memory than bytes
	shownPath  = 512 // bytes of a path in the log
)

// errDrained is why requests end that are cut off when the gateway stops.
var errDrained = errors.New("the gateway stops")

// ServeHTTP is the way of every request: what is to be known at its end is gathered, it is brought into its normal form, and
// goes through the chain.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ResponseWriter: w, hijackers: &g.hijackers, silent: g.settings.SilentTimeout, h2: r.ProtoMajor == 2, last: g.isLast(r)}
	x.info.Start = time.Now()
	x.extended = x.info.Start
	if x.h2 {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	}
	g.setID(x, r)
	body := r.Body
	r = gateway.With(r, &x.info)
	g.metrics.inFlight.Inc()
	defer g.done(x, r)
	err := g.prepare(x, r, body)
	if !g.settings.ClientTraces {
		removeTrace(r.Header)
	}
	if g.backend.tracer != nil {
		r, x.span = httptrace.Start(g.backend.tracer, r)
		if t, ok := g.backend.tracer.(tracer.Responder); ok {
			t.Respond(r.Context(), x.Header().Set)
		}
	}
	if err != nil {
		gateway.Fail(x, r, err)
		return
	}
	switch r.URL.Path {
	case "/healthz":
		x.info.Route = "healthz"
		g.serveHealth(x, r)
	case "/readyz":
		x.info.Route = "readyz"
		g.serveReady(x, r)
	default:
		g.chain.ServeHTTP(x, r)
	}
}

// removeTrace takes from a request what any of the tracers would believe, here or further on.
func removeTrace(h http.Header) {
	for _, name := range httptrace.Headers {
		delete(h, name)
	}
}

// setID takes the id that the client or a proxy gave the request, if it can be shown in logs, or makes one.
func (g *Gateway) setID(x *exchange, r *http.Request) {
	if v := r.Header[idHeader]; len(v) == 1 && isID(v[0]) {
		x.info.ID = v[0]
	} else {
		x.info.ID = newID()
		r.Header.Del(idHeader)
	}
	x.id[0] = x.info.ID
	x.Header()[idHeader] = x.id[:]
}

// isLast says whether the connection ends with the answer: where there may have been a length of the body, too, by which a
// proxy before us went, what follows is no request; with HTTP/1.0 net/http does not tell. When the gateway stops, the next one
// is to go to another.
func (g *Gateway) isLast(r *http.Request) bool {
	return r.ProtoMajor <= 1 && (!r.ProtoAtLeast(1, 1) || len(r.TransferEncoding) > 0 || g.stopping.Load())
}

func isID(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == ':', c == '=', c == '/', c == '+':
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxID
}

func newID() string {
	var raw [16]byte
	var text [32]byte
	a, b := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		raw[i], raw[8+i] = byte(a>>(8*i)), byte(b>>(8*i))
	}
	hex.Encode(text[:], raw[:])
	return string(text[:])
}

// prepare makes of the request what the chain can rely on.
func (g *Gateway) prepare(x *exchange, r *http.Request, in io.ReadCloser) (err error) {
	if lines(r.Header) > maxHeaders {
		return gateway.NewProblem(http.StatusRequestHeaderFieldsTooLarge, "the request has more than %d headers", maxHeaders)
	}
	if x.info.Host, err = gateway.Prepare(r); err != nil {
		return err
	}
	if g.unset && !isOwn(x.info.Host, nil) {
		return gateway.NewProblem(http.StatusMisdirectedRequest, "as long as nobody sets --gateway-address, the gateway is asked by address, "+
			"as localhost or as *.localhost only: set it, for instance to 127.0.0.1:8080, and any name will do")
	}
	if x.info.Client, x.info.Secure, err = g.who.Client(r); err != nil {
		g.unknown.Warn(g.log, "it is not known who the client is", "peer", r.RemoteAddr, "error", err)
	}
	if in == nil || in == http.NoBody {
		return nil
	}
	limit := int64(g.settings.MaxBody)
	switch {
	case r.ContentLength > limit:
		gateway.EndAfterAnswer(x.ResponseWriter)
		return tooLargeProblem(limit)
	case r.ContentLength < 0:
		in = http.MaxBytesReader(x.ResponseWriter, in, limit)
	}
	x.in.chunked = len(r.TransferEncoding) > 0
	x.in.ReadCloser, x.in.writer, x.in.silent, x.in.h2 = in, x.ResponseWriter, x.silent, x.h2
	if x.h2 {
		_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(time.Time{})
	}
	r.Body = &x.in
	return nil
}

func lines(h http.Header) (n int) {
	for _, values := range h {
		n += len(values)
	}
	return n
}

// done ends a request, also one that ended in a panic: that is answered if nothing was, or cuts the connection.
func (g *Gateway) done(x *exchange, r *http.Request) {
	cut := false
	if p := recover(); p != nil {
		cut = g.recovered(x, r, p)
	}
	o := g.outcome(x, r)
	if x.hijacked {
		g.hijackers.done()
	} else {
		x.leave(o.gone)
	}
	g.record(x, r, o)
	if cut {
		panic(http.ErrAbortHandler)
	}
}

// outcome is what became of a request.
type outcome struct {
	status         int
	gone           bool // the client went before it had the whole answer
	took           time.Duration
	received, sent int64 // bytes of bodies
}

func (g *Gateway) outcome(x *exchange, r *http.Request) outcome {
	o := outcome{status: x.status, gone: g.isGone(x, r), took: time.Since(x.info.Start), received: x.in.read.Load(), sent: x.written}
	switch {
	case o.gone && (o.status == 0 || o.status >= 400): // whatever the handler made of that
		o.status = gateway.ClientClosed
	case o.status == 0:
		o.status = http.StatusOK // which the server now sends
	}
	return o
}

// record has the outcome counted, traced and logged.
func (g *Gateway) record(x *exchange, r *http.Request, o outcome) {
	route := cmp.Or(x.info.Route, "none")
	g.metrics.inFlight.Dec()
	g.metrics.received.Add(float64(o.received))
	g.metrics.sent.Add(float64(o.sent))
	if o.gone {
		g.metrics.clientGone.Inc()
	}
	var failed error
	if p := x.info.StreamError; p != nil {
		g.metrics.streamErrors.WithLabelValues(p.Code).Inc()
		if p.Status >= 500 {
			failed = p
		}
	}
	x.span.End(o.status, o.sent, failed)
	g.metrics.observe(label{route, methodLabel(r.Method), statusLabel(o.status)}, o.took)
	if g.settings.AccessLog && (route != "healthz" && route != "readyz" || o.status != http.StatusOK) {
		g.logAccess(x, r, o)
	}
}

// recovered answers a request that ended in a panic, or says that its connection is to be cut.
func (g *Gateway) recovered(x *exchange, r *http.Request, p any) (cut bool) {
	if p != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
		g.metrics.panics.Inc()
		g.log.Error("a request ended in a panic", "panic", fmt.Sprint(p), "method", r.Method, "path", shown(r.URL.Path),
			"request_id", x.info.ID, "stack", string(debug.Stack()))
		if x.status == 0 {
			gateway.Fail(x, r, gateway.NewProblem(http.StatusInternalServerError, "the gateway failed: its log says why"))
			return false
		}
	}
	if x.status == 0 {
		x.status = http.StatusInternalServerError
	}
	return !x.hijacked
}

// isGone says whether the client went away before it had the whole answer.
func (g *Gateway) isGone(x *exchange, r *http.Request) bool {
	if x.hijacked || errors.Is(context.Cause(r.Context()), errDrained) {
		return false
	}
	return x.failed || x.in.cut.Load() || x.status == gateway.ClientClosed || r.Context().Err() != nil && !x.in.late.Load()
}

// logAccess writes the line of a request. What comes from strangers is in attributes, which handlers quote.
func (g *Gateway) logAccess(x *exchange, r *http.Request, o outcome) {
	if !g.log.Enabled(r.Context(), slog.LevelInfo) {
		return
	}
	client := "unknown"
	if x.info.Client.IsValid() {
		client = x.info.Client.String()
	}
	attrs := [...]slog.Attr{
		slog.String("method", methodShown(r.Method)), slog.String("host", x.info.Host), slog.String("path", shown(r.URL.Path)),
		slog.Int("status", o.status), slog.Duration("took", o.took), slog.Int64("received", o.received), slog.Int64("sent", o.sent),
		slog.String("client", client), slog.String("route", x.info.Route), slog.String("request_id", x.info.ID),
		{}, {}, {}, // room for three more
	}
	list := attrs[:len(attrs)-3]
	if id := x.span.TraceID(); id != "" {
		list = append(list, slog.String("trace_id", id))
	}
	if o.gone {
		list = append(list, slog.Bool("client_gone", true))
	}
	if p := x.info.StreamError; p != nil {
		list = append(list, slog.String("stream_error", p.Code))
	}
	g.log.LogAttrs(r.Context(), slog.LevelInfo, "request", list...)
}

// methodShown keeps a made-up method from filling the log.
func methodShown(method string) string { return method[:min(len(method), 20)] }

func shown(path string) string { return clip.Text(path, shownPath) }

func (g *Gateway) serveHealth(w http.ResponseWriter, r *http.Request) { sayState(w, r, nil) }

func (g *Gateway) serveReady(w http.ResponseWriter, r *http.Request) { sayState(w, r, g.Ready()) }

// sayState answers those who ask whether to send requests here.
func sayState(w http.ResponseWriter, r *http.Request, err error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		gateway.Fail(w, r, gateway.NewProblem(http.StatusMethodNotAllowed, "this path is asked with GET"))
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	if err != nil {
		gateway.Fail(w, r, gateway.NewProblem(http.StatusServiceUnavailable, "%v", err))
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n")
}
