package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/metadata"
)

// call is the memory of one call, which is used again.
type call struct {
	request, answer codec.Raw
}

var calls = sync.Pool{New: func() any { return new(call) }}

// maxKept is how much memory a call may keep for the next one.
const maxKept = 64 << 10

func (c *call) release() {
	if cap(c.request) <= maxKept && cap(c.answer) <= maxKept {
		calls.Put(c)
	}
}

// serveCall reads the request, calls the endpoint and answers.
func (h *Handler) serveCall(w http.ResponseWriter, r *http.Request, info *gateway.Info, t *target) error {
	c := calls.Get().(*call)
	defer c.release()
	as, err := h.readRequest(w, r, info, t, c)
	if err != nil {
		return err
	}
	if err := checkAccept(r, typeNames[as]); err != nil {
		return err
	}
	return h.call(w, r, info, t, as, c)
}

// readRequest reads the one message that r brings, in its body, its path and its query.
func (h *Handler) readRequest(w http.ResponseWriter, r *http.Request, info *gateway.Info, t *target, c *call) (as bodyType, err error) {
	if as, err = requestType(r, info, t); err != nil {
		return as, err
	}
	if c.request, err = h.readBody(w, r, c.request[:0]); err != nil {
		return as, err
	}
	if as == typeJSON {
		if err := checkForm(r, c.request); err != nil {
			return as, err
		}
	}
	if r.URL.RawQuery == "" && (info.Target == nil || len(info.Params) == 0) {
		return as, nil
	}
	if as != typeJSON {
		return as, unsupported(nil, "a body of another type together with fields in the path or the query")
	}
	var params map[string]string
	if info.Target != nil {
		params = info.Params
	}
	c.request, err = merge(t.described.Request, params, r.URL.RawQuery, c.request)
	return as, err
}

// call makes the call that c has the request of.
func (h *Handler) call(w http.ResponseWriter, r *http.Request, info *gateway.Info, t *target, as bodyType, c *call) error {
	if err := info.Admit(t.service, t.endpoint); err != nil {
		return err
	}
	opts := t.byType[as]
	timeout, err := h.timeout(r, t)
	if err != nil {
		return err
	}
	if timeout > 0 {
		opts = append(slices.Clip(opts), client.Timeout(timeout))
	}
	err = client.CallInto(h.context(r, info), h.client, t.service, t.endpoint, &c.request, &c.answer, opts...)
	if err != nil {
		return h.why(r.Context(), t, err)
	}
	answer(w, r, as, c.answer)
	return nil
}

var emptyObject = []byte("{}")

