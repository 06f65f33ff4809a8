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
package transporttest

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/plugmicro/micro/transport"
)

// Harness connects the suite to a plugin. Only Open is needed.
type Harness struct {
	// Open returns a new instance. All instances of one Run reach each other, as if each was in a process of its own.
	// The suite closes it, if it is an io.Closer.
	Open func(t testing.TB) transport.Transport

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

	// Faults, of the peer and of a backend. Those that are nil are not tested.

	// Kill ends c as if its process was killed: no goodbye. c is only closed after that.
	Kill func(t testing.TB, c transport.Conn)
	// Restart stops the backend and starts it again.
	Restart func(t testing.TB)
	// Pause freezes the backend, which keeps its connections, until resume is called.
	Pause func(t testing.TB) (resume func())
	// Partition cuts tr off from the backend until heal is called.
	Partition func(t testing.TB, tr transport.Transport) (heal func())
}

// test is one promise.
type test struct {
	name string
	run  func(*rig)
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
	for _, tests := range [][]test{messageTests, pressureTests, closeTests, addressTests, faultTests(h)} {
		for _, tc := range tests {
			t.Run(tc.name, func(t *testing.T) {
				noLeaks(t)
				tc.run(&rig{T: t, harness: h})
			})
		}
	}
}

// noLeaks checks at the end of t that it left no goroutine.
func noLeaks(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		if !t.Failed() { // a test that gave up in the middle leaves some
			goleak.VerifyNone(t, before)
		}
	})
}
