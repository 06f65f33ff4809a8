package xray

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// kv makes attributes of keys and values.
func kv(pairs ...any) (attributes []attribute.KeyValue) {
	for i := 0; i < len(pairs); i += 2 {
		key := attribute.Key(pairs[i].(string))
		switch v := pairs[i+1].(type) {
		case string:
			attributes = append(attributes, key.String(v))
		case int:
			attributes = append(attributes, key.Int(v))
		case float64:
			attributes = append(attributes, key.Float64(v))
		case bool:
			attributes = append(attributes, key.Bool(v))
		case []string:
			attributes = append(attributes, key.StringSlice(v))
		}
	}
	return attributes
}

var always = Config{Sampling: "local", Rate: 1}

// inside is a context with a local span, whose document is thrown away.
func inside(t *testing.T, tr *Tracer, d *daemon) context.Context {
	ctx, span := tr.Provider().Tracer("test").Start(t.Context(), "outer")
	span.End()
	d.next()
	return ctx
}

// want are parts of a document by their paths, nil for what is not there.
type want map[string]any

func (w want) in(t *testing.T, d map[string]any) {
	for path, value := range w {
		var at any = d
		for key := range strings.SplitSeq(path, ".") {
			m, _ := at.(map[string]any)
			at = m[key]
			if l, ok := at.([]any); ok && len(l) == 1 {
				at = l[0]
			}
		}
		if n, ok := at.(json.Number); ok {
			f, _ := n.Float64()
			at = f
		}
		if n, ok := value.(int); ok {
			value = float64(n)
		}
		require.Equal(t, value, at, "%s of %v", path, d)
	}
}

