package otelsdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/plugmicro/micro/internal/clip"
)

// queue is the SDK's batch processor with an end to it: it counts what is lost and says so, its spans wait for nobody,
// and Shutdown leaves nothing behind.
type queue struct {
	batches sdktrace.SpanProcessor
	max     int64
	full    error
	waiting atomic.Int64 // spans that ended and are not exported yet
	out     *exporter
	losses  losses
}

var _ sdktrace.SpanProcessor = (*queue)(nil)

func newQueue(to sdktrace.SpanExporter, b Batching, timeout time.Duration, log *slog.Logger) *queue {
	q := &queue{max: int64(b.QueueSize), losses: losses{log: log}}
	q.full = fmt.Errorf("%d spans wait, which is the queue-size: what they are sent to does not keep up", q.max)
	q.out = &exporter{to: to, queue: q, shut: make(chan struct{})}
	q.out.ctx, q.out.giveUp = context.WithCancelCause(context.Background())
	q.batches = sdktrace.NewBatchSpanProcessor(q.out, sdktrace.WithMaxQueueSize(b.QueueSize),
		sdktrace.WithMaxExportBatchSize(b.BatchSize), sdktrace.WithBatchTimeout(b.BatchDelay), sdktrace.WithExportTimeout(timeout))
	return q
}

// OnStart implements sdktrace.SpanProcessor.
func (q *queue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd takes a span or drops it; it never waits.
func (q *queue) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	if q.waiting.Add(1) > q.max {
		q.waiting.Add(-1)
		q.losses.add(1, q.full)
		return
	}
	q.batches.OnEnd(s) // has room for max
}

// ForceFlush implements sdktrace.SpanProcessor.
func (q *queue) ForceFlush(ctx context.Context) error { return q.batches.ForceFlush(ctx) }

// linger is how long an exporter has to return when it was told to give up.
const linger = time.Second

// Shutdown sends what waits. When ctx ends first, the export that runs is told to give up, and what waits still is lost.
func (q *queue) Shutdown(ctx context.Context) error {
	err := q.batches.Shutdown(ctx)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
		q.out.giveUp(err)
		select {
		case <-q.out.shut:
		case <-time.After(linger):
			err = errors.Join(err, errors.New("an export did not return"))
		}
	}
	q.losses.close()
	if err != nil {
		return fmt.Errorf("send the last spans: %w", err)
	}
	return nil
}

// exporter is told of by the batch processor.
type exporter struct {
	to     sdktrace.SpanExporter
	queue  *queue
	ctx    context.Context // ends when Shutdown gives up
	giveUp context.CancelCauseFunc
	shut   chan struct{}
}

// ExportSpans counts and logs what goes wrong, so that the SDK has nothing to say to its global error handler.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	defer e.queue.waiting.Add(-int64(len(spans)))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	err := context.Cause(e.ctx)
	if err == nil {
		err = e.to.ExportSpans(ctx, spans)
	}
	var some *Lost
	if errors.As(err, &some) {
		e.queue.losses.add(some.Spans, err)
		return nil
	}
	if err != nil {
		e.queue.losses.add(len(spans), err)
		return nil
	}
	e.queue.losses.sent()
	return nil
}

// Shutdown is called once, after the last export.
func (e *exporter) Shutdown(ctx context.Context) error {
	defer close(e.shut)
	defer e.giveUp(nil)
	return e.to.Shutdown(ctx)
}

// Lost is the error of an exporter that sent the others. There may be more of them than in the batch: those of an earlier
// one, of which it became known now.
type Lost struct {
	Spans int
	Err   error
}

func (l *Lost) Error() string { return l.Err.Error() }
func (l *Lost) Unwrap() error { return l.Err }

// losses counts spans that are not sent, and logs one line when that begins and one when it is over.
type losses struct {
	log   *slog.Logger
	total atomic.Int64

	mu    sync.Mutex
	since time.Time // when it began; zero: all is well
	last  time.Time
	lost  int64 // since then
}

// quiet is how long nothing must be lost for it to be over.
const quiet = 10 * time.Second

// maxError bounds the text of an error in the log, of which a receiver wrote a part, in bytes.
const maxError = 500

func (l *losses) add(n int, err error) {
	l.total.Add(int64(n))
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.lost += int64(n)
	l.last = now
	if l.since.IsZero() {
		l.since = now
		l.log.Warn("spans are lost until this is over", "error", clip.Text(err.Error(), maxError))
	}
}

func (l *losses) sent() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.since.IsZero() && time.Since(l.last) >= quiet {
		l.over("spans are sent again")
	}
}

func (l *losses) over(msg string) {
	l.log.Info(msg, "lost", l.lost, "after", l.last.Sub(l.since).Round(time.Millisecond))
	l.since, l.lost = time.Time{}, 0
}

func (l *losses) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.since.IsZero() {
		l.over("spans were lost until the end")
	}
}
