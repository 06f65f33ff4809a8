package main

import (
	"encoding/json"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test binary be the processes that a run starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		if err := run(os.Args[1:]); err != nil {
			log.Fatal(err)
		}
		return
	}
	os.Exit(m.Run())
}

func TestRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "report.json")
	require.NoError(t, run([]string{"-only", "one,memory,start", "-rounds", "2", "-time", "20ms", "-calls", "6400", "-json", file}))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	r := new(report)
	require.NoError(t, json.Unmarshal(text, r))
	require.Len(t, r.Comparisons, 1)
	require.Len(t, r.Comparisons[0].Series, 4)
	for _, s := range r.Comparisons[0].Series {
		require.Len(t, s.Samples, 6)
		require.Positive(t, s.Samples[1].PerSecond, s.Name)
		require.Positive(t, s.Samples[1].ServerCPU, s.Name)
	}
	require.Positive(t, r.Memory.ServerLate.Heap)
	require.Len(t, r.Starts, serviceRuns)
	require.NotEmpty(t, r.Checks)
}

func TestContendersEcho(t *testing.T) {
	for _, c := range contenders {
		t.Run(c.name, func(t *testing.T) {
			addr, err := c.serve()
			require.NoError(t, err)
			caller, err := c.dial(addr)
			require.NoError(t, err)
			l := load{Callers: 4, Size: 64, Calls: 400}
			if c.name == pingPong {
				l.Callers = 1
			}
			o, err := l.run(caller)
			require.NoError(t, err)
			require.Equal(t, 400, o.Calls)
			require.Positive(t, o.P50)
			require.GreaterOrEqual(t, o.P99, o.P50)
		})
	}
}

func TestHistogram(t *testing.T) {
	h := new(histogram)
	for d := range 1000 {
		h.add(time.Duration(d+1) * time.Microsecond)
	}
	require.Equal(t, 1000, h.total)
	require.InEpsilon(t, 500*time.Microsecond, h.quantile(0.5), 0.01)
	require.InEpsilon(t, 990*time.Microsecond, h.quantile(0.99), 0.01)
	for _, d := range []time.Duration{0, 1, 255, 256, 511, 512, 12345, time.Hour} {
		h := new(histogram)
		h.add(d)
		require.InDelta(t, d, h.quantile(0.5), float64(d)/128, d)
	}
}

func TestMedian(t *testing.T) {
	require.Equal(t, 2.0, median([]float64{3, 1, 2}))
	require.Equal(t, 2.5, median([]float64{4, 1, 3, 2}))
}

// TestDifferences: rounds that are slow as a whole do not count, though they make the medians of the two differ otherwise.
func TestDifferences(t *testing.T) {
	c := &comparison{Series: []*series{{Name: "one"}, {Name: "many"}}}
	for _, took := range [][2]time.Duration{{10, 12}, {60, 61}, {11, 14}, {20, 70}, {30, 28}} {
		for i, s := range c.Series {
			s.Samples = append(s.Samples, sample{ServerCPU: took[i] * time.Microsecond})
		}
	}
	added := c.differences("many", "one", serverCPU)
	require.Equal(t, []float64{2, 1, 3, 50, -2}, added)
	require.Equal(t, 8.0, c.find("many").median(serverCPU)-c.find("one").median(serverCPU))
	require.Equal(t, 2.0, median(added))
	low, high := middleHalf(added)
	require.Equal(t, []float64{1, 3}, []float64{low, high})
	low, high = middleHalf([]float64{7})
	require.Equal(t, []float64{7, 7}, []float64{low, high})
}

func TestKernelOpensTheChosenPlugin(t *testing.T) {
	require.NoError(t, openChosen(registerPlugins(kernelPlugins)))
}

func TestFlagsAreChecked(t *testing.T) {
	for _, args := range [][]string{{"-only", "nothing"}, {"-rounds", "0"}, {"-time", "0s"}, {"-calls", "1"}, {"-json"}, {"stray"}} {
		require.Error(t, run(args), args)
	}
}

func TestGateway(t *testing.T) {
	r := newReport(io.Discard)
	require.NoError(t, measureGateway(&settings{rounds: 2, duration: 100 * time.Millisecond}, r))
	require.Len(t, r.Comparisons, 2)
	require.Equal(t, len(proxies), len(r.Comparisons[0].Series)+len(r.Unmeasured))
	for i, c := range r.Comparisons {
		for _, s := range c.Series {
			require.Len(t, s.Samples, []int{2, 6}[i])
			require.Positive(t, s.Samples[1].PerSecond, s.Name)
			require.Positive(t, s.median(serverCPU), s.Name)
		}
	}
	require.Len(t, r.Comparisons[1].Series, 2)
}

func TestWhatIsNotInstalledIsNotMeasured(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Chdir(t.TempDir())
	for _, p := range proxies {
		if p.name != caddyProxy && p.name != traefikProxy {
			continue
		}
		_, err := p.command(t.TempDir(), "127.0.0.1:1", "127.0.0.1:2")
		var m *missing
		require.ErrorAs(t, err, &m)
		require.ErrorContains(t, err, "bench/proxies/install.sh")
	}
}
