// Package parity compares tracer/xray with X-Ray's own SDK for Go. The SDK is in maintenance and not to be depended on, so
// this is a module of its own:
//
//	cd tracer/xray/parity && go test ./...
package parity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-xray-sdk-go/v2/daemoncfg"
	sdkheader "github.com/aws/aws-xray-sdk-go/v2/header"
	"github.com/aws/aws-xray-sdk-go/v2/strategy/sampling"
	sdk "github.com/aws/aws-xray-sdk-go/v2/xray"
	"github.com/aws/aws-xray-sdk-go/v2/xraylog"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/otelsdk"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/tracer/xray"
	"github.com/plugmicro/micro/tracing/httptrace"
)

const (
	headerName = sdk.TraceIDHeaderKey
	root       = "Root=1-5759e988-bd862e3fe1be46a994272793"
	parent     = "Parent=53995c3f42cd8ad8"
)

func init() { sdk.SetLogger(xraylog.NullLogger) }

// listen is a daemon's UDP port, and what arrives there.
func listen(t testing.TB) (address string, next func() map[string]any) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	buf := make([]byte, 1<<16)
	return conn.LocalAddr().String(), func() (document map[string]any) {
		t.Helper()
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
		n, _, err := conn.ReadFrom(buf)
		require.NoError(t, err)
		preface, text, _ := strings.Cut(string(buf[:n]), "\n")
		require.JSONEq(t, `{"format":"json","version":1}`, preface)
		require.NoError(t, json.Unmarshal([]byte(text), &document))
		return document
	}
}

func open(t testing.TB, c xray.Config) *xray.Tracer {
	c.Batching = otelsdk.Batching{BatchDelay: 5 * time.Millisecond}
	c.Name = "shop"
	tr, err := xray.Open(&plugin.Env{}, c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tr.Close()) })
	return tr
}

// configured is the context in which the SDK samples at that rate, and sends to that address.
func configured(t testing.TB, address string, rate int) context.Context {
	rules, err := sampling.NewLocalizedStrategyFromJSONBytes([]byte(fmt.Sprintf(`{"version":2,"default":{"fixed_target":0,"rate":%d},"rules":[]}`, rate)))
	require.NoError(t, err)
	udp, err := net.ResolveUDPAddr("udp", address)
	require.NoError(t, err)
	emitter, err := sdk.NewDefaultEmitter(udp)
	require.NoError(t, err)
	ctx, err := sdk.ContextWithConfig(context.Background(), sdk.Config{Emitter: emitter, SamplingStrategy: rules, ServiceVersion: "7"})
	require.NoError(t, err)
	return ctx
}

var corpus = []string{
	root, root + ";" + parent, root + ";" + parent + ";Sampled=1", root + ";" + parent + ";Sampled=0", root + ";" + parent + ";Sampled=?",
	root + ";Sampled=1", "Sampled=1;" + parent + ";" + root, root + "; " + parent + "; Sampled=1", " " + root + " ; " + parent,
	"Self=1-67891234-12456789abcdef012345678;" + root, root + ";Self=1-67891234-12456789abcdef012345678;" + parent + ";Sampled=1",
	root + ";" + parent + ";Sampled=1;Lineage=a87bd80c:1|68fd508a:5", root + ";CalledFrom=app;a=b=c;d=", root + ";Sampled=true", root + ";Sampled=",
	root + ";sampled=1", root + ";;" + parent + ";", root + ";nothing", "Sampled=1", "Sampled=0;Lineage=x:1",
	root + ";Sampled=0;Sampled=1", "Root=1-5759e988-000000000000000000000001;" + root + ";Sampled=1",
}

var (
	aTrace  = regexp.MustCompile(`^1-[0-9a-fA-F]{8}-[0-9a-fA-F]{24}$`)
	aParent = regexp.MustCompile(`^[0-9a-fA-F]{16}$`)
	noHex   = strings.NewReplacer("1-", "", "0", "", "-", "")
)

