package broker

import "cmp"

// Capabilities is what a broker can do. The conformance suite holds a plugin to what it claims, and to answering
// ErrUnsupported for the rest.
type Capabilities struct {
	Groups       bool // Group: the members share the messages of a topic
	FanOut       bool // without Group: every subscriber gets every message
	Ordered      bool // Message.Key: messages of one key are handled in order, one after the other
	Retry        bool // Retry
	DeadLetter   bool // DeadLetter
	Redelivery   bool // what a subscriber that closes or dies did not ack goes to the others of its group
	Backpressure bool // Publish waits for slow subscribers; without it the broker stores what is waiting
	Durable      bool // what is published while a group has no member is kept for it
	MaxBody      int  // largest body, in bytes; 0: DefaultMaxBody
}

// Capable is implemented by brokers that declare what they can do.
type Capable interface {
	Capabilities() Capabilities
}

// CapabilitiesOf returns what b declares. One that declares nothing claims all but Durable, with DefaultMaxBody.
func CapabilitiesOf(b Broker) Capabilities {
	can := Capabilities{
		Groups: true, FanOut: true, Ordered: true, Retry: true, DeadLetter: true, Redelivery: true, Backpressure: true,
	}
	if c, ok := b.(Capable); ok {
		can = c.Capabilities()
	}
	can.MaxBody = cmp.Or(can.MaxBody, DefaultMaxBody)
	return can
}

// missing names the option of o that c does not cover; "" if there is none.
func (c Capabilities) missing(o SubscribeOptions) string {
	switch {
	case o.Group != "" && !c.Groups:
		return "Group"
	case o.Group == "" && !c.FanOut:
		return "subscribing without Group"
	case o.Retry.Attempts > 1 && o.Retry != DefaultRetry && !c.Retry:
		return "Retry"
	case o.DeadLetter != "" && !c.DeadLetter:
		return "DeadLetter"
	}
	return ""
}
