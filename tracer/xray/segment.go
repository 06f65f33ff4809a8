package xray

import (
	"cmp"
	"context"
	"math"
	"runtime"
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
	}
	if d.InProgress = span.EndTime().IsZero(); !d.InProgress {
		d.End = seconds(latest(span.StartTime(), span.EndTime()))
	}
	if span.Parent().SpanID().IsValid() {
		d.ParentID = span.Parent().SpanID().String()
	}
	d.Error, d.Throttle, d.Fault = outcome(f, span.Status())
	d.Cause = causeOf(f, span)

	switch {
	case calls(span):
		d.Name, d.Namespace, d.AWS = callee(f, span.Name())
	case isSegment(span):
		t.makeSegment(d, user, rule)
	}
	if d.Type != "" {
		d.SQL = sqlOf(f)
	}
	d.HTTP = httpOf(f, d.Type == "")
	d.Annotations, d.Metadata = t.rest(f, span, d.Name)
	if calls(span) && isFirst(span) {
		return t.around(d, user, rule)
	}
	return d
}

// isFirst says whether the span came from another process or from nowhere.
func isFirst(span sdktrace.ReadOnlySpan) bool {
	return !span.Parent().SpanID().IsValid() || span.Parent().IsRemote()
}

func calls(span sdktrace.ReadOnlySpan) bool {
	return span.SpanKind() == trace.SpanKindClient || span.SpanKind() == trace.SpanKindProducer
}

// isSegment says whether a span becomes a segment under its own ID.
func isSegment(span sdktrace.ReadOnlySpan) bool {
	serves := span.SpanKind() == trace.SpanKindServer || span.SpanKind() == trace.SpanKindConsumer
	return !calls(span) && (serves || isFirst(span))
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
