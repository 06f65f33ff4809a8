package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/registry"
)

func TestForeignFields(t *testing.T) {
	text := func(name string) *registry.Value { return &registry.Value{Name: name, Type: "string"} }
	order := &registry.Value{Type: "Order", Values: []*registry.Value{
		text("id"),
		{Name: "items", Type: "[]Item", Values: []*registry.Value{text("name")}},
		{Name: "rooms", Type: "map[string][]Room", Values: []*registry.Value{text("door")}},
		{Name: "labels", Type: "map[string]string"},
		{Name: "extra", Type: "any"},
		{Name: "owner", Type: "shop.Owner", Values: []*registry.Value{text("fullName")}},
		{Name: "free", Type: "google.protobuf.Struct", Values: []*registry.Value{text("fields")}},
		{Name: "page", Type: "Page[example.com/shop.Item]", Values: []*registry.Value{text("nextItem")}},
		{Name: "rule", Type: "google.protobuf.Option", Values: []*registry.Value{text("name")}},
	}}
	none := map[string]string{}
	for name, tt := range map[string]struct {
		request string
		want    map[string]string
	}{
		"all known":     {`{"ID":"1","items":[{"name":"x"}],"rooms":{"a":[{"door":"x"}]},"labels":{"a":"b"},"extra":{"a":1},"owner":{"full_name":"x","fullName":"y"}}`, none},
		"near":          {`{"idd":1}`, map[string]string{"idd": "did you mean id?"}},
		"not near":      {`{"weather":1}`, map[string]string{"weather": "it has id, items, rooms, labels, extra, owner, free, page, rule"}},
		"underscore":    {`{"i_d":1}`, map[string]string{"i_d": "did you mean id?"}},
		"in a list":     {`{"items":[{"nmae":"x"},{"nmae":"y"}]}`, map[string]string{"items.nmae": "did you mean name?"}},
		"in a map":      {`{"rooms":{"a":[{"dor":"x"}]}}`, map[string]string{"rooms.dor": "did you mean door?"}},
		"two":           {`{"idd":1,"ids":1}`, map[string]string{"idd": "did you mean id?", "ids": "did you mean id?"}},
		"well known":    {`{"free":{"anything":1}}`, none},
		"generic":       {`{"page":{"next_item":"x"}}`, map[string]string{"page.next_item": "did you mean nextItem?"}}, // which JSON does not take
		"of protobuf's": {`{"rule":{"nmae":1}}`, map[string]string{"rule.nmae": "did you mean name?"}},
		"of other type": {`{"items":1,"owner":[1],"id":null}`, none},
		"no object":     {`[{"idd":1}]`, none},
		"no JSON":       {`{`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := &call{described: []*registry.Value{order}}
			require.Equal(t, tt.want, c.foreignFields(json.RawMessage(tt.request)))
		})
	}

	one := &registry.Value{Type: "Order", Values: []*registry.Value{text("id")}}
	two := &registry.Value{Type: "Order", Values: []*registry.Value{text("id"), text("note")}}
	unknown := &registry.Value{Type: "Order"}
	request := json.RawMessage(`{"note":"x","x":1}`)
	require.Empty(t, (&call{described: []*registry.Value{one, unknown}}).foreignFields(request), "one version does not tell")
	require.Empty(t, (&call{described: []*registry.Value{one, nil}}).foreignFields(request))
	require.Empty(t, (&call{}).foreignFields(request))
	require.Equal(t, map[string]string{"x": "it has id, note"}, (&call{described: []*registry.Value{two, one}}).foreignFields(request))
	many := &registry.Value{}
	for i := range 2 * maxNamed {
		many.Values = append(many.Values, text(fmt.Sprint("field", i)))
	}
	require.True(t, strings.HasSuffix(noField("x", many), ", field9, …"), noField("x", many))
}
