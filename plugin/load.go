package plugin

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Load gathers what code, the file, environ (as os.Environ gives it; an empty variable counts as not set) and the flags
// say, chooses the plugins, decodes and validates their settings and the sections'. Its error joins everything that is
// wrong, one line each; nothing is changed then.
func (l *Loader) Load(environ []string) (*Settings, error) {
	l.index()
	ld := &loading{
		Loader:   l,
		problems: slices.Clone(l.args),
		unknown:  slices.Clone(l.unknown),
		choices:  map[*kind]Setting{},
		failed:   map[*kind]bool{},
		settings: &Settings{catalog: l.catalog, chosen: map[*kind][]*choice{}, provided: map[*kind][]any{}},
	}
	ld.given = ld.merge(environ)
	for _, k := range l.catalog.sorted() {
		ld.choose(k)
	}
	ld.checkKeys()
	ld.list(ld.show(ld.keys.byName[configKey], option{}, ld.given[configKey]))
	apply := ld.decodeSections()
	for _, k := range l.catalog.sorted() {
		ld.decodeChosen(k)
	}
	if len(ld.problems) > 0 {
		return nil, errors.Join(ld.problems...)
	}
	apply()
	return ld.settings, nil
}

// loading is one call of Load.
type loading struct {
	*Loader
	given    map[string]value // the strongest value of each key
	unknown  []unknown
	problems problems
	choices  map[*kind]Setting
	failed   map[*kind]bool // kinds whose choice is in error: what else is said about them makes no sense
	settings *Settings
}

// merge reads the layers; a stronger one replaces what a weaker one says about the same key.
func (ld *loading) merge(environ []string) map[string]value {
	given := ld.codeLayer()
	outside := ld.envLayer(environ)
	maps.Copy(outside, ld.flagLayer())
	path, ok := outside[configKey]
	if !ok {
		path, ok = given[configKey]
	}
	if ok {
		maps.Copy(given, ld.fileLayer(path))
	}
	maps.Copy(given, outside)
	return given
}

func (ld *loading) codeLayer() map[string]value {
	for _, name := range slices.Sorted(maps.Keys(ld.code)) {
		if ld.keys.byName[name] == nil {
			ld.unknown = append(ld.unknown, unknown{name, value{layer: fromCode}})
		}
	}
	return ld.inCode()
}

// inCode is what the program says.
func (l *Loader) inCode() map[string]value {
	values := map[string]value{}
	for _, s := range l.sections {
		for _, o := range s.options {
			if v := s.initial.FieldByIndex(o.index); !v.IsZero() {
				values[join(s.prefix, o.name)] = value{items: []string{format(v)}, inCode: true, layer: fromCode}
			}
		}
	}
	for name, text := range l.code {
		values[name] = value{items: []string{text}, layer: fromCode}
	}
	return values
}

func (ld *loading) fileLayer(path value) map[string]value {
	name := path.items[len(path.items)-1]
	if name == "" {
		return nil
	}
	data, err := readFile(name)
	if err != nil {
		ld.problems.add("%s: %w (%s)", configKey, err, path.origin())
		return nil
	}
	f := &file{path: name, catalog: ld.catalog, keys: ld.keys, values: map[string]value{}}
	f.parse(data)
	unknown := slices.DeleteFunc(f.unknown, ld.foreignKey)
	ld.unknown = append(ld.unknown, unknown[:min(len(unknown), maxUnknown)]...)
	ld.problems = append(ld.problems, f.problems...)
	return f.values
}

func (ld *loading) envLayer(environ []string) map[string]value {
	values := map[string]value{}
	for _, pair := range environ {
		name, text, _ := strings.Cut(pair, "=")
		rest, ok := strings.CutPrefix(name, "MICRO_")
		if !ok || text == "" {
			continue
		}
		k := strings.ToLower(strings.ReplaceAll(rest, "_", "-"))
		if ld.keys.byName[k] == nil || envName(k) != name {
			if !isServiceLink(name, text) {
				ld.warnOfVariable(k, name)
			}
			continue
		}
		values[k] = value{items: []string{text}, layer: fromEnv, where: name}
	}
	slices.Sort(ld.settings.warnings)
	return values
}

