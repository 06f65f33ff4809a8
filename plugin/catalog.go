package plugin

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Linked is the catalog of this program: everything that its imports declared and registered.
var Linked = NewCatalog()

// Catalog holds kinds and their plugins. The first Loader that looks into it freezes it. Safe for concurrent use.
type Catalog struct {
	mu     sync.Mutex
	frozen bool
	kinds  map[string]*kind
	types  map[reflect.Type]*kind
}

// NewCatalog is for tests and for programs that embed this one; everybody else uses Linked without naming it.
func NewCatalog() *Catalog {
	return &Catalog{kinds: map[string]*kind{}, types: map[reflect.Type]*kind{}}
}

// Kind is one sort of plugin: T is its contract, usually an interface.
type Kind[T any] struct{ kind *kind }

// kind is a Kind without its type. Everything but the plugins and the fallback is fixed when it is declared.
type kind struct {
	catalog  *Catalog
	name     string
	doc      string
	chosenBy string   // the setting that chooses
	fallback string   // what is chosen when nobody chooses
	known    []string // plugins that exist in folders beside the contract, linked or not
	many     bool
	optional bool
	contract reflect.Type
	site     site
	plugins  map[string]*entry
}

// entry is one registered plugin: all that an unchosen one costs.
type entry struct {
	name    string
	doc     string
	site    site
	config  reflect.Type
	options []option
	open    func(env *Env, config any) (any, error)
}

// KindOption describes a kind.
type KindOption func(*kind)

// KindDoc is the one line that listings show.
func KindDoc(line string) KindOption { return func(k *kind) { k.doc = line } }

// Known names the plugins that exist in folders beside the contract, so that choosing one that is not linked is
// answered with the import to add.
func Known(names ...string) KindOption { return func(k *kind) { k.known = names } }

// Many lets several plugins be chosen at once, as a list whose order counts. The name of the plugin then is part of
// its options: --middleware-ipallow-allow.
func Many() KindOption { return func(k *kind) { k.many = true } }

// nothing is how nothing is chosen of a kind that is Optional.
const nothing = "none"

// Optional lets none be chosen, which is the default then: `none`, by whatever way, chooses nothing, and the options that
// are set for a plugin do not matter. Such a kind is opened by OpenOptional.
func Optional() KindOption {
	return func(k *kind) { k.optional, k.fallback = true, nothing }
}

// ChosenBy renames the setting that chooses: ChosenBy("gateway-middleware") gives --gateway-middleware.
func ChosenBy(setting string) KindOption { return func(k *kind) { k.chosenBy = setting } }

// NewKind declares a kind in Linked, once, beside its contract. It panics on a name that is taken or malformed.
func NewKind[T any](name string, opts ...KindOption) *Kind[T] {
	return &Kind[T]{Linked.declare(reflect.TypeFor[T](), name, opts, caller())}
}

// NewKindIn is NewKind for another catalog.
func NewKindIn[T any](c *Catalog, name string, opts ...KindOption) *Kind[T] {
	return &Kind[T]{c.declare(reflect.TypeFor[T](), name, opts, caller())}
}

// Name is the name of the kind, as in --registry.
func (k *Kind[T]) Name() string { return k.kind.name }

// SetDefault names the plugin that is used when nobody chooses one; a comma separates several of a kind with Many.
func (k *Kind[T]) SetDefault(name string) {
	c := k.kind.catalog
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frozen {
		panic(fmt.Sprintf("plugin: SetDefault(%q) of kind %s at %s: the program has started; do it in init", name, k.kind.name, caller()))
	}
	k.kind.fallback = name
}

