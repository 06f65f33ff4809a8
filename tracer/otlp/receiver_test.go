package otlp

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

// receiver takes spans by both protocols, as a collector does, and misbehaves as told.
type receiver struct {
	coltracepb.UnimplementedTraceServiceServer
	addr string

	mu          sync.Mutex
	requests    []*coltracepb.ExportTraceServiceRequest
	headers     http.Header // of the last request
	path        string
	compression string
	refuse      []int // statuses of HTTP for the next requests; the last one stays
	text        string
	partial     int64
	hang        chan struct{} // requests wait for it
}

// listen is one that speaks protocol at addr, "" for any port.
func listen(t *testing.T, protocol, addr string, secure *tls.Config) *receiver {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	require.NoError(t, err)
	r := &receiver{addr: l.Addr().String(), text: "as you say"}
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

// ServeHTTP decodes everything that comes.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
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
		w.Header().Set("Location", "http://"+r.addr+"/elsewhere")
		http.Error(w, r.text, refused)
		return
	}
	data, _ = proto.Marshal(out)
	w.Header().Set("Content-Type", "application/x-protobuf")
	io.Copy(w, bytes.NewReader(data))
}

// Export is the same by gRPC.
func (r *receiver) Export(ctx context.Context, in *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	headers := http.Header{}
	for k, v := range md {
		headers[http.CanonicalHeaderKey(k)] = v
	}
	compression, _ := ctx.Value(compressionKey{}).(*string)
	out, refused := r.take(in, headers, "", *compression)
	if refused != 0 {
		return nil, status.Error(map[int]codes.Code{503: codes.Unavailable, 401: codes.Unauthenticated, 307: codes.FailedPrecondition}[refused], r.text)
	}
	return out, nil
}

func (r *receiver) take(in *coltracepb.ExportTraceServiceRequest, h http.Header, path, compression string) (*coltracepb.ExportTraceServiceResponse, int) {
	r.mu.Lock()
	hang := r.hang
	r.mu.Unlock()
	if hang != nil {
		<-hang
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.headers, r.path, r.compression = h, path, compression
	if len(r.refuse) > 0 {
		refused := r.refuse[0]
		if len(r.refuse) > 1 {
			r.refuse = r.refuse[1:]
		}
		if refused != 0 {
			return nil, refused
		}
	}
	r.requests = append(r.requests, in)
	out := new(coltracepb.ExportTraceServiceResponse)
	if r.partial >= 0 && r.text != "as you say" {
		out.PartialSuccess = &coltracepb.ExportTracePartialSuccess{RejectedSpans: r.partial, ErrorMessage: r.text}
	}
	return out, 0
}

// spans are all that arrived.
func (r *receiver) spans() []*tracepb.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*tracepb.Span
	for _, in := range r.requests {
		for _, of := range in.ResourceSpans {
			for _, by := range of.ScopeSpans {
				all = append(all, by.Spans...)
			}
		}
	}
	return all
}

// The rest finds out how a gRPC request was compressed.
type compressionKey struct{}

func (r *receiver) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, compressionKey{}, new(string))
}

func (r *receiver) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if h, ok := s.(*stats.InHeader); ok {
		*ctx.Value(compressionKey{}).(*string) = strings.TrimSpace(h.Compression)
	}
}

func (r *receiver) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (r *receiver) HandleConn(context.Context, stats.ConnStats)                       {}