var (
	serviceLink     = regexp.MustCompile(`_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`)
	serviceLinkPort = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// isServiceLink holds for what Kubernetes sets in each pod beside a service that is called micro-gateway, or the like.
func isServiceLink(name, text string) bool {
	return serviceLink.MatchString(name) || strings.HasSuffix(name, "_PORT") && serviceLinkPort.MatchString(text)
}

func (ld *loading) warnOfVariable(key, name string) {
	foreign, near := ld.foreign(key)
	if foreign && near == "" {
		return
	}
	advice := "it has no effect: remove it, or correct its name"
	if near := cmp.Or(ld.choiceOf(key), nearest(key, ld.keys.names()), near); near != "" {
		advice = fmt.Sprintf("did you mean %s?", envName(near))
	}
	ld.warn("unknown environment variable %s: %s", name, advice)
}

// choiceOf is the key that chooses the plugins of the kind that name is; "" if it is none.
func (ld *loading) choiceOf(name string) string {
	if k := ld.catalog.kinds[name]; k != nil {
		return k.chosenBy
	}
	return ""
}

// foreignKey tells whether an unknown key of the file is to be passed over.
func (ld *loading) foreignKey(u unknown) bool {
	foreign, near := ld.foreign(u.name)
	if foreign && near != "" {
		advice := fmt.Sprintf("did you mean %s?", near)
		if ld.strict {
			advice += " If another program is meant, have it in a file of its own"
		}
		ld.warn("unknown setting %s (%s): %s", u.name, u.at.origin(), advice)
	}
	return foreign
}

// foreign tells whether a name that means nothing here is left to other programs; near is what it nearly is: the kind or
// section that it stands under, or one of their settings.
func (ld *loading) foreign(name string) (foreign bool, near string) {
	if slices.ContainsFunc(ld.passed, func(p string) bool { return name == p || strings.HasPrefix(name, p+"-") }) {
		return true, ""
	}
	if !ld.shared {
		return false, ""
	}
	lower, groups := strings.ToLower(name), ld.groups()
	for _, group := range groups {
		if name == group || strings.HasPrefix(name, group+"-") {
			return false, ""
		}
		words := strings.Split(lower, "-")
		head := strings.Join(words[:min(len(words), strings.Count(group, "-")+1)], "-")
		near = cmp.Or(near, nearest(head, []string{group}))
	}
	return true, cmp.Or(near, slip(lower, groups), slip(lower, ld.grouped(groups)))
}

// grouped are the keys of kinds and sections.
func (ld *loading) grouped(groups []string) []string {
	return slices.DeleteFunc(ld.keys.names(), func(key string) bool {
		return !slices.ContainsFunc(groups, func(group string) bool { return strings.HasPrefix(key, group+"-") })
	})
}

// groups names the kinds and the sections.
func (ld *loading) groups() []string {
	var names []string
	for _, k := range ld.catalog.sorted() {
		names = append(names, k.name)
	}
	for _, s := range ld.sections {
		if s.prefix != "" {
			names = append(names, s.prefix)
		}
	}
	return names
}

// warn tells of what has no effect, and perhaps should have.
func (ld *loading) warn(format string, args ...any) {
	if ld.strict {
		ld.problems.add(format, args...)
		return
	}
	ld.settings.warnings = append(ld.settings.warnings, fmt.Sprintf(format, args...))
}

func (ld *loading) flagLayer() map[string]value {
	values := map[string]value{}
	for k, items := range ld.flags {
		values[k.name] = value{items: items, layer: fromFlag, where: "--" + k.name}
	}
	return values
}

// choose finds the plugins of a kind: by name, or the instance that was passed in, or the default.
func (ld *loading) choose(k *kind) {
	s := ld.settings
	v, named := ld.given[k.chosenBy]
	shown := Setting{Key: k.chosenBy, Default: k.fallback, Help: k.doc, Env: envName(k.chosenBy)}
	defer func() { ld.choices[k] = shown }()

	if provided := ld.provided[k]; provided != nil && v.layer <= fromCode {
		s.provided[k] = provided
		shown.Value, shown.Origin = "(passed in)", value{layer: fromCode}.origin()
		return
	}
	if !named {
		v = value{items: []string{k.fallback}}
	}
	items := v.items
	if !k.many && len(items) > 0 {
		items = items[len(items)-1:] // of a repeated flag the last counts
	}
	names := splitList(items...)
	shown.Value, shown.Origin = strings.Join(names, ","), v.origin()
	if !k.many && v.native {
		ld.fail(k, "%s: one is chosen, not a list: write  %s: NAME  (%s)", k.chosenBy, k.chosenBy, v.origin())
		return
	}
	if !k.many && len(names) > 1 {
		ld.fail(k, "%s: one is chosen, not %s (%s)", k.chosenBy, strings.Join(names, ","), v.origin())
		return
	}
	if k.optional && slices.Equal(names, []string{nothing}) {
		return
	}
	for _, name := range names {
		ld.chooseOne(k, name, v)
	}
}

func (ld *loading) chooseOne(k *kind, name string, v value) {
	chosen := ld.settings.chosen[k]
	e := k.plugins[name]
	switch {
	case slices.ContainsFunc(chosen, func(c *choice) bool { return c.entry == e }) && e != nil:
		ld.fail(k, "%s: %s is named twice (%s)", k.chosenBy, name, v.origin())
	case e != nil:
		ld.settings.chosen[k] = append(chosen, &choice{kind: k, entry: e})
	case slices.Contains(k.known, name):
		ld.fail(k, "%s: %s is not linked into this program (%s): add  _ %q  to plugins.go and rebuild: go mod tidy && go build",
			k.chosenBy, name, v.origin(), k.importPath(name))
	default:
		linked := k.names()
		advice := "link the package that registers it in plugins.go, or choose one of these"
		ld.fail(k, "%s: there is no %s called %q (%s): linked are %s; %s",
			k.chosenBy, k.name, name, v.origin(), cmp.Or(strings.Join(linked, ", "), "none"),
			didYouMean(name, slices.Concat(linked, k.known), advice))
	}
}

func (ld *loading) list(shown ...Setting) { ld.settings.list = append(ld.settings.list, shown...) }

func (ld *loading) fail(k *kind, format string, args ...any) {
	ld.failed[k] = true
	ld.problems.add(format, args...)
}

// checkKeys reports keys that mean nothing, and options of plugins that are not in use.
func (ld *loading) checkKeys() {
	for _, u := range ld.unknown {
		if ld.aboutFailed(u.name) {
			continue
		}
		if u.at.layer == fromFlag {
			ld.problems.add("%w", unknownFlag(u.at.where, ld.keys.names()))
			continue
		}
		candidates := slices.Concat(ld.keys.names(), ld.groups(), ld.keys.groups())
		candidates = slices.DeleteFunc(candidates, func(c string) bool { return strings.HasPrefix(u.name, c+"-") })
		ld.problems.add("unknown setting %s (%s): %s", u.name, u.at.origin(), didYouMean(u.name, candidates, "remove it"))
	}
	for _, k := range ld.keys.list {
		if v, ok := ld.given[k.name]; ok && k.isOption() && !ld.failed[k.kind] {
			ld.checkOption(k, v)
		}
	}
}

// aboutFailed tells whether a key belongs to a kind whose choice is in error already.
func (ld *loading) aboutFailed(name string) bool {
	for k := range ld.failed {
		if strings.HasPrefix(name, k.name+"-") {
			return true
		}
	}
	return false
}

func (ld *loading) checkOption(k *key, v value) {
	kind := k.kind
	if ld.settings.provided[kind] != nil {
		ld.problems.add("%s (%s) has no effect: the program passes in its own %s: choose a plugin by name with --%s, or remove the setting",
			k.name, v.origin(), kind.name, kind.chosenBy)
		return
	}
	chosen := ld.settings.chosen[kind]
	if slices.ContainsFunc(chosen, func(c *choice) bool { return slices.Contains(k.owners, c.entry) }) {
		return
	}
	choice := ld.given[kind.chosenBy]
	if v.layer == fromCode && choice.layer > fromCode {
		return // the program set it for its own choice, which was overridden
	}
	if kind.optional && len(chosen) == 0 && choice.layer > fromDefault {
		return // switched off, whatever it was set to
	}
	names := k.ownerNames()
	have := "no " + kind.name + " is chosen"
	if len(chosen) > 0 {
		have = fmt.Sprintf("the chosen %s is %s (%s)", kind.name, strings.Join(ld.settings.Chosen(kind.name), ","), choice.origin())
	}
	ld.problems.add("%s (%s) is an option of %s, but %s: choose with --%s %s, or remove the setting",
		k.name, v.origin(), strings.Join(names, ", "), have, kind.chosenBy, names[0])
}

// decodeSections returns what puts the values into the program's structs, for when all is well.
func (ld *loading) decodeSections() (apply func()) {
	copies := make([]reflect.Value, len(ld.sections))
	for i, s := range ld.sections {
		d := ld.decode(s.prefix, s.options, s.initial)
		copies[i] = d.config
		ld.list(d.shown...)
		ld.validate(cmp.Or(s.prefix, "settings"), d)
	}
	return func() {
		for i, s := range ld.sections {
			s.target.Set(copies[i])
		}
	}
}

func (ld *loading) decodeChosen(k *kind) {
	ld.list(ld.choices[k])
	for _, c := range ld.settings.chosen[k] {
		d := ld.decode(k.prefix(c.entry), c.entry.options, reflect.Zero(c.entry.config))
		c.config, c.secrets = d.config, d.secrets
		choice := ld.given[k.chosenBy]
		c.origins = k.chosenBy + " from " + choice.origin()
		for _, g := range d.given {
			c.origins += ", " + g.origin
		}
		ld.list(d.shown...)
		ld.validate(k.name+"/"+c.entry.name, d)
	}
}

// decoded is a settings struct that was filled, and what there is to say about it.
type decoded struct {
	config  reflect.Value
	shown   []Setting
	given   []given // all that are not default
	secrets []string
	ok      bool
}

// given is an option that somebody has set.
type given struct {
	option string
	origin string // "registry-address from flag --registry-address"
}

// decode sets the options in a copy of initial.
func (ld *loading) decode(prefix string, options []option, initial reflect.Value) decoded {
	d := decoded{config: reflect.New(initial.Type()).Elem(), ok: true}
	d.config.Set(initial)
	for _, o := range options {
		k := ld.keys.byName[join(prefix, o.name)]
		field := d.config.FieldByIndex(o.index)
		v, err := ld.pick(k.name, o)
		switch {
		case err != nil || v.inCode:
		case len(v.items) > 0 || v.native:
			err = decode(field, v.items, v.native)
		}
		if err != nil {
			d.ok = false
			ld.problems.add("%s: %w (%s)", k.name, err, v.origin())
			continue
		}
		d.shown = append(d.shown, ld.show(k, o, v))
		if v.layer != fromDefault {
			d.given = append(d.given, given{o.name, k.name + " from " + v.origin()})
		}
		if o.secret {
			d.secrets = append(d.secrets, field.Interface().(Secret).Reveal())
		}
	}
	return d
}

// pick finds the value of an option: given, from the file that holds the secret, or default.
func (ld *loading) pick(name string, o option) (value, error) {
	v, ok := ld.given[name]
	path, inFile := ld.given[name+fileSuffix]
	switch {
	case o.secret && inFile && ok && v.layer == path.layer:
		return v, fmt.Errorf("given twice, also by %s: leave one", path.origin())
	case o.secret && inFile && path.layer > v.layer:
		text, err := path.readFile()
		return value{items: []string{text}, layer: path.layer, where: path.where}, err
	case !ok && o.def != "":
		v.items = []string{o.def}
	}
	return v, nil
}

// readFile reads the file that v names, but for the line break at its end.
func (v value) readFile() (string, error) {
	var path string
	if err := decode(reflect.ValueOf(&path).Elem(), v.items, v.native); err != nil {
		return "", err
	}
	text, err := readFile(path)
	return strings.TrimRight(string(text), "\r\n"), err
}

func (ld *loading) show(k *key, o option, v value) Setting {
	return Setting{
		Key: k.name, Value: k.show(v.items), Origin: v.origin(),
		Default: o.shownDefault(), Help: cmp.Or(o.help, k.help), Env: envName(k.name),
	}
}

// validate asks the struct, and those in it, whether their values go together.
func (ld *loading) validate(name string, d decoded) {
	if !d.ok {
		return
	}
	for _, i := range validate(d.config, "", false) {
		from := ""
		if origins := d.namedIn(i); len(origins) > 0 {
			from = " (" + strings.Join(origins, ", ") + ")"
		}
		ld.problems = append(ld.problems, newProblem(fmt.Errorf("%s: %w%s", name, i.err, from), d.secrets))
	}
}

// invalid is an error of the Validate of the struct whose options begin with prefix.
type invalid struct {
	prefix string
	err    error
}

// namedIn says where the options came from that the error speaks of, by their names in the whole or in its own struct.
func (d *decoded) namedIn(i invalid) []string {
	words := strings.FieldsFunc(i.err.Error(), func(r rune) bool { return r != '-' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	var origins []string
	for _, g := range d.given {
		own, ok := strings.CutPrefix(g.option, i.prefix)
		own = strings.TrimPrefix(own, "-")
		if ok && (slices.Contains(words, g.option) || slices.Contains(words, own)) {
			origins = append(origins, g.origin)
		}
	}
	return origins
}

// validate calls Validate of v, unless it was promoted to a struct that was asked already, and of the structs in v.
func validate(v reflect.Value, prefix string, asked bool) []invalid {
	var found []invalid
	validator, ok := v.Addr().Interface().(interface{ Validate() error })
	if ok && !asked {
		if err := validator.Validate(); err != nil {
			for _, err := range flatten(err) {
				found = append(found, invalid{prefix, err})
			}
		}
	}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Type.Kind() == reflect.Struct && f.IsExported() && typeName(f.Type) == "" {
			found = append(found, validate(v.Field(i), join(prefix, nameOf(f)), f.Anonymous && (ok || asked))...)
		}
	}
	return found
}
