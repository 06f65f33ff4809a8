package server

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/plugmicro/micro/registry"
)

// maxDepth bounds how deep messages within messages are described, and so what an endpoint adds to a registration.
const maxDepth = 4

// maxFields bounds the fields of all of them together, the last message's apart; the rest is named by its type.
const maxFields = 500

// description counts them.
type description struct{ fields int }

// more says whether n fields are still described.
func (d *description) more(n int) bool {
	if d.fields >= maxFields {
		return false
	}
	d.fields += n
	return true
}

// describe says what a message looks like, as JSON shows it.
func describe(t reflect.Type) *registry.Value {
	if m, ok := reflect.New(t).Interface().(proto.Message); ok {
		return new(description).protoMessage("", m.ProtoReflect().Descriptor(), maxDepth)
	}
	return new(description).describeType("", t, maxDepth)
}

var textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()

func (d *description) describeType(name string, t reflect.Type, depth int) *registry.Value {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	v := &registry.Value{Name: name}
	switch {
	case t == reflect.TypeFor[json.RawMessage]() || t.Kind() == reflect.Interface:
		v.Type = "any"
	case t.Implements(textMarshaler) || reflect.PointerTo(t).Implements(textMarshaler):
		v.Type = "string"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		v.Type = "bytes"
	case depth < 0:
		v.Type = t.String() // of a type that contains itself, perhaps
	case t.Kind() == reflect.Slice || t.Kind() == reflect.Array:
		return registry.ListOf(d.describeType(name, t.Elem(), within(t.Elem(), depth)))
	case t.Kind() == reflect.Map:
		return registry.MapOf(d.describeType(name, t.Elem(), within(t.Elem(), depth)))
	case t.Kind() == reflect.Struct:
		v.Type = t.Name()
		if depth > 0 && d.more(t.NumField()) {
			v.Values = d.describeFields(t, depth-1)
		}
	default:
		v.Type = t.Kind().String()
	}
	return v
}

// within is the depth for an element: those of lists of lists go deeper, because such a type can contain itself.
func within(element reflect.Type, depth int) int {
	switch element.Kind() {
	case reflect.Slice, reflect.Array, reflect.Map:
		return depth - 1
	}
	return depth
}

func (d *description) describeFields(t reflect.Type, depth int) []*registry.Value {
	var values []*registry.Value
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" || len(f.Index) > 1 && !promoted(t, f) {
			continue
		}
		if f.Anonymous && name == "" && isStruct(f.Type) {
			continue // its fields follow by themselves
		}
		if name == "" {
			name = f.Name
		}
		values = append(values, d.describeType(name, f.Type, depth))
	}
	return values
}

func isStruct(t reflect.Type) bool {
	return t.Kind() == reflect.Struct || t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct
}

// promoted says whether JSON shows f, a field of an embedded struct, as a field of t.
func promoted(t reflect.Type, f reflect.StructField) bool {
	for i := range len(f.Index) - 1 {
		name, _, _ := strings.Cut(t.FieldByIndex(f.Index[:i+1]).Tag.Get("json"), ",")
		if name != "" {
			return false
		}
	}
	return true
}

func (d *description) protoMessage(name string, m protoreflect.MessageDescriptor, depth int) *registry.Value {
	v := &registry.Value{Name: name, Type: string(m.FullName())}
	if v.WellKnown() != "" || depth == 0 || !d.more(m.Fields().Len()) {
		return v
	}
	for i := range m.Fields().Len() {
		v.Values = append(v.Values, d.protoField(m.Fields().Get(i), depth-1))
	}
	return v
}

func (d *description) protoField(f protoreflect.FieldDescriptor, depth int) *registry.Value {
	switch name := f.JSONName(); {
	case f.IsMap():
		return registry.MapOf(d.protoSingle(name, f.MapValue(), depth))
	case f.IsList():
		return registry.ListOf(d.protoSingle(name, f, depth))
	default:
		return d.protoSingle(name, f, depth)
	}
}

func (d *description) protoSingle(name string, f protoreflect.FieldDescriptor, depth int) *registry.Value {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return d.protoMessage(name, f.Message(), depth)
	case protoreflect.EnumKind:
		return &registry.Value{Name: name, Type: string(f.Enum().FullName())}
	}
	return &registry.Value{Name: name, Type: f.Kind().String()}
}
