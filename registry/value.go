package registry

import "strings"

// The two prefixes of a Type that is made of another one. Keys of maps are strings in JSON, whatever they are in Go.
const (
	listOf = "[]"
	mapOf  = "map[string]"
)

// ListOf describes a list of what element describes, whose name it has.
func ListOf(element *Value) *Value {
	return &Value{Name: element.Name, Type: listOf + element.Type, Values: element.Values}
}

// MapOf describes a map to what element describes, whose name it has.
func MapOf(element *Value) *Value {
	return &Value{Name: element.Name, Type: mapOf + element.Type, Values: element.Values}
}

// IsList says whether v is a list; its Values are the fields of its elements.
func (v *Value) IsList() bool { return strings.HasPrefix(v.Type, listOf) }

// IsMap says whether v is a map; its Values are the fields of its elements.
func (v *Value) IsMap() bool { return strings.HasPrefix(v.Type, mapOf) }

// Element is what a list or a map holds; nil if v is neither.
func (v *Value) Element() *Value {
	for _, prefix := range []string{listOf, mapOf} {
		if rest, ok := strings.CutPrefix(v.Type, prefix); ok {
			return &Value{Type: rest, Values: v.Values}
		}
	}
	return nil
}

// Base is the last Element of lists of maps of lists; v itself if it is neither list nor map.
func (v *Value) Base() *Value {
	typ := v.Type
	for {
		rest := strings.TrimPrefix(strings.TrimPrefix(typ, listOf), mapOf)
		if rest == typ {
			break
		}
		typ = rest
	}
	if typ == v.Type {
		return v
	}
	return &Value{Type: typ, Values: v.Values}
}

// IsProto says whether v is a message or an enumeration of protobuf: the names of those have a package. A type of Go has
// none, except within the brackets of what it is made of.
func (v *Value) IsProto() bool {
	return strings.Contains(v.Type, ".") && !strings.ContainsAny(v.Type, "[/*")
}

// WellKnown is the name, without its package google.protobuf, of a type that has a form of its own in JSON: its Values
// are not what JSON shows of it. It is "" for all others.
func (v *Value) WellKnown() string {
	name, ok := strings.CutPrefix(v.Type, "google.protobuf.")
	if _, known := wellKnown[name]; !ok || !known {
		return ""
	}
	return name
}

// wellKnown are the Kinds of protobuf's types that have a form of their own in JSON; "" if that is an object or a list.
var wellKnown = map[string]string{
	"Timestamp": "string", "Duration": "string", "FieldMask": "string", "StringValue": "string", "BytesValue": "bytes", "BoolValue": "bool",
	"Int32Value": "int32", "Int64Value": "int64", "UInt32Value": "uint32", "UInt64Value": "uint64", "FloatValue": "float32", "DoubleValue": "float64",
	"Value": "any", "NullValue": "any", "Struct": "", "ListValue": "", "Any": "", "Empty": "",
}

// Kind is what v is in JSON if it has no parts: "string", "bool", "bytes" (base64), "any" (whatever JSON there is), or a
// number by its range: "int8" to "int64", "uint8" to "uint64", "float32", "float64". The kinds of Go and of protobuf, and
// what is WellKnown, are each one of these. It is "" for messages, lists, maps and enumerations.
func (v *Value) Kind() string {
	switch v.Type {
	case "string", "bool", "bytes", "any", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64":
		return v.Type
	case "sint32", "sfixed32":
		return "int32"
	case "int", "sint64", "sfixed64":
		return "int64"
	case "fixed32":
		return "uint32"
	case "uint", "uintptr", "fixed64":
		return "uint64"
	case "float":
		return "float32"
	case "double":
		return "float64"
	}
	return wellKnown[v.WellKnown()]
}
