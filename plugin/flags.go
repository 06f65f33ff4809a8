package plugin

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
)

// AddFlags adds a flag for every setting, with underscores meaning dashes, and --config for the file. It freezes the
// catalog. (For cobra: give the flag set's GetNormalizeFunc to SetGlobalNormalizationFunc.)
func (l *Loader) AddFlags(fs *pflag.FlagSet) {
	fs.SetNormalizeFunc(dashes)
	inCode := l.inCode()
	for _, k := range l.index().list {
		fs.AddFlag(l.flag(k, inCode[k.name]))
	}
}

// flag has what is set in code, if anything, as its default.
func (l *Loader) flag(k *key, inCode value) *pflag.Flag {
	f := &pflag.Flag{Name: k.name, Usage: k.usage(), Value: &flagValue{l, k}, DefValue: cmp.Or(k.show(inCode.items), k.def)}
	if k.typ == "bool" {
		f.NoOptDefVal = "true"
	}
	return f
}

func dashes(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
}

// flagValue keeps what was written after --key, each time; what it means is known once the plugins are chosen.
type flagValue struct {
	loader *Loader
	key    *key
}

// Set implements pflag.Value.
func (f *flagValue) Set(text string) error {
	f.loader.flags[f.key] = append(f.loader.flags[f.key], text)
	return nil
}

// String implements pflag.Value.
func (f *flagValue) String() string { return f.key.show(f.loader.flags[f.key]) }

// Type implements pflag.Value.
func (f *flagValue) Type() string { return f.key.typeShown() }

// Parse reads the command line of a program that has no other flags and no arguments. Its only error is
// pflag.ErrHelp, after --help printed Usage; what is wrong with args comes from Load, together with everything else.
func (l *Loader) Parse(args []string) error {
	x := l.index()
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		written, text, hasText := strings.Cut(arg, "=")
		name := string(dashes(nil, strings.TrimPrefix(strings.TrimPrefix(written, "-"), "-")))
		k := x.byName[name]
		switch {
		case arg == "-h" || arg == "--help":
			fmt.Print(l.Usage())
			return pflag.ErrHelp
		case arg == "--":
			for _, arg := range args {
				l.unexpected(arg)
			}
			return nil
		case !strings.HasPrefix(arg, "-"):
			l.unexpected(arg)
			continue
		case k == nil:
			shown := shownFlag(written, x.names())
			l.unknown = append(l.unknown, unknown{strings.TrimLeft(shown, "-"), value{layer: fromFlag, where: shown}})
			if !hasText && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
				args = args[1:] // its value, most likely, and perhaps a secret
			}
			continue
		case !strings.HasPrefix(arg, "--"):
			l.args.add("%w", twoDashes(k.name, k, text, hasText)) // and goes on, so that no other error follows from it
		}
		switch {
		case hasText:
			l.flags[k] = append(l.flags[k], text)
		case k.typ == "bool":
			l.flags[k] = append(l.flags[k], "true")
		case len(args) == 0:
			l.args.add("--%s: the value is missing: write --%s VALUE", name, name)
		default:
			l.flags[k] = append(l.flags[k], args[0])
			args = args[1:]
		}
	}
	return nil
}

// shownFlag is an unknown flag as far as anybody may see it: what follows a single dash may be a value, as in -pSECRET.
func shownFlag(written string, names []string) string {
	if !strings.HasPrefix(written, "--") && nearest(written[1:], names) == "" {
		return written[:min(len(written), 2)]
	}
	return written
}

// twoDashes answers a known flag that was written with one; k is nil if it is no setting.
func twoDashes(name string, k *key, text string, hasText bool) error {
	written := name
	if k != nil {
		text = k.show([]string{text})
	}
	if hasText {
		written += "=" + text
	}
	return fmt.Errorf("-%s: flags have two dashes: write --%s", written, written)
}

func (l *Loader) unexpected(arg string) {
	l.args.add("unexpected argument %q: settings are written --name value", arg)
}

// Usage describes every flag with its default and its environment variable, grouped by kind.
func (l *Loader) Usage() string {
	inCode := l.inCode()
	groups := map[*kind]*pflag.FlagSet{}
	for _, k := range l.index().list {
		if groups[k.kind] == nil {
			groups[k.kind] = pflag.NewFlagSet("", pflag.ContinueOnError)
			groups[k.kind].SortFlags = false
		}
		groups[k.kind].AddFlag(l.flag(k, inCode[k.name]))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s [flags]\n\n", filepath.Base(os.Args[0]))
	for _, k := range append([]*kind{nil}, l.catalog.sorted()...) {
		title := "Settings"
		if k != nil {
			title = k.name
		}
		fmt.Fprintf(&b, "%s:\n%s\n", title, groups[k].FlagUsages())
	}
	return b.String()
}

// FlagError says what to do about a flag that pflag does not know; other errors stay as they are. It is what cobra's
// SetFlagErrorFunc wants.
func FlagError(fs *pflag.FlagSet, err error) error {
	var notExist *pflag.NotExistError
	if !errors.As(err, &notExist) {
		return err
	}
	var names []string
	fs.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	letters := notExist.GetSpecifiedShortnames()
	if letters == "" {
		return unknownFlag("--"+notExist.GetSpecifiedName(), names)
	}
	name, text, hasText := strings.Cut(letters, "=")
	name = string(dashes(nil, name))
	for _, known := range names {
		if known == name || known[1:] == name { // its first letter may be a flag by itself, which was taken already
			var k *key
			if v, ok := fs.Lookup(known).Value.(*flagValue); ok {
				k = v.key
			}
			return twoDashes(known, k, text, hasText)
		}
	}
	return unknownFlag(shownFlag("-"+name, names), names)
}

// unknownFlag takes the flag as it was written, with its dashes.
func unknownFlag(written string, names []string) error {
	near := nearest(strings.TrimLeft(written, "-"), names)
	if near == "" {
		return fmt.Errorf("unknown flag %s: --help lists them", written)
	}
	return fmt.Errorf("unknown flag %s: did you mean --%s?", written, near)
}
