package rabbitmq

import (
	"cmp"
	"fmt"
	"strings"
	"unicode/utf8"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/plugmicro/micro/broker"
)

const (
	headerKey   = "Micro-Key"
	contentType = "Content-Type"
	escape      = "Micro-Header-" // before the names of headers that mean something to RabbitMQ
)

// publishing is m as it travels. The body is copied.
func publishing(m *broker.Message) amqp091.Publishing {
	p := amqp091.Publishing{
		MessageId:    cmp.Or(m.ID, broker.NewID()),
		DeliveryMode: amqp091.Persistent,
		Body:         append([]byte(nil), m.Body...),
	}
	if m.Key == "" && len(m.Header) == 0 {
		return p
	}
	p.Headers = make(amqp091.Table, len(m.Header)+1)
	if m.Key != "" {
		p.Headers[headerKey] = m.Key
	}
	for k, v := range m.Header {
		switch {
		case k == contentType && v != "" && len(v) <= 255: // a property is a short string
			p.ContentType = v
		case special(k):
			p.Headers[escape+k] = v
		default:
			p.Headers[k] = v
		}
	}
	return p
}

// special names are for RabbitMQ: CC and BCC add routing keys, x-… is what it notes itself.
func special(name string) bool {
	return name == "CC" || name == "BCC" || strings.HasPrefix(name, "x-")
}

// reserved names are the contract's own; of those, only the ones of dead letters are for handlers.
func reserved(name string) bool {
	dead := name == broker.HeaderDeadTopic || name == broker.HeaderDeadReason || name == broker.HeaderAttempts
	return strings.HasPrefix(name, "Micro-") && !dead
}

// message is what arrived, from whatever client. One that came without an ID gets a new one with each delivery.
func message(d *amqp091.Delivery) *broker.Message {
	m := &broker.Message{ID: cmp.Or(d.MessageId, broker.NewID()), Body: d.Body, Header: make(map[string]string, len(d.Headers)+1)}
	if d.ContentType != "" {
		m.Header[contentType] = text(d.ContentType)
	}
	for k, v := range d.Headers {
		switch value, ok := v.(string); {
		case k == headerKey && ok:
			m.Key = text(value)
		case strings.HasPrefix(k, escape):
			m.Header[strings.TrimPrefix(k, escape)] = text(fmt.Sprint(v))
		case special(k), reserved(k):
		case ok:
			m.Header[text(k)] = text(value)
		default:
			m.Header[text(k)] = foreign(v)
		}
	}
	return m
}

// foreign is a value of another type, that another client has sent.
func foreign(v any) string {
	if b, ok := v.([]byte); ok {
		return text(string(b))
	}
	return text(fmt.Sprint(v))
}

func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
