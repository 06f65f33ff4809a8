package plugin

import (
	"fmt"
	"strings"
)

// key is one name under which something can be set: a choice, an option of plugins, or a setting of the program.
type key struct {
	name   string
	kind   *kind    // nil: a setting of the program
	owners []*entry // the plugins that have the option; nil for a choice
	typ    string   // "value" where owners differ
	def    string   // "" where owners differ
	help   string
	secret bool
	texts  []optionText // what each owner says of it, the same but once
}

// optionText is what some of the plugins that have an option say of it.
type optionText struct {
	owners    []string
	help, def string
}

// addText adds what owner says.
func (k *key) addText(owner *entry, o option) {
	def := o.shownDefault()
	for i, t := range k.texts {
		if t.help == o.help && t.def == def {
			k.texts[i].owners = append(t.owners, owner.name)
			return
		}
	}
	k.texts = append(k.texts, optionText{[]string{owner.name}, o.help, def})
}

func (k *key) isOption() bool { return len(k.owners) > 0 }

// typeShown is the type for people who know no Go.
func (k *key) typeShown() string {
	if strings.HasPrefix(k.typ, "[]") {
		return "list"
	}
	return k.typ
}

func (k *key) usage() string {
	text := k.help
	if k.isOption() && !k.kind.many {
		text = k.ownUsage()
	}
	return strings.TrimSpace(text + " [" + envName(k.name) + "]")
}

// ownUsage says it plugin by plugin where they differ, with their defaults if those do.
func (k *key) ownUsage() string {
	var texts []string
	for _, t := range k.texts {
		text := strings.Join(t.owners, ", ")
		if t.help != "" {
			text += ": " + t.help
		}
		if len(k.texts) > 1 && k.def == "" && t.def != "" {
			text += " (default " + t.def + ")"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

func (k *key) ownerNames() []string {
	names := make([]string, len(k.owners))
	for i, e := range k.owners {
		names[i] = e.name
	}
	return names
}

// show is the text of a value as far as anybody may see it.
func (k *key) show(items []string) string {
	if k.secret && len(items) > 0 {
		return mask
	}
	shown := make([]string, len(items))
	for i, item := range items {
		shown[i] = maskURLs(item)
	}
	return strings.Join(shown, ",")
}

// keys is everything that can be set, in the order of the listing.
type keys struct {
	list   []*key
	byName map[string]*key
}

// index freezes the catalog and lists all keys, once.
func (l *Loader) index() *keys {
	if l.keys != nil {
		return l.keys
	}
	l.catalog.freeze()
	kinds := l.catalog.sorted()
	x := newKeys(kinds)
	x.add(&key{name: configKey, typ: "string", help: "settings file, YAML"})
	for _, s := range l.sections {
		x.addOptions(s.prefix, nil, nil, s.options)
	}
	for _, k := range kinds {
		typ := "string"
		if k.many {
			typ = "[]string"
		}
		names := k.names()
		if k.optional {
			names = append(names, nothing)
		}
		help := "which " + k.name + ": " + strings.Join(names, ", ")
		x.add(&key{name: k.chosenBy, kind: k, typ: typ, def: k.fallback, help: help})
		for _, name := range k.names() {
			e := k.plugins[name]
			x.addOptions(k.prefix(e), k, e, e.options)
		}
	}
	l.keys = x
	return x
}

// newKeys makes room for as many keys as the plugins can have.
func newKeys(kinds []*kind) *keys {
	n := 0
	for _, k := range kinds {
		most := 0
		for _, e := range k.plugins {
			if k.many {
				n += len(e.options)
			}
			most = max(most, len(e.options))
		}
		n += 2 * most
	}
	return &keys{list: make([]*key, 0, n), byName: make(map[string]*key, n)}
}

// addOptions adds those of a plugin, or of the program, which is no owner.
func (x *keys) addOptions(prefix string, k *kind, owner *entry, options []option) {
	for _, o := range options {
		name := join(prefix, o.name)
		x.addOption(name, k, owner, o)
		if o.secret {
			x.addOption(name+fileSuffix, k, owner, option{typ: "string", help: "file that holds " + o.name})
		}
	}
}

// addOption merges the options of one name that several plugins of a kind have.
func (x *keys) addOption(name string, k *kind, owner *entry, o option) {
	old := x.byName[name]
	if old == nil || k == nil || old.kind != k || k.many || !old.isOption() {
		added := &key{name: name, kind: k, typ: o.typ, def: o.shownDefault(), help: o.help, secret: o.secret}
		if owner != nil {
			added.owners = []*entry{owner}
			added.addText(owner, o)
		}
		x.add(added)
		return
	}
	old.owners = append(old.owners, owner)
	old.addText(owner, o)
	old.secret = old.secret || o.secret
	if old.typ != o.typ {
		old.typ = "value"
	}
	if old.def != o.shownDefault() {
		old.def = ""
	}
}

// add panics on a name that is taken: that is a mistake in the program.
func (x *keys) add(k *key) {
	if old := x.byName[k.name]; old != nil {
		panic(fmt.Sprintf("plugin: two settings are called %q: %s, and %s", k.name, old.describe(), k.describe()))
	}
	x.byName[k.name] = k
	x.list = append(x.list, k)
}

func (k *key) describe() string {
	switch {
	case k.kind == nil:
		return "one of the program"
	case !k.isOption():
		return "the choice of " + k.kind.name
	}
	return fmt.Sprintf("one of %s/%s", k.kind.name, k.owners[0].name)
}

// names are all keys.
func (x *keys) names() []string {
	names := make([]string, len(x.list))
	for i, k := range x.list {
		names[i] = k.name
	}
	return names
}

// under is what follows prefix and a dash in the first key that begins so; "" if none does.
func (x *keys) under(prefix string) string {
	for _, k := range x.list {
		if rest, ok := strings.CutPrefix(k.name, prefix+"-"); ok {
			return rest
		}
	}
	return ""
}

// groups are the names that mappings of the file can have: what stands before a dash.
func (x *keys) groups() []string {
	var names []string
	for _, k := range x.list {
		for i, c := range k.name {
			if c == '-' {
				names = append(names, k.name[:i])
			}
		}
	}
	return names
}
