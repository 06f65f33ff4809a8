package rpc

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/registry"
)

// merge makes one JSON object of what path, query and body say, by the fields that the endpoint has registered. Of a field
// that several of them have, the path's goes before the query's, which goes before the body's.
func merge(message *registry.Value, path map[string]string, query string, body []byte) ([]byte, error) {
	given, err := url.ParseQuery(query)
	if err != nil {
		return nil, gateway.NewProblem(http.StatusBadRequest, "the query cannot be read: %v", err)
	}
	fields := make(object)
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if _, ok := path[name]; ok {
			continue
		}
		if err := fields.set(message, name, given[name]); err != nil {
			return nil, err
		}
	}
	fromPath := make(object)
	for _, name := range slices.Sorted(maps.Keys(path)) {
		if err := fromPath.set(message, name, []string{path[name]}); err != nil {
			return nil, err
		}
	}
	fields.cover(fromPath)
	if len(body) > 0 {
		if err := fields.addTo(body); err != nil {
			return nil, err
		}
	}
	return json.Marshal(fields)
}

// object is a JSON object that is being made: its values are objects, or JSON.
type object map[string]any

// maxNames bounds how deep a parameter can go.
const maxNames = registry.MaxDepth

// set gives the field that a parameter names its value.
func (o object) set(message *registry.Value, parameter string, values []string) error {
	names := strings.Split(parameter, ".")
	if len(names) > maxNames {
		return wrong(parameter, "has too many parts")
	}
	in, of := o, message
	for i, name := range names {
		field, rest := fieldOf(of, name, names[i:])
		if field == nil {
			return unknownField(of, parameter, name)
		}
		if rest == 0 || isLeaf(field) {
			name = strings.Join(names[i:], ".")
			if rest != 0 && !of.IsMap() {
				return wrong(parameter, "goes on after "+strings.Join(names[:i+1], ".")+", which has no fields")
			}
			return in.give(field, parameter, name, values)
		}
		next, ok := in[name].(object)
		if !ok {
			if in[name] != nil {
				return wrong(parameter, "gives a field of what has a value")
			}
			next = make(object)
			in[name] = next
		}
		in, of = next, field
	}
	return nil
}

// fieldOf is the field of a message, or the values of a map, and how many of the names come after it.
func fieldOf(of *registry.Value, name string, names []string) (field *registry.Value, rest int) {
	rest = len(names) - 1
	if of == nil {
		return nil, rest
	}
	if of.IsMap() {
		return of.Element(), rest
	}
	for _, f := range of.Values {
		if f.Name == name && !of.IsList() {
			return f, rest
		}
	}
	return nil, rest
}

// isLeaf says whether v has no fields of its own in a query.
func isLeaf(v *registry.Value) bool {
	return v.IsList() || !v.IsMap() && len(v.Values) == 0 || v.WellKnown() != ""
}

func (o object) give(field *registry.Value, parameter, name string, values []string) error {
	if _, ok := o[name]; ok {
		return wrong(parameter, "is given twice, or as a field and as a whole")
	}
	element, list := field, field.IsList()
	if list {
		element = field.Element()
	}
	if !list && len(values) > 1 {
		return wrong(parameter, "is given more than once, and is no list")
	}
	texts := make([]json.RawMessage, len(values))
	for i, v := range values {
		text, problem := scalar(element, v)
		if problem != "" {
			return wrong(parameter, problem)
		}
		texts[i] = text
	}
	if list {
		o[name] = texts
	} else {
		o[name] = texts[0]
	}
	return nil
}

func wrong(parameter, problem string) error {
	return gateway.NewProblem(http.StatusBadRequest, "parameter %q %s", shown(parameter), problem)
}

func unknownField(of *registry.Value, parameter, name string) error {
	var names []string
	if of != nil && !of.IsList() {
		for _, f := range of.Values {
			names = append(names, f.Name)
		}
	}
	if len(names) == 0 {
		return wrong(parameter, "is unknown: no fields are registered for it to be one of; give it in the body")
	}
	hint := didYouMean(name, names)
	if hint == "" {
		hint = ": the fields are " + shown(strings.Join(names, ", "))
	}
	return wrong(parameter, "is unknown"+hint)
}

