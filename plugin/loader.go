package plugin

import (
	"fmt"
	"reflect"
)

const (
	fileSuffix = "-file"  // of the key that names a file with a secret
	configKey  = "config" // of the settings file
)

// Loader gathers settings: of the program's own structs, and of the plugins of a catalog. First comes what the program
// says in code (Section, Set, Provide), then AddFlags or Parse, then Load. A mistake in code panics, one of the user is
// an error of Load. Not safe for concurrent use.
type Loader struct {
	catalog  *Catalog
	sections []section
	code     map[string]string
	provided map[*kind][]any
	keys     *keys // made when the flags are, or by Load
	flags    map[*key][]string
	args     problems  // what was wrong with them
	unknown  []unknown // flags
	shared   bool      // IgnoreForeign
	strict   bool      // Strict
	passed   []string  // PassOver
}

// section is one struct of settings that belong to no plugin.
type section struct {
	prefix  string
	target  reflect.Value
	initial reflect.Value // as it was handed in: the defaults of the program's author
	options []option
}

// NewLoader begins with nothing but the plugins of c: Linked, unless for tests and embedders.
func NewLoader(c *Catalog) *Loader {
	return &Loader{catalog: c, code: map[string]string{}, provided: map[*kind][]any{}, flags: map[*key][]string{}}
}

// Section adds settings that belong to no plugin. The struct that settings points to is built like one of a plugin;
// what it holds already counts as set in code, and Load fills it. With the prefix "gateway" its field Address is
// --gateway-address, MICRO_GATEWAY_ADDRESS and the file's gateway: {address: …}; with "" it is --address.
func (l *Loader) Section(prefix string, settings any) {
	if l.keys != nil {
		panic("plugin: Section comes before AddFlags, Parse and Load")
	}
	target := reflect.ValueOf(settings)
	if target.Kind() != reflect.Pointer || target.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("plugin: Section(%q): settings must point to a struct, not be %T", prefix, settings))
	}
	if prefix != "" && !wellFormed(prefix) {
		panic(fmt.Sprintf("plugin: Section(%q): a prefix is lower-case letters and digits, in words joined by dashes", prefix))
	}
	target = target.Elem()
	options, err := optionsOf(target.Type())
	if err != nil {
		panic(fmt.Sprintf("plugin: Section(%q): %s: %v", prefix, target.Type(), err))
	}
	initial := reflect.New(target.Type()).Elem()
	initial.Set(target)
	l.sections = append(l.sections, section{prefix, target, initial, options})
}

// IgnoreForeign passes over keys of the file and variables that mean nothing here, for a program that reads the
// settings of others: they may be those of a section that the other has. What is under the name of a kind or section
// of this program is still checked, and a name that nearly is one gets a warning.
func (l *Loader) IgnoreForeign() { l.shared = true }

// Strict makes errors of what Load otherwise warns of, for a program that must not run without what somebody meant to set,
// such as one that guards others: variables that mean nothing, but those that IgnoreForeign passes over, and with it all
// names, in the file and of variables, that nearly are a kind's, a section's or one of theirs.
func (l *Loader) Strict() { l.strict = true }

// PassOver passes over what is under these names, in the file and in variables, where it means nothing here: the sections
// of another program that is known to share them.
func (l *Loader) PassOver(names ...string) { l.passed = append(l.passed, names...) }

// Set gives a value in code: Set("registry", "consul"), Set("registry-address", "10.0.0.1:8500"). File, environment and
// flags override it; and what it says about the options of a plugin does not count when they choose another plugin.
func (l *Loader) Set(key, value string) { l.code[key] = value }

// Provide passes in an instance for kind T. It is used unless a name is given by file, environment or flag, and it is
// the caller's to close. Several can be provided for a kind with Many. It panics if T is no kind, or instance is nil.
func Provide[T any](l *Loader, instance T) {
	t := reflect.TypeFor[T]()
	k := l.catalog.kindOf(t)
	switch {
	case k == nil:
		panic(fmt.Sprintf("plugin: Provide at %s: %s is not a kind", caller(), t))
	case any(instance) == nil:
		panic(fmt.Sprintf("plugin: Provide at %s: the %s is nil", caller(), k.name))
	case k.many:
		l.provided[k] = append(l.provided[k], instance)
	default:
		l.provided[k] = []any{instance}
	}
}
