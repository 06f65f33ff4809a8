package plugin

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func TestKebab(t *testing.T) {
	for field, want := range map[string]string{
		"Address": "address", "TLSMutual": "tls-mutual", "ServerName": "server-name", "MaxIdleConns": "max-idle-conns",
		"CA": "ca", "TLS": "tls", "HTTP2Port": "http2-port", "A": "a", "UserID": "user-id", "Ack": "ack",
	} {
		require.Equal(t, want, kebab(field), field)
	}
}

type base struct {
	Name string `default:"base"`
}

type all struct {
	base
	Text     string `name:"words"`
	Yes      bool
	I        int
	I8       int8
	U16      uint16
	F        float64
	Wait     time.Duration
	Limit    Size
	Level    slog.Level
	Names    []string
	Waits    []time.Duration
	Networks []netip.Prefix
	Ports    []uint16
	Labels   map[string]string
	Nested   struct {
		Deep struct{ Value string }
	}
	hidden chan int
}

func TestDecodeEveryType(t *testing.T) {
	var a all
	l := NewLoader(NewCatalog())
	l.Section("", &a)
	require.NoError(t, l.Parse([]string{
		"--words=a,b", "--yes", "--i", "-5", "--i8=-128", "--u16=65535", "--f=1.5", "--wait=1m30s", "--limit=64kB",
		"--level=warn", "--names=a, b,", "--names=c", "--waits=1s,2s", "--networks=10.0.0.0/8,::1/128", "--ports=1,2",
		"--labels=a=1,b=x=y", "--labels=c=", "--nested-deep-value=v",
	}))
	_, err := l.Load(nil)
	require.NoError(t, err)
	want := all{
		base: base{"base"}, Text: "a,b", Yes: true, I: -5, I8: -128, U16: 65535, F: 1.5, Wait: 90 * time.Second, Limit: 64000,
		Level: slog.LevelWarn, Names: []string{"a", "b", "c"}, Waits: []time.Duration{time.Second, 2 * time.Second},
		Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		Ports:    []uint16{1, 2}, Labels: map[string]string{"a": "1", "b": "x=y", "c": ""},
	}
	want.Nested.Deep.Value = "v"
	require.Equal(t, want, a)
	require.Nil(t, a.hidden)
}

func TestDecodeErrors(t *testing.T) {
	for arg, want := range map[string]string{
		"--yes=maybe":             `yes: "maybe" is neither true nor false (flag --yes)`,
		"--i=1.5":                 `i: "1.5" is not a whole number (flag --i)`,
		"--i=1e19":                `i: "1e19" is not a whole number (flag --i)`,
		"--i=9999999999999999999": `i: "9999999999999999999" is not a whole number from -9223372036854775808 to 9223372036854775807 (flag --i)`,
		"--i8=128":                `i8: "128" is not a whole number from -128 to 127 (flag --i8)`,
		"--u16=-1":                `u16: "-1" is not a whole number from 0 to 65535 (flag --u16)`,
		"--f=NaN":                 `f: "NaN" is not a number (flag --f)`,
		"--wait=5":                `wait: "5" is not a duration: write it like 300ms, 5s or 1h30m (flag --wait)`,
		"--limit=-4MiB":           `limit: "-4MiB": not a size: write it like 512, 64KiB or 4MiB (flag --limit)`,
		"--limit=16EiB":           `limit: "16EiB": not a size: write it like 512, 64KiB or 4MiB (flag --limit)`,
		"--level=loud":            `level: "loud": slog: level string "loud": unknown name (flag --level)`,
		"--waits=1s,x":            `waits: "x" is not a duration: write it like 300ms, 5s or 1h30m (flag --waits)`,
		"--labels=a":              `labels: "a" is not a pair: write key=value,key=value (flag --labels)`,
		"--networks=1.2.3":        `networks: "1.2.3": netip.ParsePrefix("1.2.3"): no '/' (flag --networks)`,
	} {
		t.Run(arg, func(t *testing.T) {
			before := all{Text: "kept"}
			a := before
			l := NewLoader(NewCatalog())
			l.Section("", &a)
			require.NoError(t, l.Parse([]string{arg, "--words=new"}))
			_, err := l.Load(nil)
			require.EqualError(t, err, want)
			require.Equal(t, before, a, "nothing is changed")
		})
	}
}

