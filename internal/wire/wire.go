// Package wire is the format of the frames in which calls and streams travel over a transport: docs/wire.md in code.
// One transport message is one frame. Package mux gives them their meaning.
//
//	buf := wire.AppendCall(nil, &wire.Call{ID: 1, Service: []byte("greeter"), …}) // the body is appended after it
//
// Nothing here allocates but for metadata, and parsed fields point into the message that was parsed.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Type is the first byte of a frame.
type Type byte

// The frames. Docs/wire.md says who sends which when.
const (
	Hello  Type = iota + 1 // first on a connection, from both sides
	CallT                  // begins a call or a stream
	Reply                  // ends it well
	Error                  // ends it badly
	Data                   // one message of a stream
	End                    // no more Data from this side
	Cancel                 // the caller gave up
	Credit                 // the other side may send so much more on a stream
	GoAway                 // this side takes no new calls; the reason for people follows
	Ping                   // asks for a Pong
	Pong
)

var typeNames = [...]string{"0", "Hello", "Call", "Reply", "Error", "Data", "End", "Cancel", "Credit", "GoAway", "Ping", "Pong"}

// String is the name that docs/wire.md uses.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return strconv.Itoa(int(t))
}

// Version is the version of the protocol that this code speaks.
const Version = 1

const magic = "MICRO"

// Limits that hold for everyone, whatever the settings.
const (
	MaxHeader   = 64 << 10 // bytes of one frame without its body
	MaxMetadata = 256      // pairs of metadata in one call
	MaxTimeout  = 365 * 24 * time.Hour
)

// ErrMalformed is what every parser answers, wrapped, for a frame that breaks the format.
var ErrMalformed = errors.New("malformed frame")

// ErrHeader is what ParseCall answers, wrapped, for a frame in order whose header or metadata is larger than allowed. The
// ID is known then, so that the one call can be refused.
var ErrHeader = errors.New("header too large")

// ErrNotMicro is what ParseHello answers, wrapped, for a peer that speaks something else.
var ErrNotMicro = errors.New("the peer does not speak this version of micro's protocol")

// Settings are exchanged in Hello: what the sender of the Hello takes from its peer.
type Settings struct {
	MaxMessage uint64 // bytes in one frame
	MaxCalls   uint64 // calls and streams open at once
	Window     uint64 // credit, in bytes, that the peer starts with on a stream
}

const (
	settingMaxMessage = 1
	settingMaxCalls   = 2
	settingWindow     = 3
)

// AppendHello appends a Hello frame.
func AppendHello(b []byte, s Settings) []byte {
	b = append(b, byte(Hello))
	b = append(b, magic...)
	b = append(b, Version)
	for _, kv := range [...][2]uint64{{settingMaxMessage, s.MaxMessage}, {settingMaxCalls, s.MaxCalls}, {settingWindow, s.Window}} {
		b = binary.AppendUvarint(b, kv[0])
		b = binary.AppendUvarint(b, kv[1])
	}
	return b
}

// ParseHello reads a Hello. Settings that it does not know are passed over, so that later versions can add some.
func ParseHello(msg []byte) (Settings, error) {
	var s Settings
	if len(msg) < 2+len(magic) || Type(msg[0]) != Hello || string(msg[1:1+len(magic)]) != magic {
		return s, fmt.Errorf("%w: it began with %q", ErrNotMicro, msg[:min(len(msg), 16)])
	}
	if v := msg[1+len(magic)]; v != Version {
		return s, fmt.Errorf("%w: it speaks version %d, this side %d: bring the older side up to date", ErrNotMicro, v, Version)
	}
	r := reader{b: msg[2+len(magic):]}
	for len(r.b) > 0 && !r.bad {
		switch id, v := r.uvarint(), r.uvarint(); id {
		case settingMaxMessage:
			s.MaxMessage = v
		case settingMaxCalls:
			s.MaxCalls = v
		case settingWindow:
			s.Window = v
		}
	}
	return s, r.err(Hello)
}

// Call is the frame that begins a call. The body follows it.
type Call struct {
	ID          uint64
	Stream      bool
	Timeout     time.Duration // time left, in microseconds on the wire; 0: none
	Service     []byte
	Endpoint    []byte
	ContentType []byte
	Metadata    Metadata
	Body        []byte
}

// Metadata is encoded pairs: AppendMetadata makes it, Map reads it. Empty means that there is none.
type Metadata []byte

const flagStream = 1

// AppendCall appends the frame up to its body, which the caller appends.
func AppendCall(b []byte, c *Call) []byte {
	b = appendHead(b, CallT, c.ID)
	var flags byte
	if c.Stream {
		flags = flagStream
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, microseconds(c.Timeout))
	b = appendBytes(b, c.Service)
	b = appendBytes(b, c.Endpoint)
	b = appendBytes(b, c.ContentType)
	if len(c.Metadata) == 0 {
		b = append(b, 0)
	}
	return append(b, c.Metadata...)
}

// microseconds rounds up, because 0 means that there is no limit.
func microseconds(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	return uint64((d + time.Microsecond - 1) / time.Microsecond)
}

