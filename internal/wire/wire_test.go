package wire_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHello(t *testing.T) {
	for _, s := range []wire.Settings{
		{},
		{MaxMessage: 4 << 20, MaxCalls: 10_000, Window: 256 << 10},
		{MaxMessage: math.MaxUint64, MaxCalls: 1, Window: math.MaxUint64},
	} {
		got, err := wire.ParseHello(wire.AppendHello(nil, s))
		require.NoError(t, err)
		require.Equal(t, s, got)
	}
}

func TestHelloPassesOverUnknownSettings(t *testing.T) {
	hello := wire.AppendHello(nil, wire.Settings{MaxCalls: 7})
	hello = binary.AppendUvarint(hello, 99)
	hello = binary.AppendUvarint(hello, 1<<40)
	s, err := wire.ParseHello(hello)
	require.NoError(t, err)
	require.EqualValues(t, 7, s.MaxCalls)
}

func TestHelloErrors(t *testing.T) {
	future := wire.AppendHello(nil, wire.Settings{})
	future[6] = 2
	cut := wire.AppendHello(nil, wire.Settings{MaxMessage: 1 << 20})
	for name, c := range map[string]struct {
		msg     []byte
		is      error
		message string
	}{
		"empty":         {nil, wire.ErrNotMicro, `it began with ""`},
		"HTTP":          {[]byte("GET / HTTP/1.1\r\nHost: example.com"), wire.ErrNotMicro, `it began with "GET / HTTP/1.1\r\n"`},
		"other version": {future, wire.ErrNotMicro, "it speaks version 2, this side 1: bring the older side up to date"},
		"cut off":       {cut[:len(cut)-1], wire.ErrMalformed, "Hello"},
		"half a magic":  {[]byte("\x01MIC"), wire.ErrNotMicro, "MIC"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := wire.ParseHello(c.msg)
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.message)
		})
	}
}

func TestCall(t *testing.T) {
	for name, c := range map[string]wire.Call{
		"empty": {ID: 1},
		"full": {ID: math.MaxUint64, Stream: true, Timeout: 3 * time.Second, Service: []byte("greeter"), Endpoint: []byte("Greeter.Hello"),
			ContentType: []byte("application/json"), Metadata: wire.AppendMetadata(nil, map[string]string{"tenant": "acme"})},
		"empty metadata": {ID: 2, Metadata: wire.AppendMetadata(nil, map[string]string{"": ""})},
	} {
		t.Run(name, func(t *testing.T) {
			frame := append(wire.AppendCall([]byte("x"), &c), "body"...)[1:]
			require.Equal(t, byte(wire.CallT), frame[0])
			var got wire.Call
			require.NoError(t, wire.ParseCall(frame, &got))
			require.Equal(t, "body", string(got.Body))
			require.Equal(t, c.ID, got.ID)
			require.Equal(t, c.Stream, got.Stream)
			require.Equal(t, c.Timeout, got.Timeout)
			require.Equal(t, string(c.Service), string(got.Service))
			require.Equal(t, string(c.Endpoint), string(got.Endpoint))
			require.Equal(t, string(c.ContentType), string(got.ContentType))
			require.Equal(t, c.Metadata.Map(), got.Metadata.Map())
		})
	}
}

func TestTimeoutOnTheWire(t *testing.T) {
	for in, out := range map[time.Duration]time.Duration{
		0:                      0,
		-time.Second:           0,
		time.Nanosecond:        time.Microsecond, // 0 would mean that there is no limit
		1500 * time.Nanosecond: 2 * time.Microsecond,
		time.Hour:              time.Hour,
		math.MaxInt64:          wire.MaxTimeout,
	} {
		var got wire.Call
		require.NoError(t, wire.ParseCall(wire.AppendCall(nil, &wire.Call{Timeout: in}), &got))
		require.Equal(t, out, got.Timeout, "%d ns", in)
	}
}

