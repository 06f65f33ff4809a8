package xray

import (
	"cmp"
	"context"
	"maps"
	"math"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/plugmicro/micro/internal/clip"
	"github.com/plugmicro/micro/status"
)

// ruleKey is the attribute in which the sampler leaves the name of the rule that sampled.
const ruleKey attribute.Key = "aws.xray.sampling_rule"

// What X-Ray takes of a text, in characters or bytes, whichever is less.
const (
	maxName       = 200
	maxUser       = 250
	maxText       = 1000 // of annotations; other texts but metadata are kept as short
	maxAnnotation = 50   // how many there may be
)

// translator makes segment documents of spans.
type translator struct {
	name        string // of segments
	origin      string
	service     *service
	aws         awsFields       // what the resource says
	annotations map[string]bool // keys of attributes; "*" is all of them
}

func newTranslator(c Config, res *resource.Resource) *translator {
	f := fieldsOf(res.Attributes())
	t := &translator{
		name:        cleanName(c.Name),
		service:     &service{Runtime: runtime.Compiler, RuntimeVersion: runtime.Version(), Version: clip.Prefix(f.text("service.version"), 255)},
		aws:         awsOf(f),
		origin:      c.Origin,
		annotations: make(map[string]bool),
	}
	for _, key := range c.Annotations {
		t.annotations[key] = true
	}
	t.aws.XRay = &awsSDK{SDK: "opentelemetry for go", Version: sdk.Version()}
	return t
}

// origins are X-Ray's names of what OpenTelemetry calls cloud.platform.
var origins = map[string]string{
	"aws_ec2":               "AWS::EC2::Instance",
	"aws_ecs":               "AWS::ECS::Container",
	"aws_eks":               "AWS::EKS::Container",
	"aws_elastic_beanstalk": "AWS::ElasticBeanstalk::Environment",
	"aws_app_runner":        "AWS::AppRunner::Service",
}

// document is a segment document, as X-Ray has it.
type document struct {
	Name        string                    `json:"name"`
	ID          string                    `json:"id"`
	TraceID     string                    `json:"trace_id,omitempty"`
	ParentID    string                    `json:"parent_id,omitempty"`
	Type        string                    `json:"type,omitempty"`
	Start       seconds                   `json:"start_time"`
	End         seconds                   `json:"end_time"`
	Namespace   string                    `json:"namespace,omitempty"`
	Origin      string                    `json:"origin,omitempty"`
	User        string                    `json:"user,omitempty"`
	Error       bool                      `json:"error,omitempty"`
	Throttle    bool                      `json:"throttle,omitempty"`
	Fault       bool                      `json:"fault,omitempty"`
	Cause       *cause                    `json:"cause,omitempty"`
	HTTP        *httpFields               `json:"http,omitempty"`
	SQL         *sqlFields                `json:"sql,omitempty"`
	AWS         *awsFields                `json:"aws,omitempty"`
	Service     *service                  `json:"service,omitempty"`
	Annotations map[string]any            `json:"annotations,omitempty"`
	Metadata    map[string]map[string]any `json:"metadata,omitempty"`
	Subsegments []*document               `json:"subsegments,omitempty"`
}

type service struct {
	Version        string `json:"version,omitempty"`
	Runtime        string `json:"runtime,omitempty"`
	RuntimeVersion string `json:"runtime_version,omitempty"`
}

type httpFields struct {
	Request  *httpRequest  `json:"request,omitempty"`
	Response *httpResponse `json:"response,omitempty"`
}

type httpRequest struct {
	Method       string `json:"method,omitempty"`
	URL          string `json:"url,omitempty"`
	ClientIP     string `json:"client_ip,omitempty"`
	ForwardedFor bool   `json:"x_forwarded_for,omitempty"`
	UserAgent    string `json:"user_agent,omitempty"`
}

type httpResponse struct {
	Status        int64 `json:"status,omitempty"`
	ContentLength int64 `json:"content_length,omitempty"`
}

type sqlFields struct {
	URL   string `json:"url,omitempty"`
	Type  string `json:"database_type,omitempty"`
	User  string `json:"user,omitempty"`
	Query string `json:"sanitized_query,omitempty"`
}

