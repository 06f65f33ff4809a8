package xray

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/plugmicro/micro/internal/otelsdk"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/tracer"
)

// spanOf makes a span that has ended.
func spanOf(s tracetest.SpanStub) sdktrace.ReadOnlySpan {
	s.SpanContext = trace.NewSpanContext(trace.SpanContextConfig{TraceID: rootID, SpanID: parentID, TraceFlags: trace.FlagsSampled})
	s.StartTime, s.EndTime = time.Unix(1.5e9, 0), time.Unix(1.5e9, 1e6)
	s.Resource = resource.Empty()
	return s.Snapshot()
}

// sized is a span whose document makes a datagram of so many bytes, if it is not cut.
func sized(t *testing.T, bytes int) sdktrace.ReadOnlySpan {
	make := func(fill int) sdktrace.ReadOnlySpan {
		return spanOf(tracetest.SpanStub{Name: "x", Attributes: kv("fill", strings.Repeat("f", fill))})
	}
	s := newSender("", Config{Name: "shop"})
	empty, _, err := s.encoder.datagram(newTranslator(s.config, resource.Empty()).document(make(0)), maxDatagram)
	require.NoError(t, err)
	return make(bytes - len(empty))
}

func TestTheLargestDatagramGoesThrough(t *testing.T) {
	d := newDaemon(t)
	s := newSender(d.address, Config{Name: "shop"})
	defer s.Shutdown(t.Context())
	require.NoError(t, s.ExportSpans(t.Context(), []sdktrace.ReadOnlySpan{sized(t, maxDatagram)}))
	whole := d.next()
	require.Zero(t, s.shortened.Load())
	require.Greater(t, len(whole["metadata"].(map[string]any)["default"].(map[string]any)["fill"].(string)), 65000)

	require.NoError(t, s.ExportSpans(t.Context(), []sdktrace.ReadOnlySpan{sized(t, maxDatagram+1), sized(t, 10*maxDatagram)}))
	for range 2 {
		want{"metadata.micro.shortened": true, "metadata.default.fill": strings.Repeat("f", 256)}.in(t, d.next())
	}
	require.EqualValues(t, 2, s.shortened.Load())
	require.EqualValues(t, 3, s.sent.Load())
}

// TestWhatTheSystemFindsTooLarge is shortened further: some take less than UDP allows.
func TestWhatTheSystemFindsTooLarge(t *testing.T) {
	d := newDaemon(t)
	s := newSender(d.address, Config{Name: "shop"})
	defer s.Shutdown(t.Context())
	s.limit = 1 << 17
	require.NoError(t, s.ExportSpans(t.Context(), []sdktrace.ReadOnlySpan{sized(t, 1<<16), sized(t, 60000)}))
	for range 2 {
		want{"metadata.micro.shortened": true}.in(t, d.next())
	}
	require.EqualValues(t, 2, s.shortened.Load())
	require.Equal(t, 1<<15, s.limit)
}

