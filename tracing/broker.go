package tracing

import (
	"context"
	"maps"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/tracer"
)

// Broker traces what is published to b, and handled from it. The span of a handler, one for each try, is a child of that
// of the publisher.
func Broker(t tracer.Tracer, b broker.Broker) broker.Broker {
	return &traced{b, t, tracerOf(t), keyMessaging.String(b.String())}
}

type traced struct {
	broker.Broker
	tracer tracer.Tracer
	spans  trace.Tracer
	system attribute.KeyValue
}

var _ broker.Capable = (*traced)(nil)

// Capabilities are those of the broker.
func (b *traced) Capabilities() broker.Capabilities { return broker.CapabilitiesOf(b.Broker) }

// Publish implements broker.Broker. All messages of one call carry the same span.
func (b *traced) Publish(ctx context.Context, topic string, msgs ...*broker.Message) (err error) {
	attrs := make([]attribute.KeyValue, 0, 6)
	attrs = append(attrs, b.system, keyOperation.String("publish"), keyOperationOf.String("send"), keyDestination.String(topic))
	if len(msgs) == 1 && msgs[0] != nil {
		attrs = describe(attrs, msgs[0])
	} else {
		attrs = append(attrs, keyBatch.Int(len(msgs)))
	}
	ctx, span := b.spans.Start(ctx, "publish "+topic, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(attrs...))
	carrying := make([]*broker.Message, len(msgs))
	for i, m := range msgs {
		carrying[i] = b.inject(ctx, m)
	}
	err = errNoReturn
	defer func() { end(span, err) }()
	return b.Broker.Publish(ctx, topic, carrying...)
}

// Subscribe implements broker.Broker.
func (b *traced) Subscribe(ctx context.Context, topic string, h broker.Handler, opts ...broker.SubscribeOption) (broker.Subscription, error) {
	if h == nil {
		return b.Broker.Subscribe(ctx, topic, h, opts...)
	}
	group := broker.NewSubscribeOptions(opts...).Group
	return b.Broker.Subscribe(ctx, topic, func(ctx context.Context, m *broker.Message) (err error) {
		ctx = b.tracer.Extract(ctx, func(key string) string { return lookUp(m.Header, key) })
		attrs := make([]attribute.KeyValue, 0, 7)
		attrs = append(attrs, b.system, keyOperation.String("process"), keyOperationOf.String("process"), keyDestination.String(topic))
		if group != "" {
			attrs = append(attrs, keyGroup.String(group))
		}
		ctx, span := b.spans.Start(ctx, "process "+topic, trace.WithSpanKind(trace.SpanKindConsumer),
			trace.WithAttributes(describe(attrs, m)...))
		err = errNoReturn
		defer func() { end(span, err) }()
		return h(ctx, m)
	}, opts...)
}

func describe(attrs []attribute.KeyValue, m *broker.Message) []attribute.KeyValue {
	if m.ID != "" {
		attrs = append(attrs, keyMessage.String(m.ID))
	}
	return append(attrs, keyBodySize.Int(len(m.Body)))
}

func end(span trace.Span, err error) {
	if err != nil {
		fail(span, err)
	}
	span.End()
}

// inject returns a copy of m that carries the span of ctx, or m itself if it has no room for that: nothing fails because
// it is traced.
func (b *traced) inject(ctx context.Context, m *broker.Message) *broker.Message {
	if m == nil {
		return nil
	}
	header := maps.Clone(m.Header)
	if header == nil {
		header = make(map[string]string, 2)
	}
	b.tracer.Inject(ctx, func(key, value string) { header[key] = value })
	if tooMuch(header) {
		return m
	}
	c := *m
	c.Header = header
	return &c
}

func tooMuch(header map[string]string) bool {
	size := 0
	for k, v := range header {
		size += len(k) + len(v)
	}
	return len(header) > broker.MaxHeaders || size > broker.MaxHeaderBytes
}