// comparable tells whether a header is one that both take: of others the SDK passes on what nobody can read.
func comparable(text string, h *sdkheader.Header) bool {
	if len(text) > 7<<10 {
		return false
	}
	for pair := range strings.SplitSeq(text, ";") {
		pair = strings.Trim(pair, " \t")
		key, value, found := strings.Cut(pair, "=")
		if found && (key == "" || key == "Root" && !aTrace.MatchString(value)) {
			return false
		}
		if strings.IndexFunc(pair, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
			return false
		}
	}
	return noHex.Replace(h.TraceID) != "" && (h.ParentID == "" || aParent.MatchString(h.ParentID) && noHex.Replace(h.ParentID) != "")
}

func lower(h *sdkheader.Header) *sdkheader.Header {
	h.TraceID, h.ParentID = strings.ToLower(h.TraceID), strings.ToLower(h.ParentID)
	return h
}

// passedOn is what leaves us of a request that nobody made a span for.
func passedOn(tr *xray.Tracer, text string) (out string) {
	ctx := tr.Extract(context.Background(), func(key string) string {
		if key == headerName || strings.EqualFold(key, headerName) {
			return text
		}
		return ""
	})
	tr.Inject(ctx, func(_, value string) { out = value })
	return out
}

// headersAgree: what we print the SDK reads as it reads the original, and what it prints we read alike.
func headersAgree(t *testing.T, tr *xray.Tracer, text string) {
	theirs := sdkheader.FromString(text)
	if !comparable(text, theirs) {
		return
	}
	ours := passedOn(tr, text)
	require.Equal(t, lower(theirs), sdkheader.FromString(ours), "%q", text)
	again := sdkheader.FromString(passedOn(tr, theirs.String()))
	require.Equal(t, theirs, again, "%q", text)
}

func TestHeaders(t *testing.T) {
	tr := open(t, xray.Config{Sampling: "local"})
	compared := 0
	for _, text := range corpus {
		headersAgree(t, tr, text)
		if comparable(text, sdkheader.FromString(text)) {
			compared++
		}
	}
	require.GreaterOrEqual(t, compared, len(corpus)-2, "only those without a root are not comparable")
}

func FuzzHeaders(f *testing.F) {
	for _, text := range corpus {
		f.Add(text)
	}
	tr := open(f, xray.Config{Sampling: "local"})
	f.Fuzz(func(t *testing.T, text string) { headersAgree(t, tr, text) })
}

// TestHeadersDownstream sends requests through both, to a server that notes what it gets.
func TestHeadersDownstream(t *testing.T) {
	for _, rate := range []int{0, 1} {
		address, _ := listen(t)
		tr := open(t, xray.Config{Sampling: "local", Rate: float64(rate), Daemon: address})
		var got string
		downstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Get(headerName) }))
		defer downstream.Close()

		theirs := httptest.NewServer(sdk.HandlerWithContext(configured(t, address, rate), sdk.NewFixedSegmentNamer("shop"), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, downstream.URL, nil)
			require.NoError(t, err)
			resp, err := sdk.Client(nil).Do(req)
			require.NoError(t, err)
			resp.Body.Close()
		})))
		defer theirs.Close()
		ours := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r, span := httptrace.Start(tr, gateway.With(r, &gateway.Info{}))
			defer span.End(200, 0, nil)
			tr.Respond(r.Context(), w.Header().Set)
			req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, downstream.URL, nil)
			require.NoError(t, err)
			resp, err := httptrace.Send(req, http.DefaultClient.Do)
			require.NoError(t, err)
			resp.Body.Close()
		}))
		defer ours.Close()

		through := func(server *httptest.Server, header string) (sent *sdkheader.Header, answer string) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			require.NoError(t, err)
			req.Header.Set(headerName, header)
			resp, err := server.Client().Do(req)
			require.NoError(t, err)
			resp.Body.Close()
			return sdkheader.FromString(got), resp.Header.Get(headerName)
		}
		for _, text := range corpus {
			t.Run(fmt.Sprintf("%d %s", rate, text), func(t *testing.T) {
				theirs, theirAnswer := through(theirs, text)
				ours, ourAnswer := through(ours, text)
				if strings.Contains(text, "Root=") {
					require.Equal(t, theirs.TraceID, ours.TraceID)
				}
				require.Regexp(t, aParent, ours.ParentID)
				require.NotContains(t, text, ours.ParentID)
				require.Equal(t, theirs.SamplingDecision, ours.SamplingDecision)
				require.Equal(t, theirs.AdditionalData, ours.AdditionalData)
				if strings.Contains(text, "Sampled=?") {
					require.Equal(t, sdkheader.FromString(theirAnswer), sdkheader.FromString(ourAnswer))
				}
			})
		}
	}
}

