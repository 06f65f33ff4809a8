package xray

import (
	"context"
	"sync"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// longAfter is when X-Ray is told of a segment that it is in progress, such as that of a stream: it would show neither the
// segment nor what was called for it before the end, which a process may not live to see.
const longAfter = 10 * time.Second

// progress passes spans on when they have ended, and those that become segments once before, if they take long. X-Ray takes
// one document of a segment in progress, which the complete one replaces.
type progress struct {
	sdktrace.SpanProcessor
	open sync.Map // of span ID → *openSegment
}

func reportProgress(next sdktrace.SpanProcessor) sdktrace.SpanProcessor {
	return &progress{SpanProcessor: next}
}

// OnStart implements sdktrace.SpanProcessor.
func (p *progress) OnStart(ctx context.Context, s sdktrace.ReadWriteSpan) {
	p.SpanProcessor.OnStart(ctx, s)
	if !isSegment(s) {
		return
	}
	id, o := s.SpanContext().SpanID(), new(openSegment)
	o.timer = time.AfterFunc(longAfter, func() {
		o.tell(p.SpanProcessor, s)
		p.open.Delete(id) // it is told once, and may never end
	})
	p.open.Store(id, o)
}

// OnEnd implements sdktrace.SpanProcessor.
func (p *progress) OnEnd(s sdktrace.ReadOnlySpan) {
	if o, ok := p.open.LoadAndDelete(s.SpanContext().SpanID()); ok {
		o.(*openSegment).end()
	}
	p.SpanProcessor.OnEnd(s)
}

// Shutdown implements sdktrace.SpanProcessor.
func (p *progress) Shutdown(ctx context.Context) error {
	p.open.Range(func(_, o any) bool {
		o.(*openSegment).end()
		return true
	})
	p.open.Clear()
	return p.SpanProcessor.Shutdown(ctx)
}

// openSegment is a segment that has not ended.
type openSegment struct {
	timer *time.Timer
	mu    sync.Mutex // so that nothing says that it is in progress after the end
	ended bool
}

func (o *openSegment) tell(to sdktrace.SpanProcessor, s sdktrace.ReadOnlySpan) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.ended {
		to.OnEnd(begun{s})
	}
}

func (o *openSegment) end() {
	o.timer.Stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
}

// begun is a span whose end is still to come, also if it came since.
type begun struct{ sdktrace.ReadOnlySpan }

func (begun) EndTime() time.Time { return time.Time{} }
