package yamlfile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/plugmicro/micro/internal/nearest"
	"github.com/plugmicro/micro/plugin"
)

// Fields are the keys of a mapping, each with what reads its value.
type Fields map[string]func(*yaml.Node)

// Mapping reads a mapping. A key that is not known is a mistake.
func (f *File) Mapping(n *yaml.Node, known Fields) {
	f.Pairs(n, func(key, value *yaml.Node) {
		read, ok := known[key.Value]
		if !ok {
			f.Fail(key, "unknown key %q: %s", key.Value, DidYouMean(key.Value, slices.Sorted(maps.Keys(known))))
			return
		}
		read(value)
	})
}

// Complete reads a mapping, and tells what it wants if that is not there and nothing else is wrong with it.
func (f *File) Complete(n *yaml.Node, known Fields, has func() bool, wants string) {
	before := f.Failed()
	f.Mapping(n, known)
	if f.Failed() == before && !has() {
		f.Fail(n, "%s", wants)
	}
}

// Pairs calls read for each pair of a mapping.
func (f *File) Pairs(n *yaml.Node, read func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		f.Fail(n, "a mapping is wanted here: key: value")
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode:
			f.Fail(key, "a key is a plain name")
		case seen[key.Value]:
			f.Fail(key, "%q is there twice: leave one", key.Value)
		case value.Kind == yaml.AliasNode:
			f.failAlias(value)
		default:
			seen[key.Value] = true
			read(key, value)
		}
	}
}

func (f *File) failAlias(n *yaml.Node) {
	f.Fail(n, "aliases are not supported: write the value out")
}

// DidYouMean ends an error about a name that is not among the known ones.
func DidYouMean(name string, known []string) string {
	if near := nearest.Name(name, known); near != "" {
		return fmt.Sprintf("did you mean %s?", near)
	}
	return "known are " + strings.Join(known, ", ")
}

// Each reads a list, item by item; what is no list is its only item.
func (f *File) Each(read func(*yaml.Node)) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			read(n)
			return
		}
		for _, item := range n.Content {
			if item.Kind == yaml.AliasNode {
				f.failAlias(item)
				continue
			}
			read(item)
		}
	}
}

// Text calls read with a plain value; its error is about that value.
func (f *File) Text(read func(string) error) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			f.Fail(n, "a plain value is wanted here")
			return
		}
		if err := read(n.Value); err != nil {
			f.Fail(n, "%v", err)
		}
	}
}

// Texts adds the plain values of a list that pass check.
func (f *File) Texts(list *[]string, check func(string) error) func(*yaml.Node) {
	return f.Each(f.Text(func(s string) error {
		*list = append(*list, s)
		return check(s)
	}))
}

// String reads a plain value that passes check.
func (f *File) String(s *string, check func(string) error) func(*yaml.Node) {
	return f.Text(func(v string) error {
		*s = v
		return check(v)
	})
}

// Anything is a check that all pass.
func Anything(string) error { return nil }

// Int reads a whole number within both bounds.
func (f *File) Int(i *int, least, most int) func(*yaml.Node) {
	return f.Text(func(s string) error {
		v, err := strconv.Atoi(s)
		if err != nil || v < least || v > most {
			return fmt.Errorf("%q is not a whole number from %d to %d", s, least, most)
		}
		*i = v
		return nil
	})
}

// Bool reads true or false.
func (f *File) Bool(b *bool) func(*yaml.Node) {
	return f.Text(func(s string) (err error) {
		if *b, err = strconv.ParseBool(s); err != nil {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		return nil
	})
}

// Duration reads a time of more than 0.
func (f *File) Duration(d *time.Duration) func(*yaml.Node) {
	return f.Text(func(s string) (err error) {
		if *d, err = time.ParseDuration(s); err != nil || *d <= 0 {
			return fmt.Errorf("%q is no duration: write it like 300ms, 5s or 1h30m", s)
		}
		return nil
	})
}

// Size reads a number of bytes, with a unit as plugin.Size has it.
func (f *File) Size(n *int64) func(*yaml.Node) {
	return f.Text(func(s string) error {
		var size plugin.Size
		if err := size.UnmarshalText([]byte(s)); err != nil {
			return fmt.Errorf("%q is %w", s, err)
		}
		*n = int64(size)
		return nil
	})
}
