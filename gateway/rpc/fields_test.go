package rpc

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/registry"
)

func field(name, kind string, values ...*registry.Value) *registry.Value {
	return &registry.Value{Name: name, Type: kind, Values: values}
}

var place = []*registry.Value{field("city", "string"), field("zip", "int")}

var message = field("", "Hello",
	field("name", "string"), field("age", "int8"), field("size", "uint64"), field("loud", "bool"), field("rate", "float64"), field("near", "float"),
	field("key", "bytes"), field("any", "any"), field("tags", "[]string"), field("nums", "[]int32"), field("flags", "[]bool"),
	field("from", "Place", place...), field("stops", "[]Place", place...), field("grid", "[][]int"),
	field("labels", "map[string]string"), field("counts", "map[string]int"), field("places", "map[string]Place", place...),
	field("state", "shop.State"), field("at", "google.protobuf.Timestamp", field("seconds", "int64"), field("nanos", "int32")),
	field("limit", "google.protobuf.Int32Value", field("value", "int32")), field("deep", "Deep", field("from", "Place", place...)),
	field("sure", "google.protobuf.BoolValue"), field("free", "google.protobuf.Struct", field("fields", "map[string]google.protobuf.Value")),
	field("times", "[]google.protobuf.Timestamp"), field("wide", "google.protobuf.UInt64Value", field("value", "uint64")),
	field("userId", "int"))

