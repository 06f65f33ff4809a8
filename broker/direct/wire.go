package direct

import (
	"encoding/binary"
	"errors"

	"github.com/plugmicro/micro/broker"
)

// A publisher opens a stream to a subscription. It sends frames of deliveries, each of them a sequence number, a length
// and so many bytes of message; the subscription answers frames of acks, or that it is leaving. Numbers are varints:
//
//	deliveries  (sequence, length, message)…
//	message     id, key, count of headers, (name, value)…, body: all with their length but the body, which is the rest
//	acks        1, (difference from the sequence before)…
//	leaving     2
const (
	answerAcks    = 1
	answerLeaving = 2
)

// overhead is more than what a message has beside its body, within the limits of package broker.
const overhead = 64 << 10

// maxHeaders is how many headers a message has, at most: those that broker.CheckPublish allows, and a dead letter's.
const maxHeaders = broker.MaxHeaders + 3

// maxAcks is how many acks go into one frame, at most.
const maxAcks = 4096

var errMalformed = errors.New("malformed frame")

func appendMessage(b []byte, m *broker.Message, id string) []byte {
	b = appendString(b, id)
	b = appendString(b, m.Key)
	b = binary.AppendUvarint(b, uint64(len(m.Header)))
	for k, v := range m.Header {
		b = appendString(b, k)
		b = appendString(b, v)
	}
	return append(b, m.Body...)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// parseMessage returns a message that shares nothing with b. What its fields hold is checked by broker.CheckPublish.
func parseMessage(b []byte) (*broker.Message, error) {
	r := reader{b: b}
	m := &broker.Message{ID: string(r.bytes()), Key: string(r.bytes())}
	n := r.uvarint()
	if n > maxHeaders {
		return nil, errMalformed
	}
	if n > 0 {
		m.Header = make(map[string]string, n)
	}
	for range n {
		k, v := r.bytes(), r.bytes()
		if r.bad {
			break
		}
		m.Header[string(k)] = string(v)
	}
	if r.bad || m.ID == "" || uint64(len(m.Header)) != n {
		return nil, errMalformed
	}
	m.Body = append([]byte{}, r.b...)
	return m, nil
}

func appendDelivery(b []byte, seq uint64, message []byte) []byte {
	b = binary.AppendUvarint(b, seq)
	b = binary.AppendUvarint(b, uint64(len(message)))
	return append(b, message...)
}

// parseDeliveries calls f for each delivery, whose message points into b, until f fails.
func parseDeliveries(b []byte, f func(seq uint64, message []byte) error) error {
	r := reader{b: b}
	for len(r.b) > 0 {
		seq, message := r.uvarint(), r.bytes()
		if r.bad {
			return errMalformed
		}
		if err := f(seq, message); err != nil {
			return err
		}
	}
	return nil
}

func appendAcks(b []byte, seqs []uint64) []byte {
	b = append(b, answerAcks)
	last := uint64(0)
	for _, seq := range seqs {
		b = binary.AppendVarint(b, int64(seq-last))
		last = seq
	}
	return b
}

// parseAnswer appends the acks that are in b to seqs.
func parseAnswer(b []byte, seqs []uint64) (acks []uint64, leaving bool, err error) {
	if len(b) == 1 && b[0] == answerLeaving {
		return seqs, true, nil
	}
	if len(b) == 0 || b[0] != answerAcks {
		return seqs, false, errMalformed
	}
	last := uint64(0)
	for b = b[1:]; len(b) > 0; {
		d, n := binary.Varint(b)
		if n <= 0 {
			return seqs, false, errMalformed
		}
		last += uint64(d)
		seqs = append(seqs, last)
		b = b[n:]
	}
	return seqs, false, nil
}

// reader takes bytes apart. After the first thing that does not fit it is bad, and hands out zero values.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}
