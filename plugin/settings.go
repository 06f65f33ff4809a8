package plugin

import (
	"reflect"
	"slices"
)

// layer is where a value comes from. A higher one overrides a lower one, setting by setting.
type layer int

const (
	fromDefault layer = iota
	fromCode
	fromFile
	fromEnv
	fromFlag
)

// value is what one layer says about one key.
type value struct {
	items  []string
	native bool // a list or map of the file: not to be split at commas
	inCode bool // the program's struct holds it already; items show it
	layer  layer
	where  string // /etc/micro.yaml:12, MICRO_REGISTRY, --registry
}

func (v value) origin() string {
	switch v.layer {
	case fromDefault:
		return "default"
	case fromCode:
		return "code"
	case fromFile:
		return "file " + v.where
	case fromEnv:
		return "environment " + v.where
	}
	return "flag " + v.where
}

// unknown is a key that means nothing, and where it stands.
type unknown struct {
	name string
	at   value
}

// Settings is the outcome of Load: everything that is set, checked, and the plugins that were chosen. It does not change.
type Settings struct {
	catalog  *Catalog
	list     []Setting
	warnings []string
	chosen   map[*kind][]*choice
	provided map[*kind][]any
}

// Setting is one effective setting: a choice, an option of a chosen plugin, or one of the program.
type Setting struct {
	Key     string `json:"key"`   // the name of the flag; nested keys of the file joined by dashes
	Value   string `json:"value"` // *** if it is a secret that is set
	Origin  string `json:"origin"`
	Default string `json:"default,omitempty"`
	Help    string `json:"help,omitempty"`
	Env     string `json:"env"`
}

// choice is a chosen plugin with its settings.
type choice struct {
	kind    *kind
	entry   *entry
	config  reflect.Value
	origins string   // where the settings came from, for errors
	secrets []string // not to be shown in errors
}

// All lists the effective settings: the program's, then kind by kind.
func (s *Settings) All() []Setting { return slices.Clone(s.list) }

// Warnings are to be logged: environment variables that begin with MICRO_ and mean nothing, and with IgnoreForeign
// what is nearly a setting. There are none after Strict.
func (s *Settings) Warnings() []string { return slices.Clone(s.warnings) }

// Chosen names the plugins that were chosen for a kind; none if an instance was passed in.
func (s *Settings) Chosen(kind string) []string {
	var names []string
	for _, c := range s.chosen[s.catalog.kinds[kind]] {
		names = append(names, c.entry.name)
	}
	return names
}
