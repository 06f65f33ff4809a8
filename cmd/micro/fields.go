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
	if described == nil || len(described.Values) == 0 || described.Base().WellKnown() != "" {
		return
	}
	switch v := v.(type) {
	case []any:
		if !described.IsList() {
			return
		}
		for _, item := range v {
			findForeign(advice, path, item, described.Element())
		}
	case map[string]any:
		for name, item := range v {
			field := fieldOf(described, name)
			switch {
			case described.IsMap():
				findForeign(advice, path, item, described.Element())
			case field != nil:
				findForeign(advice, path+name+".", item, field)
			default:
				advice[path+name] = noField(name, described)
			}
		}
	}
}

// fieldOf finds a field as codecs do: in any case, and of a protobuf message with underscores.
func fieldOf(v *registry.Value, name string) *registry.Value {
	if v.IsProto() {
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
