package plugin

import "strings"

// KindInfo describes a kind: what listings, shell completion and generated pages are made of.
type KindInfo struct {
	Name    string       `json:"name"`
	Doc     string       `json:"doc,omitempty"`
	Default string       `json:"default,omitempty"`
	Many    bool         `json:"many,omitempty"`
	Flag    string       `json:"flag"` // what chooses
	Env     string       `json:"env"`
	Plugins []PluginInfo `json:"plugins"` // those that are linked, by name
}

// PluginInfo describes a linked plugin.
type PluginInfo struct {
	Name    string       `json:"name"`
	Doc     string       `json:"doc,omitempty"`
	Package string       `json:"package"` // the import path of the package that registered it
	Options []OptionInfo `json:"options"` // in the order of the struct
}

// OptionInfo describes one option of a plugin. The default of a secret is not shown.
type OptionInfo struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Default string `json:"default,omitempty"`
	Help    string `json:"help,omitempty"`
	Flag    string `json:"flag"`
	Env     string `json:"env"`
	Secret  bool   `json:"secret,omitempty"` // it also has Flag-file and Env_FILE
}

// Kinds lists everything, by name.
func (c *Catalog) Kinds() []KindInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	var kinds []KindInfo
	for _, k := range c.sorted() {
		info := KindInfo{Name: k.name, Doc: k.doc, Default: k.fallback, Many: k.many, Flag: "--" + k.chosenBy, Env: envName(k.chosenBy)}
		info.Plugins = make([]PluginInfo, 0, len(k.plugins))
		for _, name := range k.names() {
			info.Plugins = append(info.Plugins, k.info(k.plugins[name]))
		}
		kinds = append(kinds, info)
	}
	return kinds
}

func (k *kind) info(e *entry) PluginInfo {
	info := PluginInfo{Name: e.name, Doc: e.doc, Package: e.site.pkg(), Options: make([]OptionInfo, 0, len(e.options))}
	for _, o := range e.options {
		key := join(k.prefix(e), o.name)
		info.Options = append(info.Options, OptionInfo{
			Name: o.name, Type: o.typ, Default: o.shownDefault(), Help: o.help,
			Flag: "--" + key, Env: envName(key), Secret: o.secret,
		})
	}
	return info
}

// envName is the environment variable of a setting: MICRO_REGISTRY_ADDRESS.
func envName(key string) string {
	var b strings.Builder
	b.Grow(len("MICRO_") + len(key))
	b.WriteString("MICRO_")
	for _, c := range []byte(key) {
		switch {
		case c == '-':
			c = '_'
		case 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}

// join puts a prefix before the name of a setting. Either may be empty.
func join(prefix, name string) string {
	if prefix == "" || name == "" {
		return prefix + name
	}
	return prefix + "-" + name
}
