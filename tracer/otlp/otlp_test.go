package otlp

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/internal/otelsdk"
	"github.com/plugmicro/micro/internal/otlptest"
	"github.com/plugmicro/micro/internal/testcert"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/tracer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is how long a test waits for what must happen.
const (
	soon = 20 * time.Second
	tick = 5 * time.Millisecond
)

// log is a bytes.Buffer that several goroutines may use.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// open chooses the plugin as a user does.
func open(t *testing.T, args ...string) (*otelsdk.Tracer, *log) {
	l := plugin.NewLoader(plugin.Linked)
	require.NoError(t, l.Parse(append([]string{"--tracer=otlp", "--tracer-batch-delay=10ms"}, args...)))
	settings, err := l.Load(nil)
	require.NoError(t, err)
	out := new(log)
	host := settings.Open(t.Context(), slog.New(slog.NewTextHandler(out, nil)), plugin.OpenedBy(plugin.Program{Name: "shop", Version: "1.2.0"}))
	t.Cleanup(func() { host.Close() })
	tr, err := plugin.Open[tracer.Tracer](host)
	require.NoError(t, err)
	return tr.(*otelsdk.Tracer), out
}

func spans(t tracer.Tracer, n int) {
	for range n {
		_, span := t.Provider().Tracer("test").Start(context.Background(), "work")
		span.End()
	}
}

// everywhere runs a test by both protocols.
func everywhere(t *testing.T, f func(t *testing.T, protocol string)) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) { f(t, protocol) })
	}
}

func TestSpansArrive(t *testing.T) {
	everywhere(t, func(t *testing.T, protocol string) {
		for _, compression := range compressions {
			r := otlptest.Listen(t, protocol, "", nil)
			tr, out := open(t, "--tracer-protocol", protocol, "--tracer-endpoint", r.Addr, "--tracer-compression", compression,
				"--tracer-headers", "Api-Key=hunter2, x-tenant = acme")
			ctx, parent := tr.Provider().Tracer("test").Start(t.Context(), "parent", trace.WithSpanKind(trace.SpanKindServer))
			_, child := tr.Provider().Tracer("test").Start(ctx, "child", trace.WithAttributes(attribute.String("key", "value")))
			child.SetStatus(codes.Error, "as you say")
			child.End()
			parent.End()
			require.NoError(t, tr.Close())
			got := r.Spans()
			require.Len(t, got, 2)
			require.Equal(t, "child", got[0].Name)
			require.Equal(t, "as you say", got[0].Status.Message)
			require.Equal(t, parent.SpanContext().SpanID().String(), hex.EncodeToString(got[0].ParentSpanId))
			require.Equal(t, parent.SpanContext().TraceID().String(), hex.EncodeToString(got[0].TraceId))
			require.Equal(t, tracepb.Span_SPAN_KIND_SERVER, got[1].Kind)
			require.Equal(t, "value", got[0].Attributes[0].Value.GetStringValue())
			resource := r.Requests[0].ResourceSpans[0].Resource.Attributes
			require.Equal(t, "shop", otlptest.Text(resource, "service.name"))
			require.Equal(t, "1.2.0", otlptest.Text(resource, "service.version"))
			require.Equal(t, "hunter2", r.Header.Get("Api-Key"))
			require.Equal(t, "acme", r.Header.Get("X-Tenant"))
			require.Equal(t, compression == "gzip", r.Compression == "gzip")
			if protocol == "http" {
				require.Equal(t, "/v1/traces", r.Path)
			}
			require.Empty(t, out.String())
		}
	})
}

