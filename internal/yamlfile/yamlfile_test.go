package yamlfile_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/plugmicro/micro/internal/yamlfile"
)

// settings are what the file of the tests says.
type settings struct {
	name  string
	names []string
	limit int
	on    bool
	wait  time.Duration
	size  int64
	sub   map[string]string
}

func read(text string) (s settings, err error) {
	s.sub = make(map[string]string)
	err = yamlfile.Read("f", []byte(text), "write something", func(f *yamlfile.File, root *yaml.Node) {
		f.Complete(root, yamlfile.Fields{
			"name":  f.String(&s.name, yamlfile.Anything),
			"names": f.Texts(&s.names, short),
			"limit": f.Int(&s.limit, 1, 9),
			"on":    f.Bool(&s.on),
			"wait":  f.Duration(&s.wait),
			"size":  f.Size(&s.size),
			"sub": func(n *yaml.Node) {
				f.Later(func() {
					f.Pairs(n, func(key, value *yaml.Node) { s.sub[key.Value] = value.Value })
				})
			},
		}, func() bool { return len(root.Content) > 0 }, "it says nothing")
	})
	return s, err
}

func short(s string) error {
	if len(s) > 3 {
		return errors.New(s + " is long")
	}
	return nil
}

func TestRead(t *testing.T) {
	want := settings{"a", []string{"b", "c"}, 5, true, time.Second, 2048, map[string]string{"x": "1"}}
	for _, text := range []string{
		"name: a\nnames: [b, c]\nlimit: 5\non: true\nwait: 1s\nsize: 2KiB\nsub: {x: 1}\n",
		"{\n\t\"name\": \"a\",\n\t\"names\": [\"b\", \"c\"], \"limit\": 5, \"on\": true, \"wait\": \"1s\", \"size\": \"2KiB\", \"sub\": {\"x\": 1}\n}",
	} {
		got, err := read(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	got, err := read(`{"name": "\ud83d\ude00\u0041", "sub": {"` + strings.Repeat("k", 2000) + `": null}}`)
	require.NoError(t, err)
	require.Equal(t, "😀A", got.name)
	require.Equal(t, map[string]string{strings.Repeat("k", 2000): "null"}, got.sub)
	got, err = read("names: b")
	require.NoError(t, err)
	require.Equal(t, []string{"b"}, got.names, "a list of one may be written without brackets")
}

func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "f:1: it is empty: write something",
		"# nothing":                          "f:1: it is empty: write something",
		"name: a\n b: c":                     "f:2: mapping values are not allowed in this context",
		"\tname: a":                          "f:1: found character that cannot start any token",
		"name: a\n---\nname: b":              "f:2: a file has one document: leave one",
		"{}":                                 "f:1: it says nothing",
		"[a]":                                "f:1: a mapping is wanted here: key: value",
		"nam: a":                             `f:1: unknown key "nam": did you mean name?`,
		"zzz: a":                             `f:1: unknown key "zzz": known are limit, name, names, on, size, sub, wait`,
		"name: a\nname: b":                   `f:2: "name" is there twice: leave one`,
		"[a]: b":                             "f:1: a key is a plain name",
		"name: [a]":                          "f:1: a plain value is wanted here",
		"name:":                              "f:1: a plain value is wanted here",
		"name: &a x\nnames: *a":              "f:2: aliases are not supported: write the value out",
		"name: &a x\nnames:\n- *a":           "f:3: aliases are not supported: write the value out",
		"{\"name\": \"a\",\n\n\"nam\":\n7}":  `f:3: unknown key "nam": did you mean name?`,
		"{\"name\": null,\n\"name\": \"b\"}": "f:1: a plain value is wanted here\nf:2: \"name\" is there twice: leave one",
		"{\n\"limit\": 1.5, \"on\": 1,\n\"wait\": \"x\"}": "f:2: \"1.5\" is not a whole number from 1 to 9\nf:3: \"x\" is no duration: write it like 300ms, 5s or 1h30m",
		"{name: a,}\n}":               "f:1: did not find expected <document start>",
		"limit: 10":                   `f:1: "10" is not a whole number from 1 to 9`,
		"on: 7":                       `f:1: "7" is neither true nor false`,
		"wait: -1s":                   `f:1: "-1s" is no duration: write it like 300ms, 5s or 1h30m`,
		"sub: a\nnames: [long, more]": "f:1: a mapping is wanted here: key: value\nf:2: long is long\nf:2: more is long",
	} {
		t.Run(text, func(t *testing.T) {
			_, err := read(text)
			require.EqualError(t, err, want)
		})
	}
}

func TestShorten(t *testing.T) {
	_, err := read("names:\n" + strings.Repeat("- long\n", 5))
	require.EqualError(t, yamlfile.Shorten(err, 2), "f:2: long is long\nf:3: long is long\nf: and 3 more")
	require.Equal(t, err.Error(), yamlfile.Shorten(err, 5).Error())
	other := errors.New("other")
	require.Equal(t, other, yamlfile.Shorten(other, 1))
	require.NoError(t, yamlfile.Shorten(nil, 1))
}

// FuzzJSON has all JSON read, and no file hurt.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"name": "a", "names": ["b", {"c": [null, true, 1.5e3]}], "sub": {}}`))
	f.Add([]byte("{\n\t\"name\": \"\\ud83d\"\n}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		err := yamlfile.Read("f", data, "", func(_ *yamlfile.File, root *yaml.Node) { require.NotZero(t, root.Kind) })
		if bytes.HasPrefix(data, []byte("{")) && json.Valid(data) {
			require.NoError(t, err)
		}
	})
}