// flat has the values of a document by their paths, but for those that can never be the same.
func flat(document map[string]any) map[string]any {
	fields := make(map[string]any)
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				walk(path+"."+key, value)
			}
		case []any:
			for i, value := range v {
				walk(path+"."+strconv.Itoa(i), value)
			}
		default:
			fields[path[1:]] = v
		}
	}
	walk("", document)
	return fields
}

// different are the fields that are not compared, and why.
var different = regexp.MustCompile(strings.Join([]string{
	`^(id|start_time|end_time|cause\.exceptions\.\d+\.id)$`, // of each document
	`^cause\.exceptions\.\d+\.(stack\..*|truncated)$`,       // of each program; compared apart
	`^cause\.(working_directory|paths.*)$`,                  // nobody needs to know where it runs
	`^aws\.xray\.(sdk|sdk_version)$`,                        // who says it
	`^annotations\.operation$`,                              // the name of the span; the SDK has none
	`^metadata\.`,                                           // what the conventions say beyond X-Ray's fields
	`^subsegments\.`,                                        // ours are sent apart
	`^(Dummy|trace_id|parent_id|type)$`,                     // by hand, below
}, "|"))

func same(t *testing.T, theirs, ours map[string]any, but ...string) {
	t.Helper()
	a, b := flat(theirs), flat(ours)
	for _, m := range []map[string]any{a, b} {
		for path := range m {
			if different.MatchString(path) {
				delete(m, path)
			}
		}
		for _, path := range but {
			delete(m, path)
		}
	}
	require.Equal(t, a, b)
	require.Regexp(t, `^[0-9a-f]{16}$`, ours["id"])
	for _, key := range []string{"start_time", "end_time"} {
		require.InDelta(t, theirs[key], ours[key], 60)
	}
}

func (h handler) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", strconv.Itoa(len(h.body)))
	w.WriteHeader(h.status)
	_, _ = w.Write([]byte(h.body))
}

type handler struct {
	status int
	body   string
}

func TestServedRequests(t *testing.T) {
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=7")
	for name, c := range map[string]struct {
		method, path, header string
		handler              handler
	}{
		"ok":            {"GET", "/a/b?secret=1", "", handler{200, "hello"}},
		"of a trace":    {"POST", "/", root + ";" + parent + ";Sampled=1", handler{201, "x"}},
		"load balancer": {"GET", "/", root, handler{200, "x"}},
		"error":         {"GET", "/none", "", handler{404, "no"}},
		"throttle":      {"DELETE", "/x", "", handler{429, "slow"}},
		"fault":         {"GET", "/x", "", handler{500, "oh"}},
		"unavailable":   {"GET", "/x", "", handler{503, "oh"}},
		"redirect":      {"GET", "/x", "", handler{304, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			theirAddress, theirNext := listen(t) // a new one each: the SDK may send a segment twice
			ourAddress, ourNext := listen(t)
			tr := open(t, xray.Config{Sampling: "local", Rate: 1, Daemon: ourAddress})
			request := func() *http.Request {
				r := httptest.NewRequest(c.method, "http://shop.example"+c.path, nil)
				r.Header.Set("User-Agent", "curl/8")
				r.RemoteAddr = "198.51.100.7:1234"
				if c.header != "" {
					r.Header.Set(headerName, c.header)
				}
				return r
			}
			sdk.HandlerWithContext(configured(t, theirAddress, 1), sdk.NewFixedSegmentNamer("shop"), c.handler).ServeHTTP(httptest.NewRecorder(), request())
			r, span := httptrace.Start(tr, gateway.With(request(), &gateway.Info{Host: "shop.example", Client: netip.MustParseAddr("198.51.100.7")}))
			c.handler.ServeHTTP(httptest.NewRecorder(), r)
			span.End(c.handler.status, int64(len(c.handler.body)), nil)

			theirs, ours := theirNext(), ourNext()
			same(t, theirs, ours)
			require.Nil(t, theirs["type"])
			require.Nil(t, ours["type"])
			require.Equal(t, theirs["parent_id"], ours["parent_id"])
			if c.header != "" {
				require.Equal(t, theirs["trace_id"], ours["trace_id"])
			}
			require.Regexp(t, `^1-[0-9a-f]{8}-[0-9a-f]{24}$`, ours["trace_id"])
		})
	}
}