func TestShorteningKeepsWhatMattersMost(t *testing.T) {
	long := strings.Repeat("\x00é\"", 5000)
	exception := sdktrace.Event{Name: "exception", Attributes: kv("exception.type", long, "exception.message", long, "exception.stacktrace", strings.Repeat("main.f()\n\t/x/"+long+".go:1\n", 60))}
	span := spanOf(tracetest.SpanStub{
		Name: long, SpanKind: trace.SpanKindServer, Status: sdktrace.Status{Code: codes.Error, Description: long},
		Attributes: append(kv("http.request.method", "GET", "http.response.status_code", 500, "url.path", long, "user_agent.original", long, "user.id", long, "list", []string{long, long}), many(100, long)...),
		Events:     []sdktrace.Event{exception, exception, {Name: long, Attributes: kv(long, long)}},
	})
	s := newSender("", Config{Name: "shop", Annotations: []string{"*"}})
	tr := newTranslator(s.config, resource.Empty())
	for _, c := range []struct {
		limit      int
		kept, gone []string
	}{
		{1 << 24, []string{"metadata.default", "cause", "annotations", "http", "service"}, nil},
		{1 << 20, []string{"metadata.default", "cause", "annotations", "http", "service"}, nil},
		{maxDatagram, []string{"http", "service"}, []string{"metadata.default"}},
		{minDatagram, []string{"fault", "name"}, []string{"metadata.default", "annotations", "http"}},
		{1 << 10, []string{"fault", "name"}, []string{"metadata.default", "annotations", "http", "cause"}},
	} {
		data, cut, err := s.encoder.datagram(tr.document(span), c.limit)
		require.NoError(t, err, c.limit)
		require.LessOrEqual(t, len(data), c.limit)
		require.Equal(t, c.limit != 1<<24, cut)
		d, err := checkDatagram(data)
		require.NoError(t, err)
		for _, path := range c.kept {
			require.NotNil(t, at(d, path), "%s in %d", path, c.limit)
		}
		for _, path := range c.gone {
			require.Nil(t, at(d, path), "%s in %d", path, c.limit)
		}
	}
	_, _, err := s.encoder.datagram(tr.document(span), 100)
	require.ErrorContains(t, err, "does not fit into 100 bytes")
	require.Equal(t, long, span.Attributes()[5].Value.AsStringSlice()[0], "the span is not ours to cut")
}

func many(n int, value string) (attributes []attribute.KeyValue) {
	for i := range n {
		attributes = append(attributes, attribute.String("key"+strings.Repeat("k", i), value))
	}
	return attributes
}

