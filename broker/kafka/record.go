package kafka

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	kafka "github.com/segmentio/kafka-go"

	"github.com/plugmicro/micro/broker"
)

// headerID is the header of a record that carries the message's ID.
const headerID = "Micro-ID"

// record is a message as it is written: a copy, so that a write which nobody waits for any more harms nobody.
type record struct {
	key, value []byte
	headers    []kafka.Header
	size       int // about, in bytes
}

func newRecord(m *broker.Message) record {
	// A value that is null would delete its key from a compacted topic.
	r := record{value: append(make([]byte, 0, len(m.Body)), m.Body...), headers: make([]kafka.Header, 0, len(m.Header)+1)}
	if m.Key != "" {
		r.key = []byte(m.Key)
	}
	r.headers = append(r.headers, kafka.Header{Key: headerID, Value: []byte(cmp.Or(m.ID, broker.NewID()))})
	for k, v := range m.Header {
		r.headers = append(r.headers, kafka.Header{Key: k, Value: []byte(v)})
	}
	r.size = 32 + len(r.key) + len(r.value)
	for _, h := range r.headers {
		r.size += 4 + len(h.Key) + len(h.Value)
	}
	return r
}

// records reads some writes for kafka-go.
type records struct {
	writes []*write
	index  int
	now    kafka.Record
	key    body
	value  body
}

type body struct{ bytes.Reader }

func (*body) Close() error { return nil }

func (r *records) ReadRecord() (*kafka.Record, error) {
	for len(r.writes) > 0 && r.index == len(r.writes[0].records) {
		r.writes, r.index = r.writes[1:], 0
	}
	if len(r.writes) == 0 {
		return nil, io.EOF
	}
	from := &r.writes[0].records[r.index]
	r.index++
	r.value.Reset(from.value)
	r.now = kafka.Record{Value: &r.value, Headers: from.headers}
	if from.key != nil {
		r.key.Reset(from.key)
		r.now.Key = &r.key
	}
	return &r.now, nil
}

// newMessage makes a message of a record, also of one that no Micro wrote: text that is not UTF-8 gets a replacement
// character for what cannot be read, of headers of the same name the last one counts, and those whose names are reserved
// are left out.
func newMessage(topic string, partition int, r *kafka.Record) (*broker.Message, error) {
	key, err := kafka.ReadAll(r.Key)
	if err != nil {
		return nil, err
	}
	value, err := kafka.ReadAll(r.Value)
	if err != nil {
		return nil, err
	}
	m := &broker.Message{Key: text(string(key)), Body: value}
	if len(r.Headers) > 0 {
		m.Header = make(map[string]string, len(r.Headers))
	}
	for _, h := range r.Headers {
		switch {
		case h.Key == headerID:
			m.ID = text(string(h.Value))
		case !strings.HasPrefix(h.Key, "Micro-") || slices.Contains(ofDeadLetters, h.Key):
			m.Header[text(h.Key)] = text(string(h.Value))
		}
	}
	if m.ID == "" {
		m.ID = fmt.Sprintf("%s/%d/%d", topic, partition, r.Offset)
	}
	return m, nil
}

var ofDeadLetters = []string{broker.HeaderDeadTopic, broker.HeaderDeadReason, broker.HeaderAttempts}

func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
