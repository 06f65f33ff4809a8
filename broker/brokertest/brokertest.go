// Package brokertest is the conformance suite of brokers: what every plugin, also one that lives elsewhere, must do.
//
//	func TestConformance(t *testing.T) {
//		brokertest.Run(t, brokertest.Harness{
//			Open: func(t testing.TB) broker.Broker {
//				b, err := New(new(plugin.Env), Config{Address: server, Drain: time.Second})
//				require.NoError(t, err)
//				return b
//			},
//		})
//	}
//
// A plugin is held to the broker.Capabilities that it declares, and to answering broker.ErrUnsupported for the rest.
package brokertest

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/plugmicro/micro/broker"
)

// Harness connects the suite to a plugin. Only Open is needed.
type Harness struct {
	// Open returns a new instance. All instances of one Run are connected to the same backend, as if each was in a
	// process of its own. The suite closes it. Short limits (for Close, of buffers: 100
	// messages are enough) keep the run short.
	Open func(t testing.TB) broker.Broker

	// Timeout is how long the suite waits for what must happen, also for Close with a handler that is stuck;
	// 0 means 30 seconds.
	Timeout time.Duration

	// The faults of a real backend. Those that are nil are not tested.

	// Restart stops the backend and starts it again with its data.
	Restart func(t testing.TB)
	// Kill ends what b has with the backend as if its process was killed: no goodbye, and nothing that its handlers
	// still answer arrives. b is only closed after that.
	Kill func(t testing.TB, b broker.Broker)
	// Pause freezes the backend, which keeps its connections, until resume is called.
	Pause func(t testing.TB) (resume func())
	// Partition cuts b off from the backend until heal is called.
	Partition func(t testing.TB, b broker.Broker) (heal func())
}

// test is one promise; it runs where the plugin claims what it needs.
type test struct {
	name  string
	needs func(broker.Capabilities) bool
	run   func(*rig)
}

func anyBroker(broker.Capabilities) bool { return true }

// Run holds a plugin to the contract, one subtest for each promise. They run one after the other, and after each no
// goroutine may be left.
func Run(t *testing.T, h Harness) {
	if h.Timeout == 0 {
		h.Timeout = 30 * time.Second
	}
	can := capabilities(t, h)
	for _, tests := range [][]test{deliveryTests, groupTests, failureTests, closeTests, refusalTests(can), faultTests(h)} {
		for _, tc := range tests {
			if tc.needs(can) {
				t.Run(tc.name, func(t *testing.T) {
					noLeaks(t)
					tc.run(&rig{T: t, harness: h, can: can})
				})
			}
		}
	}
}

func capabilities(t *testing.T, h Harness) broker.Capabilities {
	b := h.Open(t)
	defer b.Close()
	return broker.CapabilitiesOf(b)
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