// subsegment finds the first that the SDK put into its document.
func subsegment(t *testing.T, document map[string]any) map[string]any {
	subs, _ := document["subsegments"].([]any)
	require.NotEmpty(t, subs, "%v", document)
	return subs[0].(map[string]any)
}

// within calls both with a context in which their segment is open.
func within(t *testing.T, theirs, ours func(context.Context)) (theirDocument, ourDocument, segment map[string]any) {
	theirAddress, theirNext := listen(t)
	ourAddress, ourNext := listen(t)
	ctx, seg := sdk.BeginSegment(configured(t, theirAddress, 1), "shop")
	theirs(ctx)
	seg.Close(nil)

	tr := open(t, xray.Config{Sampling: "local", Rate: 1, Daemon: ourAddress})
	ctx, outer := tr.Provider().Tracer("test").Start(context.Background(), "shop")
	r, served := httptrace.Start(tr, gateway.With(httptest.NewRequestWithContext(ctx, "GET", "/", nil), &gateway.Info{}))
	ours(r.Context())
	ourDocument = ourNext()
	served.End(200, -1, nil)
	outer.End()
	return subsegment(t, theirNext()), ourDocument, ourNext()
}

func TestCalls(t *testing.T) {
	for name, h := range map[string]handler{"ok": {200, "hello"}, "error": {404, "no"}, "throttle": {429, "slow"}, "fault": {502, "oh"}, "empty": {204, ""}} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(h)
			defer server.Close()
			theirs, ours, segment := within(t, func(ctx context.Context) {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/a?secret=1", nil)
				require.NoError(t, err)
				resp, err := sdk.Client(server.Client()).Do(req)
				require.NoError(t, err)
				resp.Body.Close()
			}, func(ctx context.Context) {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/a?secret=1", nil)
				require.NoError(t, err)
				resp, err := httptrace.Send(req, server.Client().Do)
				require.NoError(t, err)
				resp.Body.Close()
			})
			same(t, theirs, ours)
			require.Equal(t, "subsegment", ours["type"])
			require.Equal(t, segment["id"], ours["parent_id"])
			require.Equal(t, segment["trace_id"], ours["trace_id"])
		})
	}
}

func TestCallsThatReachNobody(t *testing.T) {
	server := httptest.NewServer(nil)
	address := server.URL
	server.Close()
	theirs, ours, _ := within(t, func(ctx context.Context) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		require.NoError(t, err)
		_, err = sdk.RoundTripper(http.DefaultTransport).RoundTrip(req)
		require.Error(t, err)
	}, func(ctx context.Context) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		require.NoError(t, err)
		_, err = httptrace.Send(req, http.DefaultTransport.RoundTrip)
		require.Error(t, err)
	})
	same(t, theirs, ours, "cause.exceptions.0.type") // net.OpError; ours is the word of the conventions
	require.Equal(t, true, ours["fault"])
}

type noStock struct{}

func (*noStock) Error() string { return "no stock" }

