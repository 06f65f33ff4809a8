package main

import (
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/plugmicro/micro/registry"
)

// maxNamed bounds how many fields are named in a warning.
const maxNamed = 10

// warnOfFields passes on the requests, and warns, once for each, of fields that no version of the endpoint has: services
// pass over what they do not know, so that a misspelled field is silently lost.
func (c *call) warnOfFields(requests iter.Seq2[json.RawMessage, error]) iter.Seq2[json.RawMessage, error] {
	warned := make(map[string]bool)
	return func(yield func(json.RawMessage, error) bool) {
		for request, err := range requests {
			advice := c.foreignFields(request)
			for _, path := range slices.Sorted(maps.Keys(advice)) {
				if !warned[path] {
					warned[path] = true
					c.warn("%s has no field %s: %s", c.endpoint, path, advice[path])
				}
			}
			if !yield(request, err) {
				return
			}
		}
	}
}

// foreignFields gives advice for each field of a request that no version has.
func (c *call) foreignFields(request json.RawMessage) map[string]string {
	var v any
	if len(c.described) == 0 || json.Unmarshal(request, &v) != nil {
		return nil
	}
	advice := make(map[string]string)
	findForeign(advice, "", v, c.described[0])
	for _, other := range c.described[1:] {
		also := make(map[string]string)
		findForeign(also, "", v, other)
		maps.DeleteFunc(advice, func(path, _ string) bool { return also[path] == "" })
	}
	return advice
}

// findForeign compares a value with its description, where there is one.
func findForeign(advice map[string]string, path string, v any, described *registry.Value) {
	if described == nil || len(described.Values) == 0 || strings.Contains(described.Type, "google.protobuf.") {
		return // a well-known type has a form of its own in JSON
	}
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			findForeign(advice, path, item, element(described, "[]"))
		}
	case map[string]any:
		of := element(described, "map[string]")
		for name, item := range v {
			field := fieldOf(described, name)
			switch {
			case of != nil:
				findForeign(advice, path, item, of)
			case field != nil:
				findForeign(advice, path+name+".", item, field)
			default:
				advice[path+name] = noField(name, described)
			}
		}
	}
}

// element describes what a list or map holds; nil if v is none.
func element(v *registry.Value, of string) *registry.Value {
	rest, ok := strings.CutPrefix(v.Type, of)
	if !ok {
		return nil
	}
	return &registry.Value{Type: rest, Values: v.Values}
}

// fieldOf finds a field as codecs do: in any case, and of a protobuf message, whose type has a package, with underscores.
func fieldOf(v *registry.Value, name string) *registry.Value {
	if strings.Contains(v.Type, ".") {
		name = strings.ReplaceAll(name, "_", "")
	}
	for _, field := range v.Values {
		if strings.EqualFold(field.Name, name) {
			return field
		}
	}
	return nil
}

// noField says which field was meant, or which there are.
func noField(name string, v *registry.Value) string {
	var names []string
	for _, field := range v.Values {
		names = append(names, field.Name)
	}
	if near := nearestTo(name, names); near != "" {
		return "did you mean " + near + "?"
	}
	if len(names) > maxNamed {
		names = append(names[:maxNamed], "…")
	}
	return "it has " + strings.Join(names, ", ")
}
