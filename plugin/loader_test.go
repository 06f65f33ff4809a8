package plugin

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// input is what a program is given. "FILE" in args and env is the path of file.
type input struct {
	file string
	env  []string
	args []string
	code func(*Loader)
}

type program struct {
	Name string `default:"app" help:"what it is called"`
	Port int    `help:"where it listens"`
	Pass Secret
}

func load(t *testing.T, in input) (*Settings, error) {
	t.Helper()
	return loadFrom(t, testCatalog(), in)
}

func loadFrom(t *testing.T, c *Catalog, in input) (*Settings, error) {
	t.Helper()
	path := writeFile(t, "micro.yaml", in.file)
	l := NewLoader(c)
	if in.code != nil {
		in.code(l)
	}
	for i := range in.args {
		in.args[i] = strings.ReplaceAll(in.args[i], "FILE", path)
	}
	env := append([]string{"HOME=/root"}, in.env...)
	if in.file != "" {
		env = append(env, "MICRO_CONFIG="+path)
	}
	require.NoError(t, l.Parse(in.args))
	s, err := l.Load(env)
	if err != nil {
		err = errors.New(strings.ReplaceAll(err.Error(), path, "FILE"))
	}
	return s, err
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func setting(t *testing.T, s *Settings, key string) Setting {
	t.Helper()
	for _, x := range s.All() {
		if x.Key == key {
			x.Origin = filepath.Base(x.Origin)
			return x
		}
	}
	t.Fatalf("no setting %s in %v", key, s.All())
	return Setting{}
}

func TestPrecedence(t *testing.T) {
	layers := []struct {
		origin string
		add    func(*input, string)
	}{
		{"default", func(*input, string) {}},
		{"code", func(in *input, v string) { in.code = func(l *Loader) { l.Set("store-timeout", v) } }},
		{"micro.yaml:2", func(in *input, v string) { in.file = "store:\n  timeout: " + v }},
		{"environment MICRO_STORE_TIMEOUT", func(in *input, v string) { in.env = []string{"MICRO_STORE_TIMEOUT=" + v} }},
		{"flag --store-timeout", func(in *input, v string) { in.args = []string{"--store-timeout=" + v} }},
	}
	for low := range layers {
		for high := low; high < len(layers); high++ {
			in := input{}
			layers[low].add(&in, "1m")
			want := "1m"
			if high != low {
				layers[high].add(&in, "2m")
				want = "2m"
			}
			if high == 0 {
				want = "5s"
			}
			in.args = append(in.args, "--store=disk")
			s, err := load(t, in)
			require.NoError(t, err)
			got := setting(t, s, "store-timeout")
			require.Equal(t, want, got.Value)
			require.Equal(t, layers[high].origin, got.Origin)
			require.Equal(t, "5s", got.Default)
			require.Equal(t, "MICRO_STORE_TIMEOUT", got.Env)
		}
	}
}

func TestOptionsMergeOneByOne(t *testing.T) {
	s, err := load(t, input{
		code: func(l *Loader) { l.Set("store", "disk"); l.Set("store-path", "/code") },
		file: "store: {labels: {a: '1,2', b: c}}\n",
		env:  []string{"MICRO_STORE_TIMEOUT=7s", "MICRO_STORE_PATH="}, // empty is not set
		args: []string{"--store_cache", "--store_token", "hunter22"},
	})
	require.NoError(t, err)
	require.Equal(t, []string{"disk"}, s.Chosen("store"))
	h := s.Open(t.Context(), nil)
	defer h.Close()
	got, err := Open[store](h)
	require.NoError(t, err)
	require.Equal(t, "disk [/code] 7s map[a:1,2 b:c] true hunter22", got.Get())
	require.Equal(t, Setting{Key: "store-token", Value: "***", Origin: "flag --store-token", Help: "opens the store", Env: "MICRO_STORE_TOKEN"},
		setting(t, s, "store-token"))
	require.Equal(t, Setting{Key: "store", Value: "disk", Origin: "code", Default: "memory", Help: "keeps things", Env: "MICRO_STORE"},
		setting(t, s, "store"))
	require.Empty(t, s.Warnings())
}

func TestFile(t *testing.T) {
	for name, file := range map[string]string{
		"nested":     "store:\n  plugin: disk\n  path: [/a, '/b,c']\n  tls: {server-name: x}\n",
		"flat":       "store: disk\nstore-path:\n- /a\n- /b,c\nstore-tls-server-name: x\n",
		"underscore": "store_plugin: disk\nstore: {path: [/a, '/b,c'], tls: {server_name: x}}\n",
		"empty keys": "---\nstore: {plugin: disk, path: [/a, '/b,c'], labels: , tls: {server-name: x, ca: ~}}\nfilter:\n",
	} {
		t.Run(name, func(t *testing.T) {
			s, err := load(t, input{file: file})
			require.NoError(t, err)
			require.Equal(t, "/a,/b,c", setting(t, s, "store-path").Value)
			require.Equal(t, "x", setting(t, s, "store-tls-server-name").Value)
			require.Equal(t, []string{"disk"}, s.Chosen("store"))
		})
	}
	for _, file := range []string{"", "# nothing\n", "---\n", "~\n"} {
		_, err := load(t, input{file: file, args: []string{"--config=FILE"}})
		require.NoError(t, err)
	}
}

func TestFileErrors(t *testing.T) {
	for name, tt := range map[string]struct{ file, want string }{
		"unknown key":     {"store:\n  sise: 1", "unknown setting store-sise (file FILE:2): did you mean store-size?"},
		"unknown section": {"stroe: {size: 1, path: x}", "unknown setting stroe (file FILE:1): did you mean store?"},
		"nothing near":    {"weather: fine", "unknown setting weather (file FILE:1): remove it"},
		"duplicate":       {"store:\n  size: 1\nstore_size: 2", "store-size: set twice, first by file FILE:2: leave one (file FILE:3)"},
		"choice twice":    {"store: memory\nstore-plugin: memory", "store: set twice, first by file FILE:1: leave one (file FILE:2)"},
		"nothing chosen":  {"store: {plugin: '', size: []}", "store-size (file FILE:1) is an option of memory, but no store is chosen: choose with --store memory, or remove the setting"},
		"list of none":    {"store: {plugin: []}", "store: one is chosen, not a list: write  store: NAME  (file FILE:1)"},
		"list of one":     {"store: [memory]", "store: one is chosen, not a list: write  store: NAME  (file FILE:1)"},
		"number for kind": {"store: 3", `store: there is no store called "3" (file FILE:1): linked are disk, memory; link the package that registers it in plugins.go, or choose one of these`},
		"group as value":  {"filter-ip: x", "filter-ip: it is a group of settings: write  filter-ip: {allow: …}  (file FILE:1)"},
		"group as list":   {"store:\n  plugin: disk\n  tls: [x]", "store-tls: it is a group of settings: write  tls: {enable: …}  (file FILE:3)"},
		"group in group":  {"store: {tsl: {ca: x}}", "unknown setting store-tsl (file FILE:1): did you mean store-tls?"},
		"not its group":   {"store: {elsewhere: x}", "unknown setting store-elsewhere (file FILE:1): remove it"},
		"tab":             {"store:\n\tsize: 1", "FILE: yaml: line 2: found character that cannot start any token: indent with spaces, not with tabs"},
		"nested list":     {"store: {plugin: [[a]]}", "store: lists and maps hold plain values only (file FILE:1)"},
		"list for scalar": {"\nstore: {size: [1, 2]}", "store-size: one value is wanted, not a list or a mapping (file FILE:2)"},
		"map for scalar":  {"store: {size: {a: 1}}", "store-size: a size is wanted, not a mapping (file FILE:1)"},
		"map for list":    {"store: {plugin: disk, path: {a: 1}}", "store-path: a list is wanted, not a mapping (file FILE:1)"},
		"list for map":    {"store: {plugin: disk, labels: [a]}", `store-labels: "a" is not a pair: write key=value,key=value (file FILE:1)`},
		"list of lists":   {"store: {plugin: disk, path: [[a]]}", "store-path: lists and maps hold plain values only (file FILE:1)"},
		"key with =":      {"store: {plugin: disk, labels: {a=b: c}}", "store-labels: the keys of a map cannot hold an equals sign (file FILE:1)"},
		"alias":           {"store: {plugin: &x disk, path: *x}", "store-path: aliases are not supported (file FILE:1): write the value out"},
		"merge key":       {"a: &a {b: c}\nstore: {<<: *a}", "store-<<: aliases are not supported (file FILE:2): write the value out\nunknown setting a (file FILE:1): remove it"},
		"complex key":     {"[a, b]: c", "FILE:1: a key is a plain name"},
		"no mapping":      {"- a\n- b", "FILE:1: not a mapping: write one setting a line, name: value"},
		"broken":          {"store: {", "FILE: yaml: line 1: did not find expected node content: correct the YAML"},
		"two documents":   {"store: memory\n---\nstore: disk", "FILE: more than one document: leave one"},
		"config":          {"config: other.yaml", "config: the file cannot name another: remove it (file FILE:1)"},
		"two of one":      {"store: [memory, disk]", "store: one is chosen, not a list: write  store: NAME  (file FILE:1)"},
		"two in one":      {"store: 'memory, disk'", "store: one is chosen, not memory,disk (file FILE:1)"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, input{file: tt.file})
			require.EqualError(t, err, tt.want)
		})
	}

	section := func(l *Loader) { l.Section("shop", &struct{ MaxCount int }{}) }
	_, err := load(t, input{file: "shop: 3", code: section})
	require.EqualError(t, err, "shop: it is a group of settings: write  shop: {max-count: …}  (file FILE:1)")
	for _, file := range []string{"shopp: {max-count: 3}", "shopp: 3"} {
		_, err = load(t, input{file: file, code: section})
		require.EqualError(t, err, "unknown setting shopp (file FILE:1): did you mean shop?")
	}
	_, err = load(t, input{env: []string{"MICRO_CONFIG=/nowhere.yaml"}})
	require.EqualError(t, err, "config: cannot read the file: open /nowhere.yaml: no such file or directory (environment MICRO_CONFIG)")
	_, err = load(t, input{file: strings.Repeat("#", maxFile+1)})
	require.EqualError(t, err, "config: FILE is larger than 1MiB (environment MICRO_CONFIG)")
	_, err = load(t, input{args: []string{"--config", t.TempDir()}})
	require.ErrorContains(t, err, "is a directory")
	_, err = load(t, input{file: strings.Repeat("x: 1\ny: 1\n", 1000)})
	require.Len(t, strings.Split(err.Error(), "\n"), maxUnknown, "a foreign file is not reported line by line")
}

func TestChoiceErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		in   input
		want string
	}{
		"unknown name": {input{args: []string{"--store=dsk"}},
			`store: there is no store called "dsk" (flag --store): linked are disk, memory; did you mean disk?`},
		"unknown name, nothing near": {input{env: []string{"MICRO_STORE=zookeeper", "MICRO_STORE_HOSTS=x"}},
			`store: there is no store called "zookeeper" (environment MICRO_STORE): linked are disk, memory; link the package that registers it in plugins.go, or choose one of these`},
		"known, not linked": {input{file: "store:\n  plugin: cloud\n  bucket: b"},
			`store: cloud is not linked into this program (file FILE:2): add  _ "github.com/plugmicro/micro/plugin/cloud"  to plugins.go and rebuild: go mod tidy && go build`},
		"its flags are not held against it": {input{args: []string{"--store=cloud", "--store-bucket", "b"}},
			`store: cloud is not linked into this program (flag --store): add  _ "github.com/plugmicro/micro/plugin/cloud"  to plugins.go and rebuild: go mod tidy && go build`},
		"nor are options of others": {input{args: []string{"--store=cloud", "--store-path", "b"}},
			`store: cloud is not linked into this program (flag --store): add  _ "github.com/plugmicro/micro/plugin/cloud"  to plugins.go and rebuild: go mod tidy && go build`},
		"option of another": {input{env: []string{"MICRO_STORE_TOKEN=hunter22"}},
			"store-token (environment MICRO_STORE_TOKEN) is an option of disk, but the chosen store is memory (default): choose with --store disk, or remove the setting"},
		"option of an unchosen filter": {input{file: "filter: {ip: {allow: x}}"},
			"filter-ip-allow (file FILE:1) is an option of ip, but no filter is chosen: choose with --gate-filter ip, or remove the setting"},
		"twice": {input{args: []string{"--gate-filter=ip,log,ip"}}, "gate-filter: ip is named twice (flag --gate-filter)"},
		"option of an instance passed in": {input{args: []string{"--store-size=1"}, code: func(l *Loader) { Provide[store](l, fixed("mine")) }},
			"store-size (flag --store-size) has no effect: the program passes in its own store: choose a plugin by name with --store, or remove the setting"},
		"several in one flag": {input{args: []string{"--store=disk,memory"}}, "store: one is chosen, not disk,memory (flag --store)"},
		"unknown setting in code": {input{code: func(l *Loader) { l.Set("store-sise", "1") }},
			"unknown setting store-sise (code): did you mean store-size?"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, tt.in)
			require.EqualError(t, err, tt.want)
		})
	}
}