func TestMetadata(t *testing.T) {
	many := make(map[string]string)
	for i := range wire.MaxMetadata {
		many[fmt.Sprint("key-", i)] = fmt.Sprint(i)
	}
	for _, md := range []map[string]string{nil, {"": ""}, {"a": "b", "c": ""}, {"bytes": "\x00\xff"}, many} {
		var got wire.Call
		frame := wire.AppendCall(nil, &wire.Call{ID: 1, Metadata: wire.AppendMetadata(nil, md)})
		require.NoError(t, wire.ParseCall(frame, &got))
		require.True(t, maps.Equal(md, got.Metadata.Map()))
	}
}

// TestTooMuchHeader: the frame is in order, so that its call can be refused by its ID.
func TestTooMuchHeader(t *testing.T) {
	million := binary.AppendUvarint(nil, 1_000_000)
	million = append(million, make([]byte, 2_000_000)...)
	for name, c := range map[string]wire.Call{
		"a million pairs": {ID: 42, Metadata: million},
		"a long name":     {ID: 42, Endpoint: bytes.Repeat([]byte("x"), wire.MaxHeader)},
		"a long value":    {ID: 42, Metadata: wire.AppendMetadata(nil, map[string]string{"k": strings.Repeat("v", wire.MaxHeader)})},
	} {
		t.Run(name, func(t *testing.T) {
			var got wire.Call
			err := wire.ParseCall(wire.AppendCall(nil, &c), &got)
			require.ErrorIs(t, err, wire.ErrHeader)
			require.ErrorContains(t, err, "the limits are 65536 and 256")
			require.EqualValues(t, 42, got.ID)
		})
	}
}

func TestOtherFrames(t *testing.T) {
	for frame, want := range map[wire.Type][]byte{
		wire.Reply:  append(wire.AppendReply(nil, 300), "body"...),
		wire.Data:   append(wire.AppendData(nil, 300), "body"...),
		wire.End:    wire.AppendEnd(nil, 300),
		wire.Cancel: wire.AppendCancel(nil, 300),
	} {
		require.Equal(t, frame, wire.Type(want[0]))
		id, body, err := wire.ParseBody(want)
		require.NoError(t, err)
		require.EqualValues(t, 300, id)
		require.Equal(t, string(want[3:]), string(body))
	}
	f, err := wire.ParseError(wire.AppendError(nil, &wire.Failure{ID: 9, Code: 14, NotRun: true, Message: []byte("away")}))
	require.NoError(t, err)
	require.Equal(t, wire.Failure{ID: 9, Code: 14, NotRun: true, Message: []byte("away")}, f)
	id, n, err := wire.ParseCredit(wire.AppendCredit(nil, 9, 1<<40))
	require.NoError(t, err)
	require.Equal(t, [2]uint64{9, 1 << 40}, [2]uint64{id, n})
	require.Equal(t, "stopping", wire.ParseGoAway(wire.AppendGoAway(nil, "stopping")))
	require.Equal(t, "", wire.ParseGoAway(wire.AppendGoAway(nil, "")))
}

// TestCutOff: every frame that ends too early is an error, wherever it is cut.
func TestCutOff(t *testing.T) {
	call := wire.AppendCall(nil, &wire.Call{ID: 300, Timeout: time.Second, Service: []byte("s"), Endpoint: []byte("e"),
		ContentType: []byte("c"), Metadata: wire.AppendMetadata(nil, map[string]string{"k": "v"})})
	for n := 1; n < len(call); n++ {
		var c wire.Call
		require.ErrorIs(t, wire.ParseCall(call[:n], &c), wire.ErrMalformed, "%d of %d bytes", n, len(call))
	}
	failure := wire.AppendError(nil, &wire.Failure{ID: 300, Code: 300})
	for n := 1; n < len(failure); n++ {
		_, err := wire.ParseError(failure[:n])
		require.ErrorIs(t, err, wire.ErrMalformed)
	}
	credit := wire.AppendCredit(nil, 300, 300)
	for n := 1; n < len(credit); n++ {
		_, _, err := wire.ParseCredit(credit[:n])
		require.ErrorIs(t, err, wire.ErrMalformed)
	}
	_, _, err := wire.ParseBody([]byte{byte(wire.Data), 0x80})
	require.ErrorIs(t, err, wire.ErrMalformed)
	require.ErrorContains(t, err, "malformed frame of type Data")
}

