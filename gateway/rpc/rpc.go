// Package rpc is the end of the gateway's chain: it makes calls and streams of HTTP requests.
//
//	h := rpc.New(c, dir, rpc.Options{})
//	curl -d '{"name":"Ada"}' localhost:8080/greeter/hello     # Greeter.Hello of service greeter
//
// # Paths
//
// Which endpoint is called follows from the path, by the rules of micro v2. A segment is written in camel case to become a
// part of an endpoint's name, so that baz-xyz is BazXyz:
//
//	/foo                foo      Foo.Call
//	/foo/bar            foo      Foo.Bar
//	/greeter/say/hello  greeter  Say.Hello
//	/foo/bar/baz-xyz    foo      Bar.BazXyz
//	/foo/bar/baz/cat    foo.bar  Baz.Cat
//	/v1/foo/bar         v1.foo   Foo.Bar     (v and digits, with two segments more)
//
// An endpoint can also be given by its exact name, as the last segment; those before it are the service, put together by
// dots: /greeter/Greeter.Hello, /foo/bar/Baz.Cat, /v1/foo/Foo.Bar. A last segment with a dot is always an exact name, another
// one if the rules above lead to no endpoint. A slash at the end means nothing.
//
// POST /v1/rpc takes {"service": "greeter", "endpoint": "Greeter.Hello", "body": {…}}. A route of a middleware
// (gateway.Info.Target) goes before all of this, and can be reached with PUT, PATCH and DELETE, too.
//
// Only endpoints that are registered can be called, of those services that Options.Services lets the public reach; a
// route's target can be any. Names that begin with an underscore are internal.
//
// # Bodies
//
// Requests with application/json, application/protobuf and application/octet-stream go through as they are, and the answer
// has the type of the request. A body without a type is taken for JSON, and so is application/x-www-form-urlencoded,
// which is what curl -d says, if it begins with a brace. An empty body is an empty message.
//
// Fields can also come from the path, as a route's parameters, and from the query: POST and GET take them alike. They
// become what the endpoint has registered: a.b=1 is a field of a field, tag=a&tag=b a list, labels.env=prod an entry of a map,
// bytes are base64. A parameter that the endpoint has no field for, or that does not parse, is an error (400).
// A field that several bring is the path's, else the query's, else the body's; names of the body's fields that differ from
// it only in case go, too, because services would read either. It takes a JSON body.
//
// # Methods, and other people's pages
//
// POST and GET call any endpoint, HEAD is GET. A browser sends some requests for a page of any origin, without asking:
// GETs, forms, and such without a type. Of those, the ones that come from another origin (by Sec-Fetch-Site, or else by
// Origin) are refused with 403, unless a middleware vouches for the origin (gateway.Info.CrossOrigin), as cors does. So are
// GETs of endpoints that are declared idempotent: deleting the same thing twice is, too. A browser tells where a GET comes
// from only over HTTPS and to localhost: over plain HTTP nothing can be refused, and an endpoint that must not be called by
// somebody else's page has to ask for credentials that a browser does not send by itself.
//
// # Streams
//
// An endpoint that streams its answers gives one line of JSON for each (application/x-ndjson), or server-sent events if the
// request accepts text/event-stream: messages as they come, then an event "end", or an event "error" with the problem; a
// comment now and then shows that the stream lives. Lines end with {"error": {…}} if the stream broke. An endpoint that
// takes a stream reads the values of the body one after the other, while they come, and answers once, or with a line for each
// answer if it streams both ways (over HTTP/1.1 the client must be able to read while it sends, as curl -T - does).
//
// Any stream works over a WebSocket, too.
//
// # WebSockets
//
// A client opens the path of an endpoint that streams, by ws:// or wss://; a call is refused, with 400. What is wrong before the
// stream is open is said with a status and a problem, of which a browser's script sees nothing.
//
//	const ws = new WebSocket("wss://api.example.com/numbers/sum");
//	ws.onopen = () => {
//		ws.send('{"value": 1}');
//		ws.send('{"value": 2}');
//		ws.send("");                                       // that was all: now comes the answer
//	};
//	ws.onmessage = (e) => console.log(JSON.parse(e.data)); // {"value": 3}
//	ws.onclose = (e) => console.log(e.code, e.reason);     // 1000
//
// Each message is one of the stream: text with JSON, or binary with protobuf if the client offers the subprotocol
// micro.protobuf; who offers micro.json, or no subprotocol, speaks JSON.
//
// An empty text message, with either subprotocol, says that the client sends nothing more: WebSocket has no other way to end one
// side. Closing, with 1000 or any other code, ends both: the stream is cancelled, and the answer lost. So the client sends the
// empty message, reads, and leaves it to the gateway to close. An endpoint that streams its answers takes one
// message, which needs no end, or the fields of the query (wss://…/numbers/count?value=3) and no message.
//
// The gateway closes with
//
//	1000          all is answered
//	1001          the gateway stops: connect again
//	1003          a message of the wrong kind: binary where JSON is spoken, text where protobuf is
//	1008          a message after the end of what the client sends
//	1009          a message larger than Options.MaxBody
//	4000 + status the stream broke, with the status of HTTP that it would have: 4400, 4404, 4504
//
// and the reason says why, in 123 bytes. A code of 1006 is the client's own: the connection was lost.
//
// A page may connect from the gateway's own host, from Options.Origins, and from where a middleware vouches for
// (gateway.Info.CrossOrigin); others get 403. Clients that send no Origin are no pages.
//
// # Time
//
// The header X-Request-Timeout, 1.5s, 250ms or a number of seconds, is the time of the call, up to
// Options.MaxTimeout and the route's own. The service is told of it. When the client goes, the call is cancelled. A stream has
// no end but the one that the header gives it; a route's time is for opening it.
//
// # Errors
//
// All errors are of one form, see gateway.Problem. What an endpoint answers comes with its own text. The gateway's own: 400
// the request is wrong, 403 another origin, 404 no such service or endpoint, 405 with Allow, 406 and 415 with what can be
// had, 408 the body came too slowly, 413 it is too large, 429 the service is at a limit, 499 the client went, 502 the
// connection to the service was lost and it may have run, 503 no node can be reached, 504 there was no answer in time.
package rpc

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/directory"
	"github.com/plugmicro/micro/internal/loglimit"
)

