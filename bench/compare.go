package main

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// comparison is several contenders under the same load.
type comparison struct {
	Title   string
	Load    load
	Series  []*series
	Against []string // contenders that the others are compared with
	latency bool     // by the time of a call, not by calls a second
}

// series is all rounds of one contender.
type series struct {
	Name    string
	Samples []sample
}

const warmUp = 500 * time.Millisecond

// compare lets all contenders have one turn in every round, so that they share what else goes on on the machine.
func compare(s *settings, c *comparison, names ...string) (err error) {
	var pairs []*pair
	defer func() {
		for _, p := range pairs {
			err = errors.Join(err, p.stop())
		}
	}()
	for _, name := range names {
		p, err := startPair(contenderNamed(name), s.profiles)
		if err != nil {
			return err
		}
		pairs = append(pairs, p)
		c.Series = append(c.Series, &series{Name: name})
		warm := c.Load
		warm.Duration = warmUp
		if _, err := p.measure(warm); err != nil {
			return err
		}
	}
	for round := range s.rounds {
		for i := range pairs {
			if round%2 == 1 { // nobody comes always after the same one
				i = len(pairs) - 1 - i
			}
			m, err := pairs[i].measure(c.Load)
			if err != nil {
				return err
			}
			c.Series[i].Samples = append(c.Series[i].Samples, m)
		}
	}
	return nil
}

func (c *comparison) find(name string) *series {
	for _, s := range c.Series {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// median of a quantity over all rounds.
func (s *series) median(of func(sample) float64) float64 {
	var all []float64
	for _, m := range s.Samples {
		all = append(all, of(m))
	}
	return median(all)
}

// ratio is the median over the rounds of the ratio in each: what slowed a whole round down cancels out.
func (c *comparison) ratio(a, b string, of func(sample) float64) float64 {
	var all []float64
	for i, m := range c.find(a).Samples {
		all = append(all, of(m)/of(c.find(b).Samples[i]))
	}
	return median(all)
}

func median(all []float64) float64 {
	slices.Sort(all)
	n := len(all)
	return (all[(n-1)/2] + all[n/2]) / 2
}

// What a sample is asked for.

func perSecond(m sample) float64 { return m.PerSecond }
func p50(m sample) float64       { return micros(m.P50) }
func p99(m sample) float64       { return micros(m.P99) }
func allocs(m sample) float64    { return m.ClientAlloc + m.ServerAlloc }

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

func measureMany(s *settings, r *report) error {
	c := &comparison{
		Title:   "64-byte echo, 64 callers, one connection",
		Load:    load{Callers: 64, Size: 64, Duration: s.duration},
		Against: []string{bare, bareYield, grpcProto, grpcRaw},
	}
	if err := compare(s, c, bare, bareYield, microFunc, microHandle, microProto, grpcProto, grpcRaw); err != nil {
		return err
	}
	r.add(c)
	for _, p := range [][2]string{{microProto, grpcProto}, {microFunc, grpcRaw}, {microHandle, grpcRaw}} {
		r.atLeast(fmt.Sprintf("64 callers: calls/s of %q over %q (aim 5)", p[0], p[1]), c.ratio(p[0], p[1], perSecond), 4)
	}
	for _, name := range []string{microProto, microFunc, microHandle} {
		r.atLeast(fmt.Sprintf("64 callers: calls/s of %q over %q", name, bare), c.ratio(name, bare, perSecond), 0.4)
	}
	for _, name := range []string{microProto, microFunc, microHandle} {
		r.atMost(fmt.Sprintf("64 callers: allocations a call of %q, client and server", name), c.find(name).median(allocs), 6)
	}
	return nil
}

// measureOne has many short rounds: whether the two processes share a core changes from moment to moment, and counts for
// more than all else.
func measureOne(all *settings, r *report) error {
	s := *all
	s.rounds, s.duration = 3*s.rounds, s.duration/3
	c := &comparison{
		Title:   "64-byte echo, one caller",
		Load:    load{Callers: 1, Size: 64, Duration: s.duration},
		Against: []string{pingPong, grpcProto},
		latency: true,
	}
	if err := compare(&s, c, pingPong, microFunc, microProto, grpcProto); err != nil {
		return err
	}
	r.add(c)
	for _, name := range []string{microFunc, microProto} {
		r.atMost(fmt.Sprintf("one caller: p50 of %q over %q", name, pingPong), c.ratio(name, pingPong, p50), 1.25)
	}
	return nil
}

func measureLarge(s *settings, r *report) error {
	for _, callers := range []int{1, 16} {
		c := &comparison{
			Title:   fmt.Sprintf("64 KiB echo, callers: %d, one connection", callers),
			Load:    load{Callers: callers, Size: 64 << 10, Duration: s.duration},
			Against: []string{grpcProto, grpcRaw},
		}
		if err := compare(s, c, microProto, microFunc, grpcProto, grpcRaw); err != nil {
			return err
		}
		r.add(c)
		for _, p := range [][2]string{{microProto, grpcProto}, {microFunc, grpcRaw}} {
			r.atLeast(fmt.Sprintf("64 KiB, callers: %d: calls/s of %q over %q", callers, p[0], p[1]), c.ratio(p[0], p[1], perSecond), 2)
		}
	}
	return nil
}