func TestEndpoints(t *testing.T) {
	r := otlptest.Listen(t, "http", "", nil)
	for endpoint, path := range map[string]string{"http://" + r.Addr: "/v1/traces", "http://" + r.Addr + "/tenant/v1/traces": "/tenant/v1/traces"} {
		tr, _ := open(t, "--tracer-endpoint", endpoint)
		spans(tr, 1)
		require.NoError(t, tr.Close())
		require.Equal(t, path, r.Path)
	}
	for _, c := range []struct {
		config Config
		want   target
	}{
		{Config{Protocol: "http"}, target{"127.0.0.1:4318", "/v1/traces", false}},
		{Config{Protocol: "grpc"}, target{"127.0.0.1:4317", "/v1/traces", false}},
		{Config{Protocol: "grpc", Endpoint: "collector"}, target{"collector:4317", "/v1/traces", false}},
		{Config{Protocol: "http", Endpoint: "https://x.example"}, target{"x.example:4318", "/v1/traces", true}},
		{Config{Protocol: "http", Endpoint: "x.example:443", TLS: plugin.TLS{Enable: true}}, target{"x.example:443", "/v1/traces", true}},
		{Config{Protocol: "grpc", Endpoint: "https://[::1]/"}, target{"[::1]:4317", "/", true}},
	} {
		got, err := c.config.target()
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
}

func TestTLS(t *testing.T) {
	everywhere(t, func(t *testing.T, protocol string) {
		authority := testcert.New(t)
		settings := authority.TLS()
		server, err := settings.Server()
		require.NoError(t, err)
		server.ClientAuth = 4 // RequireAndVerifyClientCert
		server.NextProtos = []string{"h2", "http/1.1"}
		r := otlptest.Listen(t, protocol, "", server)
		tr, out := open(t, "--tracer-protocol", protocol, "--tracer-endpoint", "https://"+r.Addr,
			"--tracer-tls-ca", settings.CA, "--tracer-tls-cert", settings.Cert, "--tracer-tls-key", settings.Key)
		spans(tr, 1)
		require.NoError(t, tr.Close())
		require.Len(t, r.Spans(), 1, out)

		tr, out = open(t, "--tracer-protocol", protocol, "--tracer-endpoint", "https://"+r.Addr, "--tracer-timeout=3s") // trusts nobody of these
		spans(tr, 1)
		require.NoError(t, tr.Close())
		require.EqualValues(t, 1, tr.Dropped())
		require.Contains(t, out.String(), "certificate")
	})
}

// TestReceiverThatIsAway: the log says it once, and when it comes it gets what there is then.
func TestReceiverThatIsAway(t *testing.T) {
	everywhere(t, func(t *testing.T, protocol string) {
		addr := free(t)
		tr, out := open(t, "--tracer-protocol", protocol, "--tracer-endpoint", addr, "--tracer-timeout=100ms", "--tracer-queue-size=100")
		for i := range int64(3) {
			spans(tr, 1000)
			require.Eventually(t, func() bool { return tr.Dropped() == 1000*(i+1) }, soon, tick)
		}
		require.Equal(t, 1, strings.Count(out.String(), "\n"), out)
		require.Contains(t, out.String(), "spans are lost until this is over")

		r := otlptest.Listen(t, protocol, addr, nil)
		require.Eventually(t, func() bool { spans(tr, 1); return len(r.Spans()) > 0 }, soon, 50*time.Millisecond)
		require.NoError(t, tr.Close())
	})
}

func free(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// TestReceiverThatHangs: who ends a span does not wait for it, what waits is bounded, and so is closing. The receiver hangs
// as long as the test runs, and so would it.
func TestReceiverThatHangs(t *testing.T) {
	everywhere(t, func(t *testing.T, protocol string) {
		r := otlptest.Listen(t, protocol, "", nil)
		hang := make(chan struct{})
		r.Hang = hang
		t.Cleanup(func() { close(hang) })
		tr, out := open(t, "--tracer-protocol", protocol, "--tracer-endpoint", r.Addr,
			"--tracer-queue-size=100", "--tracer-batch-size=10", "--tracer-close-timeout=200ms", "--tracer-timeout=1h")
		spans(tr, 10_000)
		require.EqualValues(t, 9900, tr.Dropped())
		require.Equal(t, 1, strings.Count(out.String(), "\n"), out)
		require.Contains(t, out.String(), "queue-size")
		require.ErrorContains(t, tr.Close(), "close-timeout")
		require.EqualValues(t, 10_000, tr.Dropped())
	})
}

func TestReceiverThatRefuses(t *testing.T) {
	everywhere(t, func(t *testing.T, protocol string) {
		t.Run("for a moment", func(t *testing.T) {
			r := otlptest.Listen(t, protocol, "", nil)
			r.Refuse = []int{503, 503, 0}
			tr, out := open(t, "--tracer-protocol", protocol, "--tracer-endpoint", r.Addr)
			spans(tr, 1)
			require.Eventually(t, func() bool { return len(r.Spans()) == 1 }, soon, tick)
			require.NoError(t, tr.Close())
			require.Zero(t, tr.Dropped())
			require.Empty(t, out.String())
		})
		t.Run("for good", func(t *testing.T) {
			r := otlptest.Listen(t, protocol, "", nil)
			r.Refuse, r.Text = []int{401}, "no such key"+strings.Repeat(".", 10_000)
			tr, out := open(t, "--tracer-protocol", protocol, "--tracer-endpoint", r.Addr, "--tracer-headers=api-key=hunter2")
			spans(tr, 1)
			require.NoError(t, tr.Close())
			require.EqualValues(t, 1, tr.Dropped())
			require.Contains(t, out.String(), "no such key")
			require.Less(t, len(out.String()), 2000)
			require.NotContains(t, out.String(), "hunter2")
		})
		t.Run("some", func(t *testing.T) {
			r := otlptest.Listen(t, protocol, "", nil)
			r.Partial, r.Text = 2, "too old"
			tr, out := open(t, "--tracer-protocol", protocol, "--tracer-endpoint", r.Addr)
			spans(tr, 5)
			require.NoError(t, tr.Close())
			require.EqualValues(t, 2, tr.Dropped())
			require.Contains(t, out.String(), "too old")
		})
		t.Run("none, with a word", func(t *testing.T) {
			r := otlptest.Listen(t, protocol, "", nil)
			r.Partial, r.Text = 0, "slow down, please"
			tr, _ := open(t, "--tracer-protocol", protocol, "--tracer-endpoint", r.Addr)
			spans(tr, 5)
			require.NoError(t, tr.Close())
			require.Zero(t, tr.Dropped())
		})
	})
}

// TestRedirect: the headers are for the endpoint alone.
func TestRedirect(t *testing.T) {
	r := otlptest.Listen(t, "http", "", nil)
	r.Refuse = []int{http.StatusTemporaryRedirect, 0}
	tr, _ := open(t, "--tracer-endpoint", r.Addr, "--tracer-headers=api-key=hunter2")
	spans(tr, 1)
	require.NoError(t, tr.Close())
	require.EqualValues(t, 1, tr.Dropped())
	require.Equal(t, "/v1/traces", r.Path, "nothing was sent elsewhere")
}

func TestSampleRatio(t *testing.T) {
	r := otlptest.Listen(t, "http", "", nil)
	tr, _ := open(t, "--tracer-endpoint", r.Addr, "--tracer-sample-ratio=0.25")
	spans(tr, 2000)
	require.NoError(t, tr.Close())
	require.InDelta(t, 500, len(r.Spans()), 150)
}

// TestVariablesOfOpenTelemetry: those of the exporter are not asked, and it is said so.
func TestVariablesOfOpenTelemetry(t *testing.T) {
	everywhere(t, func(t *testing.T, protocol string) {
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://elsewhere.example:1")
		t.Setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=wrong")
		t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
		t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere")
		t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
		t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
		t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
		r := otlptest.Listen(t, protocol, "", nil)
		tr, out := open(t, "--tracer-protocol", protocol, "--tracer-endpoint", r.Addr, "--tracer-compression=none")
		spans(tr, 50)
		require.NoError(t, tr.Close())
		require.Len(t, r.Spans(), 50)
		require.Empty(t, r.Header.Get("Api-Key"))
		require.NotEqual(t, "gzip", r.Compression)
		require.Equal(t, 1, strings.Count(out.String(), "\n"), out)
		require.Contains(t, out.String(), "OTEL_EXPORTER_OTLP_ENDPOINT")
		require.Contains(t, out.String(), "OTEL_BSP_MAX_QUEUE_SIZE")
		require.NotContains(t, out.String(), "wrong")
	})
}

func TestZeroConfigIsTheDeclaredDefault(t *testing.T) {
	values := reflect.ValueOf(Config{}.withDefaults())
	for i := range values.NumField() {
		if declared, ok := values.Type().Field(i).Tag.Lookup("default"); ok {
			require.Equal(t, declared, fmt.Sprint(values.Field(i)), values.Type().Field(i).Name)
		}
	}
	require.Equal(t, otelsdk.Batching{}.WithDefaults(), Config{}.withDefaults().Batching)
}

func TestSettings(t *testing.T) {
	for want, args := range map[string][]string{
		`protocol "udp": want one of`:           {"--tracer-protocol=udp"},
		`compression "zip": want one of`:        {"--tracer-compression=zip"},
		"timeout -1s: want more than 0":         {"--tracer-timeout=-1s"},
		"sample-ratio 1.5":                      {"--tracer-sample-ratio=1.5"},
		"queue-size 0":                          {"--tracer-queue-size=0"},
		"endpoint: want host:port":              {"--tracer-endpoint=ftp://x"},
		"endpoint: there is no port 99999":      {"--tracer-endpoint=http://x:99999"},
		"endpoint: there is no port 0":          {"--tracer-endpoint=x:0", "--tracer-protocol=grpc"},
		"endpoint: it has a user":               {"--tracer-endpoint=http://u:hunter2@x"},
		"endpoint: it has a query":              {"--tracer-endpoint=http://x?key=hunter2"},
		"endpoint: it begins with http://":      {"--tracer-endpoint=http://x", "--tracer-tls-enable"},
		"endpoint: it has a path":               {"--tracer-endpoint=x/v1/traces", "--tracer-protocol=grpc"},
		"headers: pair 2 is none":               {"--tracer-headers=a=b,hunter2"},
		"headers: pair 1 is none":               {"--tracer-headers=a b=hunter2"},
		"tls-ca: cannot read the file":          {"--tracer-tls-ca=/nowhere"},
		"tls-cert /nowhere: its key is missing": {"--tracer-tls-cert=/nowhere"},
	} {
		l := plugin.NewLoader(plugin.Linked)
		require.NoError(t, l.Parse(append([]string{"--tracer=otlp"}, args...)))
		_, err := l.Load(nil)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hunter2")
		require.NotContains(t, err.Error(), "\n", "said once")
	}
	_, err := New(&plugin.Env{}, Config{Protocol: "udp"})
	require.Error(t, err)
	for _, protocol := range protocols {
		tr, err := New(&plugin.Env{}, Config{Protocol: protocol})
		require.NoError(t, err)
		require.NoError(t, tr.Close())
	}
	require.NotContains(t, fmt.Sprintf("%+v", Config{Headers: plugin.NewSecret("a=hunter2")}), "hunter2")
}
