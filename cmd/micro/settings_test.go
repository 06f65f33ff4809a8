package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/plugin"
)

func TestConfig(t *testing.T) {
	m := newMachine(t)
	file := filepath.Join(t.TempDir(), "micro.yaml")
	require.NoError(t, os.WriteFile(file, []byte("name: greeter\nregister-ttl: 1m\ntransport: {timeout: 3s}\n"), 0o600))
	args := []string{"config", "--config", file, "--drain_timeout", "5s", "--transport_keep-alive=1s"}
	r := m.micro(args...)
	require.Equal(t, exitOK, r.code, r.err)
	require.Empty(t, r.err)
	for _, line := range []string{
		`SETTING +FROM +VALUE`, `name +file ` + file + `:1 +greeter`, `register-ttl +file ` + file + `:2 +1m`, `register-interval +default +10s`,
		`drain-timeout +flag --drain-timeout +5s`, `registry +default +local`, `registry-dir +environment MICRO_REGISTRY_DIR +` + m.dir,
		`transport-timeout +file ` + file + `:3 +3s`, `transport-keep-alive +flag --transport-keep-alive +1s`, `version +default`,
	} {
		require.Regexp(t, "(?m)^"+line+"$", r.out)
	}

	var list []plugin.Setting
	require.NoError(t, json.Unmarshal([]byte(m.micro(append(args, "-o", "json")...).out), &list))
	found := false
	for _, s := range list {
		if s.Key == "drain-timeout" {
			found = true
			require.Equal(t, "5s flag --drain-timeout 30s MICRO_DRAIN_TIMEOUT", s.Value+" "+s.Origin+" "+s.Default+" "+s.Env)
		}
	}
	require.True(t, found)

	m.env = append(m.env, "MICRO_NAME=greeter", "MICRO_REGISTY=local")
	r = m.micro("services", "--config", file)
	require.Equal(t, exitOK, r.code, "what is set for services is no mistake: %s", r.err)
	require.Equal(t, "micro: unknown environment variable MICRO_REGISTY: did you mean MICRO_REGISTRY?\nmicro: no service is registered in registry local\n", r.err)
	require.Regexp(t, `(?m)^\d{4}/\d\d/\d\d \S+ INFO subscribed topic=`, m.subscribe("greetings").err.text(), "logs look like those of services")
}

// TestSettingsOfOneService has a section that only the service knows.
func TestSettingsOfOneService(t *testing.T) {
	m := newMachine(t)
	file := filepath.Join(t.TempDir(), "micro.yaml")
	m.env = append(m.env, "MICRO_CONFIG="+file, "MICRO_SHOP_MAX_COUNT=3")
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }

	write("name: shop\nshop: {max-count: 3}\n")
	require.Equal(t, result{"[]\n", "", exitOK}, m.micro("services", "-o", "json"))
	require.NotContains(t, m.micro("config").out, "max-count")

	write("shop: {max-count: 3}\nregistry: {dri: /tmp}\n")
	require.Equal(t, result{"", "micro: unknown setting registry-dri (file " + file + ":2): did you mean registry-dir?\n", exitUsage}, m.micro("services"))
}

func TestVersion(t *testing.T) {
	m := newMachine(t)
	r := m.micro("version")
	require.Equal(t, exitOK, r.code)
	require.Regexp(t, `^micro \S+ \(go\S+, `+runtime.GOOS+"/"+runtime.GOARCH+`\)\n$`, r.out)
	require.Equal(t, r, m.micro("--version"))
	var v version
	require.NoError(t, json.Unmarshal([]byte(m.micro("version", "-o", "json").out), &v))
	require.Equal(t, runtime.Version(), v.Go)
	require.NotEmpty(t, v.Version)
}

// TestUsage goes through what can be wrong with a command line, and the settings.
func TestUsage(t *testing.T) {
	m := newMachine(t)
	for _, test := range []struct {
		args []string
		err  string
	}{
		{[]string{"cal"}, "micro: micro has no command \"cal\"\nhint: did you mean micro call?\n"},
		{[]string{"gatewai"}, "micro: micro has no command \"gatewai\"\nhint: did you mean micro gateway?\n"},
		{[]string{"frobnicate"}, "micro: micro has no command \"frobnicate\"\nhint: micro --help\n"},
		{[]string{"plugins", "sho"}, "micro: micro plugins has no command \"sho\"\nhint: did you mean micro plugins show?\n"},
		{[]string{"config", "registry"}, "micro: micro config takes no arguments, not \"registry\"\nhint: micro config --help\n"},
		{[]string{"services", "--wacht"}, "micro: unknown flag --wacht: did you mean --watch?\nhint: micro services --help\n"},
		{[]string{"services", "--regstry", "local"}, "micro: unknown flag --regstry: did you mean --registry?\nhint: micro services --help\n"},
		{[]string{"services", "-x"}, "micro: unknown flag -x: --help lists them\nhint: micro services --help\n"},
		{[]string{"services", "-registry=local"}, "micro: -registry=local: flags have two dashes: write --registry=local\nhint: micro services --help\n"},
		{[]string{"services", "-watch"}, "micro: -watch: flags have two dashes: write --watch\nhint: micro services --help\n"},
		{[]string{"services", "-o", "xml"}, "want text or json\nhint: micro services --help\n"},
		{[]string{"services", "--registry"}, "micro: flag needs an argument: --registry\nhint: micro services --help\n"},
		{[]string{"services", "--registry", "locale"}, `micro: registry: there is no registry called "locale" (flag --registry): linked are consul, local, m`},
		{[]string{"services", "--transport-timeout", "soon"}, `transport-timeout: `},
		{[]string{"services", "--config", "/nowhere.yaml"}, "/nowhere.yaml"},
		{[]string{"docs"}, "micro docs takes 1 arguments, not 0"},
	} {
		r := m.micro(test.args...)
		require.Equal(t, exitUsage, r.code, "%q: %s", test.args, r.err)
		require.Contains(t, r.err, test.err, "%q", test.args)
		require.Empty(t, r.out, "%q", test.args)
	}
	r := m.micro("services", "--registry=a", "--transport=b")
	require.Equal(t, 2, strings.Count(r.err, "micro: "), "all mistakes at once, a line each: %s", r.err)
}

