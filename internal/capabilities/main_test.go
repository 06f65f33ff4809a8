package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/suite"
)

// results has what a run with all servers finds.
func results() []suite.Result {
	return []suite.Result{
		{
			Kind: "broker", Plugin: "kafka", Server: "Kafka 4.1.0", Run: "TestConformance",
			Claims:   []suite.Claim{{Capability: "groups", Value: "yes"}, {Capability: "restart", Value: "yes"}},
			Tests:    []suite.Test{{Name: "Groups"}, {Name: "FanOut", Skipped: "FanOut"}, {Name: "Restart"}},
			Measured: map[string]string{"p99": "1ms"},
		},
		{
			Kind: "broker", Plugin: "memory", Run: "TestConformance",
			Claims: []suite.Claim{{Capability: "groups", Value: "no"}, {Capability: "restart", Value: suite.NotTried}},
			Tests:  []suite.Test{{Name: "Groups", Skipped: "Groups"}, {Name: "FanOut", Skipped: "not FanOut"}, {Name: "Restart", Skipped: "fault Restart"}},
		},
		{
			Kind: "registry", Plugin: "local", Run: "TestConformance",
			Claims: []suite.Claim{{Capability: "TTL", Value: "yes"}},
			Tests:  []suite.Test{{Name: "TTL"}},
		},
	}
}

type folder struct{ results, page string }

func write(t *testing.T, all ...suite.Result) folder {
	f := folder{t.TempDir(), filepath.Join(t.TempDir(), "page.md")}
	f.set(t, all...)
	return f
}

func (f folder) set(t *testing.T, all ...suite.Result) {
	old, err := filepath.Glob(filepath.Join(f.results, "*"))
	require.NoError(t, err)
	for _, file := range old {
		require.NoError(t, os.Remove(file))
	}
	for _, r := range all {
		text, err := json.Marshal(r)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(f.results, r.Kind+r.Plugin+r.Run+".json"), text, 0o600))
	}
}

func (f folder) text(t *testing.T) string {
	text, err := os.ReadFile(f.page)
	require.NoError(t, err)
	return string(text)
}

func TestPage(t *testing.T) {
	f := write(t, results()...)
	require.ErrorContains(t, run(f.results, f.page, true, true), "make capabilities", "there is no page yet")
	require.NoError(t, run(f.results, f.page, false, true))
	require.Equal(t, head+`
## broker

| | kafka | memory |
| --- | --- | --- |
| shown on | Kafka 4.1.0 | no server needed |
| groups | yes | no |
| restart | yes | not tried |

### Tests of a broker

| | kafka | memory |
| --- | --- | --- |
| Groups | ✓ | without Groups |
| FanOut | without FanOut | has FanOut |
| Restart | ✓ | without fault Restart |

## registry

| | local |
| --- | --- |
| shown on | no server needed |
| TTL | yes |

### Tests of a registry

| | local |
| --- | --- |
| TTL | ✓ |
`, f.text(t))
	require.NoError(t, run(f.results, f.page, true, true))
}

func TestWhatIsStale(t *testing.T) {
	for name, tc := range map[string]struct {
		change func([]suite.Result) []suite.Result
		says   string // "" if it is not stale
	}{
		"nothing":           {func(r []suite.Result) []suite.Result { return r }, ""},
		"measurements":      {func(r []suite.Result) []suite.Result { r[0].Measured["p99"] = "2ms"; return r }, ""},
		"a server's update": {func(r []suite.Result) []suite.Result { r[0].Server = "Kafka 4.2.0"; return r }, ""},
		"another server":    {func(r []suite.Result) []suite.Result { r[0].Server = "Redpanda 25"; return r }, "+ | shown on | Redpanda 25 |"},
		"a claim":           {func(r []suite.Result) []suite.Result { r[1].Claims[0].Value = "yes"; return r }, "+ | groups | yes | yes |"},
		"a new test": {func(r []suite.Result) []suite.Result {
			r[2].Tests = append(r[2].Tests, suite.Test{Name: "New"})
			return r
		}, "+ | New | ✓ |"},
		"a test left out": {func(r []suite.Result) []suite.Result { r[2].Tests[0].Skipped = "TTL"; return r }, "- | TTL | ✓ |"},
		"a new plugin":    {func(r []suite.Result) []suite.Result { return append(r, suite.Result{Kind: "broker", Plugin: "nats"}) }, "nats"},
		"no server here":  {func(r []suite.Result) []suite.Result { return r[1:] }, ""},
		"no results":      {func([]suite.Result) []suite.Result { return nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := write(t, results()...)
			require.NoError(t, run(f.results, f.page, false, false))
			before := f.text(t)
			f.set(t, tc.change(results())...)
			err := run(f.results, f.page, true, false)
			if tc.says == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tc.says)
				require.ErrorContains(t, err, "make capabilities")
				require.ErrorContains(t, err, f.page)
			}
			require.Equal(t, before, f.text(t), "it is only checked")
		})
	}
}

func TestPluginsWithoutResultsAreKept(t *testing.T) {
	f := write(t, results()...)
	require.NoError(t, run(f.results, f.page, false, true))
	before := f.text(t)
	f.set(t, results()[1:]...)
	require.NoError(t, run(f.results, f.page, false, false))
	require.Equal(t, before, f.text(t))
	require.ErrorContains(t, run(f.results, f.page, true, true), "no results of broker kafka")

	f.set(t, results()[:2]...)
	require.NoError(t, run(f.results, f.page, true, true), "a plugin that needs no server may have no network here")
}

func TestRunsOfOnePluginAreOne(t *testing.T) {
	all := results()
	again := results()[1]
	again.Run = "TestConformanceThroughAProxy"
	again.Claims[1].Value = "yes"
	again.Tests[2].Skipped = ""
	f := write(t, append(all, again)...)
	require.NoError(t, run(f.results, f.page, false, false))
	require.Contains(t, f.text(t), "| restart | yes | yes |\n")
	require.Contains(t, f.text(t), "| Restart | ✓ | ✓ |\n")

	again.Claims[0].Value = "yes"
	f.set(t, append(all, again)...)
	require.ErrorContains(t, run(f.results, f.page, false, false), `the runs of memory contradict each other: "groups" is "no" and "yes"`)
}
