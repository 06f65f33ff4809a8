package main

import (
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// load is what a client process is asked to do: calls for some time, or a number of them.
type load struct {
	Callers  int
	Size     int           // bytes of a body
	Duration time.Duration // where Calls is 0
	Calls    int
}

// outcome is how it went.
type outcome struct {
	Calls   int
	Elapsed time.Duration
	P50     time.Duration
	P99     time.Duration
	Client  usage // of the process, during the calls
}

// run makes the calls. Nothing of the measuring itself allocates while they run.
func (l load) run(caller func(size int) echoFunc) (*outcome, error) {
	all := make([]callerRun, l.Callers)
	for i := range all {
		all[i] = callerRun{echo: caller(l.Size), quota: l.Calls / l.Callers, took: new(histogram)}
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	before, err := currentUsage()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if l.Calls == 0 {
		defer time.AfterFunc(l.Duration, func() { stop.Store(true) }).Stop()
	}
	for i := range all {
		wg.Go(func() { all[i].run(&stop) })
	}
	wg.Wait()
	o := &outcome{Elapsed: time.Since(begin)}
	after, err := currentUsage()
	if err != nil {
		return nil, err
	}
	o.Client = after.minus(before)
	took := new(histogram)
	for i := range all {
		if all[i].err != nil {
			return nil, all[i].err
		}
		took.merge(all[i].took)
	}
	o.Calls, o.P50, o.P99 = took.total, took.quantile(0.50), took.quantile(0.99)
	return o, nil
}

// callerRun is one goroutine that makes a call when the one before it was answered.
type callerRun struct {
	echo  echoFunc
	quota int // 0: until stop
	took  *histogram
	err   error
}

func (r *callerRun) run(stop *atomic.Bool) {
	start := time.Now()
	for !stop.Load() && (r.quota == 0 || r.took.total < r.quota) {
		if r.err = r.echo(); r.err != nil {
			stop.Store(true)
			return
		}
		now := time.Now()
		r.took.add(now.Sub(start))
		start = now
	}
}

// histogram counts durations in buckets that are 1/128 of their value wide, at most.
type histogram struct {
	counts [36 * 128]uint32
	total  int
}

const bucketBits = 7

func (h *histogram) add(d time.Duration) {
	n := uint64(max(d, 0))
	shift := max(bits.Len64(n)-bucketBits-1, 0)
	i := shift<<bucketBits + int(n>>shift)
	h.counts[min(i, len(h.counts)-1)]++
	h.total++
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
}

// quantile is the middle of the bucket that has it.
func (h *histogram) quantile(q float64) time.Duration {
	left := int(q * float64(h.total))
	for i, n := range h.counts {
		left -= int(n)
		if left >= 0 {
			continue
		}
		if i < 2<<bucketBits {
			return time.Duration(i)
		}
		shift := i>>bucketBits - 1
		return time.Duration((i-shift<<bucketBits)<<shift + 1<<shift/2)
	}
	return 0
}

// usage is what a process has used so far.
type usage struct {
	Mallocs uint64
	CPU     time.Duration // user and system
}

func currentUsage() (usage, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return usage{}, err
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{Mallocs: m.Mallocs, CPU: time.Duration(r.Utime.Nano() + r.Stime.Nano())}, nil
}

func (u usage) minus(earlier usage) usage {
	return usage{Mallocs: u.Mallocs - earlier.Mallocs, CPU: u.CPU - earlier.CPU}
}