type awsFields struct {
	AccountID string        `json:"account_id,omitempty"`
	Operation string        `json:"operation,omitempty"`
	Region    string        `json:"region,omitempty"`
	RequestID string        `json:"request_id,omitempty"`
	QueueURL  string        `json:"queue_url,omitempty"`
	Table     string        `json:"table_name,omitempty"`
	ECS       *awsContainer `json:"ecs,omitempty"`
	EC2       *awsInstance  `json:"ec2,omitempty"`
	XRay      *awsSDK       `json:"xray,omitempty"`
}

type awsContainer struct {
	Container string `json:"container,omitempty"`
}

type awsInstance struct {
	ID   string `json:"instance_id,omitempty"`
	Zone string `json:"availability_zone,omitempty"`
}

type awsSDK struct {
	SDK     string `json:"sdk,omitempty"`
	Version string `json:"sdk_version,omitempty"`
	Rule    string `json:"sampling_rule_name,omitempty"`
}

// seconds is a time as X-Ray wants it: in seconds since 1970, to the microsecond.
type seconds time.Time

// MarshalJSON does without floats: near 2^31 they have microseconds, but not these ones.
func (s seconds) MarshalJSON() ([]byte, error) {
	t := time.Time(s)
	b := strconv.AppendInt(make([]byte, 0, 24), t.Unix(), 10)
	b = append(b, '.')
	digits := strconv.Itoa(1e6 + t.Nanosecond()/1000)
	return append(b, digits[1:]...), nil
}

// document makes a segment of a span that came from another process or from nowhere, and of others a subsegment, which is
// sent independently of its segment. A call that comes from nowhere becomes a subsegment inside of a segment: X-Ray knows
// what is called from subsegments alone.
func (t *translator) document(span sdktrace.ReadOnlySpan) *document {
	f := fieldsOf(span.Attributes())
	rule := f.text(ruleKey)
	user := clip.Prefix(f.text("user.id", "enduser.id"), maxUser)
	d := &document{
		Name:    cleanName(span.Name()),
		ID:      span.SpanContext().SpanID().String(),
		TraceID: formatRoot(span.SpanContext().TraceID()),
		Type:    "subsegment",
		Start:   seconds(span.StartTime()),
		End:     seconds(latest(span.StartTime(), span.EndTime())),
	}
	if span.Parent().SpanID().IsValid() {
		d.ParentID = span.Parent().SpanID().String()
	}
	d.Error, d.Throttle, d.Fault = outcome(f, span.Status())
	d.Cause = causeOf(f, span)

	first := d.ParentID == "" || span.Parent().IsRemote()
	kind := span.SpanKind()
	calls := kind == trace.SpanKindClient || kind == trace.SpanKindProducer
	serves := kind == trace.SpanKindServer || kind == trace.SpanKindConsumer
	if calls {
		d.Name, d.Namespace, d.AWS = callee(f, span.Name())
	} else if first || serves {
		t.makeSegment(d, user, rule)
	}
	if d.Type != "" {
		d.SQL = sqlOf(f)
	}
	d.HTTP = httpOf(f, d.Type == "")
	d.Annotations, d.Metadata = t.rest(f, span, d.Name)
	if calls && first {
		return t.around(d, user, rule)
	}
	return d
}

// makeSegment gives a document what only segments have.
func (t *translator) makeSegment(d *document, user, rule string) {
	xray := *t.aws.XRay
	xray.Rule = rule
	aws := t.aws
	aws.XRay = &xray
	d.Name, d.Type, d.Origin, d.Service, d.User, d.AWS = t.name, "", t.origin, t.service, user, &aws
}

// around makes the segment of a call.
func (t *translator) around(call *document, user, rule string) *document {
	d := &document{
		ID: randomID(), TraceID: call.TraceID, ParentID: call.ParentID, Start: call.Start, End: call.End,
		Error: call.Error, Throttle: call.Throttle, Fault: call.Fault,
	}
	t.makeSegment(d, user, rule)
	call.TraceID, call.ParentID, call.Type = "", "", ""
	d.Subsegments = []*document{call}
	return d
}

