package router

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

// fields are the keys of a mapping, each with what reads its value.
type fields map[string]func(*yaml.Node)

func (p *parser) mapping(n *yaml.Node, known fields) {
	p.pairs(n, func(key, value *yaml.Node) {
		read, ok := known[key.Value]
		if !ok {
			p.fail(key, "unknown key %q: %s", key.Value, didYouMean(key.Value, slices.Sorted(maps.Keys(known))))
			return
		}
		read(value)
	})
}

// complete reads a mapping, and tells what it wants if that is not there and nothing else is wrong with it.
func (p *parser) complete(n *yaml.Node, known fields, has func() bool, wants string) {
	before := len(p.errs)
	p.mapping(n, known)
	if len(p.errs) == before && !has() {
		p.fail(n, "%s", wants)
	}
}

// pairs calls f for each pair of a mapping.
func (p *parser) pairs(n *yaml.Node, f func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		p.fail(n, "a mapping is wanted here: key: value")
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode:
			p.fail(key, "a key is a plain name")
		case seen[key.Value]:
			p.fail(key, "%q is there twice: leave one", key.Value)
		case value.Kind == yaml.AliasNode:
			p.fail(value, "aliases are not supported: write the value out")
		default:
			seen[key.Value] = true
			f(key, value)
		}
	}
}

func didYouMean(name string, known []string) string {
	if near := nearest.Name(name, known); near != "" {
		return fmt.Sprintf("did you mean %s?", near)
	}
	return "known are " + strings.Join(known, ", ")
}

// each reads a list, item by item; what is no list is its only item.
func (p *parser) each(f func(*yaml.Node)) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			f(n)
			return
		}
		for _, item := range n.Content {
			if item.Kind == yaml.AliasNode {
				p.fail(item, "aliases are not supported: write the value out")
				continue
			}
			f(item)
		}
	}
}

// text calls f with a plain value; its error is about that value.
func (p *parser) text(f func(string) error) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			p.fail(n, "a plain value is wanted here")
			return
		}
		if err := f(n.Value); err != nil {
			p.fail(n, "%v", err)
		}
	}
}

func (p *parser) texts(list *[]string, check func(string) error) func(*yaml.Node) {
	return p.each(p.text(func(s string) error {
		*list = append(*list, s)
		return check(s)
	}))
}

func (p *parser) string(s *string, check func(string) error) func(*yaml.Node) {
	return p.text(func(v string) error {
		*s = v
		return check(v)
	})
}

func anything(string) error { return nil }

func (p *parser) int(i *int, least, most int) func(*yaml.Node) {
	return p.text(func(s string) error {
		v, err := strconv.Atoi(s)
		if err != nil || v < least || v > most {
			return fmt.Errorf("%q is not a whole number from %d to %d", s, least, most)
		}
		*i = v
		return nil
	})
}

func (p *parser) bool(b *bool) func(*yaml.Node) {
	return p.text(func(s string) (err error) {
		if *b, err = strconv.ParseBool(s); err != nil {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		return nil
	})
}

func (p *parser) duration(d *time.Duration) func(*yaml.Node) {
	return p.text(func(s string) (err error) {
		if *d, err = time.ParseDuration(s); err != nil || *d <= 0 {
			return fmt.Errorf("%q is no duration: write it like 300ms, 5s or 1h30m", s)
		}
		return nil
	})
}

func (p *parser) size(n *int64) func(*yaml.Node) {
	return p.text(func(s string) error {
		var size plugin.Size
		if err := size.UnmarshalText([]byte(s)); err != nil {
			return fmt.Errorf("%q is %w", s, err)
		}
		*n = int64(size)
		return nil
	})
}