// scalar is the JSON of one value, or what is wrong with it.
func scalar(v *registry.Value, text string) (value json.RawMessage, problem string) {
	switch kind := v.Kind(); kind {
	case "string", "any":
		return quote(text), ""
	case "bool":
		if text != "true" && text != "false" {
			return nil, "is true or false"
		}
		return json.RawMessage(text), ""
	case "bytes":
		data, err := decodeBase64(text)
		if err != nil {
			return nil, "is no base64"
		}
		return quote(base64.StdEncoding.EncodeToString(data)), ""
	case "float32", "float64":
		return float(bitsOf(kind, "float"), text)
	case "int8", "int16", "int32", "int64":
		return integer(bitsOf(kind, "int"), text)
	case "uint8", "uint16", "uint32", "uint64":
		return positive(bitsOf(kind, "uint"), text)
	}
	if v.WellKnown() != "" {
		return nil, "is an object or a list in JSON: give it in the body"
	}
	if len(v.Values) > 0 || v.IsMap() || v.IsList() {
		return nil, "is a message or a list in a list: give its fields as a.b, or give it in the body"
	}
	if n, err := strconv.ParseInt(text, 10, 32); err == nil { // a value of an enumeration, by its number
		return strconv.AppendInt(nil, n, 10), ""
	}
	return quote(text), ""
}

func quote(s string) json.RawMessage {
	b, _ := json.Marshal(s) // a string always can
	return b
}

// decodeBase64 takes both alphabets, with padding or without.
func decodeBase64(text string) ([]byte, error) {
	text = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(text), "=")
	return base64.RawStdEncoding.DecodeString(text)
}

// bitsOf is the number at the end of a kind.
func bitsOf(kind, name string) int {
	bits, _ := strconv.Atoi(strings.TrimPrefix(kind, name)) // registry.Value.Kind has it
	return bits
}

func float(bits int, text string) (json.RawMessage, string) {
	f, err := strconv.ParseFloat(text, bits)
	if err != nil || f-f != 0 { // which JSON has no number for
		return nil, "is no number, or too large"
	}
	return strconv.AppendFloat(nil, f, 'g', -1, bits), ""
}

func integer(bits int, text string) (json.RawMessage, string) {
	n, err := strconv.ParseInt(text, 10, bits)
	if err != nil {
		return nil, "is no integer, or too large"
	}
	return strconv.AppendInt(nil, n, 10), ""
}

func positive(bits int, text string) (json.RawMessage, string) {
	n, err := strconv.ParseUint(text, 10, bits)
	if err != nil {
		return nil, "is no positive integer, or too large"
	}
	return strconv.AppendUint(nil, n, 10), ""
}

// cover puts the fields of other over those of o.
func (o object) cover(other object) {
	for name, value := range other {
		if deeper, ok := value.(object); ok {
			if mine, ok := o[name].(object); ok {
				mine.cover(deeper)
				continue
			}
		}
		o[name] = value
	}
}

// addTo makes o what the body is with the fields of o.
func (o object) addTo(body []byte) error {
	var rest map[string]json.RawMessage
	if err := json.Unmarshal(body, &rest); err != nil {
		return gateway.NewProblem(http.StatusBadRequest, "the body is no JSON object, to which fields of the path and the query could be added")
	}
	o.add(rest)
	return nil
}

// add takes in the fields of a body that o does not have. Services read the names of fields without regard to case, so
// that another spelling would go before what o has.
func (o object) add(rest map[string]json.RawMessage) {
	mine := make(map[string]string, len(o)) // names of o as they are, by how they are read
	for name := range o {
		mine[fold(name)] = name
	}
	for name, value := range rest {
		own, ok := mine[fold(name)]
		if !ok {
			o[name] = value
			continue
		}
		deeper, ok := o[own].(object)
		var inner map[string]json.RawMessage
		if ok && json.Unmarshal(value, &inner) == nil {
			deeper.add(inner)
		}
	}
}

// fold makes names the same that strings.EqualFold, and encoding/json, take for the same.
func fold(name string) string {
	return strings.Map(func(c rune) rune {
		least := c
		for r := unicode.SimpleFold(c); r != c; r = unicode.SimpleFold(r) {
			least = min(least, r)
		}
		return least
	}, name)
}