func TestErrorsComeAllAtOnce(t *testing.T) {
	var p program
	_, err := load(t, input{
		code: func(l *Loader) { l.Section("", &p) },
		file: "prot: 1\nport: x\nstore:\n  plugin: dsk\n",
		env:  []string{"MICRO_GATE_FILTER=log,id"},
		args: []string{"--nmae=x", "stray", "--stroe", "disk", "--name"},
	})
	require.EqualError(t, err, strings.Join([]string{
		`unexpected argument "stray": settings are written --name value`,
		`--name: the value is missing: write --name VALUE`,
		`gate-filter: there is no filter called "id" (environment MICRO_GATE_FILTER): linked are ip, log; did you mean ip?`,
		`store: there is no store called "dsk" (file FILE:4): linked are disk, memory; did you mean disk?`,
		`unknown flag --nmae: did you mean --name?`,
		`unknown flag --stroe: did you mean --store?`,
		`unknown setting prot (file FILE:1): did you mean port?`,
		`port: "x" is not a whole number (file FILE:2)`,
	}, "\n"))
}

func TestUnknownEnvironmentIsAWarning(t *testing.T) {
	s, err := load(t, input{env: []string{"MICRO_STROE=disk", "MICRO_WEATHER_TODAY=fine", "MICRO_store=disk", "MICROSCOPE=1"}})
	require.NoError(t, err)
	require.Equal(t, []string{
		"unknown environment variable MICRO_STROE: did you mean MICRO_STORE?",
		"unknown environment variable MICRO_WEATHER_TODAY: it has no effect: remove it, or correct its name",
		"unknown environment variable MICRO_store: did you mean MICRO_STORE?",
	}, s.Warnings())
}

func TestOptionsFromCodeYieldToAnotherChoice(t *testing.T) {
	code := func(l *Loader) { l.Set("store", "disk"); l.Set("store-path", "/code") }
	s, err := load(t, input{code: code, args: []string{"--store=memory"}})
	require.NoError(t, err)
	require.Equal(t, []string{"memory"}, s.Chosen("store"))
}