func TestHelp(t *testing.T) {
	m := newMachine(t)
	r := m.micro()
	require.Equal(t, exitOK, r.code)
	require.Equal(t, r, m.micro("--help"))
	require.Equal(t, r, m.micro("help"))
	for _, part := range []string{"\nCommands:\n", "  call  ", "\nPlugins:\n", "--registry string ", exitCodes} {
		require.Contains(t, r.out, part)
	}
	for _, part := range []string{"--registry-dir", "docs"} {
		require.NotContains(t, r.out, part, "too much for here")
	}

	r = m.micro("call", "--help")
	require.Equal(t, r, m.micro("help", "call"))
	own, common := strings.Index(r.out, "\nFlags:\n"), strings.Index(r.out, "\nFlags of all commands:\n")
	require.Positive(t, own)
	require.Greater(t, common, own, "its own flags come first")
	require.Contains(t, r.out[own:common], "--timeout duration")
	require.NotContains(t, r.out[own:common], "--output")
	require.Contains(t, m.micro("config", "--help").out, "--drain-timeout")
}

func TestCompletionScripts(t *testing.T) {
	m := newMachine(t)
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		r := m.micro("completion", shell)
		require.Equal(t, exitOK, r.code, r.err)
		require.Contains(t, r.out, "__complete")
		if path, err := exec.LookPath(shell); err == nil && shell != "powershell" {
			check := exec.Command(path, "-n")
			check.Stdin = strings.NewReader(r.out)
			out, err := check.CombinedOutput()
			require.NoError(t, err, "%s: %s", shell, out)
		}
	}
}

func TestCompletion(t *testing.T) {
	m := newMachine(t)
	m.greeter()
	for _, test := range []struct {
		typed []string
		want  []string // the beginnings of what is offered
		not   string
	}{
		{[]string{"ca"}, []string{"call\t"}, "config"},
		{[]string{"services", ""}, []string{"greeter"}, "Greeter.Hello"},
		{[]string{"services", "greeter", ""}, nil, "greeter"},
		{[]string{"call", "gr"}, []string{"greeter"}, "Greeter.Hello"},
		{[]string{"call", "greeter", "Greeter."}, []string{"Greeter.Fail", "Greeter.Hello"}, "greeter"},
		{[]string{"call", "greeter", "Greeter.Hello", ""}, nil, "Greeter"},
		{[]string{"call", "nobody", ""}, nil, "Greeter"},
		{[]string{"services", "--registry", ""}, []string{"local\t", "memory\t"}, ""},
		{[]string{"services", "--broker=d"}, []string{"direct\t"}, "greeter"},
		{[]string{"services", "-o", ""}, []string{"json", "text"}, ""},
		{[]string{"services", "--registry-"}, []string{"--registry-dir"}, ""},
		{[]string{"plugins", "show", "reg"}, []string{"registry/local\t", "registry/memory\t"}, "greeter"},
		{[]string{"--registry", "memory", "--registry-dir=", "call", ""}, nil, "greeter"},
	} {
		r := m.micro(append([]string{"__complete"}, test.typed...)...)
		require.Equal(t, exitOK, r.code, "%q: %s", test.typed, r.err)
		for _, want := range test.want {
			require.True(t, strings.HasPrefix(r.out, want) || strings.Contains(r.out, "\n"+want), "%q: %s", test.typed, r.out)
		}
		if test.want == nil {
			require.True(t, strings.HasPrefix(r.out, ":"), "%q offers %s", test.typed, r.out)
		}
		if test.not != "" {
			require.NotContains(t, r.out, test.not, "%q", test.typed)
		}
	}
}

// TestCommandsAreDocumented looks for every command and flag in docs/cli.md.
func TestCommandsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/cli.md"))
	require.NoError(t, err)
	a := &app{loader: plugin.NewLoader(plugin.Linked)}
	cmd := a.rootCommand()
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		if c.HasParent() {
			require.Contains(t, string(text), strings.TrimSuffix(useLine(c), " [flags]"))
		}
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			require.Contains(t, string(text), "`--"+f.Name, "of %s", c.CommandPath())
		})
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(cmd)
	for line := range strings.Lines(exitCodes) {
		if code := strings.Fields(line)[0]; code != "Exit" {
			require.Regexp(t, `(?m)^\| `+code+` `, string(text))
		}
	}
}