func randomID() string {
	id := ids{}.NewSpanID(context.Background(), trace.TraceID{})
	return id.String()
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// outcome is what X-Ray makes of how it ended: the HTTP status decides, without one the code of the call, which may say what
// its caller did wrong though the span did not fail, and without that the status of the span.
func outcome(f fields, s sdktrace.Status) (failed, throttled, fault bool) {
	switch code := f.number("http.response.status_code"); {
	case code == 429:
		return true, true, false
	case 400 <= code && code < 500:
		return true, false, false
	case 500 <= code && code < 600:
		return false, false, true
	}
	code := f.text("rpc.response.status_code", "rpc.grpc.status_code")
	if n, err := strconv.ParseUint(code, 10, 32); err == nil {
		code = status.Code(n).String()
	}
	switch strings.ToLower(strings.ReplaceAll(code, "_", "")) {
	case "resourceexhausted":
		return true, true, false
	case "canceled", "cancelled", "invalidargument", "notfound", "alreadyexists", "permissiondenied", "unauthenticated",
		"failedprecondition", "aborted", "outofrange":
		return true, false, false
	}
	return false, false, s.Code == codes.Error
}

// callee says what is called, as the service map is to name it.
func callee(f fields, span string) (name, namespace string, aws *awsFields) {
	if f.text("rpc.system", "rpc.system.name") == "aws-api" {
		a := awsFields{
			Operation: f.short("rpc.method"),
			Region:    f.short("cloud.region", "aws.region"),
			RequestID: f.short("aws.request_id"),
			QueueURL:  f.short("aws.sqs.queue.url", "messaging.url"),
			Table:     f.short("aws.dynamodb.table_names"),
		}
		service := f.text("rpc.service")
		if service == "" { // S3/GetObject
			service, a.Operation, _ = strings.Cut(a.Operation, "/")
		}
		return cleanName(cmp.Or(service, span)), "aws", &a
	}
	name = f.text("service.peer.name", "peer.service")
	if db := f.text("db.namespace"); name == "" && db != "" {
		name = db
		if host := f.text("server.address"); host != "" {
			name += "@" + host
		}
	}
	if u, err := url.Parse(f.text("url.full")); name == "" && err == nil {
		name = u.Host // with the port, as X-Ray's SDKs have it
	}
	if name == "" {
		name = f.text("rpc.service", "messaging.destination.name", "server.address")
	}
	return cleanName(cmp.Or(name, span)), "remote", nil
}

// httpOf is the request and its answer; a subsegment has less of them than a segment.
func httpOf(f fields, segment bool) *httpFields {
	method := f.short("http.request.method")
	if method == "" {
		return nil
	}
	h := &httpFields{Request: &httpRequest{Method: method, URL: clip.Prefix(urlOf(f), maxText)}}
	if segment {
		peer := f.text("network.peer.address")
		h.Request.ClientIP = cmp.Or(f.short("client.address"), peer)
		h.Request.ForwardedFor = peer != "" && h.Request.ClientIP != peer
		h.Request.UserAgent = f.short("user_agent.original")
		f.drop("network.peer.address", "client.address", "user_agent.original")
	}
	code := f.number("http.response.status_code")
	length := f.number("http.response.body.size", "http.response.header.content-length")
	if code != 0 || length != 0 {
		h.Response = &httpResponse{Status: code, ContentLength: length}
	}
	f.drop("http.request.method", "http.response.status_code", "http.response.body.size", "http.response.header.content-length",
		"url.full", "url.scheme", "url.path", "url.query", "server.address", "server.port")
	return h
}

// urlOf is the address without what may be secret in it: the query, the user and the password.
func urlOf(f fields) string {
	if full := f.text("url.full"); full != "" {
		u, err := url.Parse(full)
		if err != nil {
			return ""
		}
		u.User, u.RawQuery, u.ForceQuery, u.Fragment = nil, "", false, ""
		return u.String()
	}
	host := f.text("server.address")
	if host == "" {
		return f.text("url.path")
	}
	scheme := cmp.Or(f.text("url.scheme"), "http")
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		host = "[" + host + "]"
	}
	if port := f.number("server.port"); port != 0 && !(scheme == "http" && port == 80 || scheme == "https" && port == 443) {
		host += ":" + strconv.FormatInt(port, 10)
	}
	return scheme + "://" + host + f.text("url.path")
}

func sqlOf(f fields) *sqlFields {
	kind := f.short("db.system.name", "db.system")
	if kind == "" {
		return nil
	}
	s := &sqlFields{Type: kind, User: f.short("db.user"), Query: f.short("db.query.text", "db.statement")}
	if host := f.text("server.address"); host != "" {
		if port := f.text("server.port"); port != "" {
			host += ":" + port
		}
		s.URL = clip.Prefix(host+"/"+f.text("db.namespace"), maxText)
	}
	f.drop("db.system.name", "db.system", "db.user", "db.query.text", "db.statement", "db.namespace", "server.address", "server.port")
	return s
}

