package broker

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// What every broker accepts, so that what works on one works on all. Lengths are in bytes.
const (
	MaxName        = 127      // of a topic or a group: A-Z a-z 0-9 . _ -
	MaxID          = 255      // of Message.ID
	MaxKey         = 255      // of Message.Key
	MaxHeaders     = 64       // entries
	MaxHeaderKey   = 127      // of one header's key
	MaxHeaderBytes = 32 << 10 // keys and values of all headers of a message
	DefaultMaxBody = 1 << 20  // of a body, where a plugin sets no other limit
	maxReserved    = 2 << 10  // of the value of one of the headers of a dead letter, which the limits above leave out
	maxConcurrency = 100_000  // handlers of one subscription
	reserved       = "Micro-" // begins the names of headers that are not the user's
)

// CheckPublish is for implementations: it answers ErrInvalid, ErrTooLarge or ErrUnsupported for what b must not take.
func CheckPublish(b Broker, topic string, msgs ...*Message) error {
	if err := checkName("topic", topic); err != nil {
		return fmt.Errorf("publish to %q: %w", topic, err)
	}
	can := CapabilitiesOf(b)
	for i, m := range msgs {
		err := checkMessage(m, can.MaxBody)
		if err == nil && m.Key != "" && !can.Ordered {
			err = fmt.Errorf("key with broker %s: %w", b, ErrUnsupported)
		}
		switch {
		case err != nil && len(msgs) > 1:
			return fmt.Errorf("publish to %q: message %d: %w", topic, i, err)
		case err != nil:
			return fmt.Errorf("publish to %q: %w", topic, err)
		}
	}
	return nil
}

// CheckSubscribe is for implementations: it adds up opts and answers ErrInvalid or ErrUnsupported for what b must not
// take, naming the option.
func CheckSubscribe(b Broker, topic string, h Handler, opts ...SubscribeOption) (SubscribeOptions, error) {
	o := NewSubscribeOptions(opts...)
	if err := checkSubscribe(topic, h, o); err != nil {
		return o, fmt.Errorf("subscribe to %q: %w", topic, err)
	}
	if option := CapabilitiesOf(b).missing(o); option != "" {
		return o, fmt.Errorf("subscribe to %q: %s with broker %s: %w", topic, option, b, ErrUnsupported)
	}
	return o, nil
}

func checkSubscribe(topic string, h Handler, o SubscribeOptions) error {
	if err := checkName("topic", topic); err != nil {
		return err
	}
	if h == nil {
		return fmt.Errorf("no handler: %w", ErrInvalid)
	}
	if o.Group != "" {
		if err := checkName("group", o.Group); err != nil {
			return err
		}
	}
	if o.DeadLetter != "" {
		if err := checkName("dead letter topic", o.DeadLetter); err != nil {
			return err
		}
	}
	r := o.Retry
	switch {
	case o.DeadLetter == topic:
		return fmt.Errorf("DeadLetter is the topic itself, a bad message would go round for ever: %w", ErrInvalid)
	case o.Concurrency < 1 || o.Concurrency > maxConcurrency:
		return fmt.Errorf("Concurrency %d, want 1 to %d: %w", o.Concurrency, maxConcurrency, ErrInvalid)
	case r.Attempts < 1:
		return fmt.Errorf("Retry with %d attempts, want at least 1, the first included: %w", r.Attempts, ErrInvalid)
	case r.Min < 0 || r.Max < r.Min:
		return fmt.Errorf("Retry with pauses from %s to %s, want 0 <= Min <= Max: %w", r.Min, r.Max, ErrInvalid)
	}
	return nil
}

func checkName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("empty %s: %w", what, ErrInvalid)
	case len(name) > MaxName:
		return fmt.Errorf("%s of %d bytes, at most %d: %w", what, len(name), MaxName, ErrInvalid)
	case name == "." || name == "..":
		return fmt.Errorf("%s %q: %w", what, name, ErrInvalid)
	}
	for _, r := range name {
		if !nameRune(r) {
			return fmt.Errorf("%s %q contains %q, only A-Z a-z 0-9 . _ - may be used: %w", what, name, r, ErrInvalid)
		}
	}
	return nil
}

func nameRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._-", r)
}

func checkMessage(m *Message, maxBody int) error {
	if m == nil {
		return fmt.Errorf("the message is nil: %w", ErrInvalid)
	}
	if err := checkText("ID", m.ID, MaxID); err != nil {
		return err
	}
	if err := checkText("key", m.Key, MaxKey); err != nil {
		return err
	}
	if len(m.Body) > maxBody {
		return fmt.Errorf("body of %d bytes, the limit is %d: %w", len(m.Body), maxBody, ErrTooLarge)
	}
	return checkHeader(m.Header)
}

func checkHeader(h map[string]string) error {
	count, size := 0, 0
	for k, v := range h {
		if deadHeader(k) {
			if err := checkText("header "+k, v, maxReserved); err != nil {
				return err
			}
			continue
		}
		if err := checkHeaderKey(k); err != nil {
			return err
		}
		if !utf8.ValidString(v) {
			return fmt.Errorf("header %q is not UTF-8: %w", k, ErrInvalid)
		}
		count++
		size += len(k) + len(v)
	}
	if count > MaxHeaders {
		return fmt.Errorf("%d headers, at most %d: %w", count, MaxHeaders, ErrInvalid)
	}
	if size > MaxHeaderBytes {
		return fmt.Errorf("headers of %d bytes, the limit is %d: %w", size, MaxHeaderBytes, ErrTooLarge)
	}
	return nil
}

func checkHeaderKey(k string) error {
	if k == "" {
		return fmt.Errorf("header with an empty name: %w", ErrInvalid)
	}
	if strings.HasPrefix(k, reserved) {
		return fmt.Errorf("header %q: names that begin with %s are reserved: %w", k, reserved, ErrInvalid)
	}
	return checkText("header name", k, MaxHeaderKey)
}

func checkText(what, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%s of %d bytes, at most %d: %w", what, len(s), limit, ErrInvalid)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s is not UTF-8: %w", what, ErrInvalid)
	}
	return nil
}

func deadHeader(k string) bool {
	return k == HeaderDeadTopic || k == HeaderDeadReason || k == HeaderAttempts
}
