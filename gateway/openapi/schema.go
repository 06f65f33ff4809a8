package openapi

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/plugmicro/micro/registry"
)

// object is a JSON object; its keys are written in their order, so that the same services make the same document.
type object = map[string]any

// maxDepth bounds how deep Values and types such as [][]T are followed, whatever was registered.
const maxDepth = registry.MaxDepth

// types are the messages of one service. Servers describe a message anew wherever it occurs, and stop at some depth: all
// occurrences that can be the same one are one component here, so that a message that contains itself is one that does.
type types struct {
	byShape map[string][]*message
	all     []*message // in the order in which they were met
}

// maxAlike bounds how many messages are tried that have the same name and fields, and other messages in these.
const maxAlike = 16

// message is one type with fields.
type message struct {
	name   string // as registered
	key    string // of the component
	proto  bool
	fields []field
}

// field is a field of a message, or a whole body.
type field struct {
	name    string
	typ     string   // as registered: "[]Item"
	message *message // what that is made of; nil if it is no message, or not described
	proto   bool     // it is in a message of protobuf
}

// field makes a field of its description, and a message of what is described below.
func (t *types) field(v *registry.Value, depth int) field {
	if v == nil {
		return field{typ: "any"}
	}
	f := field{name: clean(v.Name), typ: clean(v.Type)}
	of := f.described().Base()
	if of.WellKnown() != "" || depth == 0 || len(v.Values) == 0 {
		return f
	}
	m := &message{name: of.Type, proto: of.IsProto()}
	seen := make(map[string]bool, len(v.Values))
	for _, x := range v.Values {
		if x == nil || seen[clean(x.Name)] {
			continue
		}
		inner := t.field(x, depth-1)
		inner.proto = m.proto
		seen[inner.name] = true
		m.fields = append(m.fields, inner)
	}
	f.message = t.intern(m)
	return f
}

// described is the type of f, to be asked what it is.
func (f field) described() *registry.Value { return &registry.Value{Type: f.typ} }

// intern returns the message that m is another occurrence of, having added what only m knows; or m.
func (t *types) intern(m *message) *message {
	shape := m.shape()
	alike := t.byShape[shape]
	for _, known := range alike {
		if known.takes(m) {
			return known
		}
	}
	if len(alike) < maxAlike {
		t.byShape[shape] = append(alike, m)
	}
	t.all = append(t.all, m)
	return m
}

// shape is the same for messages that can be the same.
func (m *message) shape() string {
	var b strings.Builder
	b.WriteString(m.name)
	for _, f := range m.fields {
		b.WriteString("\x00" + f.name + "\x00" + f.typ)
	}
	return b.String()
}

// takes says whether o can be the same message as m: the fields are the same, and described by the same messages where both
// describe them. If so, m then knows what o did.
func (m *message) takes(o *message) bool {
	if len(m.fields) != len(o.fields) {
		return false
	}
	for i, f := range m.fields {
		g := o.fields[i]
		if f.name != g.name || f.typ != g.typ || f.message != nil && g.message != nil && f.message != g.message {
			return false
		}
	}
	for i := range m.fields {
		if m.fields[i].message == nil {
			m.fields[i].message = o.fields[i].message
		}
	}
	return true
}

// schema describes a message as a component.
func (m *message) schema() object {
	properties := make(object, len(m.fields))
	for _, f := range m.fields {
		properties[f.name] = f.schema(true)
	}
	return object{"type": "object", "title": m.name, "properties": properties}
}

// schema describes a field, or a body, which is not within a message. Lists, maps and messages of Go that are nil are null.
func (f field) schema(within bool) object {
	return f.of(f.described(), within && !f.proto, maxDepth)
}

func (f field) of(v *registry.Value, nullable bool, depth int) object {
	switch {
	case depth == 0:
		return object{}
	case v.IsList():
		return orNull(object{"type": "array", "items": f.of(v.Element(), nullable, depth-1)}, nullable)
	case v.IsMap():
		return orNull(object{"type": "object", "additionalProperties": f.of(v.Element(), nullable, depth-1)}, nullable)
	case v.WellKnown() != "":
		return wellKnown(v.WellKnown())
	case f.message != nil:
		return orNull(object{"$ref": "#/components/schemas/" + f.message.key}, nullable)
	case v.Kind() != "":
		return orNull(scalar(v.Kind(), f.proto), nullable && v.Kind() == "bytes")
	}
	return object{"description": v.Type}
}

