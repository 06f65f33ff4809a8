package otlp

import (
	"context"
	"crypto/tls"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"

	"github.com/plugmicro/micro/internal/otelsdk"
)

// exporter is OpenTelemetry's, and what it leaves open.
type exporter struct {
	*otlptrace.Exporter
	close func()
}

var _ sdktrace.SpanExporter = (*exporter)(nil)

// newExporter sets every option: what is not set is taken from the environment.
func newExporter(ctx context.Context, c Config) (*exporter, error) {
	to, err := c.target()
	if err != nil {
		return nil, err
	}
	secure, err := c.TLS.Client()
	if err != nil {
		return nil, err
	}
	if secure == nil && to.secure {
		secure = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	headers, err := c.headers()
	if err != nil {
		return nil, err
	}
	if c.Protocol == "grpc" {
		return newGRPC(ctx, c, to, secure, headers)
	}
	return newHTTP(ctx, c, to, secure, headers)
}

// firstPause is how long after a failure a batch is sent again, for the first time.
const firstPause = 200 * time.Millisecond

func newHTTP(ctx context.Context, c Config, to target, secure *tls.Config, headers map[string]string) (*exporter, error) {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: secure, ForceAttemptHTTP2: true,
		MaxIdleConns: 2, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: c.Timeout,
	}
	opts := []otlptracehttp.Option{
		otlptracehttp.WithEndpoint(to.host), otlptracehttp.WithURLPath(to.path), otlptracehttp.WithHeaders(headers),
		otlptracehttp.WithTimeout(c.Timeout), otlptracehttp.WithEncoding(otlptracehttp.EncodingProtobuf),
		otlptracehttp.WithTLSClientConfig(secure), otlptracehttp.WithMaxResponseSize(maxAnswer),
		otlptracehttp.WithHTTPClient(&http.Client{Transport: transport, CheckRedirect: noRedirect}),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: firstPause, MaxInterval: c.Timeout, MaxElapsedTime: c.Timeout}),
	}
	if secure == nil {
		opts = append(opts, otlptracehttp.WithInsecure())
	}
	compression := otlptracehttp.NoCompression
	if c.Compression == "gzip" {
		compression = otlptracehttp.GzipCompression
	}
	e, err := otlptracehttp.New(ctx, append(opts, otlptracehttp.WithCompression(compression))...)
	return &exporter{e, transport.CloseIdleConnections}, err
}

// maxAnswer is how much of an answer is read.
const maxAnswer = 64 << 10

func newGRPC(ctx context.Context, c Config, to target, secure *tls.Config, headers map[string]string) (*exporter, error) {
	by := insecure.NewCredentials()
	if secure != nil {
		by = credentials.NewTLS(secure)
	}
	compressor := encoding.Identity
	if c.Compression == "gzip" {
		compressor = gzip.Name
	}
	e, err := otlptracegrpc.New(ctx,
		otlptracegrpc.WithEndpoint(to.host), otlptracegrpc.WithHeaders(headers), otlptracegrpc.WithTLSCredentials(by),
		otlptracegrpc.WithDialOption(grpc.WithDefaultCallOptions(grpc.UseCompressor(compressor))), otlptracegrpc.WithTimeout(c.Timeout),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: true, InitialInterval: firstPause, MaxInterval: c.Timeout, MaxElapsedTime: c.Timeout}))
	return &exporter{e, func() {}}, err
}

// rejected is how OpenTelemetry's exporters word that a receiver took some spans of a batch and refused others. Their type
// for it cannot be named.
var rejected = regexp.MustCompile(`(?s)OTLP partial success: .*\((\d+) spans rejected\)`)

// ExportSpans implements sdktrace.SpanExporter.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.Exporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	m := rejected.FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	n, numErr := strconv.Atoi(m[1])
	switch {
	case numErr != nil || n > len(spans):
		return err
	case n == 0:
		return nil // there was something to say, but all were taken
	}
	return &otelsdk.Lost{Spans: n, Err: err}
}

// Shutdown implements sdktrace.SpanExporter.
func (e *exporter) Shutdown(ctx context.Context) error {
	defer e.close()
	return e.Exporter.Shutdown(ctx)
}