func TestSections(t *testing.T) {
	p := program{Name: "code", Pass: NewSecret("hunter22")}
	var gate struct{ Address string }
	_, err := load(t, input{
		code: func(l *Loader) { l.Section("", &p); l.Section("gate", &gate) },
		file: "gate: {address: ':80'}\nport: 1",
		env:  []string{"MICRO_PORT=2"},
	})
	require.NoError(t, err)
	require.Equal(t, "code", p.Name)
	require.Equal(t, 2, p.Port)
	require.Equal(t, "hunter22", p.Pass.Reveal())
	require.Equal(t, ":80", gate.Address)
}

func TestSectionOrigins(t *testing.T) {
	s, err := load(t, input{code: func(l *Loader) {
		l.Section("", &program{Name: "code", Pass: NewSecret("hunter22")})
		l.Set("port", "8080")
	}})
	require.NoError(t, err)
	var lines []string
	for _, x := range s.All() {
		lines = append(lines, fmt.Sprintf("%s=%s %s", x.Key, x.Value, x.Origin))
	}
	require.Equal(t, []string{
		"config= default", "name=code code", "port=8080 code", "pass=*** code", "gate-filter= default", "store=memory default",
		"store-size=4MiB default", "store-cache= default",
	}, lines)
}

func TestProvide(t *testing.T) {
	code := func(l *Loader) { Provide[store](l, fixed("mine")); l.Set("store", "disk") }
	s, err := load(t, input{code: code})
	require.NoError(t, err)
	require.Empty(t, s.Chosen("store"))
	require.Equal(t, "(passed in)", setting(t, s, "store").Value)
	h := s.Open(t.Context(), nil)
	got, err := Open[store](h)
	require.NoError(t, err)
	require.Equal(t, "mine", got.Get())
	require.NoError(t, h.Close())

	for _, outside := range []input{
		{code: code, args: []string{"--store=memory"}},
		{code: code, env: []string{"MICRO_STORE=memory"}},
		{code: code, file: "store: memory"},
	} {
		s, err := load(t, outside)
		require.NoError(t, err)
		require.Equal(t, []string{"memory"}, s.Chosen("store"))
	}
}

func TestMany(t *testing.T) {
	one := filter(func(s string) string { return s + "+mine" })
	for name, tt := range map[string]struct {
		in   input
		want string
	}{
		"none":      {input{}, ""},
		"flag":      {input{args: []string{"--gate-filter=log,ip", "--filter-ip-allow=a,b"}}, "+log+ipa|b"},
		"flags":     {input{args: []string{"--gate-filter=ip", "--gate-filter=log"}}, "+ip+log"},
		"env":       {input{env: []string{"MICRO_GATE_FILTER=ip", "MICRO_FILTER_IP_ALLOW=a"}}, "+ipa"},
		"file":      {input{file: "gate: {filter: [ip, log]}\nfilter: {ip: {allow: [a]}}"}, "+ipa+log"},
		"by kind":   {input{file: "filter: {plugin: [ip], ip: {allow: [a]}}"}, "+ipa"},
		"short":     {input{file: "filter: [log]"}, "+log"},
		"passed in": {input{code: func(l *Loader) { Provide(l, one); Provide(l, one) }}, "+mine+mine"},
		"flag none": {input{args: []string{"--gate-filter="}, file: "filter: [log]"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := load(t, tt.in)
			require.NoError(t, err)
			h := s.Open(t.Context(), nil)
			defer h.Close()
			filters, err := OpenAll[filter](h)
			require.NoError(t, err)
			text := ""
			for _, f := range filters {
				text = f(text)
			}
			require.Equal(t, tt.want, text)
		})
	}
}

func TestSecretFiles(t *testing.T) {
	path := writeFile(t, "token", "hunter22\r\n")
	other := writeFile(t, "other", "other")
	for name, tt := range map[string]struct {
		in           input
		want, origin string
	}{
		"flag":             {input{args: []string{"--store-token-file", path}}, "hunter22", "flag --store-token-file"},
		"env":              {input{env: []string{"MICRO_STORE_TOKEN_FILE=" + path}}, "hunter22", "environment MICRO_STORE_TOKEN_FILE"},
		"file":             {input{file: "store: {token-file: " + path + "}"}, "hunter22", "micro.yaml:1"},
		"flag over file":   {input{args: []string{"--store-token=flag"}, file: "store: {token-file: " + path + "}"}, "flag", "flag --store-token"},
		"file over env":    {input{args: []string{"--store-token-file=" + path}, env: []string{"MICRO_STORE_TOKEN=env"}}, "hunter22", "flag --store-token-file"},
		"the last of two":  {input{args: []string{"--store-token-file=" + path, "--store-token-file=" + other}}, "other", "flag --store-token-file"},
		"quoted in config": {input{file: "store: {token: ' x '}"}, " x ", "micro.yaml:1"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.in.code = func(l *Loader) { l.Set("store", "disk") }
			s, err := load(t, tt.in)
			require.NoError(t, err)
			require.Equal(t, tt.origin, setting(t, s, "store-token").Origin)
			require.Equal(t, "***", setting(t, s, "store-token").Value)
			h := s.Open(t.Context(), nil)
			defer h.Close()
			got, err := Open[store](h)
			require.NoError(t, err)
			require.True(t, strings.HasSuffix(got.Get(), " "+tt.want), got.Get())
		})
	}
	for name, tt := range map[string]struct {
		in   input
		want string
	}{
		"both": {input{args: []string{"--store=disk", "--store-token=a", "--store-token-file=" + path}},
			"store-token: given twice, also by flag --store-token-file: leave one (flag --store-token)"},
		"unreadable": {input{args: []string{"--store=disk", "--store-token-file=/nowhere"}},
			"store-token: cannot read the file: open /nowhere: no such file or directory (flag --store-token-file)"},
		"list": {input{file: "store: {plugin: disk, token-file: []}"},
			"store-token: one value is wanted, not a list or a mapping (file FILE:1)"},
		"of another": {input{args: []string{"--store-token-file=/nowhere"}},
			"store-token-file (flag --store-token-file) is an option of disk, but the chosen store is memory (default): choose with --store disk, or remove the setting"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, tt.in)
			require.EqualError(t, err, tt.want)
		})
	}
}

