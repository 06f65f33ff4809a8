package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/plugmicro/micro/plugin"
)

// kernelResult is what 100 plugins cost that are linked and not chosen: the medians of many processes.
type kernelResult struct {
	Plugins                   int
	Processes                 int
	Without, With             kernelStart
	Added                     time.Duration
	AddedBytes, AddedHeapHeld int64
}

// kernelStart is what a process needs to register its plugins and to load its settings.
type kernelStart struct {
	Took      time.Duration
	Allocated int64 // bytes, in all
	Held      int64 // bytes, after a garbage collection
}

const (
	kernelPlugins   = 100
	kernelProcesses = 41 // with, and as many without
)

// kernelConfig has as many options, of the usual types, as plugins have that talk to a server.
type kernelConfig struct {
	Address  []string      `default:"127.0.0.1:8500" help:"servers to talk to, tried in order"`
	Token    plugin.Secret `help:"who we are"`
	Timeout  time.Duration `default:"5s" help:"limit for one request"`
	Prefix   string        `default:"micro/" help:"where the keys begin"`
	MaxSize  plugin.Size   `default:"4MiB" help:"largest value"`
	Attempts int           `default:"3" help:"tries in all"`
	Compress bool          `help:"compress values"`
	Labels   map[string]string
}

// Five kinds with twenty plugins each, and one with the plugin that is chosen.
type (
	kindA  interface{ A() }
	kindB  interface{ B() }
	kindC  interface{ C() }
	kindD  interface{ D() }
	kindE  interface{ E() }
	chosen interface{ Chosen() }
)

type chosenPlugin struct{}

func (chosenPlugin) Chosen() {}

// kernelRole registers plugins, adds the flags, loads the settings and opens the plugin that is chosen, and prints what
// that cost a fresh process.
func kernelRole(arg string) error {
	plugins, err := strconv.Atoi(arg)
	if err != nil {
		return err
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	c := registerPlugins(plugins)
	if err := openChosen(c); err != nil {
		return err
	}
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	allocated := int64(after.TotalAlloc - before.TotalAlloc)
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(c)
	return json.NewEncoder(os.Stdout).Encode(kernelStart{took, allocated, int64(after.HeapAlloc) - int64(before.HeapAlloc)})
}

func registerPlugins(n int) *plugin.Catalog {
	c := plugin.NewCatalog()
	plugin.NewKindIn[chosen](c, "chosen").SetDefault("one")
	plugin.RegisterIn(c, "one", func(*plugin.Env, kernelConfig) (chosen, error) { return chosenPlugin{}, nil })
	plugin.NewKindIn[kindA](c, "a")
	plugin.NewKindIn[kindB](c, "b")
	plugin.NewKindIn[kindC](c, "c")
	plugin.NewKindIn[kindD](c, "d")
	plugin.NewKindIn[kindE](c, "e")
	for i := range n {
		name := "plugin-" + strconv.Itoa(i)
		switch i % 5 {
		case 0:
			plugin.RegisterIn(c, name, func(*plugin.Env, kernelConfig) (kindA, error) { return nil, nil })
		case 1:
			plugin.RegisterIn(c, name, func(*plugin.Env, kernelConfig) (kindB, error) { return nil, nil })
		case 2:
			plugin.RegisterIn(c, name, func(*plugin.Env, kernelConfig) (kindC, error) { return nil, nil })
		case 3:
			plugin.RegisterIn(c, name, func(*plugin.Env, kernelConfig) (kindD, error) { return nil, nil })
		case 4:
			plugin.RegisterIn(c, name, func(*plugin.Env, kernelConfig) (kindE, error) { return nil, nil })
		}
	}
	return c
}

func openChosen(c *plugin.Catalog) error {
	l := plugin.NewLoader(c)
	fs := pflag.NewFlagSet("kernel", pflag.ContinueOnError)
	l.AddFlags(fs)
	if err := fs.Parse([]string{"--chosen-timeout=3s"}); err != nil {
		return err
	}
	settings, err := l.Load([]string{"HOME=/", "MICRO_CHOSEN_ADDRESS=10.0.0.1:8500"})
	if err != nil {
		return err
	}
	host := settings.Open(context.Background(), slog.Default())
	if _, err := plugin.Open[chosen](host); err != nil {
		return err
	}
	return host.Close()
}

func measureKernel(_ *settings, r *report) error {
	var without, with []kernelStart
	for range kernelProcesses {
		for plugins, starts := range map[int]*[]kernelStart{0: &without, kernelPlugins: &with} {
			s, err := startKernel(plugins)
			if err != nil {
				return err
			}
			*starts = append(*starts, *s)
		}
	}
	k := &kernelResult{Plugins: kernelPlugins, Processes: kernelProcesses, Without: medianStart(without), With: medianStart(with)}
	k.Added = k.With.Took - k.Without.Took
	k.AddedBytes = k.With.Allocated - k.Without.Allocated
	k.AddedHeapHeld = k.With.Held - k.Without.Held
	r.Kernel = k
	w := r.section(fmt.Sprintf("Registering, loading settings and opening the one plugin that is chosen, medians of %d processes", kernelProcesses))
	fmt.Fprintln(w, "\tms\tKiB allocated\tKiB held\t")
	row := func(name string, took time.Duration, allocated, held int64) {
		fmt.Fprintf(w, "%s\t%.3f\t%d\t%d\t\n", name, micros(took)/1e3, allocated>>10, held>>10)
	}
	row("no other plugin", k.Without.Took, k.Without.Allocated, k.Without.Held)
	row(fmt.Sprintf("%d others", kernelPlugins), k.With.Took, k.With.Allocated, k.With.Held)
	row("added", k.Added, k.AddedBytes, k.AddedHeapHeld)
	w.Flush()
	r.atMost(fmt.Sprintf("kernel: %d linked plugins, ms added to a start", kernelPlugins), micros(k.Added)/1e3, 1)
	r.atMost(fmt.Sprintf("kernel: %d linked plugins, MiB allocated", kernelPlugins), float64(k.AddedBytes)/(1<<20), 1)
	return nil
}

func startKernel(plugins int) (*kernelStart, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "kernel", strconv.Itoa(plugins))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("kernel %d: %w", plugins, err)
	}
	s := new(kernelStart)
	return s, json.Unmarshal(out, s)
}

func medianStart(all []kernelStart) kernelStart {
	var took, allocated, held []float64
	for _, s := range all {
		took, allocated, held = append(took, float64(s.Took)), append(allocated, float64(s.Allocated)), append(held, float64(s.Held))
	}
	return kernelStart{time.Duration(median(took)), int64(median(allocated)), int64(median(held))}
}
