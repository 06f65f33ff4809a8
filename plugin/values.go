package plugin

import (
	"encoding"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

var (
	durationType = reflect.TypeFor[time.Duration]()
	secretType   = reflect.TypeFor[Secret]()
	stringMap    = reflect.TypeFor[map[string]string]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// typeName is how a type is called in listings; "" if a setting cannot have it.
func typeName(t reflect.Type) string {
	switch {
	case t == secretType:
		return "secret"
	case t == durationType:
		return "duration"
	case t == stringMap:
		return "map"
	case isText(t):
		return strings.ToLower(t.Name())
	}
	switch k := t.Kind(); {
	case k == reflect.String, k == reflect.Bool:
		return k.String()
	case reflect.Int <= k && k <= reflect.Int64:
		return "int"
	case reflect.Uint <= k && k <= reflect.Uint64:
		return "uint"
	case k == reflect.Float32, k == reflect.Float64:
		return "float"
	case k == reflect.Slice && t.Elem() != secretType && (isText(t.Elem()) || t.Elem().Kind() != reflect.Slice):
		if elem := typeName(t.Elem()); elem != "" && elem != "map" {
			return "[]" + elem
		}
	}
	return ""
}

func isText(t reflect.Type) bool {
	return t.PkgPath() != "" && reflect.PointerTo(t).Implements(textType)
}

func isList(t reflect.Type) bool { return t.Kind() == reflect.Slice && !isText(t) }

// decode sets v to what is written in items: several where a flag was repeated or the file has a list or a map (its
// pairs as k=v). Of several, a scalar takes the last. Items are split at commas for lists and maps, unless native.
// Errors quote the text; it is not for secrets, whose decoding cannot fail.
func decode(v reflect.Value, items []string, native bool) error {
	if v.Type() != stringMap && !isList(v.Type()) {
		if native {
			return errors.New("one value is wanted, not a list or a mapping")
		}
		return decodeScalar(v, items[len(items)-1])
	}
	if !native {
		items = splitList(items...)
	}
	if v.Type() == stringMap {
		m := make(map[string]string, len(items))
		for _, item := range items {
			key, value, ok := strings.Cut(item, "=")
			if !ok || key == "" {
				return fmt.Errorf("%q is not a pair: write key=value,key=value", item)
			}
			m[key] = value
		}
		v.Set(reflect.ValueOf(m))
		return nil
	}
	list := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		if err := decodeScalar(list.Index(i), item); err != nil {
			return err
		}
	}
	v.Set(list)
	return nil
}

func splitList(texts ...string) []string {
	var items []string
	for _, text := range texts {
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
	}
	return items
}

func decodeScalar(v reflect.Value, text string) error {
	t := v.Type()
	if isText(t) {
		if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
		return nil
	}
	if t == durationType {
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is not a duration: write it like 300ms, 5s or 1h30m", text)
		}
		v.SetInt(int64(d))
		return nil
	}
	switch k := t.Kind(); {
	case k == reflect.String:
		v.SetString(text)
	case k == reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(b)
	case v.CanInt():
		n, err := strconv.ParseInt(text, 10, t.Bits())
		if errors.Is(err, strconv.ErrSyntax) && t.Bits() == 64 {
			return fmt.Errorf("%q is not a whole number", text)
		}
		if err != nil {
			return fmt.Errorf("%q is not a whole number from %d to %d", text, int64(-1)<<(t.Bits()-1), int64(math.MaxInt64)>>(64-t.Bits()))
		}
		v.SetInt(n)
	case v.CanUint():
		n, err := strconv.ParseUint(text, 10, t.Bits())
		if errors.Is(err, strconv.ErrSyntax) && t.Bits() == 64 {
			return fmt.Errorf("%q is not a whole number of 0 or more", text)
		}
		if err != nil {
			return fmt.Errorf("%q is not a whole number from 0 to %d", text, uint64(math.MaxUint64)>>(64-t.Bits()))
		}
		v.SetUint(n)
	default:
		f, err := strconv.ParseFloat(text, t.Bits())
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Errorf("%q is not a number", text)
		}
		v.SetFloat(f)
	}
	return nil
}

// format writes a value from code as it would be written in the environment.
func format(v reflect.Value) string {
	if v.Type() == stringMap {
		m := v.Interface().(map[string]string)
		var pairs []string
		for _, key := range slices.Sorted(maps.Keys(m)) {
			pairs = append(pairs, key+"="+m[key])
		}
		return strings.Join(pairs, ",")
	}
	if isList(v.Type()) {
		items := make([]string, v.Len())
		for i := range items {
			items[i] = format(v.Index(i))
		}
		return strings.Join(items, ",")
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if text, err := m.MarshalText(); err == nil {
			return string(text)
		}
	}
	return fmt.Sprint(v.Interface())
}

// Size is a number of bytes, written "4MiB", "64kB" or "1000".
type Size int64

var units = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}

// String is exact: the largest unit that leaves a whole number.
func (s Size) String() string {
	n, unit := int64(s), 0
	for n != 0 && n%1024 == 0 && unit+1 < len(units) {
		n, unit = n/1024, unit+1
	}
	return strconv.FormatInt(n, 10) + units[unit]
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n > math.MaxInt64 {
		return errors.New("not a size: write it like 512, 64KiB or 4MiB")
	}
	*s = Size(n)
	return nil
}
