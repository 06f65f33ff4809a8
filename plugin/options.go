package plugin

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// option is one exported field of a settings struct; the package comment says what there can be.
type option struct {
	name   string
	help   string
	def    string
	typ    string // as listings call it
	index  []int  // of the field, for reflect's FieldByIndex
	secret bool
}

// shownDefault is the default as far as anybody may see it.
func (o option) shownDefault() string {
	if o.secret && o.def != "" {
		return mask
	}
	return maskURLs(o.def)
}

// optionsOf lists the options of a settings struct, and checks that their types are supported and their defaults parse.
func optionsOf(t reflect.Type) ([]option, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("settings are a struct, or struct{} for none")
	}
	options, err := appendOptions(nil, t, "", nil)
	if err != nil {
		return nil, err
	}
	for i, o := range options {
		if o.name == "plugin" {
			return nil, fmt.Errorf(`"plugin" is the key that chooses in the file: name the option otherwise`)
		}
		for _, other := range options[:i] {
			switch {
			case o.name == other.name, o.isFileOf(other):
				return nil, fmt.Errorf("two fields give option %q", o.name)
			case other.isFileOf(o):
				return nil, fmt.Errorf("two fields give option %q", other.name)
			}
		}
	}
	return options, nil
}

// isFileOf tells whether o has the name of the option that names the file of a secret.
func (o option) isFileOf(secret option) bool {
	name, ok := strings.CutSuffix(o.name, fileSuffix)
	return ok && secret.secret && name == secret.name
}

func appendOptions(options []option, t reflect.Type, prefix string, index []int) ([]option, error) {
	options = slices.Grow(options, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() && !f.Anonymous {
			continue
		}
		name := join(prefix, nameOf(f))
		at := append(index[:len(index):len(index)], i)
		typ := typeName(f.Type)
		var err error
		switch {
		case typ == "" && f.Type.Kind() == reflect.Struct:
			options, err = appendOptions(options, f.Type, name, at)
		case typ == "" || !f.IsExported():
			err = fmt.Errorf("type %s is not supported", f.Type)
		case !wellFormed(name):
			err = fmt.Errorf("option name %q is malformed", name)
		default:
			o := option{name: name, help: f.Tag.Get("help"), def: f.Tag.Get("default"), index: at, typ: typ, secret: f.Type == secretType}
			if o.def != "" && typ != "string" { // every text is a string
				if err = decode(reflect.New(f.Type).Elem(), []string{o.def}, false); err != nil {
					err = fmt.Errorf("default: %w", err)
				}
			}
			options = append(options, o)
		}
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", f.Name, err)
		}
	}
	return options, nil
}

// nameOf is how a field is called in settings; "" for an embedded one.
func nameOf(f reflect.StructField) string {
	name := f.Tag.Get("name")
	if name == "" && !f.Anonymous {
		return kebab(f.Name)
	}
	return name
}

// kebab turns the name of a Go field into that of an option: MaxIdleConns to max-idle-conns, TLSMutual to tls-mutual.
func kebab(name string) string {
	var b strings.Builder
	b.Grow(len(name) + 4)
	for i, c := range name {
		if unicode.IsUpper(c) && startsWord(name, i) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}

// startsWord tells whether a word begins with the upper-case letter at i: after a lower-case one, or before one.
func startsWord(name string, i int) bool {
	before, _ := utf8.DecodeLastRuneInString(name[:i])
	_, size := utf8.DecodeRuneInString(name[i:])
	after, _ := utf8.DecodeRuneInString(name[i+size:])
	return i > 0 && (!unicode.IsUpper(before) || unicode.IsLower(after))
}