type strictConfig struct {
	Token Secret `default:"builtin-hunter22" help:"opens it"`
	URL   string
}

func (c strictConfig) Validate() error { return fmt.Errorf("token %s is too short", c.Token.Reveal()) }

func TestSecretsDoNotShowInErrors(t *testing.T) {
	const secret = "hunter22"
	catalog := func() *Catalog {
		c := testCatalog()
		RegisterIn(c, "strict", func(*Env, strictConfig) (store, error) { return nil, nil })
		RegisterIn(c, "refused", func(_ *Env, c struct{ Token Secret }) (store, error) {
			return nil, fmt.Errorf("refused: %s and amqp://u:%s@h", c.Token.Reveal(), c.Token.Reveal())
		})
		return c
	}
	for name, in := range map[string]input{
		"other plugin":            {args: []string{"--store-token", secret}},
		"misspelled flag":         {args: []string{"--store-tokn", secret}},
		"misspelled flag with =":  {args: []string{"--store-tokn=" + secret}},
		"short flag":              {args: []string{"-p" + secret}},
		"single dash":             {args: []string{"-store-token=" + secret}},
		"misspelled key":          {file: "store: {tokn: " + secret + "}"},
		"misspelled variable":     {args: []string{"--stor"}, env: []string{"MICRO_STORE_TOKN=" + secret}},
		"list":                    {file: "store: {plugin: disk, token: [" + secret + "]}"},
		"mapping":                 {file: "store: {plugin: disk, token: {" + secret + ": " + secret + "}}"},
		"alias":                   {file: "store: {plugin: disk, token: *" + secret + "}"},
		"anchor":                  {file: "store: {plugin: disk, token: [&" + secret + "}"},
		"tag":                     {file: "store: {plugin: disk, token: [!" + secret + "}"},
		"reserved character":      {file: "store: {plugin: disk, token: @" + secret + "}"},
		"percent":                 {file: "store: {plugin: disk, token: %" + secret + "}"},
		"twice":                   {file: "store: {plugin: disk, token: " + secret + "}\nstore-token: " + secret},
		"validate":                {args: []string{"--store=strict", "--store-token", secret}},
		"validate, default":       {args: []string{"--store=strict"}},
		"factory":                 {args: []string{"--store=refused", "--store-token", secret}},
		"password in a bad value": {args: []string{"--store-size=amqp://u:" + secret + "@h"}},
		"password in a bad name":  {args: []string{"--store=amqp://u:" + secret + "@h"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLoader(catalog())
			require.NoError(t, l.Parse(in.args))
			env := in.env
			if in.file != "" {
				env = append(env, "MICRO_CONFIG="+writeFile(t, "x.yaml", in.file))
			}
			s, err := l.Load(env)
			if err == nil {
				h := s.Open(t.Context(), slog.New(slog.NewTextHandler(io.Discard, nil)))
				defer h.Close()
				_, err = Open[store](h)
			}
			require.Error(t, err)
			if name != "mapping" { // there the user made it a key, and unknown keys are named
				require.NotContains(t, err.Error(), secret)
			}
			if in.file == "" {
				fs := pflag.NewFlagSet("", pflag.ContinueOnError)
				l.AddFlags(fs)
				fs.VisitAll(func(f *pflag.Flag) { require.NotContains(t, f.Value.String()+f.Usage+f.DefValue, secret) })
			}
			require.NotContains(t, l.Usage(), secret)
		})
	}
	l := NewLoader(catalog())
	require.NotContains(t, fmt.Sprint(l.catalog.Kinds()), secret)
}