func TestDocuments(t *testing.T) {
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=1.2.3,cloud.platform=aws_ecs,container.name=c7,cloud.account.id=123456789012")
	d := newDaemon(t)
	c := always
	c.Daemon, c.Annotations = d.address, []string{"order.id", "list", "ok", "nan"}
	tr := openTracer(t, c)
	local := inside(t, tr, d)
	remote := trace.ContextWithRemoteSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: rootID, SpanID: parentID, TraceFlags: 1, Remote: true}))

	for name, c := range map[string]struct {
		ctx        context.Context
		kind       trace.SpanKind
		span       string
		attributes []attribute.KeyValue
		end        func(trace.Span)
		want       want
	}{
		"a request": {remote, trace.SpanKindServer, "POST /greeter/hello", kv("http.request.method", "POST", "url.scheme", "https", "server.address", "shop.example",
			"server.port", 443, "url.path", "/greeter/hello", "url.query", "token=secret", "client.address", "198.51.100.7", "network.peer.address", "10.0.0.1",
			"user_agent.original", "curl/8", "http.response.status_code", 200, "http.response.body.size", 12, "user.id", "ada"), nil, want{
			"name": "shop", "type": nil, "trace_id": "1-5759e988-bd862e3fe1be46a994272793", "parent_id": "53995c3f42cd8ad8", "namespace": nil,
			"origin": "AWS::ECS::Container", "service.version": "1.2.3", "service.runtime": "gc", "aws.ecs.container": "c7", "aws.account_id": "123456789012",
			"aws.xray.sdk": "opentelemetry for go", "http.request.method": "POST", "http.request.url": "https://shop.example/greeter/hello",
			"http.request.client_ip": "198.51.100.7", "http.request.x_forwarded_for": true, "http.request.user_agent": "curl/8",
			"http.response.status": 200, "http.response.content_length": 12, "user": "ada", "error": nil, "fault": nil, "throttle": nil, "cause": nil,
			"annotations.operation": "POST /greeter/hello",
		}},
		"a request of a peer": {local, trace.SpanKindServer, "shop", kv("http.request.method", "GET", "url.scheme", "http", "server.address", "::1", "server.port", 8080,
			"url.path", "/", "network.peer.address", "10.0.0.1"), nil, want{
			"type": nil, "http.request.client_ip": "10.0.0.1", "http.request.x_forwarded_for": nil, "http.request.url": "http://[::1]:8080/", "http.response": nil, "annotations": nil,
		}},
		"a message":                {remote, trace.SpanKindConsumer, "process orders", nil, nil, want{"name": "shop", "type": nil, "annotations.operation": "process orders"}},
		"a job":                    {t.Context(), trace.SpanKindInternal, "nightly", nil, nil, want{"name": "shop", "type": nil, "parent_id": nil, "annotations.operation": "nightly"}},
		"work":                     {local, trace.SpanKindInternal, "reserve (2) *now*", nil, nil, want{"name": "reserve _2_ _now_", "type": "subsegment", "namespace": nil, "service": nil, "origin": nil}},
		"all that a name may have": {local, trace.SpanKindInternal, `aZ 9ä_.:/%&#=+-@\`, nil, nil, want{"name": `aZ 9ä_.:/%&#=+-@\`}},
		"nothing else in a name":   {local, trace.SpanKindInternal, "a!b\"c$d'e(f)g*h,i;j<k>l?m[n]o^p`q{r|s}t~u\tv\x00w\xffx", nil, nil, want{"name": "a_b_c_d_e_f_g_h_i_j_k_l_m_n_o_p_q_r_s_t_u_v_w_x"}},
		"a call over HTTP": {local, trace.SpanKindClient, "GET", kv("http.request.method", "GET", "url.full", "https://ada:pw@api.example/v1?key=secret#x", "server.address", "api.example",
			"http.response.status_code", 200, "http.response.header.content-length", []string{"7"}), nil, want{
			"name": "api.example", "type": "subsegment", "namespace": "remote", "http.request.url": "https://api.example/v1", "http.response.content_length": 7,
		}},
		"a call":                               {local, trace.SpanKindClient, "Greeter.Hello", kv("rpc.service", "greeter", "rpc.method", "Greeter.Hello"), nil, want{"name": "greeter", "namespace": "remote", "annotations.operation": "Greeter.Hello"}},
		"a call of a peer":                     {local, trace.SpanKindClient, "x", kv("peer.service", "billing", "server.address", "10.0.0.1"), nil, want{"name": "billing"}},
		"a publish":                            {local, trace.SpanKindProducer, "send orders", kv("messaging.destination.name", "orders"), nil, want{"name": "orders", "namespace": "remote"}},
		"a call from nowhere":                  {t.Context(), trace.SpanKindClient, "x", kv("peer.service", "billing", "http.response.status_code", 503), nil, want{"name": "shop", "type": nil, "fault": true, "subsegments.name": "billing", "subsegments.namespace": "remote", "subsegments.fault": true}},
		"a call of AWS":                        {local, trace.SpanKindClient, "S3.GetObject", kv("rpc.system", "aws-api", "rpc.service", "S3", "rpc.method", "GetObject", "aws.request_id", "R1", "cloud.region", "eu-west-1"), nil, want{"name": "S3", "namespace": "aws", "aws.operation": "GetObject", "aws.request_id": "R1", "aws.region": "eu-west-1"}},
		"a newer call of AWS":                  {local, trace.SpanKindClient, "x", kv("rpc.system.name", "aws-api", "rpc.method", "DynamoDB/PutItem", "aws.dynamodb.table_names", []string{"t1", "t2"}), nil, want{"name": "DynamoDB", "aws.operation": "PutItem", "aws.table_name": "t1"}},
		"a query":                              {local, trace.SpanKindClient, "SELECT", kv("db.system.name", "postgresql", "db.namespace", "shop", "server.address", "db1", "server.port", 5432, "db.query.text", "SELECT 1"), nil, want{"name": "shop@db1", "namespace": "remote", "sql.url": "db1:5432/shop", "sql.database_type": "postgresql", "sql.sanitized_query": "SELECT 1", "metadata": nil}},
		"a client's error":                     {remote, trace.SpanKindServer, "shop", kv("http.request.method", "GET", "http.response.status_code", 404), nil, want{"error": true, "fault": nil, "throttle": nil}},
		"a client's, said too":                 {remote, trace.SpanKindServer, "shop", kv("http.response.status_code", 400), func(s trace.Span) { s.SetStatus(codes.Error, "") }, want{"error": true, "fault": nil, "cause": nil}},
		"throttled":                            {remote, trace.SpanKindServer, "shop", kv("http.request.method", "GET", "http.response.status_code", 429), nil, want{"error": true, "throttle": true, "fault": nil}},
		"a fault":                              {remote, trace.SpanKindServer, "shop", kv("http.request.method", "GET", "http.response.status_code", 500), nil, want{"error": nil, "fault": true}},
		"words of a status":                    {local, trace.SpanKindInternal, "w", kv("error.type", "timeout"), func(s trace.Span) { s.SetStatus(codes.Error, "too slow") }, want{"fault": true, "error": nil, "cause.exceptions.type": "timeout", "cause.exceptions.message": "too slow"}},
		"a call not found":                     {local, trace.SpanKindClient, "x", kv("rpc.response.status_code", "NOT_FOUND"), func(s trace.Span) { s.SetStatus(codes.Error, "") }, want{"error": true, "fault": nil}},
		"a call not found, as its server says": {remote, trace.SpanKindServer, "x", kv("rpc.response.status_code", "NotFound"), nil, want{"error": true, "fault": nil}},
		"a call that is fine":                  {remote, trace.SpanKindServer, "x", kv("rpc.response.status_code", "OK"), nil, want{"error": nil, "fault": nil}},
		"a call by number":                     {local, trace.SpanKindClient, "x", kv("rpc.grpc.status_code", 16), func(s trace.Span) { s.SetStatus(codes.Error, "") }, want{"error": true, "fault": nil}},
		"a call throttled":                     {local, trace.SpanKindClient, "x", kv("rpc.response.status_code", "ResourceExhausted"), func(s trace.Span) { s.SetStatus(codes.Error, "") }, want{"error": true, "throttle": true, "fault": nil}},
		"a call that broke":                    {local, trace.SpanKindClient, "x", kv("rpc.response.status_code", "Unavailable"), func(s trace.Span) { s.SetStatus(codes.Error, "") }, want{"error": nil, "fault": true}},
		"an exception": {local, trace.SpanKindInternal, "w", nil, func(s trace.Span) {
			s.RecordError(errors.New("no stock"), trace.WithStackTrace(true))
			s.SetStatus(codes.Error, "no stock")
		}, want{"fault": true, "cause.exceptions.type": "errors.errorString", "cause.exceptions.message": "no stock"}},
		"an exception that was handled": {local, trace.SpanKindInternal, "w", nil, func(s trace.Span) { s.RecordError(errors.New("no stock")) }, want{"fault": nil, "error": nil, "cause.exceptions.message": "no stock"}},
		"annotations": {local, trace.SpanKindInternal, "w", kv("order.id", 7, "annotation.who is", "ada", "list", []string{"a"}, "ok", true, "nan", math.NaN(), "other", "x"), func(s trace.Span) {
			s.AddEvent("paid", trace.WithAttributes(attribute.Float64("inf", math.Inf(1))))
		}, want{"annotations.order_id": 7, "annotations.who_is": "ada", "annotations.ok": true, "annotations.list": nil, "annotations.nan": nil,
			"metadata.default.list": "a", "metadata.default.nan": "NaN", "metadata.default.other": "x", "metadata.default.events.name": "paid", "metadata.default.events.inf": "Infinity"}},
		"a long name":     {local, trace.SpanKindInternal, strings.Repeat("é", 150), nil, nil, want{"name": strings.Repeat("é", 100)}},
		"an invalid name": {local, trace.SpanKindInternal, "a\xff\tb", nil, nil, want{"name": "a__b"}},
		"no name":         {local, trace.SpanKindInternal, "", nil, nil, want{"name": "unknown"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, span := tr.Provider().Tracer("test").Start(c.ctx, c.span, trace.WithSpanKind(c.kind), trace.WithAttributes(c.attributes...))
			if c.end != nil {
				c.end(span)
			}
			span.End()
			got := d.next()
			c.want.in(t, got)
			id := got["id"]
			if subs, ok := got["subsegments"].([]any); ok {
				id = subs[0].(map[string]any)["id"]
			}
			require.Equal(t, span.SpanContext().SpanID().String(), id)
		})
	}
	require.Zero(t, tr.Stats().Lost)
}

