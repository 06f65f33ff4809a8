package registry_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/registry"
)

func TestValue(t *testing.T) {
	type facts struct {
		list, isMap, proto             bool
		element, base, wellKnown, kind string
	}
	for typ, want := range map[string]facts{
		"":                                {},
		"Order":                           {},
		"complex128":                      {},
		"shop.Order":                      {proto: true},
		"Page[example.com/shop.Order]":    {},
		"*shop.Order":                     {},
		"string":                          {kind: "string"},
		"bool":                            {kind: "bool"},
		"bytes":                           {kind: "bytes"},
		"any":                             {kind: "any"},
		"int":                             {kind: "int64"},
		"int8":                            {kind: "int8"},
		"uint":                            {kind: "uint64"},
		"uint16":                          {kind: "uint16"},
		"uintptr":                         {kind: "uint64"},
		"sint32":                          {kind: "int32"},
		"sint64":                          {kind: "int64"},
		"fixed32":                         {kind: "uint32"},
		"fixed64":                         {kind: "uint64"},
		"sfixed32":                        {kind: "int32"},
		"sfixed64":                        {kind: "int64"},
		"float":                           {kind: "float32"},
		"float64":                         {kind: "float64"},
		"double":                          {kind: "float64"},
		"[]":                              {list: true},
		"[]string":                        {list: true, element: "string", base: "string"},
		"[][]int":                         {list: true, element: "[]int", base: "int"},
		"map[string]any":                  {isMap: true, element: "any", base: "any"},
		"map[string][]shop.Order":         {isMap: true, element: "[]shop.Order", base: "shop.Order"},
		"[]map[string][]Order":            {list: true, element: "map[string][]Order", base: "Order"},
		"map[int]string":                  {},
		"google.protobuf.Timestamp":       {proto: true, wellKnown: "Timestamp", kind: "string"},
		"google.protobuf.BoolValue":       {proto: true, wellKnown: "BoolValue", kind: "bool"},
		"google.protobuf.Struct":          {proto: true, wellKnown: "Struct"},
		"google.protobuf.Value":           {proto: true, wellKnown: "Value", kind: "any"},
		"google.protobuf.Type":            {proto: true}, // a message like any other
		"google.protobuf.":                {proto: true},
		"my.google.protobuf.Timestamp":    {proto: true},
		"[]google.protobuf.Timestamp":     {list: true, element: "google.protobuf.Timestamp", base: "google.protobuf.Timestamp"},
		"Timestamp":                       {},
		strings.Repeat("[]", 5) + "bytes": {list: true, element: strings.Repeat("[]", 4) + "bytes", base: "bytes"},
	} {
		t.Run(typ, func(t *testing.T) {
			fields := []*registry.Value{{Name: "a", Type: "string"}}
			v := &registry.Value{Name: "v", Type: typ, Values: fields}
			got := facts{list: v.IsList(), isMap: v.IsMap(), proto: v.IsProto(), wellKnown: v.WellKnown(), kind: v.Kind()}
			require.Equal(t, v.IsList() || v.IsMap(), v.Element() != nil)
			if e := v.Element(); e != nil {
				got.element, got.base = e.Type, v.Base().Type
				require.Equal(t, fields, e.Values)
				require.Equal(t, fields, v.Base().Values)
			} else {
				require.Same(t, v, v.Base())
			}
			require.Equal(t, want, got)
		})
	}
}

func TestListOfAndMapOf(t *testing.T) {
	order := &registry.Value{Name: "orders", Type: "Order", Values: []*registry.Value{{Name: "id", Type: "string"}}}
	list := registry.ListOf(order)
	require.Equal(t, &registry.Value{Name: "orders", Type: "[]Order", Values: order.Values}, list)
	require.Equal(t, &registry.Value{Name: "orders", Type: "map[string][]Order", Values: order.Values}, registry.MapOf(list))
	require.Equal(t, &registry.Value{Type: "Order", Values: order.Values}, registry.MapOf(list).Element().Element())
}