func awsOf(f fields) awsFields {
	a := awsFields{AccountID: f.short("cloud.account.id")}
	if c := f.short("container.name", "container.id"); c != "" && f.text("cloud.platform") == "aws_ecs" {
		a.ECS = &awsContainer{Container: c}
	}
	if id := f.short("host.id"); id != "" && f.text("cloud.platform") == "aws_ec2" {
		a.EC2 = &awsInstance{ID: id, Zone: f.short("cloud.availability_zone")}
	}
	return a
}

// rest puts the attributes that nothing else was made of, the events, and the span's name if the document has another,
// where X-Ray indexes them or where it only shows them.
func (t *translator) rest(f fields, span sdktrace.ReadOnlySpan, name string) (annotations map[string]any, metadata map[string]map[string]any) {
	annotations, other := make(map[string]any), make(map[string]any)
	if span.Name() != name {
		annotations["operation"] = clip.Prefix(span.Name(), maxText)
	}
	for _, key := range f.keys() {
		v := f[key]
		name, wanted := strings.CutPrefix(string(key), "annotation.")
		wanted = wanted || t.annotations["*"] || t.annotations[name]
		if value, scalar := scalarOf(v); scalar && wanted && len(annotations) < maxAnnotation {
			annotations[annotationKey(name)] = value
		} else {
			other[string(key)] = plain(v)
		}
	}
	var events []any
	for _, e := range span.Events() {
		if e.Name == "exception" {
			continue // that is the cause
		}
		event := map[string]any{"name": e.Name, "time": seconds(e.Time)}
		for _, a := range e.Attributes {
			event[string(a.Key)] = plain(a.Value)
		}
		events = append(events, event)
	}
	if events != nil {
		other["events"] = events
	}
	if len(other) > 0 {
		metadata = map[string]map[string]any{"default": other}
	}
	return annotations, metadata
}

// scalarOf is the value of an annotation, if it can be one.
func scalarOf(v attribute.Value) (value any, scalar bool) {
	switch v.Type() {
	case attribute.STRING:
		return clip.Prefix(v.AsString(), maxText), true
	case attribute.BOOL, attribute.INT64:
		return v.AsInterface(), true
	case attribute.FLOAT64:
		return v.AsFloat64(), !math.IsNaN(v.AsFloat64()) && !math.IsInf(v.AsFloat64(), 0)
	}
	return nil, false
}

// plain is what JSON can say of a value.
func plain(v attribute.Value) any {
	switch v.Type() {
	case attribute.BOOL, attribute.INT64, attribute.STRING, attribute.BOOLSLICE, attribute.INT64SLICE, attribute.STRINGSLICE:
		return v.AsInterface()
	case attribute.FLOAT64:
		if value, ok := scalarOf(v); ok {
			return value
		}
	}
	return v.String()
}

// annotationKey replaces what X-Ray does not take in the key of an annotation.
func annotationKey(key string) string {
	return clip.Prefix(strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			return r
		}
		return '_'
	}, key), 500)
}

// cleanName replaces what X-Ray does not take in the name of a segment, and cuts what is too long.
func cleanName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.In(r, unicode.L, unicode.N, unicode.Z) && !strings.ContainsRune(`_.:/%&#=+-@\`, r) {
			return '_'
		}
		return r
	}, name)
	return cmp.Or(clip.Prefix(name, maxName), "unknown")
}

// fields are attributes by their keys. What a part of a document is made of is dropped from them; the rest is shown as it is.
type fields map[attribute.Key]attribute.Value

func fieldsOf(attributes []attribute.KeyValue) fields {
	f := make(fields, len(attributes))
	for _, a := range attributes {
		f[a.Key] = a.Value
	}
	return f
}

// text is the first that is there; of a list, its first element.
func (f fields) text(keys ...attribute.Key) string {
	for _, key := range keys {
		v, ok := f[key]
		if !ok {
			continue
		}
		if v.Type() != attribute.STRINGSLICE {
			return v.String()
		}
		if list := v.AsStringSlice(); len(list) > 0 {
			return list[0]
		}
	}
	return ""
}

func (f fields) short(keys ...attribute.Key) string { return clip.Prefix(f.text(keys...), maxText) }

func (f fields) number(keys ...attribute.Key) int64 {
	n, err := strconv.ParseInt(f.text(keys...), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

func (f fields) drop(keys ...attribute.Key) {
	for _, key := range keys {
		delete(f, key)
	}
}

func (f fields) keys() []attribute.Key { return slices.Sorted(maps.Keys(f)) }