func TestStacks(t *testing.T) {
	d := newDaemon(t)
	c := always
	c.Daemon = d.address
	tr := openTracer(t, c)
	func() {
		_, span := tr.Provider().Tracer("test").Start(t.Context(), "w")
		defer func() { _ = recover() }()
		defer span.End(trace.WithStackTrace(true))
		panic("on purpose")
	}()
	x := d.next()["cause"].(map[string]any)["exceptions"].([]any)[0].(map[string]any)
	require.Equal(t, "on purpose", x["message"])
	found := false
	for _, f := range x["stack"].([]any) {
		f := f.(map[string]any)
		if strings.HasSuffix(f["path"].(string), "tracer/xray/segment_test.go") {
			found = true
			require.Contains(t, f["label"], "TestStacks")
			require.NotContains(t, f["label"], "/")
			n, err := f["line"].(json.Number).Int64()
			require.NoError(t, err)
			require.Positive(t, n)
		}
	}
	require.True(t, found, "%v", x["stack"])
}

func TestParseStack(t *testing.T) {
	const text = "goroutine 7 [running]:\n" +
		"github.com/a/b/c.(*T).Method(0xc000012345, {0x1, 0x2})\n\t/go/src/github.com/a/b/c/file.go:12 +0x1d\n" +
		"main.main.func1()\n\t/home/ada/x/main.go:7 +0x2\n" +
		"created by net/http.(*Server).Serve in goroutine 1\n\t/usr/lib/go/src/net/http/server.go:3285 +0x4b4\n"
	frames, truncated := parseStack(text)
	require.Zero(t, truncated)
	require.Equal(t, []frame{
		{"github.com/a/b/c/file.go", 12, "(*T).Method"},
		{"x/main.go", 7, "main.func1"},
		{"net/http/server.go", 3285, "(*Server).Serve"},
	}, frames)
	frames, truncated = parseStack(strings.Repeat(text, 100))
	require.Len(t, frames, maxFrames)
	require.Equal(t, 300-maxFrames, truncated)
	for _, odd := range []string{"", "\t", "\n\t\n", "\tfile", "f(\n\t:\n"} {
		parseStack(odd)
	}
}

func TestTimes(t *testing.T) {
	for want, at := range map[string]time.Time{
		"1480615200.010000": time.Unix(1480615200, 10_000_000),
		"1480615200.000001": time.Unix(1480615200, 1_999),
		"1480615200.999999": time.Unix(1480615200, 999_999_999),
	} {
		got, err := json.Marshal(seconds(at))
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
}

// TestClocksThatGoBack are none of X-Ray's business.
func TestClocksThatGoBack(t *testing.T) {
	d := newDaemon(t)
	c := always
	c.Daemon = d.address
	tr := openTracer(t, c)
	_, span := tr.Provider().Tracer("test").Start(t.Context(), "w", trace.WithTimestamp(time.Unix(2e9, 0)))
	span.End(trace.WithTimestamp(time.Unix(1e9, 0)))
	want{"end_time": 2e9}.in(t, d.next())
}