// answer sends the one answer of a call.
func answer(w http.ResponseWriter, r *http.Request, as bodyType, body []byte) {
	if len(body) == 0 && as == typeJSON {
		body = emptyObject
	}
	header := w.Header()
	header["Content-Type"] = typeHeaders[as]
	header["X-Content-Type-Options"] = noSniff
	if r.Method != http.MethodPost && header["Cache-Control"] == nil {
		header["Cache-Control"] = []string{"no-store"}
	}
	if len(body) > 2000 { // the server counts shorter ones itself
		header["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	_, _ = w.Write(body) // who does not take it is gone
}

// explicit is the body at gateway.ExplicitPath.
type explicit struct {
	Service  string          `json:"service"`
	Endpoint string          `json:"endpoint"`
	Body     json.RawMessage `json:"body"`
}

// serveExplicit makes the call, or opens the stream of answers, that the body names.
func (h *Handler) serveExplicit(w http.ResponseWriter, r *http.Request, info *gateway.Info) error {
	info.Route = gateway.ExplicitPath
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		return gateway.NewProblem(http.StatusMethodNotAllowed, "%s is asked with POST", gateway.ExplicitPath)
	}
	c := calls.Get().(*call)
	defer c.release()
	as, err := requestType(r, info, nil)
	switch {
	case err != nil:
		return err
	case as != typeJSON:
		return unsupported(nil, "Content-Type "+typeNames[as])
	case r.URL.RawQuery != "":
		return gateway.NewProblem(http.StatusBadRequest, "%s takes all that it needs from the body, and no query", gateway.ExplicitPath)
	}
	if c.request, err = h.readBody(w, r, c.request[:0]); err != nil {
		return err
	}
	var e explicit
	if err := decodeExplicit(c.request, &e); err != nil {
		return err
	}
	t, err := h.named(e.Service, e.Endpoint)
	if err != nil {
		return err
	}
	info.Route = t.route
	c.request = append(c.request[:0], e.Body...)
	switch t.stream {
	case noStream:
		if err := checkAccept(r, codec.JSON); err != nil {
			return err
		}
		return h.call(w, r, info, t, typeJSON, c)
	case serverStream:
		return h.streamAnswers(w, r, info, t, c)
	}
	return gateway.NewProblem(http.StatusBadRequest, "%s takes a stream, which %s cannot give: use the path of the endpoint", t.route, gateway.ExplicitPath)
}

func decodeExplicit(body []byte, e *explicit) error {
	const want = `want {"service": "…", "endpoint": "…", "body": {…}}`
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(e); err != nil {
		return gateway.NewProblem(http.StatusBadRequest, "the body is wrong, %s: %v", want, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return gateway.NewProblem(http.StatusBadRequest, "the body goes on after its end, %s", want)
	}
	if e.Service == "" || e.Endpoint == "" {
		return gateway.NewProblem(http.StatusBadRequest, "the body names no service or no endpoint, %s", want)
	}
	if string(e.Body) == "null" {
		e.Body = nil
	}
	return nil
}

// timeoutHeader is how long a client wants to wait.
const timeoutHeader = "X-Request-Timeout"

// timeout is what the request says of the time of its call; 0: nothing.
func (h *Handler) timeout(r *http.Request, t *target) (time.Duration, error) {
	header := r.Header[timeoutHeader]
	if len(header) == 0 {
		return 0, nil
	}
	d, ok := parseTimeout(header[0])
	if !ok || len(header) > 1 {
		return 0, gateway.NewProblem(http.StatusBadRequest, "%s is no time: write 1.5s, 250ms or a number of seconds", timeoutHeader)
	}
	limit := h.opts.MaxTimeout
	if t.limit.Timeout > 0 && t.stream == noStream {
		limit = t.limit.Timeout
	}
	return min(d, limit), nil
}

func parseTimeout(s string) (time.Duration, bool) {
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		d := seconds * float64(time.Second)
		return time.Duration(min(d, math.MaxInt64/2)), d >= 1
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d > 0
}

// The metadata that every call carries.
const (
	metadataID     = "request-id"
	metadataClient = "client-ip"
)

// forwarded is a header that services get.
type forwarded struct{ header, key string }

// forwardedHeaders leaves out those whose place in the metadata is the gateway's.
func forwardedHeaders(names []string) []forwarded {
	var list []forwarded
	for _, name := range names {
		if key := strings.ToLower(name); key != metadataID && key != metadataClient {
			list = append(list, forwarded{textproto.CanonicalMIMEHeaderKey(name), key})
		}
	}
	return list
}

// context is that of r, with what the service is told beside the body: headers first, so that nothing a client sends goes
// before what the gateway and its middlewares say.
func (h *Handler) context(r *http.Request, info *gateway.Info) context.Context {
	pairs := make(map[string]string, 4)
	for _, f := range h.forward {
		if v := r.Header[f.header]; len(v) == 1 {
			pairs[f.key] = v[0]
		} else if len(v) > 1 {
			pairs[f.key] = strings.Join(v, ", ")
		}
	}
	if info.ID != "" {
		pairs[metadataID] = info.ID
	}
	if info.Client.IsValid() {
		pairs[metadataClient] = info.Client.String()
	}
	for k, v := range info.Metadata() {
		pairs[strings.ToLower(k)] = v
	}
	if len(pairs) == 0 {
		return r.Context()
	}
	return metadata.WithAll(r.Context(), pairs)
}
