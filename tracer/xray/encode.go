package xray

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/plugmicro/micro/internal/clip"
)

// preface begins each datagram to the daemon.
const preface = `{"format":"json","version":1}` + "\n"

// cuts make a document smaller, the least important first. What X-Ray needs to draw the trace is left in any case.
var cuts = []func(*document){
	func(d *document) {
		for _, values := range d.Metadata {
			for key := range values {
				values[key] = shorten(values[key], 256)
			}
		}
	},
	func(d *document) { d.Metadata = nil },
	func(d *document) {
		if d.Cause == nil {
			return
		}
		for i, x := range d.Cause.Exceptions {
			d.Cause.Exceptions[i] = exception{ID: x.ID, Type: clip.Prefix(x.Type, 256), Message: clip.Prefix(x.Message, 256), Truncated: x.Truncated + len(x.Stack)}
		}
	},
	func(d *document) { d.Annotations = nil },
	func(d *document) { d.Cause, d.SQL, d.HTTP, d.User = nil, nil, nil, "" },
	func(d *document) { d.AWS, d.Service = nil, nil },
}

// cut applies the n-th of them, and says in the document that it is not whole.
func (d *document) cut(n int) {
	cuts[n](d)
	if d.Metadata == nil {
		d.Metadata = make(map[string]map[string]any)
	}
	d.Metadata["micro"] = map[string]any{"shortened": true}
	for _, sub := range d.Subsegments {
		sub.cut(n)
	}
}

// shorten cuts the texts in a value of the metadata.
func shorten(value any, most int) any {
	switch v := value.(type) {
	case string:
		return clip.Prefix(v, most)
	case []string:
		if len(v) > 10 {
			v = v[:10]
		}
		for i := range v {
			v[i] = clip.Prefix(v[i], most)
		}
		return v
	case []any:
		if len(v) > 10 {
			v = v[:10]
		}
		for i := range v {
			v[i] = shorten(v[i], most)
		}
	case map[string]any:
		for key := range v {
			v[key] = shorten(v[key], most)
		}
	}
	return value
}

// encoder makes datagrams. It is for one goroutine.
type encoder struct {
	buf  bytes.Buffer
	json *json.Encoder
}

func newEncoder() *encoder {
	e := &encoder{}
	e.json = json.NewEncoder(&e.buf)
	e.json.SetEscapeHTML(false)
	return e
}

// datagram is valid until the next call. The document is cut until it fits into limit bytes; wasCut tells whether it was.
func (e *encoder) datagram(d *document, limit int) (data []byte, wasCut bool, err error) {
	for n := range len(cuts) + 1 {
		e.buf.Reset()
		e.buf.WriteString(preface)
		if err := e.json.Encode(d); err != nil {
			return nil, n > 0, fmt.Errorf("encode segment %q: %w", d.Name, err)
		}
		if data := bytes.TrimSuffix(e.buf.Bytes(), []byte("\n")); len(data) <= limit {
			return data, n > 0, nil
		}
		if n < len(cuts) {
			d.cut(n)
		}
	}
	return nil, true, fmt.Errorf("segment %q does not fit into %d bytes", d.Name, limit)
}
