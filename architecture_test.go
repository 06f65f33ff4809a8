package micro_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/plugmicro/micro"

// goList returns the imports of packages by their paths.
func goList(t *testing.T, args ...string) map[string][]string {
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports"}, args...)...)
	out, err := cmd.Output()
	require.NoError(t, err)
	imports := make(map[string][]string)
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return imports
		}
		require.NoError(t, err)
		imports[p.ImportPath] = p.Imports
	}
}

// own returns the imports that are of this module, without its path.
func own(imports []string) []string {
	var names []string
	for _, i := range imports {
		if name, ok := strings.CutPrefix(i, module+"/"); ok {
			names = append(names, name)
		}
	}
	return names
}

// TestArrowsPointOneWay holds the map of docs/architecture.md.
func TestArrowsPointOneWay(t *testing.T) {
	contracts := []string{"registry", "broker", "transport", "tracer"}
	packages := goList(t, "./...")
	require.Empty(t, own(packages[module+"/plugin"]), "the kernel imports nothing of this module")
	for _, c := range contracts {
		require.Equal(t, []string{"plugin"}, own(packages[module+"/"+c]), "a contract imports the kernel alone")
	}
	require.Equal(t, []string{"plugin", "status"}, own(packages[module+"/gateway"]), "a contract imports the kernel, and what it speaks of")
	parts := []string{"clientip", "directory", "httpd", "openapi", "page", "rpc"} // of the gateway itself; its other folders are plugins
	isImplementation := func(name string) bool {
		if path.Dir(name) == "gateway" {
			return !slices.Contains(parts, path.Base(name))
		}
		return slices.Contains(contracts, path.Dir(name)) && !strings.HasSuffix(name, "test")
	}
	allowed := []string{"defaults", "cmd/micro", "examples/gateway"} // these link plugins; all others use contracts
	for importPath, imports := range packages {
		name := strings.TrimPrefix(importPath, module+"/")
		for _, i := range own(imports) {
			if isImplementation(i) {
				require.Contains(t, allowed, name, "%s imports the implementation %s", name, i)
			}
			if slices.Contains([]string{"client", "server"}, name) {
				require.NotContains(t, []string{"client", "server", "micro"}, i, "%s imports %s", name, i)
			}
			require.False(t, strings.HasPrefix(i, "cmd/") && !strings.HasPrefix(name, "cmd/"), "%s imports %s", name, i)
		}
	}
}

// TestServiceLinksOnlyTheDefaults keeps what a service does not use out of its binary.
func TestServiceLinksOnlyTheDefaults(t *testing.T) {
	heavy := []string{
		"github.com/hashicorp/consul", "github.com/segmentio/kafka-go", "github.com/rabbitmq/amqp091-go",
		"github.com/spf13/cobra", "google.golang.org/grpc", "go.opentelemetry.io/otel/sdk", "net/http", module + "/registry/mdns", "testing",
	}
	for p := range goList(t, "-deps", "./examples/greeter") {
		for _, h := range heavy {
			require.False(t, p == h || strings.HasPrefix(p, h+"/"), "a service with only the defaults links %s", p)
		}
	}
}

// TestDependenciesAreExplained wants a line for each module that go.mod requires directly.
func TestDependenciesAreExplained(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{if not (or .Indirect .Main)}}{{.Path}}{{end}}", "all").Output()
	require.NoError(t, err)
	page, err := os.ReadFile("docs/dependencies.md")
	require.NoError(t, err)
	for m := range strings.FieldsSeq(string(out)) {
		require.Contains(t, string(page), "| "+m+" |")
	}
}
