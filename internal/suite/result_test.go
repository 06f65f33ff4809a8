package suite

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func runSuite(t *testing.T, latency string) {
	s := New(t, "broker")
	s.Plugin("kafka", "Kafka 4.1.0")
	s.Claim("groups", YesNo(true))
	s.Claim("restart", Tried(false))
	s.Test("Groups", func(t *testing.T) { s.Measure(t, "latency", latency) })
	s.Test("Restart", func(t *testing.T) { s.NotClaimed(t, "fault Restart") })
	s.Test("Fails", func(t *testing.T) { require.Empty(t, os.Getenv(childEnv)) })
	s.Done()
}

func TestResult(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(Env, dir)
	runSuite(t, "1ms")
	want := Result{
		Kind: "broker", Plugin: "kafka", Server: "Kafka 4.1.0", Run: "TestResult",
		Claims:   []Claim{{"groups", "yes"}, {"restart", NotTried}},
		Tests:    []Test{{Name: "Groups"}, {Name: "Restart", Skipped: "fault Restart"}, {Name: "Fails"}},
		Measured: map[string]string{"latency": "1ms"},
	}
	all, err := Load(dir)
	require.NoError(t, err)
	require.Equal(t, []Result{want}, all)

	file := filepath.Join(dir, "broker-kafka-TestResult.json")
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	require.NoError(t, os.Chtimes(file, old, old))
	runSuite(t, "2ms")
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.True(t, old.Equal(info.ModTime()), "it says nothing new, so that go test may cache the run")

	want.Server = "Kafka 4.2.0"
	require.NoError(t, want.save())
	runSuite(t, "3ms")
	all, err = Load(dir)
	require.NoError(t, err)
	require.Equal(t, "Kafka 4.1.0", all[0].Server)
	require.Equal(t, "3ms", all[0].Measured["latency"])
}

func TestNoResultIsWantedWithoutAFolder(t *testing.T) {
	t.Setenv(Env, "")
	runSuite(t, "1ms")
}

const childEnv = "SUITE_TEST_FAILS"

// TestOnlyAWholeRunIsAResult: what failed, or was left out, has shown nothing.
func TestOnlyAWholeRunIsAResult(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		runSuite(t, "1ms")
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	for _, tc := range []struct{ run, fails, says string }{
		{t.Name() + "$", "yes", "FAIL"},
		{t.Name() + "$/^Groups$", "yes", "PASS"},
	} {
		dir := t.TempDir()
		cmd := exec.Command(self, "-test.v", "-test.run=^"+tc.run)
		cmd.Env = append(os.Environ(), childEnv+"="+tc.fails, Env+"="+dir)
		out, _ := cmd.CombinedOutput()
		require.Contains(t, string(out), "--- "+tc.says+": "+t.Name()+" ")
		all, err := Load(dir)
		require.NoError(t, err)
		require.Empty(t, all)
	}
}