func TestParse(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want string // error
	}{
		"fine":               {[]string{"--store", "disk", "--store_path=/a", "--store-cache"}, ""},
		"bool with value":    {[]string{"--store-cache=false"}, ""},
		"single dash":        {[]string{"-store=disk"}, "-store=disk: flags have two dashes: write --store=disk"},
		"single dash, apart": {[]string{"-store_path", "/a", "--store", "disk"}, "-store-path: flags have two dashes: write --store-path"},
		"single dash, bool":  {[]string{"-store-cache", "x"}, "-store-cache: flags have two dashes: write --store-cache" + "\n" + `unexpected argument "x": settings are written --name value`},
		"single dash secret": {[]string{"-store-token=hunter22"}, "-store-token=***: flags have two dashes: write --store-token=***"},
		"single dash typo":   {[]string{"-stroe=disk"}, "unknown flag -stroe: did you mean --store?"},
		"short":              {[]string{"-p", "x"}, "unknown flag -p: --help lists them"},
		"dash alone":         {[]string{"-"}, "unknown flag -: --help lists them"},
		"three dashes":       {[]string{"---store=disk"}, "unknown flag ---store: did you mean --store?"},
		"after dashes":       {[]string{"--", "a", "--store=disk"}, `unexpected argument "a": settings are written --name value` + "\n" + `unexpected argument "--store=disk": settings are written --name value`},
		"value missing":      {[]string{"--store"}, "--store: the value is missing: write --store VALUE"},
		"far from any":       {[]string{"--completely-different"}, "unknown flag --completely-different: --help lists them"},
		"unknown with value": {[]string{"--stroe", "disk", "more"}, `unexpected argument "more": settings are written --name value` + "\n" + "unknown flag --stroe: did you mean --store?"},
		"very long":          {[]string{"--" + strings.Repeat("x", 1<<20)}, "unknown flag --" + strings.Repeat("x", 1<<20) + ": --help lists them"},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLoader(testCatalog())
			require.NoError(t, l.Parse(tt.args))
			_, err := l.Load([]string{"MICRO_STORE=disk"})
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, tt.want)
		})
	}
}

func TestHelp(t *testing.T) {
	for _, arg := range []string{"-h", "--help"} {
		l := NewLoader(testCatalog())
		l.Section("", &program{})
		var err error
		out := capture(t, func() { err = l.Parse([]string{"--nonsense", arg}) })
		require.ErrorIs(t, err, pflag.ErrHelp)
		require.Equal(t, l.Usage(), out)
	}
	l := NewLoader(testCatalog())
	l.Section("", &program{})
	want := "Usage: " + filepath.Base(os.Args[0]) + ` [flags]

Settings:
      --config string      settings file, YAML [MICRO_CONFIG]
      --name string        what it is called [MICRO_NAME] (default "app")
`
	require.True(t, strings.HasPrefix(l.Usage(), want), l.Usage())
	for _, line := range []string{
		`--store string                   which store: disk, memory [MICRO_STORE] (default "memory")`,
		`--store-path list                disk: folders [MICRO_STORE_PATH] (default /var/store)`,
		`--store-cache                    disk; memory: keep what was read [MICRO_STORE_CACHE]`,
		`--gate-filter list       which filter: ip, log [MICRO_GATE_FILTER]`,
		`--filter-ip-allow list   networks [MICRO_FILTER_IP_ALLOW]`,
	} {
		require.Contains(t, l.Usage(), line)
	}
}

func TestHelpShowsWhatIsSetInCode(t *testing.T) {
	l := NewLoader(testCatalog())
	l.Section("", &program{Name: "greeter", Pass: NewSecret("hunter22")})
	l.Set("store", "disk")
	l.Set("store-token", "hunter22")
	for _, line := range []string{
		`[MICRO_NAME] (default "greeter")`, `which store: disk, memory [MICRO_STORE] (default "disk")`,
		"[MICRO_PASS] (default ***)", "[MICRO_STORE_TOKEN] (default ***)", "[MICRO_PORT]\n",
	} {
		require.Contains(t, l.Usage(), line)
	}
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	l.AddFlags(fs)
	require.Equal(t, "greeter", fs.Lookup("name").DefValue)
}

func capture(t *testing.T, f func()) string {
	t.Helper()
	stdout := os.Stdout
	defer func() { os.Stdout = stdout }()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer file.Close()
	os.Stdout = file
	f()
	out, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	return string(out)
}

func TestOptionsOfOneNameAndSeveralTypes(t *testing.T) {
	c := NewCatalog()
	NewKindIn[store](c, "store")
	RegisterIn(c, "a", func(_ *Env, c struct {
		Mode bool `default:"true"`
	}) (store, error) {
		return fixed(fmt.Sprint(c.Mode)), nil
	})
	RegisterIn(c, "b", func(_ *Env, c struct {
		Mode string `default:"fast"`
	}) (store, error) {
		return fixed(c.Mode), nil
	})
	for plugin, want := range map[string]string{"a": "false", "b": "false"} {
		l := NewLoader(c)
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		l.AddFlags(fs)
		require.Equal(t, "value", fs.Lookup("store-mode").Value.Type())
		require.Empty(t, fs.Lookup("store-mode").NoOptDefVal+fs.Lookup("store-mode").DefValue)
		require.NoError(t, fs.Parse([]string{"--store", plugin, "--store_mode", "false"}))
		s, err := l.Load(nil)
		require.NoError(t, err)
		h := s.Open(t.Context(), nil)
		got, err := Open[store](h)
		require.NoError(t, err)
		require.Equal(t, want, got.Get())
		require.NoError(t, h.Close())
	}
}