func TestLengthsThatLie(t *testing.T) {
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}
	overflow := bytes.Repeat([]byte{0xff}, 11)
	head := []byte{byte(wire.CallT), 1, 0, 0}
	for name, frame := range map[string][]byte{
		"a name longer than the frame": append(bytes.Clone(head), huge...),
		"a varint that overflows":      append(bytes.Clone(head), overflow...),
		"more pairs than bytes":        append(append(bytes.Clone(head), 0, 0, 0), huge...),
	} {
		t.Run(name, func(t *testing.T) {
			var c wire.Call
			require.ErrorIs(t, wire.ParseCall(frame, &c), wire.ErrMalformed)
		})
	}
}

func TestNothingAllocates(t *testing.T) {
	call := wire.Call{ID: 7, Timeout: time.Second, Service: []byte("greeter"), Endpoint: []byte("Greeter.Hello"), ContentType: []byte("application/json")}
	buf := make([]byte, 0, 256)
	var got wire.Call
	require.Zero(t, testing.AllocsPerRun(100, func() {
		buf = wire.AppendCall(buf[:0], &call)
		if err := wire.ParseCall(buf, &got); err != nil {
			panic(err)
		}
	}))
}

func TestTypesHaveNames(t *testing.T) {
	require.Equal(t, "Hello", wire.Hello.String())
	require.Equal(t, "Pong", wire.Pong.String())
	require.Equal(t, "200", wire.Type(200).String())
}

func TestBuffers(t *testing.T) {
	for _, n := range []int{0, 1, 255, 256, 257, 64 << 10, 8 << 20, 8<<20 + 1} {
		b := wire.GetBuffer(n)
		require.Empty(t, b.B)
		require.GreaterOrEqual(t, cap(b.B), n)
		b.B = append(b.B, make([]byte, n+1000)...) // it may grow
		b.Release()
	}
	var none *wire.Buffer
	none.Release()
	data := []byte("abc")
	c := wire.CopyBuffer(data)
	data[0] = 'X'
	require.Equal(t, "abc", string(c.B))
}

// FuzzParse: no frame makes a parser panic, or read beyond it, and what a parser takes encodes to the same again.
func FuzzParse(f *testing.F) {
	f.Add(wire.AppendHello(nil, wire.Settings{MaxMessage: 4 << 20, MaxCalls: 10, Window: 256 << 10}))
	f.Add(wire.AppendCall(nil, &wire.Call{ID: 1, Timeout: time.Second, Service: []byte("greeter"), Endpoint: []byte("Greeter.Hello"),
		ContentType: []byte("application/json"), Metadata: wire.AppendMetadata(nil, map[string]string{"a": "b"})}))
	f.Add(wire.AppendError(nil, &wire.Failure{ID: 1, Code: 5, NotRun: true, Message: []byte("no")}))
	f.Add(append(wire.AppendReply(nil, 1), "{}"...))
	f.Add(wire.AppendCredit(nil, 1, 100))
	f.Add(wire.AppendGoAway(nil, "stopping"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		wire.ParseHello(msg)
		if len(msg) == 0 {
			return // the reader of a connection turns these away itself
		}
		var c, again wire.Call
		if wire.ParseCall(msg, &c) == nil {
			frame := append(wire.AppendCall(nil, &c), c.Body...)
			require.NoError(t, wire.ParseCall(frame, &again))
			again.Metadata, c.Metadata = nil, nil // their map decides, which may have fewer pairs: the last of a key counts
			require.Equal(t, c, again)
		}
		c.Metadata.Map()
		if fail, err := wire.ParseError(msg); err == nil {
			got, err := wire.ParseError(wire.AppendError(nil, &fail))
			require.NoError(t, err)
			require.Equal(t, fail, got)
		}
		if id, body, err := wire.ParseBody(msg); err == nil {
			gotID, got, err := wire.ParseBody(append(wire.AppendData(nil, id), body...))
			require.NoError(t, err)
			require.Equal(t, id, gotID)
			require.Equal(t, string(body), string(got))
		}
		if id, n, err := wire.ParseCredit(msg); err == nil {
			gotID, got, err := wire.ParseCredit(wire.AppendCredit(nil, id, n))
			require.NoError(t, err)
			require.Equal(t, [2]uint64{id, n}, [2]uint64{gotID, got})
		}
	})
}
