// Package codec turns values into bodies and back. Which codec is used is the content type of the call, and the answer
// comes in the same:
//
//   - application/json: any Go value by its json tags; protobuf messages by protobuf's own JSON mapping
//   - application/protobuf: generated messages
//   - application/octet-stream: []byte as it is
package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// The content types.
const (
	JSON  = "application/json"
	Proto = "application/protobuf"
	Bytes = "application/octet-stream"
)

// Codec is one of the three. It is safe for concurrent use.
type Codec interface {
	// Append appends the encoded v to dst. Nil is an empty body.
	Append(dst []byte, v any) ([]byte, error)
	// Decode fills what v points to, and keeps nothing of data.
	Decode(data []byte, v any) error
	// ContentType is the name of the codec.
	ContentType() string
}

// Get returns the codec for a content type.
func Get(contentType string) (Codec, error) {
	switch contentType {
	case JSON:
		return jsonCodec{}, nil
	case Proto:
		return protoCodec{}, nil
	case Bytes:
		return bytesCodec{}, nil
	}
	// The clone keeps contentType off the heap where it is known.
	return nil, fmt.Errorf("unknown content type %q: use %s, %s or %s", strings.Clone(contentType), JSON, Proto, Bytes)
}

// For returns the codec that suits v when none is asked for.
func For(v any) Codec {
	switch v.(type) {
	case proto.Message:
		return protoCodec{}
	case []byte, *[]byte:
		return bytesCodec{}
	}
	return jsonCodec{}
}

type jsonCodec struct{}

func (jsonCodec) ContentType() string { return JSON }

func (jsonCodec) Append(dst []byte, v any) ([]byte, error) {
	if out, ok := appendRaw(dst, v); ok {
		return out, nil
	}
	switch v := v.(type) {
	case nil:
		return dst, nil
	case proto.Message:
		return protojson.MarshalOptions{}.MarshalAppend(dst, v)
	}
	buf := bytes.NewBuffer(dst)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return dst, err
	}
	out := buf.Bytes()
	return out[:len(out)-1], nil // without the encoder's newline
}

// Decode takes an empty body for an empty message: a caller need not send "{}".
func (jsonCodec) Decode(data []byte, v any) error {
	if decodeRaw(data, v) {
		return nil
	}
	if len(data) == 0 {
		return nil
	}
	if m, ok := v.(proto.Message); ok {
		return protojson.Unmarshal(data, m)
	}
	return json.Unmarshal(data, v)
}

type protoCodec struct{}

func (protoCodec) ContentType() string { return Proto }

func (protoCodec) Append(dst []byte, v any) ([]byte, error) {
	if out, ok := appendRaw(dst, v); ok {
		return out, nil
	}
	if v == nil {
		return dst, nil
	}
	m, ok := v.(proto.Message)
	if !ok {
		return dst, fmt.Errorf("its type is no protobuf message: use %s", JSON)
	}
	return proto.MarshalOptions{}.MarshalAppend(dst, m)
}

func (protoCodec) Decode(data []byte, v any) error {
	if decodeRaw(data, v) {
		return nil
	}
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("its type is no protobuf message: use %s", JSON)
	}
	return proto.Unmarshal(data, m)
}

type bytesCodec struct{}

func (bytesCodec) ContentType() string { return Bytes }

func (bytesCodec) Append(dst []byte, v any) ([]byte, error) {
	if out, ok := appendRaw(dst, v); ok {
		return out, nil
	}
	switch v := v.(type) {
	case nil:
		return dst, nil
	case []byte:
		return append(dst, v...), nil
	case *[]byte:
		if v == nil {
			return dst, nil
		}
		return append(dst, *v...), nil
	}
	return dst, fmt.Errorf("its type is not []byte: use %s", JSON)
}

func (bytesCodec) Decode(data []byte, v any) error {
	if decodeRaw(data, v) {
		return nil
	}
	p, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("its type is not []byte: use %s", JSON)
	}
	*p = append([]byte{}, data...)
	return nil
}
