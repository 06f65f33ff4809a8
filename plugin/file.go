package plugin

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds, in bytes, the settings file and files with secrets.
const maxFile = 1 << 20

// maxUnknown bounds how many unknown keys of a file are reported: it may not be a settings file at all.
const maxUnknown = 20

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the file: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %s", path, Size(maxFile))
	}
	return data, nil
}

// file turns a YAML document into values. A mapping in a mapping is a prefix: registry: {address: x} is
// registry-address, and registry: consul is registry: {plugin: consul}.
type file struct {
	path     string
	catalog  *Catalog
	keys     *keys
	values   map[string]value
	unknown  []unknown
	problems problems
}

func (f *file) parse(data []byte) {
	decoder := yaml.NewDecoder(strings.NewReader(string(data)))
	var doc yaml.Node
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return
	case err != nil:
		advice := "correct the YAML"
		if tabIndent.Match(data) {
			advice = "indent with spaces, not with tabs"
		}
		f.problems.add("%s: %s: %s", f.path, withoutContent(err), advice)
		return
	}
	if decoder.Decode(new(yaml.Node)) != io.EOF {
		f.problems.add("%s: more than one document: leave one", f.path)
	}
	switch root := doc.Content[0]; {
	case root.Kind == yaml.MappingNode:
		f.mapping("", root)
	case root.Tag != "!!null":
		f.problems.add("%s: not a mapping: write one setting a line, name: value", f.at(root))
	}
}

var tabIndent = regexp.MustCompile(`(?m)^ *\t`)

// withoutContent drops what an error of the YAML parser quotes from the file, which may be part of a secret.
func withoutContent(err error) string {
	text, _, _ := strings.Cut(err.Error(), "'")
	return strings.TrimSpace(text)
}

func (f *file) at(n *yaml.Node) string { return fmt.Sprintf("%s:%d", f.path, n.Line) }

func (f *file) mapping(prefix string, n *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, v := n.Content[i], n.Content[i+1]
		if name.Kind != yaml.ScalarNode || name.Value == "" {
			f.problems.add("%s: a key is a plain name", f.at(name))
			continue
		}
		f.entry(join(prefix, strings.ReplaceAll(name.Value, "_", "-")), name, v)
	}
}

func (f *file) entry(name string, at, v *yaml.Node) {
	where := value{layer: fromFile, where: f.at(at)}
	isMapping, isNull := v.Kind == yaml.MappingNode, v.Tag == "!!null"
	if k := f.catalog.kinds[strings.TrimSuffix(name, "-plugin")]; k != nil && !isMapping {
		name = k.chosenBy
	}
	key := f.keys.byName[name]
	member := f.keys.under(name)
	isGroup := f.catalog.kinds[name] != nil || member != ""
	var err error
	switch {
	case v.Kind == yaml.AliasNode:
		f.problems.add("%s: aliases are not supported (%s): write the value out", name, where.origin())
		return
	case isMapping && isGroup && (key == nil || key.typ != "map"):
		f.mapping(name, v)
		return
	case key == nil && isGroup && isNull:
		return
	case key == nil && isGroup:
		f.problems.add("%s: it is a group of settings: write  %s: {%s: …}  (%s)", name, at.Value, member, where.origin())
		return
	case name == configKey:
		f.problems.add("%s: the file cannot name another: remove it (%s)", name, where.origin())
		return
	case key == nil:
		f.unknown = append(f.unknown, unknown{name, where})
		return
	case isNull:
		return // an empty key counts as not set
	case v.Kind == yaml.ScalarNode:
		where.items = []string{v.Value}
	case isMapping && key.typ != "map":
		err = fmt.Errorf("a %s is wanted, not a mapping", key.typeShown())
	default:
		where.native = true
		where.items, err = items(v)
	}
	if other, ok := f.values[name]; ok && err == nil {
		err = fmt.Errorf("set twice, first by %s: leave one", other.origin())
	}
	if err != nil {
		f.problems.add("%s: %w (%s)", name, err, where.origin())
		return
	}
	f.values[name] = where
}

// items are the elements of a list, or the pairs of a map as k=v.
func items(n *yaml.Node) ([]string, error) {
	items := []string{}
	for i, item := range n.Content {
		if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
			return nil, errors.New("lists and maps hold plain values only")
		}
		isKey := n.Kind == yaml.MappingNode && i%2 == 0
		switch {
		case isKey && strings.Contains(item.Value, "="):
			return nil, errors.New("the keys of a map cannot hold an equals sign")
		case n.Kind == yaml.MappingNode && !isKey:
			items[len(items)-1] += "=" + item.Value
		default:
			items = append(items, item.Value)
		}
	}
	return items, nil
}