func at(d map[string]any, path string) any {
	var v any = d
	for key := range strings.SplitSeq(path, ".") {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}

// load is what a program does with its flags.
func load(args ...string) (*plugin.Settings, error) {
	loader := plugin.NewLoader(plugin.Linked)
	if err := loader.Parse(append(args, "--tracer=xray")); err != nil {
		return nil, err
	}
	return loader.Load(nil)
}

// logged opens a tracer whose log can be read after Close.
func logged(t *testing.T, args ...string) (*Tracer, *plugin.Host, *bytes.Buffer) {
	log := new(bytes.Buffer)
	settings, err := load(args...)
	require.NoError(t, err)
	host := settings.Open(t.Context(), slog.New(slog.NewTextHandler(log, nil)), plugin.OpenedBy(plugin.Program{Name: "shop", Version: "7"}))
	tr, err := plugin.Open[tracer.Tracer](host)
	require.NoError(t, err)
	return tr.(*Tracer), host, log
}

func work(tr *Tracer, n int) {
	for range n {
		_, span := tr.Provider().Tracer("test").Start(context.Background(), "work")
		span.End()
	}
}

// TestWithoutADaemon nothing is harmed, what is lost is counted, and when it comes all is well.
func TestWithoutADaemon(t *testing.T) {
	port, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	address := port.LocalAddr().String()
	require.NoError(t, port.Close())

	s := newSender(address, Config{Name: "shop"})
	defer s.Shutdown(t.Context())
	lost := 0
	for range 100 {
		if err := s.ExportSpans(t.Context(), []sdktrace.ReadOnlySpan{sized(t, 500)}); err != nil {
			var some *otelsdk.Lost
			require.ErrorAs(t, err, &some)
			require.ErrorContains(t, err, address)
			lost += some.Spans
		}
	}
	require.InDelta(t, 99, lost, 1, "of the last one it is not known yet")

	conn, err := net.ListenPacket("udp", address)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	_ = s.ExportSpans(t.Context(), []sdktrace.ReadOnlySpan{sized(t, 500)}) // says that an earlier one was lost
	buf := make([]byte, 1000)
	n, _, err := conn.ReadFrom(buf)
	require.NoError(t, err)
	require.Equal(t, 500, n)
}

func TestADaemonThatHasNoAddress(t *testing.T) {
	tr, host, log := logged(t, "--tracer-daemon=nowhere.invalid:2000", "--tracer-sampling=local", "--tracer-rate=1", "--tracer-batch-delay=5ms")
	work(tr, 10)
	require.NoError(t, host.Close())
	require.Equal(t, Stats{Lost: 10}, tr.Stats())
	require.Contains(t, log.String(), "X-Ray daemon at nowhere.invalid:2000: dial udp: lookup nowhere.invalid")
}

func TestCloseSendsWhatWaits(t *testing.T) {
	d := newDaemon(t)
	tr, host, log := logged(t, "--tracer-daemon="+strings.Replace(d.address, "127.0.0.1", "localhost", 1), "--tracer-sampling=local", "--tracer-rate=1", "--tracer-batch-delay=1h")
	work(tr, 100)
	require.NoError(t, host.Close())
	require.Equal(t, Stats{Sent: 100}, tr.Stats())
	for range 100 {
		want{"name": "shop", "service.version": "7"}.in(t, d.next())
	}
	require.Empty(t, log.String())
}

// TestTheDaemonDecides: by TCP it says what is to be sent by UDP.
func TestTheDaemonDecides(t *testing.T) {
	d := newDaemon(t)
	rule := everything("only one", 0, 1)
	rule.URLPath = "/one"
	d.api.pages = [][]samplingRule{{rule, everything("Default", 0, 0)}}
	t.Setenv(addressVariable, "udp:"+d.address+" tcp:"+d.address)
	tr, host, log := logged(t, "--tracer-batch-delay=5ms", "--tracer-reservoir=0", "--tracer-rate=0", "--tracer-name=till")
	sampled := func(path string) bool {
		_, span := tr.Provider().Tracer("test").Start(t.Context(), "GET "+path, trace.WithSpanKind(trace.SpanKindServer),
			trace.WithAttributes(attribute.String("url.path", path)))
		defer span.End()
		return span.SpanContext().IsSampled()
	}
	require.Eventually(t, func() bool { return sampled("/one") }, 20*time.Second, time.Millisecond)
	require.False(t, sampled("/two"))
	want{"name": "till", "aws.xray.sampling_rule_name": "only one", "annotations.operation": "GET /one"}.in(t, d.next())
	require.NoError(t, host.Close())
	require.Empty(t, log.String())
}

func TestAddresses(t *testing.T) {
	for text, want := range map[string]addresses{
		"127.0.0.1:2000":                          {"127.0.0.1:2000", "127.0.0.1:2000"},
		"xray.local:2000":                         {"xray.local:2000", "xray.local:2000"},
		"[::1]:2000":                              {"[::1]:2000", "[::1]:2000"},
		"tcp:127.0.0.1:2000 udp:127.0.0.2:2001":   {"127.0.0.2:2001", "127.0.0.1:2000"},
		" udp:xray:2001  tcp:[::1]:2000 ":         {"xray:2001", "[::1]:2000"},
		"127.0.0.1":                               {},
		"127.0.0.1:":                              {},
		"127.0.0.1:0":                             {},
		"127.0.0.1:65536":                         {},
		"127.0.0.1:http":                          {},
		"udp:127.0.0.1:2000":                      {},
		"udp:127.0.0.1:2000 udp:127.0.0.1:2000":   {},
		"tcp:127.0.0.1:1 udp:127.0.0.1:2 tcp:a:3": {},
		"http://127.0.0.1:2000":                   {},
		"tcp:127.0.0.1:2000 udp:127.0.0.2":        {},
	} {
		got, err := parseAddresses(text)
		require.Equal(t, want, got, text)
		require.Equal(t, want == addresses{}, err != nil, text)
	}
}

func TestWhichAddressCounts(t *testing.T) {
	got, err := daemonAddresses("")
	require.NoError(t, err)
	require.Equal(t, addresses{"127.0.0.1:2000", "127.0.0.1:2000"}, got)
	t.Setenv(addressVariable, "xray:2001")
	got, err = daemonAddresses("")
	require.NoError(t, err)
	require.Equal(t, addresses{"xray:2001", "xray:2001"}, got)
	got, err = daemonAddresses("other:2002")
	require.NoError(t, err)
	require.Equal(t, addresses{"other:2002", "other:2002"}, got)
}

func TestNames(t *testing.T) {
	d := newDaemon(t)
	t.Setenv("AWS_XRAY_TRACING_NAME", "by variable")
	for want, args := range map[string][]string{"by variable": nil, "by setting": {"--tracer-name=by setting"}} {
		tr, host, _ := logged(t, append(args, "--tracer-daemon="+d.address, "--tracer-sampling=local", "--tracer-rate=1")...)
		work(tr, 1)
		require.NoError(t, host.Close())
		require.Equal(t, want, d.next()["name"])
	}
}

func TestSettingsAreChecked(t *testing.T) {
	t.Setenv(addressVariable, "nonsense")
	_, err := load("--tracer-sampling=never", "--tracer-rate=2", "--tracer-reservoir=-1", "--tracer-queue-size=0")
	for _, want := range []string{addressVariable + `="nonsense": not the address of a daemon`, `sampling "never" is unknown`, "rate 2: want 0 to 1", "reservoir -1", "queue-size 0"} {
		require.ErrorContains(t, err, want)
	}
	_, err = Open(&plugin.Env{}, Config{Daemon: "x"})
	require.ErrorContains(t, err, `daemon "x"`)
}

// sink is an address where datagrams get lost.
func sink(b *testing.B) string {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(b, err)
	b.Cleanup(func() { conn.Close() })
	return conn.LocalAddr().String()
}

func BenchmarkSpan(b *testing.B) {
	tr, err := Open(&plugin.Env{}, Config{Sampling: "local", Rate: 1, Daemon: sink(b), Batching: otelsdk.Batching{QueueSize: 1 << 20}})
	require.NoError(b, err)
	defer tr.Close()
	b.ReportAllocs()
	for b.Loop() {
		_, span := tr.Provider().Tracer("test").Start(context.Background(), "work", trace.WithSpanKind(trace.SpanKindServer))
		span.End()
	}
}

func BenchmarkNotSampled(b *testing.B) {
	tr, err := Open(&plugin.Env{}, Config{Sampling: "local"})
	require.NoError(b, err)
	defer tr.Close()
	b.ReportAllocs()
	for b.Loop() {
		_, span := tr.Provider().Tracer("test").Start(context.Background(), "work", trace.WithSpanKind(trace.SpanKindServer))
		span.End()
	}
}

// BenchmarkPropagation is a request that comes with a header and goes on with it.
func BenchmarkPropagation(b *testing.B) {
	tr, err := Open(&plugin.Env{}, Config{Sampling: "local"})
	require.NoError(b, err)
	defer tr.Close()
	get := func(string) string { return root + ";" + parent + ";Sampled=0;Lineage=a87bd80c:1|68fd508a:5" }
	b.ReportAllocs()
	for b.Loop() {
		tr.Inject(tr.Extract(context.Background(), get), func(string, string) {})
	}
}

// BenchmarkExport is what a document costs in the background: made, encoded and sent.
func BenchmarkExport(b *testing.B) {
	s := newSender(sink(b), Config{Name: "shop"})
	defer s.Shutdown(context.Background())
	span := []sdktrace.ReadOnlySpan{spanOf(tracetest.SpanStub{Name: "POST /greeter/hello", SpanKind: trace.SpanKindServer, Attributes: kv("http.request.method", "POST",
		"url.scheme", "https", "server.address", "shop.example", "url.path", "/greeter/hello", "client.address", "198.51.100.7", "user_agent.original", "curl/8",
		"http.response.status_code", 200, "order.id", "7")})}
	b.ReportAllocs()
	for b.Loop() {
		_ = s.ExportSpans(context.Background(), span)
	}
}
