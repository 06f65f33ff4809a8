package main

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/plugin"
)

const (
	module = "github.com/plugmicro/micro"
	root   = "../.."
)

// TestEveryPluginIsLinked finds the packages of this repository that register something.
func TestEveryPluginIsLinked(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "plugins.go", nil, parser.ImportsOnly)
	require.NoError(t, err)
	imported := make(map[string]bool)
	for _, i := range file.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		require.NoError(t, err)
		imported[p] = true
	}
	linked := make(map[string]bool)
	eachPlugin(func(_ plugin.KindInfo, p plugin.PluginInfo) { linked[p.Package] = true })
	require.NotEmpty(t, linked)
	for p := range registering(t) {
		require.True(t, imported[p], "add  _ %q  to plugins.go", p)
		require.True(t, linked[p], "%s registers no plugin in the toolkit", p)
	}
	for p := range linked {
		require.True(t, registering(t)[p], "%s was not found", p)
	}
}

// registering are the packages with a call of plugin.Register, without what is no part of the toolkit.
func registering(t *testing.T) map[string]bool {
	found := make(map[string]bool)
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		name := d.Name()
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == "examples" || name == "docs" || name == "bench" || name == "testdata" || name == "plugin" || name == "internal" ||
			strings.HasPrefix(name, ".") && file != root):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			code, _, _ := strings.Cut(line, "//")
			if strings.Contains(code, "plugin.Register(") {
				dir, err := filepath.Rel(root, filepath.Dir(file))
				if err != nil {
					return err
				}
				found[path.Join(module, filepath.ToSlash(dir))] = true
			}
		}
		return nil
	})
	require.NoError(t, err)
	return found
}

func TestPlugins(t *testing.T) {
	m := newMachine(t)
	r := m.micro("plugins", "--registry", "memory", "--registry-dir=") // an option of another plugin
	require.Equal(t, exitUsage, r.code)
	require.Regexp(t, `(?m)^registry/local +default +processes of one user`, r.out, "the list comes in spite of it")
	require.Contains(t, r.err, "registry-dir")

	m.env = append(m.env, "MICRO_REGISTRY_DIR=")
	r = m.micro("plugins", "--registry", "memory")
	require.Equal(t, exitOK, r.code, r.err)
	require.Regexp(t, `(?m)^PLUGIN +USED +ABOUT$`, r.out)
	require.Regexp(t, `(?m)^registry/local +default +processes of one user`, r.out)
	require.Regexp(t, `(?m)^registry/memory +chosen +\w`, r.out)
	require.Regexp(t, `(?m)^broker/direct +chosen, default +\w`, r.out)
	require.Regexp(t, `(?m)^transport/memory +- +\w`, r.out)

	r = m.micro("plugins", "-o", "json", "--registry", "memory")
	var kinds []struct {
		plugin.KindInfo
		Chosen []string
	}
	require.NoError(t, json.Unmarshal([]byte(r.out), &kinds))
	for _, k := range kinds {
		if k.Name == "registry" {
			require.Equal(t, "local", k.Default)
			require.Equal(t, []string{"memory"}, k.Chosen)
			require.NotEmpty(t, k.Plugins)
		}
	}
}

func TestShowPlugin(t *testing.T) {
	m := newMachine(t)
	r := m.micro("plugins", "show", "transport/tcp")
	require.Equal(t, exitOK, r.code, r.err)
	for _, line := range []string{
		`^transport/tcp: TCP`, `^package +github.com/plugmicro/micro/transport/tcp$`, `^choose it +--transport tcp +MICRO_TRANSPORT=tcp$`,
		`^tls-ca: \w`, `^  type +duration$`, `^  default +10s$`, `^  flag +--transport-tls-ca$`, `^  environment +MICRO_TRANSPORT_TLS_CA$`,
	} {
		require.Regexp(t, "(?m)"+line, r.out)
	}
	require.Contains(t, m.micro("plugins", "show", "registry/memory").out, "It has no options.")

	var p plugin.PluginInfo
	require.NoError(t, json.Unmarshal([]byte(m.micro("plugins", "show", "registry/local", "-o", "json").out), &p))
	require.Equal(t, "local", p.Name)
	require.Equal(t, "--registry-dir", p.Options[0].Flag)

	require.Equal(t, result{"", "micro: no plugin \"registry/locl\" is linked\nhint: did you mean registry/local?\n", exitUsage}, m.micro("plugins", "show", "registry/locl"))
	for name, near := range map[string]string{
		"registry/consul": "", "regstry/locl": "registry/local", "registry/": "", "tcp": "transport/tcp", "brokr/direct": "broker/direct",
	} {
		require.Equal(t, near, nearestPlugin(name, []string{"broker/direct", "registry/local", "transport/tcp"}), name)
	}
	require.Equal(t, result{"", "micro: no plugin \"x\" is linked\nhint: micro plugins lists them, as KIND/NAME\n", exitUsage}, m.micro("plugins", "show", "x"))
	require.Equal(t, exitUsage, m.micro("plugins", "show").code)
}

type vault struct {
	Token plugin.Secret `help:"what opens it | or <not>"`
	Size  plugin.Size   `default:"4MiB"`
}

// TestSecretOption shows where a secret can come from.
func TestSecretOption(t *testing.T) {
	c := plugin.NewCatalog()
	plugin.NewKindIn[*vault](c, "vault", plugin.KindDoc("keeps things"))
	plugin.RegisterIn(c, "iron", func(*plugin.Env, vault) (*vault, error) { return nil, nil }, plugin.Doc("a heavy one"))
	k := c.Kinds()[0]
	var out strings.Builder
	require.NoError(t, writePlugin(&out, k, k.Plugins[0]))
	require.Regexp(t, `(?m)^  from a file +--vault-token-file +MICRO_VAULT_TOKEN_FILE$`, out.String())
	page := docPage(k, k.Plugins[0])
	require.Contains(t, page, "| `token` | secret |  | what opens it \\| or &lt;not> | `--vault-token` or `--vault-token-file` | `MICRO_VAULT_TOKEN` or `MICRO_VAULT_TOKEN_FILE` |")
	require.Contains(t, page, "A heavy one.")
}

// TestDocsAreFresh compares docs/plugins with what the plugins register.
func TestDocsAreFresh(t *testing.T) {
	want, dir := docPages(), filepath.Join(root, "docs/plugins")
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, f := range files {
		require.Contains(t, want, f.Name(), "run: make docs")
	}
	for name, text := range want {
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err, "run: make docs")
		require.Equal(t, text, string(got), "%s is stale, run: make docs", name)
	}
}

func TestWriteDocs(t *testing.T) {
	m, dir := newMachine(t), filepath.Join(t.TempDir(), "docs", "plugins")
	require.Equal(t, result{}, m.micro("docs", dir))
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	write("broker-gone.md", generated+"old")
	write("registry-local.md", generated+"old")
	write("guide.md", "written by hand")
	require.Equal(t, result{}, m.micro("docs", dir))

	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, len(docPages())+1)
	require.NoFileExists(t, filepath.Join(dir, "broker-gone.md"))
	text, err := os.ReadFile(filepath.Join(dir, "registry-local.md"))
	require.NoError(t, err)
	require.Equal(t, docPages()["registry-local.md"], string(text))
	require.FileExists(t, filepath.Join(dir, "guide.md"))
	require.Equal(t, exitFailed, m.micro("docs", "/dev/null/docs").code)
}
