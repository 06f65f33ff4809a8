package rabbitmq

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// An AMQP message is a header and frames, all numbers big endian. Its correlation id is that of the connection; it has
// none if it is about the peers as a whole. docs of the package say what goes where.
//
//	header  version u8 (1), flags u8, number u64, credit u32
//	frame   type u8, length u32, so many bytes
const (
	wireVersion = 1
	headerSize  = 1 + 1 + 8 + 4
	frameHead   = 1 + 4

	// flagDialer says that the sender dialled, so that the two ends of a connection in one process are told apart.
	flagDialer = 1
)

// maxBody is the size of a message on the wire: several fit into what a socket takes at once, and one into a frame of AMQP.
const maxBody = 64 << 10

// maxChunk is how much of a message of the connection goes into one frame.
const maxChunk = maxBody - headerSize - frameHead

// frameType is the first byte of a frame.
type frameType byte

const (
	frameOpen   frameType = iota + 1 // terms: first from the dialer, to the queue of the listener
	frameAccept                      // terms: first from the listener
	frameData                        // a message, or the end of one
	framePart                        // a piece of a message: more follows
	frameFin                         // nothing more is sent
	frameClose                       // nothing more is received
	frameReset                       // the connection is over; the reason for people
	framePing                        // asks for a pong with the same bytes
	framePong
)

// cost is what a frame takes from the credit: its bytes, and something for keeping it.
func cost(payload int) int { return payload + 64 }

// counts says whether frames of a type need credit.
func (t frameType) counts() bool { return t == frameData || t == framePart }

var errMalformed = errors.New("malformed")

// header is what each AMQP message begins with.
type header struct {
	dialer bool
	number uint64 // of the message, in its direction of the connection, from 0
	credit uint32 // how much more the other side may send
}

// put writes h into the headerSize bytes of b.
func (h header) put(b []byte) {
	b[0], b[1] = wireVersion, 0
	if h.dialer {
		b[1] = flagDialer
	}
	binary.BigEndian.PutUint64(b[2:], h.number)
	binary.BigEndian.PutUint32(b[10:], h.credit)
}

// parseHeader returns the frames as well, unread.
func parseHeader(body []byte) (h header, frames []byte, err error) {
	if len(body) < headerSize || body[0] != wireVersion || body[1]&^flagDialer != 0 {
		return h, nil, fmt.Errorf("%w header: %.16x", errMalformed, body[:min(len(body), 16)])
	}
	h = header{
		dialer: body[1] == flagDialer,
		number: binary.BigEndian.Uint64(body[2:]),
		credit: binary.BigEndian.Uint32(body[10:]),
	}
	return h, body[headerSize:], nil
}

func appendFrame(b []byte, t frameType, payload []byte) []byte {
	b = append(b, byte(t))
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

// nextFrame cuts the first frame off. The payload is a part of b.
func nextFrame(b []byte) (t frameType, payload, rest []byte, err error) {
	if len(b) < frameHead {
		return 0, nil, nil, fmt.Errorf("%w frame: it ends in its head", errMalformed)
	}
	n := binary.BigEndian.Uint32(b[1:])
	if uint64(n) > uint64(len(b)-frameHead) {
		return 0, nil, nil, fmt.Errorf("%w frame: %d of %d bytes are there", errMalformed, len(b)-frameHead, n)
	}
	if t = frameType(b[0]); t < frameOpen || t > framePong {
		return 0, nil, nil, fmt.Errorf("%w frame: type %d", errMalformed, t)
	}
	end := frameHead + int(n)
	return t, b[frameHead:end:end], b[end:], nil
}

// appendMessage appends the frames of a message.
func appendMessage(b, msg []byte) []byte {
	for len(msg) > maxChunk {
		b = appendFrame(b, framePart, msg[:maxChunk])
		msg = msg[maxChunk:]
	}
	return appendFrame(b, frameData, msg)
}

// framedSize is how much appendMessage appends for n bytes.
func framedSize(n int) int { return n + frameHead*max(1, (n+maxChunk-1)/maxChunk) }

// terms are what one side tells of itself in open and accept.
type terms struct {
	window     uint32 // credit that the other side begins with
	maxMessage uint32 // bytes of the largest message that it takes
}

const termsSize = 4 + 4 + len(termsMagic)

// termsMagic is at the start, so that what was meant for another program is recognised.
const termsMagic = "MICRO"

func (t terms) append(b []byte) []byte {
	b = append(b, termsMagic...)
	b = binary.BigEndian.AppendUint32(b, t.window)
	return binary.BigEndian.AppendUint32(b, t.maxMessage)
}

// parseTerms passes over what follows, so that later versions can add something.
func parseTerms(b []byte) (terms, error) {
	if len(b) < termsSize || string(b[:len(termsMagic)]) != termsMagic {
		return terms{}, fmt.Errorf("%w terms: %.16x", errMalformed, b[:min(len(b), 16)])
	}
	t := terms{binary.BigEndian.Uint32(b[len(termsMagic):]), binary.BigEndian.Uint32(b[len(termsMagic)+4:])}
	if t.window < minWindow || t.maxMessage == 0 {
		return terms{}, fmt.Errorf("%w terms: a window of %d, messages of %d bytes", errMalformed, t.window, t.maxMessage)
	}
	return t, nil
}

// minWindow lets the largest frame through.
const minWindow = 2 * maxBody
