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
// A plugin is held to the broker.Capabilities that it declares, and to answering broker.ErrUnsupported for the rest. A test
// is skipped only for want of a capability, or of a fault that the harness does not have; the skip names it.
package brokertest

import (
	"testing"
	"time"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/suite"
)

// Harness connects the suite to a plugin. Only Open is needed.
type Harness struct {
	// Open returns a new instance. All instances of one Run are connected to the same backend, as if each was in a
	// process of its own. The suite closes it. Short limits (for Close, of buffers: 100
	// messages are enough) keep the run short.
	Open func(t testing.TB) broker.Broker

	// Backend is the server with its version, as docs/capabilities.md names it: "Kafka 4.1.0"; "" if there is none.
	Backend string

	// Timeout is how long the suite waits for what must happen, also for Close with a handler that is stuck;
	// 0 means 30 seconds. Where many messages must arrive, it is how long none may.
	Timeout time.Duration
	// Messages is how many are published while the backend restarts; 0 means 10,000.
	Messages int
	// Buffered is the most, in bytes, that a subscriber that stands still may keep in memory, where the backend stores
	// what is waiting; 0 means 32 MiB.
	Buffered int

	// The faults of a real backend. Those that are nil are not tested.

	// Restart stops the backend and starts it again with its data.
	Restart func(t testing.TB)
	// Kill ends what b has with the backend as if its process was killed: no goodbye, and nothing that its handlers
	// still answer arrives. b is only closed after that.
	Kill func(t testing.TB, b broker.Broker)
	// Pause freezes the backend, which keeps its connections, until resume is called.
	Pause func(t testing.TB) (resume func())
	// Partition cuts b off from the backend until heal is called. Best is a black hole: connections that stay, on
	// which nothing arrives.
	Partition func(t testing.TB, b broker.Broker) (heal func())
}

// test is one promise; it runs where the plugin claims all that it needs.
type test struct {
	name  string
	needs needs
	run   func(*rig)
}

// needs are fields of broker.Capabilities that are true, or with "not " before them false, and faults of the harness.
type needs []string

// Run holds a plugin to the contract, one subtest for each promise. They run one after the other, and after each no
// goroutine may be left.
func Run(t *testing.T, h Harness) {
	if h.Timeout == 0 {
		h.Timeout = 30 * time.Second
	}
	if h.Messages == 0 {
		h.Messages = 10_000
	}
	if h.Buffered == 0 {
		h.Buffered = 32 << 20
	}
	s := suite.New(t, "broker")
	can := capabilities(t, h, s)
	has := claimed(can, h)
	for _, tests := range [][]test{deliveryTests, groupTests, failureTests, closeTests, refusalTests, faultTests} {
		for _, tc := range tests {
			s.Test(tc.name, func(t *testing.T) {
				for _, need := range tc.needs {
					if !has[need] {
						s.NotClaimed(t, need)
					}
				}
				suite.NoLeaks(t)
				tc.run(&rig{T: t, harness: h, can: can, suite: s})
			})
		}
	}
	s.Done()
}

func capabilities(t *testing.T, h Harness, s *suite.Suite) broker.Capabilities {
	b := h.Open(t)
	defer b.Close()
	can := broker.CapabilitiesOf(b)
	s.Plugin(b.String(), h.Backend)
	for _, c := range []suite.Claim{
		{Capability: "the members of a group share the messages of a topic", Value: suite.YesNo(can.Groups)},
		{Capability: "without a group, every subscriber gets every message", Value: suite.YesNo(can.FanOut)},
		{Capability: "messages of one key are handled in order", Value: suite.YesNo(can.Ordered)},
		{Capability: "a message whose handler failed is tried again", Value: suite.YesNo(can.Retry)},
		{Capability: "one that fails for good goes to a dead letter topic, with the reason", Value: suite.YesNo(can.DeadLetter)},
		{Capability: "what a member that left or died did not ack goes to the others", Value: suite.YesNo(can.Redelivery)},
		{Capability: "publishers wait for slow subscribers; else the server stores what is waiting", Value: suite.YesNo(can.Backpressure)},
		{Capability: "messages are kept for a group while it has no member", Value: suite.YesNo(can.Durable)},
		{Capability: "largest body", Value: suite.Size(can.MaxBody)},
		{Capability: "a process that is killed loses nothing that others can handle", Value: suite.Tried(h.Kill != nil)},
		{Capability: "goes on after a restart of the server", Value: suite.Tried(h.Restart != nil)},
		{Capability: "nothing hangs while the server is frozen", Value: suite.Tried(h.Pause != nil)},
		{Capability: "goes on after a network partition", Value: suite.Tried(h.Partition != nil)},
	} {
		s.Claim(c.Capability, c.Value)
	}
	return can
}

// claimed says of everything that a test may need whether it is there.
func claimed(can broker.Capabilities, h Harness) map[string]bool {
	return map[string]bool{
		"Groups":           can.Groups,
		"FanOut":           can.FanOut,
		"Ordered":          can.Ordered,
		"Retry":            can.Retry,
		"DeadLetter":       can.DeadLetter,
		"Redelivery":       can.Redelivery,
		"Backpressure":     can.Backpressure,
		"not Backpressure": !can.Backpressure,
		"Durable":          can.Durable,
		"not Durable":      !can.Durable,
		"fault Kill":       h.Kill != nil,
		"fault Restart":    h.Restart != nil,
		"fault Pause":      h.Pause != nil,
		"fault Partition":  h.Partition != nil,
	}
}
