// Package httptrace makes the spans of HTTP, for the gateway: of the requests that it serves and of those that it sends on.
//
//	r, span := httptrace.Start(t, r) // after gateway.With: the span is named by Info.Route in the end
//	defer func() { span.End(status, bytes, nil) }()
//
// It wraps no ResponseWriter: who serves knows the status. With a nil tracer nothing is done. Calls that are made with the
// context of the request belong to its span (see package tracing); what is sent on by HTTP carries it by Send.
//
// Spans have method, path, host, status and address of the client, never a query, a header or a body.
package httptrace

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/clip"
	"github.com/plugmicro/micro/tracer"
)

// The names of OpenTelemetry's conventions, of the version that schema says.
const (
	schema = "https://opentelemetry.io/schemas/1.37.0"

	keyMethod     attribute.Key = "http.request.method"
	keyStatus     attribute.Key = "http.response.status_code"
	keySize       attribute.Key = "http.response.body.size"
	keyRoute      attribute.Key = "http.route"
	keyScheme     attribute.Key = "url.scheme"
	keyPath       attribute.Key = "url.path"
	keyURL        attribute.Key = "url.full"
	keyServer     attribute.Key = "server.address"
	keyServerPort attribute.Key = "server.port"
	keyClient     attribute.Key = "client.address"
	keyAgent      attribute.Key = "user_agent.original"
	keyProtocol   attribute.Key = "network.protocol.version"
	keyErrorType  attribute.Key = "error.type"
)

const scope = "github.com/plugmicro/micro/tracing/httptrace"

// Headers are those by which any of the tracers would go on with the trace of a request, in their canonical form. They are not
// to be changed.
var Headers = []string{"Traceparent", "Tracestate", "Baggage", "X-Amzn-Trace-Id"}

// maxText bounds what strangers write into a span, in bytes.
const maxText = 1024

// Span is the span of one request. A nil Span is one of a request that is not traced: all methods do nothing.
type Span struct {
	span   trace.Span
	method string
	info   *gateway.Info // of a request that is served
}

// tracerKey is where the context of a request has the tracer, for Send.
type tracerKey struct{}

// Start begins the span of a request that is served: a child of the one that its headers name. What it returns is the
// request to go on with. The host and the client's address are those of gateway.Info.
func Start(t tracer.Tracer, r *http.Request) (*http.Request, *Span) {
	if t == nil {
		return r, nil
	}
	info := gateway.Of(r)
	ctx := t.Extract(r.Context(), func(key string) string { return strings.Join(r.Header.Values(key), ",") })
	s := &Span{method: method(r.Method), info: info}
	ctx, s.span = t.Provider().Tracer(scope, trace.WithSchemaURL(schema)).Start(ctx, name(s.method),
		trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(s.served(r)...))
	return r.WithContext(context.WithValue(ctx, tracerKey{}, t)), s
}

// served describes a request as it came, for the sampler as well.
func (s *Span) served(r *http.Request) []attribute.KeyValue {
	scheme, host := "http", s.info.Host
	if s.info.Secure {
		scheme = "https"
	}
	attrs := make([]attribute.KeyValue, 0, 9)
	attrs = append(attrs, keyMethod.String(s.method), keyScheme.String(scheme), keyPath.String(bounded(r.URL.Path)),
		keyProtocol.String(strings.TrimPrefix(r.Proto, "HTTP/")))
	attrs = appendHost(attrs, host, r.Host)
	if s.info.Client.IsValid() {
		attrs = append(attrs, keyClient.String(s.info.Client.String()))
	}
	if agent := r.UserAgent(); agent != "" {
		attrs = append(attrs, keyAgent.String(bounded(agent)))
	}
	return attrs
}

// Send makes a round trip for a request that is served, with a span of its own: a child of the one in the context of r, whose
// context is in the headers of what is sent. r is not changed. The span ends with the head of the answer, because the body may
// be a stream. Without tracing it is roundTrip.
func Send(r *http.Request, roundTrip func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	t, ok := r.Context().Value(tracerKey{}).(tracer.Tracer)
	if !ok {
		return roundTrip(r)
	}
	r, span := forward(t, r)
	rsp, err := roundTrip(r)
	if err != nil {
		span.End(0, -1, err)
		return rsp, err
	}
	span.End(rsp.StatusCode, rsp.ContentLength, nil)
	return rsp, nil
}

func forward(t tracer.Tracer, r *http.Request) (*http.Request, *Span) {
	s := &Span{method: method(r.Method)}
	target := *r.URL
	target.User, target.RawQuery, target.Fragment = nil, "", ""
	attrs := appendHost([]attribute.KeyValue{keyMethod.String(s.method), keyURL.String(bounded(target.String()))}, target.Hostname(), target.Host)
	ctx, span := t.Provider().Tracer(scope, trace.WithSchemaURL(schema)).Start(r.Context(), name(s.method),
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attrs...))
	s.span = span
	r = r.Clone(ctx)
	t.Inject(ctx, r.Header.Set)
	return r, s
}

// TraceID is what a log can show; "" if the request is not traced.
func (s *Span) TraceID() string {
	if s == nil || !s.span.SpanContext().HasTraceID() {
		return ""
	}
	return s.span.SpanContext().TraceID().String()
}

// End ends the span: with the status of the answer, 0 if there was none; with the bytes of its body, less than 0 if they
// are not known; and with what went wrong, if it did.
func (s *Span) End(status int, bytes int64, err error) {
	if s == nil {
		return
	}
	if s.span.IsRecording() {
		s.describeEnd(status, bytes, err)
	}
	s.span.End()
}

func (s *Span) describeEnd(status int, bytes int64, err error) {
	if status != 0 {
		s.span.SetAttributes(keyStatus.Int(status))
	}
	if bytes >= 0 {
		s.span.SetAttributes(keySize.Int64(bytes))
	}
	failed := 500 // what a client did wrong is no failure of the server
	if s.info == nil {
		failed = 400
	} else if s.info.Route != "" {
		s.span.SetAttributes(keyRoute.String(s.info.Route))
		s.span.SetName(name(s.method) + " " + s.info.Route)
	}
	switch {
	case err != nil:
		s.span.SetAttributes(keyErrorType.String("_OTHER"))
		s.span.SetStatus(codes.Error, bounded(err.Error()))
	case status >= failed:
		s.span.SetAttributes(keyErrorType.String(strconv.Itoa(status)))
		s.span.SetStatus(codes.Error, "")
	}
}

func appendHost(attrs []attribute.KeyValue, name, hostport string) []attribute.KeyValue {
	if name == "" {
		return attrs
	}
	attrs = append(attrs, keyServer.String(name))
	if _, port, err := net.SplitHostPort(hostport); err == nil {
		if n, err := strconv.Atoi(port); err == nil {
			attrs = append(attrs, keyServerPort.Int(n))
		}
	}
	return attrs
}

var methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
	http.MethodConnect, http.MethodOptions, http.MethodTrace}

// method keeps made-up ones out of the names of spans.
func method(m string) string {
	switch {
	case m == "":
		return http.MethodGet
	case slices.Contains(methods, m):
		return m
	}
	return other
}

// other is what the conventions call a method that they do not know; the name of its span begins with HTTP.
const other = "_OTHER"

func name(method string) string {
	if method == other {
		return "HTTP"
	}
	return method
}

func bounded(text string) string { return strings.ToValidUTF8(clip.Prefix(text, maxText), "") }