func orNull(s object, nullable bool) object {
	if !nullable {
		return s
	}
	if typ, ok := s["type"].(string); ok {
		s["type"] = []string{typ, "null"}
		return s
	}
	return object{"anyOf": []object{s, {"type": "null"}}}
}

// scalar describes a registry.Value by its Kind. The JSON of protobuf writes large numbers as strings, and reads both.
func scalar(kind string, proto bool) object {
	switch kind {
	case "string":
		return object{"type": "string"}
	case "bool":
		return object{"type": "boolean"}
	case "bytes":
		return object{"type": "string", "contentEncoding": "base64"}
	case "float64":
		return object{"type": "number", "format": "double"}
	case "float32":
		return object{"type": "number", "format": "float"}
	case "int8", "int16", "int32":
		return object{"type": "integer", "format": kind}
	case "uint8", "uint16", "uint32":
		return object{"type": "integer", "minimum": 0}
	case "int64":
		if proto {
			return object{"type": []string{"string", "integer"}, "format": "int64"}
		}
		return object{"type": "integer", "format": "int64"}
	case "uint64":
		if proto {
			return object{"type": []string{"string", "integer"}, "format": "uint64"}
		}
		return object{"type": "integer", "minimum": 0}
	}
	return object{} // any
}

// wellKnown describes what registry.Value calls so: each has a form of its own in JSON.
func wellKnown(name string) object {
	switch name {
	case "Timestamp":
		return object{"type": "string", "format": "date-time"}
	case "Duration":
		return object{"type": "string", "examples": []string{"1.5s"}}
	case "FieldMask", "BytesValue", "StringValue":
		return object{"type": "string"}
	case "Struct", "Any", "Empty":
		return object{"type": "object"}
	case "ListValue":
		return object{"type": "array"}
	case "BoolValue":
		return object{"type": "boolean"}
	case "DoubleValue", "FloatValue":
		return object{"type": []string{"number", "string"}} // "NaN"
	case "Int32Value", "UInt32Value":
		return object{"type": "integer"}
	case "Int64Value", "UInt64Value":
		return object{"type": []string{"string", "integer"}}
	}
	return object{} // Value, NullValue
}

// flat says whether a message can be written as a query: scalars, and lists of them. A dot in a query goes into a field.
func (m *message) flat() bool {
	for _, f := range m.fields {
		v := f.described()
		if v.IsList() {
			v = v.Element()
		}
		if f.message != nil || f.name == "" || strings.Contains(f.name, ".") || v.Kind() == "" || v.Kind() == "any" {
			return false
		}
	}
	return true
}

// clean makes text valid, so that two keys that differ here differ in JSON.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// anyOf is one of several schemas, of which some may be the same.
func anyOf(schemas ...object) object {
	if len(schemas) == 1 {
		return schemas[0]
	}
	var different []object
	seen := make(map[string]bool, len(schemas))
	for _, s := range schemas {
		text, err := json.Marshal(s)
		if err == nil && seen[string(text)] {
			continue
		}
		seen[string(text)] = true
		different = append(different, s)
	}
	if len(different) == 1 {
		return different[0]
	}
	return object{"anyOf": different}
}

// names hands out names that are not taken, made of those that are wanted. It counts how often each was.
type names map[string]int

func (n names) take(wanted string) string {
	wanted = identifier(wanted)
	name := wanted
	for n[name] > 0 {
		n[wanted]++
		name = wanted + "_" + strconv.Itoa(n[wanted])
	}
	n[name]++
	return name
}

// maxIdentifier keeps names readable.
const maxIdentifier = 200

// identifier replaces what a key of a component, and most generators of code, do not take.
func identifier(s string) string {
	s = strings.Map(func(c rune) rune {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_' {
			return c
		}
		return '_'
	}, s)
	return s[:min(len(s), maxIdentifier)]
}

func marshal(v any) ([]byte, error) { return json.MarshalIndent(v, "", " ") }
