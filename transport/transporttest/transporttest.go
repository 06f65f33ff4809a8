// Package transporttest is the conformance suite of transports: what every plugin, also one that lives elsewhere, must
// do.
//
//	func TestConformance(t *testing.T) {
//		transporttest.Run(t, transporttest.Harness{
//			Open: func(t testing.TB) transport.Transport {
//				tr, err := New(new(plugin.Env), Config{Address: server})
//				require.NoError(t, err)
//				return tr
//			},
//		})
//	}
//
// A test is skipped only for want of something that the harness does not have; the skip names it.
package transporttest

import (
	"context"
	"testing"
	"time"

	"github.com/plugmicro/micro/internal/suite"
	"github.com/plugmicro/micro/transport"
)

// Harness connects the suite to a plugin. Only Open is needed.
type Harness struct {
	// Open returns a new instance. All instances of one Run reach each other, as if each was in a process of its own.
	// The suite closes it, if it is an io.Closer.
	Open func(t testing.TB) transport.Transport

	// Backend is the server with its version, as docs/capabilities.md names it: "RabbitMQ 3.10.8"; "" if there is none.
	Backend string

	// Address is where to listen; "" lets the transport choose.
	Address string
	// Unknown is an address where nobody listens; "" takes that of a listener that was closed.
	Unknown string

	// Messages is how many go each way in the test of order; 0 means 10000.
	Messages int
	// Connections is how many are opened and closed in the test for leaks; 0 means 1000.
	Connections int
	// Buffered is the most, in bytes, that a connection may take from a sender whose peer does not receive, all
	// buffers on the way together; 0 means 64 MiB.
	Buffered int
	// Timeout is how long the suite waits for what must happen; 0 means 30 seconds.
	Timeout time.Duration

	// Left counts what the backend has of this Run's listeners and connections: queues, bindings, … After all of a
	// test's are closed it must be what it was. Nil if there is no backend.
	Left func(t testing.TB) int

	// Refused are instances, by what is wrong with them, that must not reach a listener of one that Open returns: no
	// certificate, one of a stranger, the wrong name, … The error is that of opening one, if that notices already.
	Refused map[string]func(t testing.TB) (transport.Transport, error)

	// Faults, of the peer and of a backend. Those that are nil are not tested.

	// Kill ends c as if its process was killed: no goodbye. c is only closed after that.
	Kill func(t testing.TB, c transport.Conn)
	// Spawn starts a process that listens, and calls Echo.
	Spawn func(t testing.TB) Process
	// Restart stops the backend and starts it again.
	Restart func(t testing.TB)
	// Pause freezes the backend, which keeps its connections, until resume is called.
	Pause func(t testing.TB) (resume func())
	// Partition cuts tr off from the backend until heal is called.
	Partition func(t testing.TB, tr transport.Transport) (heal func())
}

// Process is what Spawn started. Whatever is left of it when the test ends is the harness's to clean up.
type Process struct {
	Addr           string // of its listener
	Kill           func() // as kill -9 does
	Stop, Continue func() // as SIGSTOP and SIGCONT do
}

// Echo sends back what it receives, on every connection that l takes, until l is closed.
func Echo(l transport.Listener) {
	for {
		c, err := l.Accept(context.Background())
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			for {
				msg, err := c.Recv(context.Background())
				if err != nil || c.Send(context.Background(), msg) != nil {
					return
				}
			}
		}()
	}
}

// test is one promise. It needs something of the harness, or nothing.
type test struct {
	name  string
	run   func(*rig)
	needs string
}

// Run holds a plugin to the contract, one subtest for each promise. They run one after the other, and after each no
// goroutine may be left.
func Run(t *testing.T, h Harness) {
	if h.Messages == 0 {
		h.Messages = 10_000
	}
	if h.Connections == 0 {
		h.Connections = 1000
	}
	if h.Buffered == 0 {
		h.Buffered = 64 << 20
	}
	if h.Timeout == 0 {
		h.Timeout = 30 * time.Second
	}
	s := suite.New(t, "transport")
	has := map[string]bool{
		"":                true,
		"Refused":         len(h.Refused) > 0,
		"fault Kill":      h.Kill != nil,
		"fault Spawn":     h.Spawn != nil,
		"fault Restart":   h.Restart != nil,
		"fault Pause":     h.Pause != nil,
		"fault Partition": h.Partition != nil,
	}
	for _, tests := range [][]test{messageTests, pressureTests, closeTests, addressTests, faultTests} {
		for _, tc := range tests {
			s.Test(tc.name, func(t *testing.T) {
				if !has[tc.needs] {
					s.NotClaimed(t, tc.needs)
				}
				suite.NoLeaks(t)
				tc.run(&rig{T: t, harness: h, suite: s})
			})
		}
	}
	for _, c := range []suite.Claim{
		{Capability: "messages in order, both ways, with backpressure", Value: "yes"},
		{Capability: "connections leave nothing behind", Value: "yes"},
		{Capability: "a peer without the right credentials is refused", Value: suite.Tried(len(h.Refused) > 0)},
		{Capability: "the death of the peer's process is noticed", Value: suite.Tried(h.Spawn != nil)},
		{Capability: "goes on after a restart of the server, or a cut of the network", Value: suite.Tried(h.Restart != nil)},
		{Capability: "nothing hangs while the server is frozen, or the network swallows everything", Value: suite.Tried(h.Pause != nil)},
		{Capability: "goes on after a network partition", Value: suite.Tried(h.Partition != nil)},
	} {
		s.Claim(c.Capability, c.Value)
	}
	s.Done()
}
