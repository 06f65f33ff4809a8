package direct

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
)

func TestMessagesTravelWhole(t *testing.T) {
	headers := map[string]string{"": "", broker.HeaderDeadTopic: "t"}
	for i := range maxHeaders - 2 {
		headers[strings.Repeat("h", i+1)] = strings.Repeat("v", i)
	}
	for name, m := range map[string]*broker.Message{
		"all":      {ID: "id", Key: "key", Header: map[string]string{"a": "b", "c": ""}, Body: []byte("body")},
		"bare":     {ID: "id", Body: []byte{}},
		"headers":  {ID: "id", Header: headers, Body: []byte{}},
		"large":    {ID: strings.Repeat("i", broker.MaxID), Key: strings.Repeat("k", broker.MaxKey), Body: make([]byte, 1<<20)},
		"not text": {ID: "\x00\xff", Key: "\xff", Header: map[string]string{"\xff": "\x00"}, Body: []byte{0, 255}},
	} {
		t.Run(name, func(t *testing.T) {
			data := appendMessage(nil, m, m.ID)
			got, err := parseMessage(data)
			require.NoError(t, err)
			require.Equal(t, m, got)
			for i := range data {
				data[i]++ // what was parsed is a copy
			}
			require.Equal(t, m, got)
		})
	}
}

func TestMalformedMessages(t *testing.T) {
	good := appendMessage(nil, &broker.Message{Key: "key", Header: map[string]string{"a": "b"}}, "id")
	bad := map[string][]byte{
		"no ID":        appendMessage(nil, &broker.Message{}, ""),
		"many headers": append(appendString(appendString(nil, "id"), ""), 0xff, 0xff, 0xff, 0xff, 0x0f),
		"header twice": append(appendString(appendString(nil, "id"), ""), 2, 1, 'a', 0, 1, 'a', 0),
		"long number":  {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	}
	for i := range good {
		bad["cut at "+string(rune('a'+i))] = good[:i]
	}
	for name, data := range bad {
		_, err := parseMessage(data)
		require.ErrorIs(t, err, errMalformed, name)
	}
}

func TestDeliveriesAndAcks(t *testing.T) {
	var frame []byte
	want := map[uint64]string{1: "one", 2: "", math.MaxUint64: "last"}
	for _, seq := range []uint64{1, 2, math.MaxUint64} {
		frame = appendDelivery(frame, seq, []byte(want[seq]))
	}
	got := map[uint64]string{}
	collect := func(seq uint64, m []byte) error { got[seq] = string(m); return nil }
	require.NoError(t, parseDeliveries(frame, collect))
	require.Equal(t, want, got)
	require.ErrorIs(t, parseDeliveries(frame[:len(frame)-1], collect), errMalformed)

	acks := []uint64{7, 3, math.MaxUint64, 0, 1 << 63}
	parsed, leaving, err := parseAnswer(appendAcks(nil, acks), nil)
	require.NoError(t, err)
	require.False(t, leaving)
	require.Equal(t, acks, parsed)

	_, leaving, err = parseAnswer([]byte{answerLeaving}, nil)
	require.NoError(t, err)
	require.True(t, leaving)
	for _, bad := range [][]byte{{}, {0}, {9}, {answerLeaving, 1}, {answerAcks, 0x80}} {
		_, _, err = parseAnswer(bad, nil)
		require.ErrorIs(t, err, errMalformed, "%v", bad)
	}
}

// FuzzFrames feeds what a peer might send to both decoders. What they take must come out the same when encoded again.
func FuzzFrames(f *testing.F) {
	m := appendMessage(nil, &broker.Message{Key: "k", Header: map[string]string{"a": "b"}, Body: []byte("body")}, "id")
	f.Add(appendDelivery(appendDelivery(nil, 1, m), 2, m))
	f.Add(appendAcks(nil, []uint64{1, 2, 300, 4}))
	f.Add([]byte{answerLeaving})
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = parseDeliveries(data, func(_ uint64, message []byte) error {
			m, err := parseMessage(message)
			if err != nil {
				return err
			}
			again, err := parseMessage(appendMessage(nil, m, m.ID))
			require.NoError(t, err)
			require.Equal(t, m, again)
			return nil
		})
		acks, leaving, err := parseAnswer(data, nil)
		if err == nil && !leaving {
			again, _, err := parseAnswer(appendAcks(nil, acks), nil)
			require.NoError(t, err)
			require.Equal(t, acks, again)
		}
	})
}
