// Package otlptest is a receiver of spans for tests: it takes them by OpenTelemetry's protocol, over HTTP or gRPC, decodes
// everything, and misbehaves as told.
//
//	r := otlptest.Listen(t, "http", "", nil)
//	… MICRO_TRACER=otlp MICRO_TRACER_ENDPOINT=r.Addr …
//	spans := r.Spans()
package otlptest

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Receiver takes spans as a collector does. Its exported fields are set before anything is sent, or with Lock held.
type Receiver struct {
	coltracepb.UnimplementedTraceServiceServer
	Addr string

	Refuse  []int         // statuses of HTTP for the next requests, 0 for none; the last one stays
	Text    string        // said with it
	Partial int64         // how many spans are refused of what is taken, with Text; less than 0: nothing is said
	Hang    chan struct{} // requests wait for it

	sync.Mutex
	Requests    []*coltracepb.ExportTraceServiceRequest
	Header      http.Header // of the last request
	Path        string
	Compression string
}

// Listen starts one that speaks protocol, http or grpc, at addr, "" for any port.
func Listen(t testing.TB, protocol, addr string, secure *tls.Config) *Receiver {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	require.NoError(t, err)
	r := &Receiver{Addr: l.Addr().String(), Text: "as you say", Partial: -1}
	done := make(chan struct{})
	if protocol == "grpc" {
		opts := []grpc.ServerOption{grpc.StatsHandler(r)}
		if secure != nil {
			opts = append(opts, grpc.Creds(credentials.NewTLS(secure)))
		}
		s := grpc.NewServer(opts...)
		coltracepb.RegisterTraceServiceServer(s, r)
		go func() { defer close(done); s.Serve(l) }()
		t.Cleanup(func() { s.Stop(); <-done })
		return r
	}
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	s := &http.Server{Handler: r}
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return r
}

// ServeHTTP takes a request by HTTP.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		body = z
	}
	data, err := io.ReadAll(body)
	in := new(coltracepb.ExportTraceServiceRequest)
	if err == nil {
		err = proto.Unmarshal(data, in)
	}
	if err != nil || req.Method != "POST" || req.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "malformed", 400)
		return
	}
	out, refused := r.take(in, req.Header, req.URL.Path, req.Header.Get("Content-Encoding"))
	if refused != 0 {
		w.Header().Set("Location", "http://"+r.Addr+"/elsewhere")
		http.Error(w, r.Text, refused)
		return
	}
	data, _ = proto.Marshal(out)
	w.Header().Set("Content-Type", "application/x-protobuf")
	io.Copy(w, bytes.NewReader(data))
}

// Export takes one by gRPC.
func (r *Receiver) Export(ctx context.Context, in *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	headers := http.Header{}
	for k, v := range md {
		headers[http.CanonicalHeaderKey(k)] = v
	}
	compression, _ := ctx.Value(compressionKey{}).(*string)
	out, refused := r.take(in, headers, "", *compression)
	if refused != 0 {
		return nil, status.Error(map[int]codes.Code{503: codes.Unavailable, 401: codes.Unauthenticated, 307: codes.FailedPrecondition}[refused], r.Text)
	}
	return out, nil
}

func (r *Receiver) take(in *coltracepb.ExportTraceServiceRequest, h http.Header, path, compression string) (*coltracepb.ExportTraceServiceResponse, int) {
	r.Lock()
	hang := r.Hang
	r.Unlock()
	if hang != nil {
		<-hang
	}
	r.Lock()
	defer r.Unlock()
	r.Header, r.Path, r.Compression = h, path, compression
	if len(r.Refuse) > 0 {
		refused := r.Refuse[0]
		if len(r.Refuse) > 1 {
			r.Refuse = r.Refuse[1:]
		}
		if refused != 0 {
			return nil, refused
		}
	}
	r.Requests = append(r.Requests, in)
	out := new(coltracepb.ExportTraceServiceResponse)
	if r.Partial >= 0 {
		out.PartialSuccess = &coltracepb.ExportTracePartialSuccess{RejectedSpans: r.Partial, ErrorMessage: r.Text}
	}
	return out, 0
}

// Span is a span that arrived, and whose it is.
type Span struct {
	*tracepb.Span
	Service string // service.name of its resource
}

// Spans are all that arrived.
func (r *Receiver) Spans() []Span {
	r.Lock()
	defer r.Unlock()
	var all []Span
	for _, in := range r.Requests {
		for _, of := range in.ResourceSpans {
			for _, by := range of.ScopeSpans {
				for _, s := range by.Spans {
					all = append(all, Span{s, Text(of.Resource.Attributes, "service.name")})
				}
			}
		}
	}
	return all
}

// Text is an attribute that is a string; "" if there is none.
func Text(attrs []*commonpb.KeyValue, key string) string {
	for _, a := range attrs {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// The rest finds out how a gRPC request was compressed.
type compressionKey struct{}

// TagRPC implements stats.Handler.
func (r *Receiver) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, compressionKey{}, new(string))
}

// HandleRPC implements stats.Handler.
func (r *Receiver) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if h, ok := s.(*stats.InHeader); ok {
		*ctx.Value(compressionKey{}).(*string) = strings.TrimSpace(h.Compression)
	}
}

// TagConn implements stats.Handler.
func (r *Receiver) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (r *Receiver) HandleConn(context.Context, stats.ConnStats) {}