func TestFlagError(t *testing.T) {
	l := NewLoader(testCatalog())
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.Usage = func() {}
	l.AddFlags(fs)
	fs.BoolP("verbose", "v", false, "")
	for arg, want := range map[string]string{
		"--stroe=disk":          "unknown flag --stroe: did you mean --store?",
		"-stroe=disk":           "unknown flag -stroe: did you mean --store?",
		"-store=disk":           "-store=disk: flags have two dashes: write --store=disk",
		"-store_path":           "-store-path: flags have two dashes: write --store-path",
		"-store-token=hunter22": "-store-token=***: flags have two dashes: write --store-token=***",
		"-verbose":              "-verbose: flags have two dashes: write --verbose",
		"-phunter22":            "unknown flag -p: --help lists them",
		"-x":                    "unknown flag -x: --help lists them",
	} {
		require.EqualError(t, FlagError(fs, fs.Parse([]string{arg})), want)
	}
	other := fs.Parse([]string{"--store"})
	require.Error(t, other)
	require.Equal(t, other, FlagError(fs, other))
}

// A third party needs one NewKind to get a flag, a variable, a key of the file, a listing and errors.
func TestThirdPartyKind(t *testing.T) {
	type clock interface{ Now() time.Time }
	c := testCatalog()
	require.Equal(t, "clock", NewKindIn[clock](c, "clock", KindDoc("tells the time")).Name())
	var got []string
	RegisterIn(c, "sundial", func(_ *Env, c struct {
		Latitude float64 `default:"52.5" help:"where it stands"`
	}) (clock, error) {
		got = append(got, fmt.Sprint(c.Latitude))
		return clockFunc(time.Now), nil
	})
	file := writeFile(t, "x.yaml", "clock: {plugin: sundial, latitude: 3}")
	for _, in := range []input{
		{args: []string{"--clock=sundial", "--clock-latitude=1"}},
		{env: []string{"MICRO_CLOCK=sundial", "MICRO_CLOCK_LATITUDE=2"}},
		{env: []string{"MICRO_CONFIG=" + file}},
	} {
		l := NewLoader(c)
		require.NoError(t, l.Parse(in.args))
		s, err := l.Load(in.env)
		require.NoError(t, err)
		h := s.Open(t.Context(), nil)
		_, err = Open[clock](h)
		require.NoError(t, err)
		require.NoError(t, h.Close())
	}
	require.Equal(t, []string{"1", "2", "3"}, got)
	require.Equal(t, "clock", c.Kinds()[0].Name)
	require.Contains(t, NewLoader(c).Usage(), "--clock-latitude float   sundial: where it stands [MICRO_CLOCK_LATITUDE] (default 52.5)")
}

type clockFunc func() time.Time

func (f clockFunc) Now() time.Time { return f() }

func TestPassOver(t *testing.T) {
	s, err := load(t, input{
		code: func(l *Loader) { l.PassOver("door") },
		file: "door: {address: x, plugins: [a, {b: c}]}\ndoor-bell: [a, b]",
		env:  []string{"MICRO_DOOR_ADDRESS=x", "MICRO_DOORS=1"},
	})
	require.NoError(t, err)
	require.Len(t, s.Warnings(), 1, "what is under another name is told")
	_, err = load(t, input{code: func(l *Loader) { l.PassOver("door") }, file: "doors: 1"})
	require.ErrorContains(t, err, "unknown setting doors")
}

func TestIgnoreForeign(t *testing.T) {
	code := func(l *Loader) { l.Section("gate", &struct{ Port int }{}); l.IgnoreForeign() }
	many := strings.Builder{}
	for i := range 2 * maxUnknown {
		fmt.Fprintf(&many, "shop%d: 1\n", i)
	}
	s, err := load(t, input{
		code: code,
		file: many.String() + "shop: {max-count: 3, tags: [a]}\nstroe: {size: 1}\nstore: {size: 1}",
		env:  []string{"MICRO_SHOP_MAX_COUNT=3", "MICRO_MAIL_SIZE=1", "MICRO_STROE_SIZE=1", "MICRO_STORE_SISE=1", "MICRO_GATE_PROT=1"},
	})
	require.NoError(t, err)
	require.Equal(t, "1", setting(t, s, "store-size").Value, "what is known counts")
	require.Len(t, s.Warnings(), 4)
	require.Equal(t, []string{
		"unknown environment variable MICRO_GATE_PROT: did you mean MICRO_GATE_PORT?",
		"unknown environment variable MICRO_STORE_SISE: did you mean MICRO_STORE_SIZE?",
		"unknown environment variable MICRO_STROE_SIZE: did you mean MICRO_STORE_SIZE?",
	}, s.Warnings()[:3])
	require.Regexp(t, `^unknown setting stroe \(file .*:42\): did you mean store\?$`, s.Warnings()[3])

	for name, tt := range map[string]struct {
		in   input
		want string
	}{
		"option of a kind": {input{file: many.String() + "store: {sise: 1}"}, "unknown setting store-sise (file FILE:41): did you mean store-size?"},
		"written flat":     {input{file: "gate-filter-x: 1"}, "unknown setting gate-filter-x (file FILE:1): remove it"},
		"of a section":     {input{file: "gate: {prot: 1}"}, "unknown setting gate-prot (file FILE:1): did you mean gate-port?"},
		"flag":             {input{args: []string{"--shop-max=3"}}, "unknown flag --shop-max: --help lists them"},
		"code":             {input{code: func(l *Loader) { l.Set("shop", "3") }}, "unknown setting shop (code): remove it"},
	} {
		t.Run(name, func(t *testing.T) {
			more := tt.in.code
			tt.in.code = func(l *Loader) {
				code(l)
				if more != nil {
					more(l)
				}
			}
			_, err := load(t, tt.in)
			require.EqualError(t, err, tt.want)
		})
	}
}

