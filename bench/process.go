package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"
)

// A run has this process, which measures nothing but asks, and for each contender a server process and a client
// process: this program again, with the role as its arguments. They are asked in JSON on standard input, answer on
// standard output, and end when their input does, so that none outlives this one.

// question is what a process is asked.
type question struct {
	Load   *load // make calls; of client processes only
	Usage  bool  // how much was used
	Memory bool  // how much is held
}

// answer is one of these.
type answer struct {
	Addr    string // the first answer of a server process
	Outcome *outcome
	Usage   *usage
	Memory  *footprint
	Error   string
}

// footprint is what a process holds, after a garbage collection.
type footprint struct {
	Heap       uint64 // bytes of live objects
	RSS        uint64 // bytes of the process, as the system sees them
	Goroutines int
}

// process is a process that answers.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
	enc *json.Encoder
}

// start starts this program in a role. env is added to the environment.
func start(env []string, role ...string) (*process, error) {
	return startBy((*exec.Cmd).Start, env, role...)
}

// startAt starts it on some of the processors.
func startAt(cpus []int, env []string, role ...string) (*process, error) {
	return startBy(func(cmd *exec.Cmd) error { return startOn(cpus, cmd) }, env, role...)
}

func startBy(run func(*exec.Cmd) error, env []string, role ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, role...)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := run(cmd); err != nil {
		return nil, err
	}
	return &process{cmd, in, json.NewDecoder(out), json.NewEncoder(in)}, nil
}

// patience is how much longer than its load a process may take to answer.
const patience = 10 * time.Minute

func (p *process) ask(q question) (*answer, error) {
	if err := p.enc.Encode(q); err != nil {
		return nil, err
	}
	return p.next()
}

func (p *process) next() (*answer, error) {
	defer time.AfterFunc(patience, func() { p.cmd.Process.Kill() }).Stop()
	a := new(answer)
	if err := p.out.Decode(a); err != nil {
		return nil, fmt.Errorf("%s gave no answer: %w", strings.Join(p.cmd.Args[1:], " "), err)
	}
	if a.Error != "" {
		return nil, fmt.Errorf("%s: %s", strings.Join(p.cmd.Args[1:], " "), a.Error)
	}
	return a, nil
}

// stop ends the process and waits for it.
func (p *process) stop() error {
	p.in.Close()
	return p.cmd.Wait()
}

// answerAll is the life of a server or client process. profile is a file for its CPU profile, or "".
func answerAll(caller func(int) echoFunc, profile string) error {
	stop, err := startProfile(profile)
	if err != nil {
		return err
	}
	defer stop()
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var q question
		if err := in.Decode(&q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		a, err := q.answer(caller)
		if err != nil {
			a = &answer{Error: err.Error()}
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

// startProfile writes a CPU profile to a file until stop; to "" it writes none.
func startProfile(file string) (stop func(), err error) {
	if file == "" {
		return func() {}, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	stop = func() {
		pprof.StopCPUProfile()
		f.Close()
	}
	return stop, pprof.StartCPUProfile(f)
}

func (q question) answer(caller func(int) echoFunc) (*answer, error) {
	switch {
	case q.Load != nil:
		o, err := q.Load.run(caller)
		return &answer{Outcome: o}, err
	case q.Memory:
		m, err := currentMemory()
		return &answer{Memory: m}, err
	}
	u, err := currentUsage()
	return &answer{Usage: &u}, err
}

func currentMemory() (*footprint, error) {
	runtime.GC()
	runtime.GC() // what sync.Pools hold survives one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return nil, fmt.Errorf("/proc/self/statm: %q", statm)
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	return &footprint{Heap: m.HeapAlloc, RSS: pages * uint64(os.Getpagesize()), Goroutines: runtime.NumGoroutine()}, err
}

// serverRole is the server process of a contender.
func serverRole(c *contender, profile string) error {
	addr, err := c.serve()
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer{Addr: addr}); err != nil {
		return err
	}
	return answerAll(nil, profile)
}

// clientRole is its client process.
func clientRole(c *contender, addr, profile string) error {
	caller, err := c.dial(addr)
	if err != nil {
		return err
	}
	return answerAll(caller, profile)
}

// pair is the two processes of a contender.
type pair struct {
	*contender
	server, client *process
}

// startPair starts them. profiles is a directory for their CPU profiles, or "".
func startPair(c *contender, profiles string) (*pair, error) {
	server, err := start(nil, "server", c.name, profileFile(profiles, c.name, "server"))
	if err != nil {
		return nil, err
	}
	a, err := server.next()
	if err != nil {
		return nil, errors.Join(err, server.stop())
	}
	client, err := start(nil, "client", c.name, a.Addr, profileFile(profiles, c.name, "client"))
	if err != nil {
		return nil, errors.Join(err, server.stop())
	}
	return &pair{c, server, client}, nil
}

func profileFile(dir, name, side string) string {
	if dir == "" {
		return ""
	}
	return fmt.Sprintf("%s/%s.%s.prof", dir, strings.NewReplacer(", ", "-", " ", "-", "/", "-").Replace(name), side)
}

func (p *pair) stop() error { return errors.Join(p.client.stop(), p.server.stop()) }

// sample is one round of a contender.
type sample struct {
	PerSecond   float64
	P50, P99    time.Duration
	ClientAlloc float64 // allocations a call
	ServerAlloc float64
	ClientCPU   time.Duration // a call
	ServerCPU   time.Duration
}

func (p *pair) measure(l load) (sample, error) {
	before, err := p.server.ask(question{Usage: true})
	if err != nil {
		return sample{}, err
	}
	made, err := p.client.ask(question{Load: &l})
	if err != nil {
		return sample{}, err
	}
	after, err := p.server.ask(question{Usage: true})
	if err != nil {
		return sample{}, err
	}
	o, server := made.Outcome, after.Usage.minus(*before.Usage)
	if o.Calls == 0 {
		return sample{}, fmt.Errorf("%s: no call was answered", p.name)
	}
	n := float64(o.Calls)
	return sample{
		PerSecond:   n / o.Elapsed.Seconds(),
		P50:         o.P50,
		P99:         o.P99,
		ClientAlloc: float64(o.Client.Mallocs) / n,
		ServerAlloc: float64(server.Mallocs) / n,
		ClientCPU:   time.Duration(float64(o.Client.CPU) / n),
		ServerCPU:   time.Duration(float64(server.CPU) / n),
	}, nil
}
