package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"time"
)

// report is everything that was measured. It is printed as it grows.
type report struct {
	Began       time.Time
	Go          string
	System      string
	CPUs        int
	Versions    map[string]string
	Comparisons []*comparison
	Memory      *memoryResult   `json:",omitempty"`
	Kernel      *kernelResult   `json:",omitempty"`
	Starts      []time.Duration `json:",omitempty"` // of service processes, to the first answer
	Servers     metrics         `json:",omitempty"` // of the plugins' own benchmarks
	Checks      []check
	Unmeasured  []string `json:",omitempty"` // contenders that are not here, and how to get them

	out io.Writer
}

// check is a target and what was measured.
type check struct {
	What   string
	Got    float64
	Target string
	Passed bool
}

func newReport(out io.Writer) *report {
	r := &report{
		Began: time.Now(), Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.GOMAXPROCS(0),
		Versions: map[string]string{}, out: out,
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "google.golang.org/grpc" || m.Path == "google.golang.org/protobuf" {
				r.Versions[m.Path] = m.Version
			}
		}
	}
	fmt.Fprintf(out, "%s %s, GOMAXPROCS %d, grpc %s, protobuf %s\n", r.Go, r.System, r.CPUs,
		r.Versions["google.golang.org/grpc"], r.Versions["google.golang.org/protobuf"])
	return r
}

func (r *report) atLeast(what string, got, target float64) {
	r.Checks = append(r.Checks, check{what, got, fmt.Sprintf("at least %g", target), got >= target})
}

func (r *report) atMost(what string, got, target float64) {
	r.Checks = append(r.Checks, check{what, got, fmt.Sprintf("at most %g", target), got <= target})
}

// add prints a comparison.
func (r *report) add(c *comparison) {
	r.Comparisons = append(r.Comparisons, c)
	w := r.section(c.Title)
	fmt.Fprint(w, "\tcalls/s\t")
	large := c.Load.Size >= 1<<10
	if large {
		fmt.Fprint(w, "MB/s\t")
	}
	fmt.Fprint(w, "p50 µs\tp99 µs\tallocs/call\tCPU µs/call\t")
	by := perSecond
	if c.latency {
		by = p50
	}
	for _, name := range c.Against {
		fmt.Fprintf(w, "/ %s\t", name)
	}
	fmt.Fprintln(w)
	for _, s := range c.Series {
		fmt.Fprintf(w, "%s\t%.0f\t", s.Name, s.median(perSecond))
		if large {
			fmt.Fprintf(w, "%.0f\t", s.median(perSecond)*float64(c.Load.Size)/1e6)
		}
		fmt.Fprintf(w, "%.1f\t%.1f\t", s.median(p50), s.median(p99))
		fmt.Fprintf(w, "%.1f + %.1f\t", s.median(func(m sample) float64 { return m.ClientAlloc }),
			s.median(func(m sample) float64 { return m.ServerAlloc }))
		fmt.Fprintf(w, "%.1f + %.1f\t", s.median(func(m sample) float64 { return micros(m.ClientCPU) }),
			s.median(func(m sample) float64 { return micros(m.ServerCPU) }))
		for _, name := range c.Against {
			fmt.Fprintf(w, "%.2f\t", c.ratio(s.Name, name, by))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

// addProxies prints a comparison of proxies: what their client does is not theirs.
func (r *report) addProxies(c *comparison) {
	r.Comparisons = append(r.Comparisons, c)
	w := r.section(c.Title)
	fmt.Fprint(w, "\trequests/s\tCPU µs/request\tbusy %\tp50 µs\tp99 µs\t")
	for _, name := range c.Against {
		fmt.Fprintf(w, "/ %s\tby CPU\t", name)
	}
	fmt.Fprintln(w)
	for _, s := range c.Series {
		fmt.Fprintf(w, "%s\t%.0f\t%.1f\t%.0f\t%.0f\t%.0f\t", s.Name, s.median(perSecond), s.median(serverCPU), s.median(busy), s.median(p50), s.median(p99))
		for _, name := range c.Against {
			if c.find(name) != nil {
				fmt.Fprintf(w, "%.2f\t%.2f\t", c.ratio(s.Name, name, perSecond), 1/c.ratio(s.Name, name, serverCPU))
			}
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

// section begins a table.
func (r *report) section(title string) *tabwriter.Writer {
	fmt.Fprintf(r.out, "\n%s\n", title)
	return tabwriter.NewWriter(r.out, 0, 0, 2, ' ', tabwriter.AlignRight)
}

func (r *report) printChecks() {
	fmt.Fprintf(r.out, "\nTargets\n")
	missed := 0
	for _, c := range r.Checks {
		verdict := "pass"
		if !c.Passed {
			verdict = "MISS"
			missed++
		}
		fmt.Fprintf(r.out, "  %s  %s: %.4g, target %s\n", verdict, c.What, c.Got, strings.TrimSpace(c.Target))
	}
	for _, what := range r.Unmeasured {
		fmt.Fprintf(r.out, "  not measured: %s\n", what)
	}
	fmt.Fprintf(r.out, "%d of %d targets met, in %s\n", len(r.Checks)-missed, len(r.Checks), time.Since(r.Began).Round(time.Second))
}

func (r *report) write(file string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
