package rabbitmq

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHeader(t *testing.T) {
	for _, h := range []header{{}, {dialer: true, number: 1<<64 - 1, credit: 1<<32 - 1}, {number: 7, credit: 9}} {
		b := make([]byte, headerSize)
		h.put(b)
		got, frames, err := parseHeader(append(b, "frames"...))
		require.NoError(t, err)
		require.Equal(t, h, got)
		require.Equal(t, "frames", string(frames))
		_, _, err = parseHeader(b[:headerSize-1])
		require.ErrorIs(t, err, errMalformed)
		for i, wrong := range []byte{wireVersion + 1, 2} {
			c := bytes.Clone(b)
			c[i] = wrong
			_, _, err = parseHeader(c)
			require.ErrorIs(t, err, errMalformed)
		}
	}
}

func TestMessagesInFrames(t *testing.T) {
	for _, n := range []int{0, 1, maxChunk - 1, maxChunk, maxChunk + 1, 3 * maxChunk, 3*maxChunk + 1} {
		msg := bytes.Repeat([]byte("0123456789"), n/10+1)[:n]
		b := appendMessage(nil, msg)
		require.Len(t, b, framedSize(n))
		var got []byte
		for want := framePart; want != frameData; {
			typ, payload, rest, err := nextFrame(b)
			require.NoError(t, err)
			require.LessOrEqual(t, headerSize+frameHead+len(payload), maxBody)
			require.Less(t, cost(len(payload)), minWindow)
			got = append(got, payload...)
			b, want = rest, typ
		}
		require.Empty(t, b)
		require.Equal(t, len(msg), len(got))
		require.True(t, bytes.Equal(msg, got))
	}
}

func TestTerms(t *testing.T) {
	want := terms{window: minWindow, maxMessage: 1}
	got, err := parseTerms(append(want.append(nil), "of a later version"...))
	require.NoError(t, err)
	require.Equal(t, want, got)
	for _, wrong := range []terms{{minWindow - 1, 1}, {minWindow, 0}} {
		_, err := parseTerms(wrong.append(nil))
		require.ErrorIs(t, err, errMalformed)
	}
	_, err = parseTerms([]byte("MICRO123"))
	require.ErrorIs(t, err, errMalformed)
}

// FuzzFrames checks that what strangers publish is cut up or refused, and that no byte comes twice.
func FuzzFrames(f *testing.F) {
	b := make([]byte, headerSize)
	header{dialer: true, number: 3, credit: 4}.put(b)
	f.Add(appendMessage(b, []byte("hello")))
	f.Add(appendFrame(b, frameOpen, terms{minWindow, 1}.append(nil)))
	f.Add(appendFrame(appendFrame(b, frameFin, nil), frameClose, nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		h, frames, err := parseHeader(body)
		if err != nil {
			return
		}
		again := make([]byte, headerSize)
		h.put(again)
		for len(frames) > 0 {
			typ, payload, rest, err := nextFrame(frames)
			if err != nil {
				return
			}
			if terms, err := parseTerms(payload); err == nil {
				require.Equal(t, payload[:termsSize], terms.append(nil))
			}
			again = appendFrame(again, typ, payload)
			frames = rest
		}
		require.Equal(t, body, again)
	})
}