// Options are the settings of a Handler. Zero values mean the defaults.
type Options struct {
	Services       []string      // that paths and /v1/rpc reach: names, or beginnings of names and *; default *
	ForwardHeaders []string      // of requests that services get as metadata; default Authorization and Accept-Language
	Origins        []string      // of pages that may open WebSockets, beside the gateway's own: https://app.example.com, https://*.example.com
	MaxBody        int64         // bytes of a request's body, and of one message of a stream; default 4 MiB
	Timeout        time.Duration // of a call whose request and route do not say; default 10 s
	MaxTimeout     time.Duration // the longest that a request can ask for; default 5 min
	WriteTimeout   time.Duration // for a client to take one message of a stream, and for a service to take one of a body; default 1 min
	Heartbeat      time.Duration // how often a silent stream gives a sign of life; default 15 s
	Logger         *slog.Logger
}

func (o Options) withDefaults() Options {
	if len(o.Services) == 0 {
		o.Services = []string{"*"}
	}
	if o.ForwardHeaders == nil {
		o.ForwardHeaders = []string{"Authorization", "Accept-Language"}
	}
	if o.MaxBody == 0 {
		o.MaxBody = 4 << 20
	}
	for _, d := range []struct {
		p *time.Duration
		v time.Duration
	}{
		{&o.Timeout, 10 * time.Second}, {&o.MaxTimeout, 5 * time.Minute},
		{&o.WriteTimeout, time.Minute}, {&o.Heartbeat, 15 * time.Second},
	} {
		if *d.p == 0 {
			*d.p = d.v
		}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// Handler makes calls of requests. It needs what gateway.Prepare makes of them, and gateway.Info. How long a client may take
// to send a body is for the server to say, which sets the deadline: 408 is answered when that has passed.
type Handler struct {
	client    *client.Client
	directory *directory.Directory
	opts      Options
	log       *slog.Logger
	forward   []forwarded
	found     atomic.Pointer[found]
	finding   sync.Mutex
	failures  loglimit.Limit

	stopping context.Context
	stop     context.CancelFunc
	mu       sync.Mutex // orders streams that begin and Shutdown
	streams  sync.WaitGroup
}

var _ http.Handler = (*Handler)(nil)

// New makes a Handler that calls through c what d knows. It closes neither.
func New(c *client.Client, d *directory.Directory, o Options) *Handler {
	o = o.withDefaults()
	h := &Handler{client: c, directory: d, opts: o, log: o.Logger, forward: forwardedHeaders(o.ForwardHeaders)}
	h.stopping, h.stop = context.WithCancel(context.Background())
	return h
}

// Shutdown ends all streams, in a way that their clients can tell from a failure, and waits for them until ctx ends. Calls
// go on, and are not waited for: the HTTP server does that. New streams are refused.
func (h *Handler) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	h.stop()
	h.mu.Unlock()
	done := make(chan struct{})
	go func() {
		h.streams.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info := gateway.Of(r)
	if err := h.serve(w, r, info); err != nil {
		gateway.Fail(w, r, err)
	}
}

// serve returns an error if nothing was answered yet.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, info *gateway.Info) error {
	if info.Target == nil && r.URL.Path == gateway.ExplicitPath {
		return h.serveExplicit(w, r, info)
	}
	t, err := h.target(r, info)
	if err != nil {
		return err
	}
	info.Route = t.route
	if gateway.IsWebSocket(r.Header) {
		return h.serveWebSocket(w, r, info, t)
	}
	if err := checkMethod(w, r, info, t); err != nil {
		return err
	}
	if t.stream == noStream {
		return h.serveCall(w, r, info, t)
	}
	return h.serveStream(w, r, info, t)
}

// checkMethod refuses what no call is made of, and GETs that somebody else's page may have sent.
func checkMethod(w http.ResponseWriter, r *http.Request, info *gateway.Info, t *target) error {
	switch r.Method {
	case http.MethodPost:
		return nil
	case http.MethodGet, http.MethodHead:
		if !info.CrossOrigin && gateway.FromOtherOrigin(r) {
			return gateway.NewProblem(http.StatusForbidden, "a page of another origin cannot call %s with %s, unless its origin is allowed: see the middleware cors", t.route, r.Method)
		}
		return nil
	case http.MethodPut, http.MethodPatch, http.MethodDelete:
		if info.Target != nil {
			return nil
		}
	}
	w.Header().Set("Allow", "GET, HEAD, POST")
	return gateway.NewProblem(http.StatusMethodNotAllowed, "%s is called with POST or GET", t.route)
}