func TestFormatIsReadableByDecode(t *testing.T) {
	a := all{
		Text: "x", Yes: true, I: 1, F: 0.5, Wait: time.Minute, Limit: 1536, Level: slog.LevelError, Names: []string{"a", "b"},
		Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Labels: map[string]string{"k": "v", "a": "b"},
	}
	options, err := optionsOf(reflect.TypeFor[all]())
	require.NoError(t, err)
	b := reflect.New(reflect.TypeFor[all]()).Elem()
	for _, o := range options {
		if v := reflect.ValueOf(a).FieldByIndex(o.index); !v.IsZero() {
			require.NoError(t, decode(b.FieldByIndex(o.index), []string{format(v)}, false), o.name)
		}
	}
	require.Equal(t, a, b.Interface())
}

func TestSize(t *testing.T) {
	for size, want := range map[Size]string{0: "0B", 1: "1B", 1024: "1KiB", 1536: "1536B", 4 << 20: "4MiB", 1 << 60: "1EiB"} {
		require.Equal(t, want, size.String())
		var back Size
		require.NoError(t, back.UnmarshalText([]byte(want)))
		require.Equal(t, size, back)
	}
}

func TestSecretNeverShows(t *testing.T) {
	const text = "hunter22"
	s := NewSecret(text)
	holder := struct {
		Public Secret
		hidden Secret
	}{s, s}
	var shown []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%T"} {
		shown = append(shown, fmt.Sprintf(verb, s), fmt.Sprintf(verb, &s), fmt.Sprintf(verb, holder), fmt.Sprintf(verb, &holder),
			fmt.Sprintf(verb, []any{s, map[string]Secret{"a": s}}))
	}
	var logs strings.Builder
	for _, h := range []slog.Handler{slog.NewTextHandler(&logs, nil), slog.NewJSONHandler(&logs, nil)} {
		slog.New(h).Info("x", "secret", s, "holder", holder)
	}
	asJSON, err := json.Marshal(holder)
	require.NoError(t, err)
	asYAML, err := yaml.Marshal(holder)
	require.NoError(t, err)
	require.Contains(t, string(asJSON), `"***"`)
	require.Contains(t, string(asYAML), `***`)
	require.Equal(t, "***", fmt.Sprint(s))
	require.Equal(t, "***", s.String())
	for _, out := range append(shown, logs.String(), string(asJSON), string(asYAML)) {
		require.NotContains(t, out, text)
		require.NotContains(t, out, fmt.Sprintf("%x", text))
	}
	require.Equal(t, text, s.Reveal())
	require.Empty(t, Secret{}.Reveal())
}

func TestMaskURLs(t *testing.T) {
	for text, want := range map[string]string{
		"amqp://guest:pass@host:5672/":            "amqp://guest:***@host:5672/",
		`"http://u:p@ss@h/x": bad (flag --u)`:     `"http://u:***@h/x": bad (flag --u)`,
		"http://host:80/path":                     "http://host:80/path",
		`address "bob:pass@h:9092": bad`:          `address "bob:***@h:9092": bad`,
		"a=bob:p/a@ss@h:9092":                     "a=bob:***@h:9092",
		"mail to a@b: refused":                    "mail to a@b: refused",
		"nothing":                                 "nothing",
		"https://h/keys?v=1&api_key=abc&x=y#f":    "https://h/keys?v=1&api_key=***&x=y#f",
		`"https://u:p@h/a?Access-Token=a/b@c"`:    `"https://u:***@h/a?Access-Token=***"`,
		"h/keys?pwd=abc":                          "h/keys?pwd=***",
		"https://h/?a=b;session=c#access_token=d": "https://h/?a=b;session=***#access_token=***",
		"https://h/?%74oken=a&page=2":             "https://h/?%74oken=***&page=2",
		"https://0123456789abcdef0123@h/1":        "https://***@h/1",
		"https://a@x.de:hunter2@h/":               "https://a@x.de:***@h/",
		"amqp://guest@h:5672":                     "amqp://guest@h:5672",
	} {
		require.Equal(t, want, maskURLs(text))
	}
}

type checked struct {
	Low, High int
}

func (c checked) Validate() error {
	if c.Low > c.High {
		return fmt.Errorf("low %d is above high %d", c.Low, c.High)
	}
	return nil
}

func TestValidate(t *testing.T) {
	type outer struct {
		checked // promoted: asked once
		Range   checked
		Label   string
	}
	l := NewLoader(NewCatalog())
	l.Section("gate", &outer{Label: "not in the errors"})
	require.NoError(t, l.Parse([]string{"--gate-low=2", "--gate-range-low=3"}))
	_, err := l.Load(nil)
	require.EqualError(t, err, strings.Join([]string{
		"gate: low 2 is above high 0 (gate-low from flag --gate-low)",
		"gate: low 3 is above high 0 (gate-range-low from flag --gate-range-low)",
	}, "\n"))
}
