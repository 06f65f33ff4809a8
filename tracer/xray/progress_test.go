package xray

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/plugmicro/micro/internal/otelsdk"
	"github.com/plugmicro/micro/plugin"
)

// arrived keeps what would be sent, as the daemon takes it.
type arrived struct {
	t         *testing.T
	documents []map[string]any
}

func (a *arrived) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	for _, span := range spans {
		data, _, err := newEncoder().datagram(newTranslator(Config{Name: "shop"}, span.Resource()).document(span), maxDatagram)
		require.NoError(a.t, err)
		document, err := checkDatagram(data)
		require.NoError(a.t, err)
		a.documents = append(a.documents, document)
	}
	return nil
}

func (*arrived) Shutdown(context.Context) error { return nil }

// started begins a request, and in it a call and some work. The request is the last.
func started(t *testing.T, tr *otelsdk.Tracer) (end []trace.Span) {
	tracer := tr.Provider().Tracer("test")
	ctx, root := tracer.Start(t.Context(), "stream", trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(kv("http.request.method", "GET", "url.path", "/events")...))
	_, call := tracer.Start(ctx, "call", trace.WithSpanKind(trace.SpanKindClient))
	_, work := tracer.Start(ctx, "work")
	return []trace.Span{call, work, root}
}

func inProgress(t *testing.T, f func(t *testing.T, tr *otelsdk.Tracer, p *progress, a *arrived)) {
	synctest.Test(t, func(t *testing.T) {
		a := &arrived{t: t}
		var p *progress
		tr, err := otelsdk.New(new(plugin.Env), otelsdk.Options{Exporter: a, IDs: ids{}, Around: func(queue sdktrace.SpanProcessor) sdktrace.SpanProcessor {
			p = reportProgress(queue).(*progress)
			return p
		}})
		require.NoError(t, err)
		f(t, tr, p, a)
		require.NoError(t, tr.Close())
		require.Zero(t, openSegments(p))
	})
}

func openSegments(p *progress) (n int) {
	p.open.Range(func(any, any) bool { n++; return true })
	return n
}

func TestLongSegmentsAreShownBeforeTheEnd(t *testing.T) {
	inProgress(t, func(t *testing.T, tr *otelsdk.Tracer, p *progress, a *arrived) {
		spans := started(t, tr)
		time.Sleep(longAfter - time.Millisecond)
		synctest.Wait()
		require.Empty(t, a.documents)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Len(t, a.documents, 1, "the segment alone, and once")
		require.Zero(t, openSegments(p))
		want{"name": "shop", "in_progress": true, "end_time": nil, "type": nil, "annotations.operation": "stream", "http.request.url": "/events"}.in(t, a.documents[0])

		for _, span := range spans {
			span.End()
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Len(t, a.documents, 4)
		complete := a.documents[3]
		want{"in_progress": nil, "id": a.documents[0]["id"], "trace_id": a.documents[0]["trace_id"]}.in(t, complete)
		require.Equal(t, a.documents[0]["start_time"], complete["start_time"])
		require.NotNil(t, complete["end_time"])
		for _, sub := range a.documents[1:3] {
			require.Equal(t, complete["id"], sub["parent_id"])
		}
	})
}

func TestShortSegmentsAreSentOnce(t *testing.T) {
	inProgress(t, func(t *testing.T, tr *otelsdk.Tracer, p *progress, a *arrived) {
		for _, span := range started(t, tr) {
			span.End()
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Len(t, a.documents, 3)
		for _, d := range a.documents {
			want{"in_progress": nil}.in(t, d)
		}
	})
}

func TestNothingIsToldAfterClose(t *testing.T) {
	inProgress(t, func(t *testing.T, tr *otelsdk.Tracer, p *progress, a *arrived) {
		spans := started(t, tr)
		require.NoError(t, tr.Close())
		time.Sleep(time.Hour)
		for _, span := range spans {
			span.End()
		}
		require.Empty(t, a.documents)
		require.Zero(t, tr.Dropped())
	})
}
