// Package suite is what the conformance suites of all kinds share: they run their tests through it, and it notes what a
// plugin has shown, of which internal/capabilities makes a page.
//
//	s := suite.New(t, "broker")
//	s.Test("Groups", func(t *testing.T) { … })
//	s.Test("Durable", func(t *testing.T) { s.NotClaimed(t, "Durable") })
//	s.Done()
package suite

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"
)

// Suite is one run of a conformance suite. Its tests run one after the other.
type Suite struct {
	t       *testing.T
	result  Result
	skipped string // by the test that runs
	partly  bool   // a test was left out, by -run for example
}

// New begins a run of the suite of a kind.
func New(t *testing.T, kind string) *Suite {
	return &Suite{t: t, result: Result{Kind: kind, Run: t.Name()}}
}

// Plugin says whom the run is about, and on which server, with its version; "" if there is none. It may be said again.
func (s *Suite) Plugin(name, server string) { s.result.Plugin, s.result.Server = name, server }

// Test runs one test. A panic or a failure in it leaves no result.
func (s *Suite) Test(name string, run func(*testing.T)) {
	ran := false
	s.skipped = ""
	s.t.Run(name, func(t *testing.T) {
		ran = true
		run(t)
	})
	s.partly = s.partly || !ran
	s.result.Tests = append(s.result.Tests, Test{Name: name, Skipped: s.skipped})
}

// NotClaimed skips the test that runs, because of what its plugin, or the harness, cannot do.
func (s *Suite) NotClaimed(t *testing.T, what string) {
	t.Helper()
	s.skipped = what
	t.Skip("not claimed: " + what)
}

// Claim notes a capability, in words for users. The suites note all of a kind, in the same order for each plugin.
func (s *Suite) Claim(capability, value string) {
	s.result.Claims = append(s.result.Claims, Claim{capability, value})
}

// YesNo is the value of a Claim.
func YesNo(can bool) string {
	if can {
		return "yes"
	}
	return "no"
}

// Tried is the value of a Claim that is shown by a fault that the harness may not have.
func Tried(can bool) string {
	if can {
		return "yes"
	}
	return NotTried
}

// Size is the value of a Claim in bytes.
func Size(n int) string {
	switch {
	case n%(1<<20) == 0:
		return fmt.Sprint(n>>20, " MiB")
	case n%(1<<10) == 0:
		return fmt.Sprint(n>>10, " KiB")
	}
	return fmt.Sprint(n, " bytes")
}

// Measure logs a measurement and keeps it beside the results. It is never a reason to fail.
func (s *Suite) Measure(t *testing.T, what string, value string) {
	t.Helper()
	t.Logf("measured: %s: %s", what, value)
	if s.result.Measured == nil {
		s.result.Measured = map[string]string{}
	}
	s.result.Measured[what] = value
}

// Done ends the run. If every test ran and none failed, the result is written for the page, where that is wanted.
func (s *Suite) Done() {
	s.t.Helper()
	if s.partly || s.t.Failed() {
		return
	}
	if err := s.result.save(); err != nil {
		s.t.Errorf("the result of the suite: %v", err)
	}
}

// NoLeaks checks at the end of t that it left no goroutine. Those that wait for a process are not counted: a harness that
// starts its server again, after a fault, has a new one.
func NoLeaks(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		if !t.Failed() { // a test that gave up in the middle leaves some
			goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("os/exec.(*Cmd).Wait"))
		}
	})
}
