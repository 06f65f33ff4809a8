package codec_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/plugmicro/micro/codec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type point struct {
	X int    `json:"x"`
	S string `json:"s,omitempty"`
}

func TestRoundTrip(t *testing.T) {
	for name, c := range map[string]struct {
		contentType string
		in          any
		out         any // empty, to decode into
		encoded     string
	}{
		"struct as JSON":       {codec.JSON, &point{1, "<a&b>"}, &point{}, `{"x":1,"s":"<a&b>"}`},
		"raw JSON":             {codec.JSON, &json.RawMessage{'7'}, &json.RawMessage{}, `7`},
		"protobuf as JSON":     {codec.JSON, wrapperspb.String("a"), &wrapperspb.StringValue{}, `"a"`},
		"protobuf":             {codec.Proto, wrapperspb.String("a"), &wrapperspb.StringValue{}, "\n\x01a"},
		"bytes":                {codec.Bytes, &[]byte{1, 2}, &[]byte{}, "\x01\x02"},
		"no bytes":             {codec.Bytes, &[]byte{}, &[]byte{9}, ""},
		"empty protobuf":       {codec.Proto, &wrapperspb.StringValue{}, &wrapperspb.StringValue{}, ""},
		"empty JSON structure": {codec.JSON, &struct{}{}, &struct{}{}, "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			cdc, err := codec.Get(c.contentType)
			require.NoError(t, err)
			require.Equal(t, c.contentType, cdc.ContentType())
			b, err := cdc.Append([]byte("before"), c.in)
			require.NoError(t, err)
			encoded, ok := strings.CutPrefix(string(b), "before")
			require.True(t, ok)
			require.Equal(t, c.encoded, encoded)
			require.NoError(t, cdc.Decode([]byte(encoded), c.out))
			if m, ok := c.in.(proto.Message); ok {
				require.True(t, proto.Equal(m, c.out.(proto.Message)))
			} else {
				require.Equal(t, c.in, c.out)
			}
		})
	}
}

func TestNothingIsAnEmptyBody(t *testing.T) {
	for _, contentType := range []string{codec.JSON, codec.Proto, codec.Bytes} {
		cdc, err := codec.Get(contentType)
		require.NoError(t, err)
		b, err := cdc.Append(nil, nil)
		require.NoError(t, err)
		require.Empty(t, b)
	}
	b, err := codec.For((*[]byte)(nil)).Append(nil, (*[]byte)(nil))
	require.NoError(t, err)
	require.Empty(t, b)
	p := point{X: 3}
	require.NoError(t, codec.For(p).Decode(nil, &p), "an empty JSON body is an empty message")
	require.Equal(t, 3, p.X)
}

func TestDecodedBytesAreACopy(t *testing.T) {
	data := []byte("abc")
	var v []byte
	require.NoError(t, codec.For(v).Decode(data, &v))
	data[0] = 'X'
	require.Equal(t, "abc", string(v))
}

func TestErrors(t *testing.T) {
	_, err := codec.Get("text/xml")
	require.ErrorContains(t, err, `unknown content type "text/xml": use application/json, application/protobuf or application/octet-stream`)

	for _, contentType := range []string{codec.Proto, codec.Bytes} {
		cdc, err := codec.Get(contentType)
		require.NoError(t, err)
		_, err = cdc.Append(nil, &point{})
		require.ErrorContains(t, err, "use application/json")
		require.ErrorContains(t, cdc.Decode([]byte("{}"), &point{}), "use application/json")
	}
	require.Error(t, codec.For(point{}).Decode([]byte(`{"x":`), &point{}))
	dst, err := codec.For(point{}).Append([]byte("before"), make(chan int))
	require.Error(t, err)
	require.Equal(t, "before", string(dst))
}

func TestFor(t *testing.T) {
	require.Equal(t, codec.Proto, codec.For(&wrapperspb.StringValue{}).ContentType())
	require.Equal(t, codec.Bytes, codec.For(&[]byte{}).ContentType())
	require.Equal(t, codec.JSON, codec.For(&point{}).ContentType())
}

func TestRawPassesAsItIs(t *testing.T) {
	for _, contentType := range []string{codec.JSON, codec.Proto, codec.Bytes} {
		c, err := codec.Get(contentType)
		require.NoError(t, err)
		for _, v := range []any{codec.Raw("no JSON"), new(codec.Raw("no JSON"))} {
			b, err := c.Append([]byte("before "), v)
			require.NoError(t, err)
			require.Equal(t, "before no JSON", string(b))
		}
		data := []byte("{1")
		var raw codec.Raw
		require.NoError(t, c.Decode(data, &raw))
		data[0] = 'X'
		require.Equal(t, "{1", string(raw), "a copy")
	}
}
