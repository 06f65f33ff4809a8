package rabbitmq

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/clip"
)

const (
	headerKey   = "Micro-Key"
	contentType = "Content-Type"
	escape      = "Micro-Header-" // before the names of headers that mean something to RabbitMQ
)

// What travels in AMQP's short strings, and what one frame takes of headers: the server ends the connection of who sends
// more. The contract allows less of both, but dead letters are of what other clients sent.
const (
	maxShort   = 255       // bytes
	maxHeaders = 120 << 10 // of the 128 KiB of a frame
)

// publishing is m as it travels. The body is copied.
func publishing(m *broker.Message) amqp091.Publishing {
	p := amqp091.Publishing{
		MessageId:    short(cmp.Or(m.ID, broker.NewID())),
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
		case k == contentType && v != "" && len(v) <= maxShort:
			p.ContentType = v
		case special(k):
			p.Headers[short(escape+k)] = v
		default:
			p.Headers[short(k)] = v
		}
	}
	fit(p.Headers)
	return p
}

// short cuts what has grown too long, as text that is not UTF-8 does when it is made valid.
func short(s string) string { return clip.Prefix(s, maxShort) }

// fit leaves out the largest of the sender's headers until a frame takes the rest.
func fit(headers amqp091.Table) {
	size := func(k string) int { return len(k) + len(headers[k].(string)) + 6 } // two lengths, a type
	total := 0
	for k := range headers {
		total += size(k)
	}
	if total <= maxHeaders {
		return
	}
	names := slices.DeleteFunc(slices.Collect(maps.Keys(headers)), func(k string) bool { return strings.HasPrefix(k, "Micro-") })
	slices.SortFunc(names, func(a, b string) int { return size(b) - size(a) })
	for _, largest := range names {
		if total <= maxHeaders {
			return
		}
		total -= size(largest)
		delete(headers, largest)
	}
}

// special names are for RabbitMQ: CC and BCC add routing keys, x-… is what it notes itself.
func special(name string) bool {
	return name == "CC" || name == "BCC" || strings.HasPrefix(name, "x-")
}

func escaped(name string) bool {
	name, is := strings.CutPrefix(name, escape)
	return is && special(name)
}

// reserved names are the contract's own; of those, only the ones of dead letters are for handlers.
func reserved(name string) bool {
	dead := name == broker.HeaderDeadTopic || name == broker.HeaderDeadReason || name == broker.HeaderAttempts
	return strings.HasPrefix(name, "Micro-") && !dead
}

// message is what arrived, from whatever client: all text in it is UTF-8. One that came without an ID gets a new one with
// each delivery.
func message(d *amqp091.Delivery) *broker.Message {
	m := &broker.Message{ID: cmp.Or(text(d.MessageId), broker.NewID()), Body: d.Body, Header: make(map[string]string, len(d.Headers)+1)}
	if d.ContentType != "" {
		m.Header[contentType] = text(d.ContentType)
	}
	for k, v := range d.Headers {
		switch value, ok := v.(string); {
		case k == headerKey && ok:
			m.Key = text(value)
		case escaped(k):
			m.Header[text(strings.TrimPrefix(k, escape))] = foreign(v)
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