func TestWork(t *testing.T) {
	for name, c := range map[string]struct{ err error }{"ok": {nil}, "error": {&noStock{}}, "plain error": {errors.New("oh no")}} {
		t.Run(name, func(t *testing.T) {
			theirs, ours, _ := within(t, func(ctx context.Context) {
				require.Equal(t, c.err, sdk.Capture(ctx, "reserve", func(context.Context) error { return c.err }))
			}, func(ctx context.Context) {
				_, span := trace.SpanFromContext(ctx).TracerProvider().Tracer("shop").Start(ctx, "reserve")
				defer span.End()
				if c.err != nil {
					span.RecordError(c.err, trace.WithStackTrace(true))
					span.SetStatus(codes.Error, c.err.Error())
				}
			})
			same(t, theirs, ours)
			if c.err != nil {
				stacksAgree(t, theirs, ours)
			}
		})
	}
}

func TestPanics(t *testing.T) {
	theirs, ours, _ := within(t, func(ctx context.Context) {
		defer func() { require.NotNil(t, recover()) }()
		_ = sdk.Capture(ctx, "reserve", func(context.Context) error { panic("on purpose") })
	}, func(ctx context.Context) {
		defer func() { require.NotNil(t, recover()) }()
		_, span := trace.SpanFromContext(ctx).TracerProvider().Tracer("shop").Start(ctx, "reserve")
		defer span.End(trace.WithStackTrace(true))
		defer func() { span.SetStatus(codes.Error, "panic") }() // as package tracing does
		panic("on purpose")
	})
	same(t, theirs, ours, "cause.exceptions.0.type") // panic; ours is the type of the value
	stacksAgree(t, theirs, ours)
}

// stacksAgree: a frame of this file is called the same by both.
func stacksAgree(t *testing.T, theirs, ours map[string]any) {
	label := func(document map[string]any) (path, label string) {
		for _, f := range document["cause"].(map[string]any)["exceptions"].([]any)[0].(map[string]any)["stack"].([]any) {
			frame := f.(map[string]any)
			if path := frame["path"].(string); strings.HasSuffix(path, "parity_test.go") {
				name, _, _ := strings.Cut(frame["label"].(string), ".")
				return path, name
			}
		}
		return "", ""
	}
	theirPath, theirLabel := label(theirs)
	ourPath, ourLabel := label(ours)
	require.NotEmpty(t, ourPath)
	require.Equal(t, theirPath, ourPath)
	require.Equal(t, theirLabel, ourLabel)
}

// rules is the daemon's TCP side; reports are the bodies of /SamplingTargets.
func rules(t *testing.T, reports chan<- map[string]any, records ...map[string]any) string {
	var mu sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/SamplingTargets" {
			var body map[string]any
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
				t.Error(err)
			}
			select {
			case reports <- body:
			default:
			}
			_, _ = w.Write([]byte(`{}`))
			return
		}
		var all []any
		for _, record := range records {
			all = append(all, map[string]any{"SamplingRule": record})
		}
		if err := json.NewEncoder(w).Encode(map[string]any{"SamplingRuleRecords": all}); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func rule(name string, priority int, rate float64, fields ...string) map[string]any {
	r := map[string]any{"RuleName": name, "Version": 1, "Priority": priority, "FixedRate": rate, "ReservoirSize": 0, "ServiceName": "*", "ServiceType": "*",
		"Host": "*", "HTTPMethod": "*", "URLPath": "*", "ResourceARN": "*"}
	for i := 0; i < len(fields); i += 2 {
		r[fields[i]] = fields[i+1]
	}
	return r
}

func centralized(t *testing.T, address string) *sampling.CentralizedStrategy {
	s, err := sampling.NewCentralizedStrategy()
	require.NoError(t, err)
	tcp, err := net.ResolveTCPAddr("tcp", address)
	require.NoError(t, err)
	s.LoadDaemonEndpoints(&daemoncfg.DaemonEndpoints{TCPAddr: tcp})
	return s
}

// ruleOf is the rule by which we sample a request.
func ruleOf(tr *xray.Tracer, r *sampling.Request) string {
	_, span := tr.Provider().Tracer("test").Start(context.Background(), "x", trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("server.address", r.Host), attribute.String("http.request.method", r.Method), attribute.String("url.path", r.URL)))
	defer span.End()
	recorded, ok := span.(sdktrace.ReadOnlySpan)
	if !ok {
		return ""
	}
	for _, a := range recorded.Attributes() {
		if a.Key == "aws.xray.sampling_rule" {
			return a.Value.AsString()
		}
	}
	return ""
}