// ParseCall reads a Call frame into c, whose fields then point into msg.
func ParseCall(msg []byte, c *Call) error {
	r := reader{b: msg[1:]}
	c.ID = r.uvarint()
	c.Stream = r.byte()&flagStream != 0
	timeout := r.uvarint()
	c.Timeout = time.Duration(min(timeout, uint64(MaxTimeout.Microseconds()))) * time.Microsecond
	c.Service = r.bytes()
	c.Endpoint = r.bytes()
	c.ContentType = r.bytes()
	var pairs uint64
	c.Metadata, pairs = r.metadata()
	c.Body = r.b
	if r.bad {
		return r.err(CallT)
	}
	if header := len(msg) - len(r.b); header > MaxHeader || pairs > MaxMetadata {
		return fmt.Errorf("%w: %d bytes before the body, %d pairs of metadata; the limits are %d and %d",
			ErrHeader, header, pairs, MaxHeader, MaxMetadata)
	}
	return nil
}

// AppendMetadata encodes pairs.
func AppendMetadata(b Metadata, md map[string]string) Metadata {
	b = binary.AppendUvarint(b, uint64(len(md)))
	for k, v := range md {
		b = appendString(b, k)
		b = appendString(b, v)
	}
	return b
}

// Map decodes metadata that ParseCall took in; nil if there is none.
func (m Metadata) Map() map[string]string {
	r := reader{b: m}
	n := r.uvarint()
	if n == 0 || n > MaxMetadata {
		return nil
	}
	md := make(map[string]string, n)
	for range n {
		k, v := r.bytes(), r.bytes()
		md[string(k)] = string(v)
	}
	return md
}

// AppendReply appends a Reply up to its body, which the caller appends.
func AppendReply(b []byte, id uint64) []byte { return appendHead(b, Reply, id) }

// AppendData appends a Data frame up to its body, which the caller appends.
func AppendData(b []byte, id uint64) []byte { return appendHead(b, Data, id) }

// AppendEnd appends an End frame.
func AppendEnd(b []byte, id uint64) []byte { return appendHead(b, End, id) }

// AppendCancel appends a Cancel frame.
func AppendCancel(b []byte, id uint64) []byte { return appendHead(b, Cancel, id) }

// ParseBody reads the frames that are an id and a body: Reply, Data, End, Cancel.
func ParseBody(msg []byte) (id uint64, body []byte, err error) {
	r := reader{b: msg[1:]}
	id = r.uvarint()
	return id, r.b, r.err(Type(msg[0]))
}

// Failure is how a call ended badly.
type Failure struct {
	ID      uint64
	Code    uint32
	NotRun  bool // the endpoint was not, and will not be, run: the caller may try elsewhere
	Message []byte
}

const flagNotRun = 1

// AppendError appends an Error frame.
func AppendError(b []byte, f *Failure) []byte {
	b = appendHead(b, Error, f.ID)
	var flags byte
	if f.NotRun {
		flags = flagNotRun
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(f.Code))
	return append(b, f.Message...)
}

// ParseError reads an Error frame.
func ParseError(msg []byte) (Failure, error) {
	r := reader{b: msg[1:]}
	f := Failure{ID: r.uvarint(), NotRun: r.byte()&flagNotRun != 0, Code: uint32(r.uvarint())}
	f.Message = r.b
	return f, r.err(Error)
}

// AppendGoAway appends a GoAway frame; reason is for people, and may be empty.
func AppendGoAway(b []byte, reason string) []byte {
	return append(append(b, byte(GoAway)), reason...)
}

// maxReason is how much of a reason is shown to people.
const maxReason = 1000

// ParseGoAway reads a GoAway frame.
func ParseGoAway(msg []byte) (reason string) {
	return strings.ToValidUTF8(string(msg[1:min(len(msg), maxReason)]), "")
}

// AppendCredit appends a Credit frame.
func AppendCredit(b []byte, id, n uint64) []byte {
	return binary.AppendUvarint(appendHead(b, Credit, id), n)
}

// ParseCredit reads a Credit frame.
func ParseCredit(msg []byte) (id, n uint64, err error) {
	r := reader{b: msg[1:]}
	id, n = r.uvarint(), r.uvarint()
	return id, n, r.err(Credit)
}

func appendHead(b []byte, t Type, id uint64) []byte {
	return binary.AppendUvarint(append(b, byte(t)), id)
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func appendString(b []byte, v string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// reader takes a frame apart. After the first thing that does not fit it is bad, and hands out zero values.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.b, r.bad = nil, true }

func (r *reader) err(t Type) error {
	if r.bad {
		return fmt.Errorf("%w of type %s: it is cut off, or a length in it is wrong", ErrMalformed, t)
	}
	return nil
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// metadata walks over the pairs, so that Map can rely on them, and returns them encoded, and how many there are.
func (r *reader) metadata() (Metadata, uint64) {
	from := r.b
	n := r.uvarint()
	for i := uint64(0); i < n && !r.bad; i++ {
		r.bytes()
		r.bytes()
	}
	if n == 0 || r.bad {
		return nil, n
	}
	return Metadata(from[:len(from)-len(r.b)]), n
}