func TestMerge(t *testing.T) {
	for name, c := range map[string]struct {
		path  map[string]string
		query string
		body  string
		want  string // the JSON, or the end of the problem
	}{
		"nothing":               {nil, "", "", `{}`},
		"a string":              {nil, "name=Ada%20%22L%22", "", `{"name":"Ada \"L\""}`},
		"a number as a string":  {nil, "name=7", "", `{"name":"7"}`},
		"an empty string":       {nil, "name=", "", `{"name":""}`},
		"integers":              {nil, "age=-7&size=18446744073709551615", "", `{"age":-7,"size":18446744073709551615}`},
		"an integer too large":  {nil, "age=128", "", `parameter "age" is no integer, or too large`},
		"no integer":            {nil, "age=7.5", "", `parameter "age" is no integer, or too large`},
		"no positive integer":   {nil, "size=-1", "", `parameter "size" is no positive integer, or too large`},
		"no number at all":      {nil, "age=", "", `parameter "age" is no integer, or too large`},
		"a bool":                {nil, "loud=true", "", `{"loud":true}`},
		"no bool":               {nil, "loud=yes", "", `parameter "loud" is true or false`},
		"floats":                {nil, "rate=1e3&near=.5", "", `{"rate":1000,"near":0.5}`},
		"no float":              {nil, "rate=NaN", "", `parameter "rate" is no number, or too large`},
		"a float too large":     {nil, "near=1e300", "", `parameter "near" is no number, or too large`},
		"bytes":                 {nil, "key=_-8", "", `{"key":"/+8="}`},
		"bytes with padding":    {nil, "key=%2F%2B8%3D", "", `{"key":"/+8="}`},
		"no bytes":              {nil, "key=!", "", `parameter "key" is no base64`},
		"anything is a string":  {nil, "any=7", "", `{"any":"7"}`},
		"a list":                {nil, "tags=a&tags=b", "", `{"tags":["a","b"]}`},
		"a list of one":         {nil, "nums=1", "", `{"nums":[1]}`},
		"a list with a mistake": {nil, "nums=1&nums=x", "", `parameter "nums" is no integer, or too large`},
		"no list":               {nil, "name=a&name=b", "", `parameter "name" is given more than once, and is no list`},
		"a field of a field":    {nil, "from.city=Bonn&from.zip=53111", "", `{"from":{"city":"Bonn","zip":53111}}`},
		"deeper":                {nil, "deep.from.city=Bonn", "", `{"deep":{"from":{"city":"Bonn"}}}`},
		"a message as a whole":  {nil, "from=x", "", `parameter "from" is a message or a list in a list: give its fields as a.b, or give it in the body`},
		"a list of messages":    {nil, "stops=x", "", `parameter "stops" is a message or a list in a list: give its fields as a.b, or give it in the body`},
		"a field of a list":     {nil, "stops.city=x", "", `parameter "stops.city" goes on after stops, which has no fields`},
		"a list of lists":       {nil, "grid=1", "", `parameter "grid" is a message or a list in a list: give its fields as a.b, or give it in the body`},
		"a field of a string":   {nil, "name.x=1", "", `parameter "name.x" goes on after name, which has no fields`},
		"a map":                 {nil, "labels.env=prod&labels.a.b=c", "", `{"labels":{"a.b":"c","env":"prod"}}`},
		"a map of numbers":      {nil, "counts.x=7", "", `{"counts":{"x":7}}`},
		"a map of messages":     {nil, "places.home.zip=7", "", `{"places":{"home":{"zip":7}}}`},
		"a map as a whole":      {nil, "labels=x", "", `parameter "labels" is a message or a list in a list: give its fields as a.b, or give it in the body`},
		"an enumeration":        {nil, "state=OPEN", "", `{"state":"OPEN"}`},
		"one by its number":     {nil, "state=2", "", `{"state":2}`},
		"a time of protobuf":    {nil, "at=2026-01-02T03:04:05Z", "", `{"at":"2026-01-02T03:04:05Z"}`},
		"a wrapped integer":     {nil, "limit=5", "", `{"limit":5}`},
		"a wrapped one, wide":   {nil, "wide=18446744073709551615", "", `{"wide":18446744073709551615}`},
		"no wrapped integer":    {nil, "limit=x", "", `parameter "limit" is no integer, or too large`},
		"wrapped, undescribed":  {nil, "sure=true", "", `{"sure":true}`},
		"a list of times":       {nil, "times=2026-01-02T03:04:05Z", "", `{"times":["2026-01-02T03:04:05Z"]}`},
		"an object of any form": {nil, "free=x", "", `parameter "free" is an object or a list in JSON: give it in the body`},
		"a field of one":        {nil, "free.fields.x=1", "", `parameter "free.fields.x" goes on after free, which has no fields`},
		"no field":              {nil, "nmae=Ada", "", `parameter "nmae" is unknown: did you mean name?`},
		"another spelling":      {nil, "Name=Ada", "", `parameter "Name" is unknown: did you mean name?`},
		"no field of a field":   {nil, "from.xxxxxxx=Ada", "", `parameter "from.xxxxxxx" is unknown: the fields are city, zip`},
		"an empty name":         {nil, "=1", "", `is unknown: the fields are name, age,`},
		"too deep":              {nil, strings.Repeat("a.", 40) + "=1", "", `has too many parts`},

		"the path":                        {map[string]string{"age": "7"}, "", "", `{"age":7}`},
		"the path before the query":       {map[string]string{"age": "7"}, "age=8&name=Ada", "", `{"age":7,"name":"Ada"}`},
		"the query before the body":       {nil, "age=8", `{"age":9,"name":"Ada"}`, `{"age":8,"name":"Ada"}`},
		"the path before both":            {map[string]string{"age": "7"}, "age=8", `{"age":9}`, `{"age":7}`},
		"a wrong path":                    {map[string]string{"age": "x"}, "", "", `parameter "age" is no integer, or too large`},
		"a path with no such field":       {map[string]string{"id": "x"}, "", "", `parameter "id" is unknown`},
		"the path and query, deep":        {map[string]string{"from.city": "Bonn"}, "from.zip=1&from.city=Ulm", "", `{"from":{"city":"Bonn","zip":1}}`},
		"a body, deep":                    {nil, "from.city=Bonn", `{"from":{"city":"Ulm","zip":1}}`, `{"from":{"city":"Bonn","zip":1}}`},
		"a body that is no object there":  {nil, "from.city=Bonn", `{"from":7}`, `{"from":{"city":"Bonn"}}`},
		"another spelling in the body":    {map[string]string{"userId": "1"}, "", `{"userid":2,"USERID":3,"name":"Ada"}`, `{"name":"Ada","userId":1}`},
		"and one that folds":              {map[string]string{"key": "AA"}, "", "{\"\u212Aey\":\"BB\"}", `{"key":"AA=="}`},
		"another spelling, deep":          {map[string]string{"from.city": "Bonn"}, "", `{"FROM":{"City":"Ulm","zip":1}}`, `{"from":{"city":"Bonn","zip":1}}`},
		"a body with numbers of any size": {nil, "name=Ada", `{"x":12345678901234567890.5}`, `{"name":"Ada","x":12345678901234567890.5}`},
		"a body that is a list":           {nil, "name=Ada", `[1]`, `the body is no JSON object, to which fields of the path and the query could be added`},
		"a body that is null":             {nil, "name=Ada", `null`, `{"name":"Ada"}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := merge(message, c.path, c.query, []byte(c.body))
			if !strings.HasPrefix(c.want, "{") {
				require.Error(t, err)
				require.Equal(t, 400, gateway.ProblemOf(err).Status)
				require.Contains(t, err.Error(), c.want)
				return
			}
			require.NoError(t, err)
			require.JSONEq(t, c.want, string(got))
			if !strings.Contains(c.want, "12345678901234567890") {
				return
			}
			require.Equal(t, c.want, string(got), "no digit is lost")
		})
	}
}

func TestMergeNeedsFields(t *testing.T) {
	for _, m := range []*registry.Value{nil, {Type: "any"}, {Type: "bytes"}, {Type: ""}, {Type: "[]Place", Values: place}} {
		_, err := merge(m, nil, "name=Ada", nil)
		require.ErrorContains(t, err, `parameter "name" is unknown: no fields are registered`)
	}
	got, err := merge(&registry.Value{Type: "map[string]int"}, nil, "a=1&b.c=2", nil)
	require.NoError(t, err)
	require.JSONEq(t, `{"a":1,"b.c":2}`, string(got))
}

// FuzzMerge: what comes out is an object in JSON that has what the path said, or it is the client's mistake.
func FuzzMerge(f *testing.F) {
	f.Add("name", "Ada", "age=7&from.city=Bonn", `{"NAME":"x"}`)
	f.Add("from.city", "Bonn", "from.zip=1", `{"from":{"CITY":1}}`)
	f.Add("labels.a.b", "c", "labels.a=d", `{"labels":null}`)
	f.Add("", "", "tags=a&tags=b&key=_-8&rate=1e9", `{}`)
	f.Add("userId", "1", "stops=1", `{"userid":2}`)
	f.Fuzz(func(t *testing.T, name, value, query, body string) {
		path := map[string]string{}
		if name != "" {
			path[name] = value
		}
		got, err := merge(message, maps.Clone(path), query, []byte(body))
		if err != nil {
			require.Equal(t, 400, gateway.ProblemOf(err).Status)
			return
		}
		var o map[string]any
		require.NoError(t, json.Unmarshal(got, &o), string(got))
		if name == "name" || name == "userId" {
			require.Contains(t, o, name)
			for other := range o {
				require.False(t, other != name && strings.EqualFold(other, name), string(got))
			}
		}
		if name == "name" {
			require.Equal(t, strings.ToValidUTF8(value, "�"), strings.ToValidUTF8(o[name].(string), "�"))
		}
	})
}

// TestMergeOfMany takes half a minute where each parameter is compared with each field of the body.
func TestMergeOfMany(t *testing.T) {
	message := &registry.Value{Type: "M", Values: []*registry.Value{{Name: "l", Type: "map[string]string"}}}
	query, body := new(strings.Builder), new(strings.Builder)
	for i := range 7000 {
		fmt.Fprintf(query, "&l.%d=1", i)
	}
	body.WriteString(`{"l":{"x":0`)
	for i := range 200_000 {
		fmt.Fprintf(body, `,"%d":0`, i+10_000)
	}
	body.WriteString("}}")
	merged, err := merge(message, nil, query.String()[1:], []byte(body.String()))
	require.NoError(t, err)
	require.Equal(t, 207_001, strings.Count(string(merged), ":")-1)
}

func TestFold(t *testing.T) {
	names := []string{"name", "NAME", "Name", "ſ", "s", "S", "\u212a", "k", "K", "é", "É", "ß", "ẞ", "ss", "İ", "i", "I", "ı", ""}
	for _, a := range names {
		for _, b := range names {
			require.Equal(t, strings.EqualFold(a, b), fold(a) == fold(b), "%q %q", a, b)
		}
	}
}