func TestRules(t *testing.T) {
	address := rules(t, nil,
		rule("Default", 10000, 1), rule("health", 1, 1, "URLPath", "/health*"), rule("writes", 5, 1, "HTTPMethod", "P*", "URLPath", "/v?/*"),
		rule("admin", 5, 1, "Host", "admin.*"), rule("b", 7, 1, "URLPath", "*/same"), rule("a", 7, 1, "URLPath", "*/same"),
		rule("shop only", 3, 1, "ServiceName", "SHOP", "URLPath", "/shop/*"), rule("others", 2, 1, "ServiceName", "till"),
		rule("resource", 1, 1, "ResourceARN", "arn:aws:x"))
	theirs := centralized(t, address)
	tr := open(t, xray.Config{Daemon: "tcp:" + address + " udp:127.0.0.1:2000"})
	probe := &sampling.Request{Host: "h", Method: "GET", URL: "/health", ServiceName: "shop", ServiceType: "AWS::EC2::Instance"}
	require.Eventually(t, func() bool { d := theirs.ShouldTrace(probe); return d.Rule != nil }, 20*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return ruleOf(tr, probe) != "" }, 20*time.Second, time.Millisecond)
	seen := make(map[string]bool)
	for _, host := range []string{"shop.example", "admin.example", "Admin.x", "localhost"} {
		for _, method := range []string{"GET", "POST", "put", "DELETE"} {
			for _, path := range []string{"/", "/health", "/healthz", "/Health/x", "/v1/x", "/v10/x", "/v1/", "/x/same", "/shop/1", "/shop", "/v2/shop/same"} {
				r := &sampling.Request{Host: host, Method: method, URL: path, ServiceName: "shop", ServiceType: "AWS::EC2::Instance"}
				d := theirs.ShouldTrace(r)
				require.True(t, d.Sample)
				require.Equal(t, *d.Rule, ruleOf(tr, r), "%+v", r)
				seen[*d.Rule] = true
			}
		}
	}
	require.Len(t, seen, 6)
}

// TestStatistics waits for the first report of both, which is after 10 seconds.
func TestStatistics(t *testing.T) {
	theirReports, ourReports := make(chan map[string]any, 1), make(chan map[string]any, 1)
	records := []map[string]any{rule("Default", 10000, 0), rule("all", 1, 1, "URLPath", "/all")}
	theirAddress, ourAddress := rules(t, theirReports, records...), rules(t, ourReports, records...)
	theirs := centralized(t, theirAddress)
	tr := open(t, xray.Config{Daemon: "tcp:" + ourAddress + " udp:127.0.0.1:2000"})
	all := &sampling.Request{Host: "h", Method: "GET", URL: "/all", ServiceName: "shop"}
	none := &sampling.Request{Host: "h", Method: "GET", URL: "/none", ServiceName: "shop"}
	require.Eventually(t, func() bool { d := theirs.ShouldTrace(all); return d.Rule != nil }, 20*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return ruleOf(tr, all) == "all" }, 20*time.Second, time.Millisecond)
	for range 9 {
		theirs.ShouldTrace(all)
		theirs.ShouldTrace(none)
		ruleOf(tr, all)
		ruleOf(tr, none)
	}
	theirReport, ourReport := <-theirReports, <-ourReports
	for _, report := range []map[string]any{theirReport, ourReport} {
		for _, d := range report["SamplingStatisticsDocuments"].([]any) {
			d := d.(map[string]any)
			require.Regexp(t, `^[0-9a-f]{24}$`, d["ClientID"])
			require.InDelta(t, time.Now().Unix(), d["Timestamp"], 60)
			delete(d, "ClientID")
			delete(d, "Timestamp")
		}
	}
	require.Equal(t, theirReport, ourReport)
}