func (c *Catalog) declare(contract reflect.Type, name string, opts []KindOption, at site) *kind {
	k := &kind{catalog: c, name: name, chosenBy: name, contract: contract, site: at, plugins: map[string]*entry{}}
	for _, opt := range opts {
		opt(k)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	fail := func(format string, args ...any) {
		panic(fmt.Sprintf("plugin: kind %q at %s: ", name, at) + fmt.Sprintf(format, args...))
	}
	if !wellFormed(name) || !wellFormed(k.chosenBy) {
		fail("a name is lower-case letters and digits, in words joined by dashes")
	}
	if other := c.kinds[name]; other != nil {
		fail("already declared at %s", other.site)
	}
	if other := c.types[contract]; other != nil {
		fail("%s already is kind %q, declared at %s", contract, other.name, other.site)
	}
	if c.frozen {
		fail("the program has started; declare it in a package variable")
	}
	c.kinds[name], c.types[contract] = k, k
	return k
}

// Option describes a plugin.
type Option func(*entry)

// Doc is the one line that listings and generated pages show.
func Doc(line string) Option { return func(e *entry) { e.doc = line } }

// Register links a plugin, in Linked, under a name. T, what the factory returns, finds the kind; C, a struct, is
// the plugin's settings, as the package comment describes them. Nothing is opened, read or started. It is called from init
// and panics, with one line that names the call sites, on what cannot work: a name that is taken or malformed, no
// factory, a T that is no kind, a C with fields or defaults that do not parse, a program that already started.
func Register[T, C any](name string, factory func(*Env, C) (T, error), opts ...Option) {
	register(Linked, name, factory, opts, caller())
}

// RegisterIn is Register for another catalog.
func RegisterIn[T, C any](c *Catalog, name string, factory func(*Env, C) (T, error), opts ...Option) {
	register(c, name, factory, opts, caller())
}

func register[T, C any](c *Catalog, name string, factory func(*Env, C) (T, error), opts []Option, at site) {
	e := &entry{name: name, site: at, config: reflect.TypeFor[C]()}
	if factory != nil {
		e.open = func(env *Env, config any) (any, error) { return factory(env, config.(C)) }
	}
	for _, opt := range opts {
		opt(e)
	}
	c.add(reflect.TypeFor[T](), e)
}

func (c *Catalog) add(contract reflect.Type, e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fail := func(format string, args ...any) {
		panic(fmt.Sprintf("plugin: Register(%q) at %s: ", e.name, e.site) + fmt.Sprintf(format, args...))
	}
	if !wellFormed(e.name) {
		fail("a name is lower-case letters and digits, in words joined by dashes")
	}
	if e.open == nil {
		fail("the factory is nil")
	}
	k := c.types[contract]
	if k == nil {
		fail("%s is not a kind%s", contract, c.hint(contract))
	}
	if k.optional && e.name == nothing {
		fail("%s is what chooses no %s", nothing, k.name)
	}
	if other := k.plugins[e.name]; other != nil {
		fail("%s/%s is already registered at %s", k.name, e.name, other.site)
	}
	if c.frozen {
		fail("the program has started; register in init")
	}
	var err error
	if e.options, err = optionsOf(e.config); err != nil {
		fail("%s: %v", e.config, err)
	}
	k.plugins[e.name] = e
}

// hint guesses which contract the author of a factory meant.
func (c *Catalog) hint(t reflect.Type) string {
	for _, k := range c.sorted() {
		if k.contract.Kind() == reflect.Interface && t.Implements(k.contract) {
			return fmt.Sprintf(": have the factory return %s", k.contract)
		}
	}
	return ": declare it with NewKind, beside its contract"
}

func (c *Catalog) freeze() {
	c.mu.Lock()
	c.frozen = true
	c.mu.Unlock()
}

// kindOf answers nil for a type that is no kind.
func (c *Catalog) kindOf(t reflect.Type) *kind {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.types[t]
}

// sorted lists the kinds by name. The caller holds mu, or the catalog is frozen.
func (c *Catalog) sorted() []*kind {
	return slices.SortedFunc(maps.Values(c.kinds), func(a, b *kind) int { return cmp.Compare(a.name, b.name) })
}

func (k *kind) names() []string { return slices.Sorted(maps.Keys(k.plugins)) }

// prefix is what comes before the options of a plugin.
func (k *kind) prefix(e *entry) string {
	if k.many {
		return k.name + "-" + e.name
	}
	return k.name
}

func (k *kind) importPath(name string) string {
	return cmp.Or(k.contract.PkgPath(), k.site.pkg()) + "/" + name
}

// wellFormed holds for what may become a flag: words of lower-case letters and digits, joined by dashes.
func wellFormed(name string) bool {
	for i, c := range name {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case c == '-' && i > 0 && i < len(name)-1 && name[i-1] != '-':
		default:
			return false
		}
	}
	return name != ""
}

// site is a place in the source, looked up only when somebody asks.
type site uintptr

// caller is the place that called the function that calls caller.
func caller() site {
	var pc [1]uintptr
	runtime.Callers(3, pc[:])
	return site(pc[0])
}

func (s site) frame() runtime.Frame {
	f, _ := runtime.CallersFrames([]uintptr{uintptr(s)}).Next()
	return f
}

func (s site) String() string {
	f := s.frame()
	return fmt.Sprintf("%s:%d", f.File, f.Line)
}

// pkg is the import path: that of the function's name up to the first dot after the last slash.
func (s site) pkg() string {
	name := s.frame().Function
	slash := strings.LastIndex(name, "/") + 1
	base, _, _ := strings.Cut(name[slash:], ".")
	path, err := url.PathUnescape(name[:slash] + base)
	if err != nil {
		return name[:slash] + base
	}
	return path
}