// TestStrict has nothing pass that may be a guard whose name is misspelt, and all that is of others.
func TestStrict(t *testing.T) {
	code := func(l *Loader) {
		l.Section("", &program{})
		l.Section("gate", &struct{ Address string }{})
		l.IgnoreForeign()
		l.Strict()
	}
	for name, tt := range map[string]struct {
		in   input
		want string
	}{
		"kind":                      {input{file: "fliter: {ip: {allow: [a]}}"}, "unknown setting fliter (file FILE:1): did you mean filter? If another program is meant, have it in a file of its own"},
		"section":                   {input{file: "gaet: {filter: [ip]}"}, "unknown setting gaet (file FILE:1): did you mean gate? If another program is meant, have it in a file of its own"},
		"section, flat":             {input{file: "gaet-filter: [ip]"}, "unknown setting gaet-filter (file FILE:1): did you mean gate? If another program is meant, have it in a file of its own"},
		"another case":              {input{file: "GATE: {filter: [ip]}"}, "unknown setting GATE (file FILE:1): did you mean gate? If another program is meant, have it in a file of its own"},
		"a dot for a dash":          {input{file: "gate.filter: [ip]"}, "unknown setting gate.filter (file FILE:1): did you mean gate-filter? If another program is meant, have it in a file of its own"},
		"no dash":                   {input{file: "gatefilter: [ip]"}, "unknown setting gatefilter (file FILE:1): did you mean gate-filter? If another program is meant, have it in a file of its own"},
		"one dash more":             {input{file: "fil-ter: {ip: {allow: [a]}}"}, "unknown setting fil-ter (file FILE:1): did you mean filter? If another program is meant, have it in a file of its own"},
		"variable of a section":     {input{env: []string{"MICRO_GATE_FLITER=ip"}}, "unknown environment variable MICRO_GATE_FLITER: did you mean MICRO_GATE_FILTER?"},
		"variable of a kind":        {input{env: []string{"MICRO_FILTER_IP_ALOW=a"}}, "unknown environment variable MICRO_FILTER_IP_ALOW: did you mean MICRO_FILTER_IP_ALLOW?"},
		"variable near none":        {input{env: []string{"MICRO_FILTER_CONFERENCE=a"}}, "unknown environment variable MICRO_FILTER_CONFERENCE: it has no effect: remove it, or correct its name"},
		"variable near a section":   {input{env: []string{"MICRO_GAET_FILTER=ip"}}, "unknown environment variable MICRO_GAET_FILTER: did you mean MICRO_GATE_FILTER?"},
		"variable without its dash": {input{env: []string{"MICRO_GATEFILTER=ip"}}, "unknown environment variable MICRO_GATEFILTER: did you mean MICRO_GATE_FILTER?"},
		"the kind's own name":       {input{env: []string{"MICRO_FILTER=ip"}}, "unknown environment variable MICRO_FILTER: did you mean MICRO_GATE_FILTER?"},
		"small letters":             {input{env: []string{"MICRO_gate_filter=ip"}}, "unknown environment variable MICRO_gate_filter: did you mean MICRO_GATE_FILTER?"},
		"no URL, so no link":        {input{env: []string{"MICRO_GATE_PORT=80"}}, "unknown environment variable MICRO_GATE_PORT: it has no effect: remove it, or correct its name"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.in.code = code
			_, err := load(t, tt.in)
			require.EqualError(t, err, tt.want)
		})
	}

	s, err := load(t, input{
		code: code,
		file: "name: greeter\nshop: {max-count: 3}\nguests: {gate: 1}\nport: 1",
		env: []string{
			"MICRO_SHOP_MAX_COUNT=3", "MICRO_GATE_SERVICE_HOST=10.0.0.1", "MICRO_GATE_SERVICE_PORT=80", "MICRO_GATE_SERVICE_PORT_HTTP=80",
			"MICRO_GATE_PORT=tcp://10.0.0.1:80", "MICRO_GATE_PORT_80_TCP=tcp://10.0.0.1:80", "MICRO_GATE_PORT_80_TCP_PROTO=tcp",
			"MICRO_GATE_PORT_80_TCP_PORT=80", "MICRO_GATE_PORT_80_TCP_ADDR=10.0.0.1",
		},
	})
	require.NoError(t, err, "what is of others, and Kubernetes' own")
	require.Empty(t, s.Warnings())

	_, err = load(t, input{code: func(l *Loader) { l.Strict() }, env: []string{"MICRO_WEATHER=1"}})
	require.EqualError(t, err, "unknown environment variable MICRO_WEATHER: it has no effect: remove it, or correct its name", "nothing is of others then")
}
