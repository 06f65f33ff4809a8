package micro

import (
	"context"
	"fmt"
	"reflect"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/plugin"
)

// contentType is the header that says how a body is encoded.
const contentType = "Content-Type"

type subscription struct {
	topic   string
	handler broker.Handler
	options []broker.SubscribeOption
}

// Subscribe handles the messages of a topic from the time that the service runs. f is one of
//
//	func(ctx context.Context, m *broker.Message) error
//	func(ctx context.Context, event *T) error // the body, decoded by its content type, JSON if it has none
//	func(ctx context.Context, event *T, m *broker.Message) error // both
//
// and is called as broker.Handler says; a body that cannot be decoded is not tried again. Another form is an error of Run.
func (s *Service) Subscribe(topic string, f any, opts ...broker.SubscribeOption) {
	h, err := messageHandler(f)
	if err != nil {
		s.mistakes = append(s.mistakes, fmt.Errorf("subscribe to %s: %w", topic, err))
		return
	}
	s.subscriptions = append(s.subscriptions, subscription{topic, h, opts})
}

func messageHandler(f any) (broker.Handler, error) {
	switch f := f.(type) {
	case broker.Handler:
		return f, nil
	case func(context.Context, *broker.Message) error:
		return f, nil
	}
	v := reflect.ValueOf(f)
	if f == nil || !isTyped(v.Type()) {
		return nil, fmt.Errorf("%T is not func(context.Context, *T) error, with or without a *broker.Message as its last argument", f)
	}
	event := v.Type().In(1).Elem()
	return func(ctx context.Context, m *broker.Message) error {
		e := reflect.New(event)
		if err := decode(m, e.Interface()); err != nil {
			return broker.Permanent(err)
		}
		in := []reflect.Value{reflect.ValueOf(ctx), e, reflect.ValueOf(m)}
		err, _ := v.Call(in[:v.Type().NumIn()])[0].Interface().(error)
		return err
	}, nil
}

func isTyped(t reflect.Type) bool {
	return t.Kind() == reflect.Func && !t.IsVariadic() && t.NumOut() == 1 && t.Out(0) == reflect.TypeFor[error]() &&
		(t.NumIn() == 2 || t.NumIn() == 3 && t.In(2) == reflect.TypeFor[*broker.Message]()) &&
		t.In(0) == reflect.TypeFor[context.Context]() && t.In(1).Kind() == reflect.Pointer
}

func decode(m *broker.Message, v any) error {
	name := m.Header[contentType]
	if name == "" {
		name = codec.JSON
	}
	c, err := codec.Get(name)
	if err == nil {
		err = c.Decode(m.Body, v)
	}
	if err != nil {
		return fmt.Errorf("decode message %s into %T: %w", m.ID, v, err)
	}
	return nil
}

func (s *Service) subscribe(ctx context.Context, host *plugin.Host) error {
	if len(s.subscriptions) == 0 {
		return nil
	}
	b, err := s.broker(host)
	if err != nil {
		return err
	}
	for _, sub := range s.subscriptions {
		bound, err := b.Subscribe(ctx, sub.topic, sub.handler, sub.options...)
		if err != nil {
			return err
		}
		s.running.subscriptions = append(s.running.subscriptions, bound)
		s.running.log.Info("subscribed", "topic", sub.topic, "broker", b.String())
	}
	return nil
}

func (s *Service) broker(host *plugin.Host) (broker.Broker, error) {
	if traced := s.traced.Load(); traced != nil {
		return traced.broker()
	}
	return plugin.Open[broker.Broker](host)
}

// PublishOption changes one Publish.
type PublishOption func(*broker.Message)

// Key keeps messages of the same key in order.
func Key(key string) PublishOption { return func(m *broker.Message) { m.Key = key } }

// Header adds a header.
func Header(key, value string) PublishOption {
	return func(m *broker.Message) { m.Header[key] = value }
}

// Publish encodes event (protobuf messages as such, []byte as it is, the rest as JSON) and publishes it. Nil means that
// the broker has it.
func (s *Service) Publish(ctx context.Context, topic string, event any, opts ...PublishOption) error {
	host, err := s.open()
	if err != nil {
		return fmt.Errorf("publish to %s: %w", topic, err)
	}
	if event == nil {
		return fmt.Errorf("publish to %s: the event is nil", topic)
	}
	c := codec.For(event)
	body, err := c.Append(nil, event)
	if err != nil {
		return fmt.Errorf("publish to %s: encode %T: %w", topic, event, err)
	}
	b, err := s.broker(host)
	if err != nil {
		return err
	}
	m := &broker.Message{ID: broker.NewID(), Header: map[string]string{contentType: c.ContentType()}, Body: body}
	for _, opt := range opts {
		opt(m)
	}
	return b.Publish(ctx, topic, m)
}
