package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// measureGateway compares proxies. Each has one processor, alone; what asks and what is behind it have the others. So
// requests a second are what one processor of a proxy can do as long as it is busy, which the table shows, and its time
// for a request is right even if something else kept it from being so.
func measureGateway(s *settings, r *report) error {
	cpus, err := processors()
	if err != nil || len(cpus) < 2 {
		return errors.Join(fmt.Errorf("it takes Linux and two processors: one for the proxy, one for what is around it"), err)
	}
	dir, err := os.MkdirTemp("", "micro-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	behind, err := startAt(cpus[1:], nil, "canned")
	if err != nil {
		return err
	}
	defer behind.stop()
	backend, err := behind.next()
	if err != nil {
		return err
	}
	env := []string{"MICRO_REGISTRY=local", "MICRO_REGISTRY_DIR=" + filepath.Join(dir, "registry"), "MICRO_TRANSPORT=tcp"}
	greeter, err := startAt(cpus[1:], env, "greeter")
	if err != nil {
		return err
	}
	defer greeter.stop()

	var all []*running
	defer func() {
		for _, p := range all {
			p.stop()
		}
	}()
	for i := range proxies {
		profile := profileVar + "=" + profileFile(s.profiles, proxies[i].name, "proxy")
		p, err := startProxy(&proxies[i], dir, backend.Addr, cpus, append(env, profile))
		var m *missing
		if errors.As(err, &m) {
			r.Unmeasured = append(r.Unmeasured, fmt.Sprintf("%s: %v", proxies[i].name, m))
			continue
		} else if err != nil {
			return err
		}
		all = append(all, p)
	}
	c := &comparison{
		Title:   fmt.Sprintf("POST of %d bytes, %d keep-alive connections, one processor for the proxy", len(question64), maxCallers),
		Load:    load{Callers: maxCallers, Size: len(question64), Duration: s.duration},
		Against: []string{nginxPass},
	}
	if err := compareProxies(s, c, all); err != nil {
		return err
	}
	r.addProxies(c)
	c.checkProxies(r)
	return measureRoutes(s, r, all)
}

// measureRoutes has many rounds: what a thousand routes cost is less than what changes from turn to turn.
func measureRoutes(once *settings, r *report, all []*running) error {
	s := *once
	s.rounds *= 3
	c := &comparison{
		Title:   fmt.Sprintf("The same, %d routes against one", manyRoutes),
		Load:    load{Callers: maxCallers, Size: len(question64), Duration: s.duration},
		Against: []string{microRouter},
	}
	two := slices.DeleteFunc(slices.Clone(all), func(p *running) bool { return p.name != microRouter && p.name != microRoutes })
	if err := compareProxies(&s, c, two); err != nil {
		return err
	}
	r.addProxies(c)
	added := c.differences(microRoutes, microRouter, serverCPU)
	low, high := middleHalf(added)
	fmt.Fprintf(r.out, "%d routes add, in each of %d rounds, CPU µs/request: median %.1f, half of the rounds %.1f to %.1f\n",
		manyRoutes, len(added), median(added), low, high)
	r.atMost(fmt.Sprintf("what %d routes add to the time of a processor for a request, median over the rounds, µs", manyRoutes), median(added), 2)

	fmt.Fprintf(r.out, "\ngateway/router, which of its routes it is\n")
	m, err := runBenchmarks(r, "gateway/router", "^BenchmarkMatch$", "1s")
	if err != nil {
		return err
	}
	one, many := m["gateway/router Match/routes=1 ns/op"], m["gateway/router Match/routes=1001 ns/op"]
	if one == 0 || many == 0 {
		return fmt.Errorf("the benchmarks of the router do not tell what a match costs: %v", m)
	}
	r.atMost("what 1000 routes add to a match, by the router's own benchmark, µs", (many-one)/1e3, 2)
	return measureAllowList(r)
}

func measureAllowList(r *report) error {
	fmt.Fprintf(r.out, "\ngateway/ipallow, who may pass\n")
	m, err := runBenchmarks(r, "gateway/ipallow", "^BenchmarkRequest$", "1s")
	if err != nil {
		return err
	}
	cost := m["gateway/ipallow Request/100000 ns/op"]
	if cost == 0 {
		return fmt.Errorf("the benchmarks of ipallow do not tell what a request costs: %v", m)
	}
	r.atMost("what 100,000 prefixes cost a request, µs", cost/1e3, 1)
	return nil
}

// compareProxies is compare for proxies.
func compareProxies(s *settings, c *comparison, all []*running) error {
	for _, p := range all {
		c.Series = append(c.Series, &series{Name: p.name})
		warm := c.Load
		warm.Duration = warmUp
		if _, err := p.measure(warm); err != nil {
			return err
		}
	}
	for round := range s.rounds {
		for i := range all {
			if round%2 == 1 {
				i = len(all) - 1 - i
			}
			m, err := all[i].measure(c.Load)
			if err != nil {
				return err
			}
			c.Series[i].Samples = append(c.Series[i].Samples, m)
		}
	}
	return nil
}

func (c *comparison) checkProxies(r *report) {
	least := func(name, over string, target float64) {
		if c.find(name) != nil && c.find(over) != nil {
			r.atLeast(fmt.Sprintf("requests/s of %q over %q", name, over), c.ratio(name, over, perSecond), target)
		}
	}
	least(microService, nginxPass, 0.5)
	least(microService, reverseProxy, 3)
	least(microRouter, nginxPass, 0.25)
	least(microRouter, caddyProxy, 1)
	least(microRouter, traefikProxy, 1)
}

// differences are those within each round, for the reason that ratio has.
func (c *comparison) differences(a, b string, of func(sample) float64) []float64 {
	var all []float64
	for i, m := range c.find(a).Samples {
		all = append(all, of(m)-of(c.find(b).Samples[i]))
	}
	return all
}

// middleHalf leaves out the lowest and the highest quarter of all.
func middleHalf(all []float64) (low, high float64) {
	all = slices.Sorted(slices.Values(all))
	out := len(all) / 4
	return all[out], all[len(all)-1-out]
}

func serverCPU(m sample) float64 { return micros(m.ServerCPU) }

// busy is the part of its processor that a proxy used.
func busy(m sample) float64 { return 100 * m.PerSecond * m.ServerCPU.Seconds() }

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// cpuOf is the time of processors that a process has used.
func cpuOf(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third on: the second may have spaces
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, stat)
	}
	var ticks uint64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	const perSecond = 100 // of Linux, on all that Go runs on
	return time.Duration(ticks) * time.Second / perSecond, nil
}
