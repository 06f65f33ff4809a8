package broker

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// limited is a broker that declares what it is told to.
type limited struct {
	Broker
	can Capabilities
}

func (l limited) Capabilities() Capabilities { return l.can }
func (l limited) String() string             { return "limited" }

// silent declares nothing.
type silent struct{ Broker }

func (silent) String() string { return "silent" }

func handle(context.Context, *Message) error { return nil }

func TestCheckPublish(t *testing.T) {
	headers := func(n int) map[string]string {
		h := map[string]string{}
		for i := range n {
			h[fmt.Sprint("h", i)] = "v"
		}
		return h
	}
	header := func(k, v string) *Message { return &Message{Header: map[string]string{k: v}} }
	for name, tc := range map[string]struct {
		topic string
		m     *Message
		want  error
		says  string
	}{
		"empty message":      {"t", &Message{}, nil, ""},
		"longest of all":     {strings.Repeat("t", MaxName), &Message{ID: strings.Repeat("i", MaxID), Key: strings.Repeat("k", MaxKey), Header: headers(MaxHeaders), Body: make([]byte, DefaultMaxBody)}, nil, ""},
		"no topic":           {"", &Message{}, ErrInvalid, "empty topic"},
		"long topic":         {strings.Repeat("t", MaxName+1), &Message{}, ErrInvalid, "128 bytes, at most 127"},
		"topic with slash":   {"a/b", &Message{}, ErrInvalid, "contains '/'"},
		"topic of dots":      {"..", &Message{}, ErrInvalid, "topic"},
		"topic not ASCII":    {"тема", &Message{}, ErrInvalid, "contains"},
		"nil message":        {"t", nil, ErrInvalid, `publish to "t": the message is nil`},
		"long ID":            {"t", &Message{ID: strings.Repeat("i", MaxID+1)}, ErrInvalid, "ID of 256 bytes, at most 255"},
		"long key":           {"t", &Message{Key: strings.Repeat("i", MaxKey+1)}, ErrInvalid, "key of 256 bytes"},
		"key not UTF-8":      {"t", &Message{Key: "\xff"}, ErrInvalid, "key is not UTF-8"},
		"large body":         {"t", &Message{Body: make([]byte, DefaultMaxBody+1)}, ErrTooLarge, "1048577 bytes, the limit is 1048576"},
		"many headers":       {"t", &Message{Header: headers(MaxHeaders + 1)}, ErrInvalid, "65 headers, at most 64"},
		"large headers":      {"t", header("k", strings.Repeat("v", MaxHeaderBytes)), ErrTooLarge, "the limit is 32768"},
		"header not UTF-8":   {"t", header("k", "\xff"), ErrInvalid, `"k" is not UTF-8`},
		"header no name":     {"t", header("", "v"), ErrInvalid, "empty name"},
		"header long name":   {"t", header(strings.Repeat("k", MaxHeaderKey+1), "v"), ErrInvalid, "header name"},
		"reserved header":    {"t", header("Micro-Id", "v"), ErrInvalid, "reserved"},
		"other case":         {"t", header("micro-id", "v"), nil, ""},
		"dead letter":        {"t", header(HeaderDeadReason, strings.Repeat("v", maxReason)), nil, ""},
		"dead letter, large": {"t", header(HeaderDeadReason, strings.Repeat("v", maxReserved+1)), ErrInvalid, HeaderDeadReason},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckPublish(silent{}, tc.topic, tc.m)
			require.ErrorIs(t, err, tc.want)
			if tc.want != nil {
				require.ErrorContains(t, err, tc.says)
			}
		})
	}
}

func TestCheckPublishSaysWhich(t *testing.T) {
	err := CheckPublish(silent{}, "t", &Message{}, &Message{Key: "\xff"})
	require.ErrorContains(t, err, `publish to "t": message 1: key is not UTF-8`)
}

func TestCheckPublishOfLimitedBroker(t *testing.T) {
	b := limited{can: Capabilities{MaxBody: 2}}
	require.NoError(t, CheckPublish(b, "t", &Message{Body: []byte("ab")}))
	require.ErrorIs(t, CheckPublish(b, "t", &Message{Body: []byte("abc")}), ErrTooLarge)
	err := CheckPublish(b, "t", &Message{}, &Message{Key: "k"})
	require.ErrorIs(t, err, ErrUnsupported)
	require.ErrorContains(t, err, "message 1: key with broker limited")
}

func TestCapabilitiesOf(t *testing.T) {
	require.Equal(t, Capabilities{Durable: true, MaxBody: 5}, CapabilitiesOf(limited{can: Capabilities{Durable: true, MaxBody: 5}}))
	require.Equal(t, Capabilities{MaxBody: DefaultMaxBody}, CapabilitiesOf(limited{}))
	undeclared := CapabilitiesOf(silent{})
	require.True(t, undeclared.Groups && undeclared.FanOut && undeclared.Ordered && undeclared.Redelivery)
	require.False(t, undeclared.Durable)
}

func TestCheckSubscribe(t *testing.T) {
	for name, tc := range map[string]struct {
		topic string
		h     Handler
		opt   SubscribeOption
		says  string
	}{
		"topic":          {"a b", handle, Group("g"), `topic "a b" contains ' '`},
		"handler":        {"t", nil, Group("g"), "no handler"},
		"group":          {"t", handle, Group("g/h"), `group "g/h"`},
		"dead letter":    {"t", handle, DeadLetter("?"), "dead letter topic"},
		"dead to itself": {"t", handle, DeadLetter("t"), "topic itself"},
		"concurrency":    {"t", handle, Concurrency(0), "Concurrency 0, want 1 to"},
		"attempts":       {"t", handle, Retry(RetryPolicy{}), "Retry with 0 attempts"},
		"pauses":         {"t", handle, Retry(RetryPolicy{Attempts: 2, Min: time.Second}), "pauses from 1s to 0s"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := CheckSubscribe(silent{}, tc.topic, tc.h, tc.opt)
			require.ErrorIs(t, err, ErrInvalid)
			require.ErrorContains(t, err, tc.says)
		})
	}
	o, err := CheckSubscribe(silent{}, "t", handle, Group("g"), DeadLetter("d"))
	require.NoError(t, err)
	require.Equal(t, SubscribeOptions{Group: "g", Concurrency: 1, Retry: DefaultRetry, DeadLetter: "d"}, o)
}

func TestCheckSubscribeNamesWhatIsUnsupported(t *testing.T) {
	for option, tc := range map[string]struct {
		can  Capabilities
		opts []SubscribeOption
	}{
		"Group":                     {Capabilities{FanOut: true}, []SubscribeOption{Group("g")}},
		"subscribing without Group": {Capabilities{Groups: true}, nil},
		"Retry":                     {Capabilities{FanOut: true}, []SubscribeOption{Retry(RetryPolicy{Attempts: 2})}},
		"DeadLetter":                {Capabilities{FanOut: true}, []SubscribeOption{DeadLetter("d")}},
	} {
		t.Run(option, func(t *testing.T) {
			_, err := CheckSubscribe(limited{can: tc.can}, "t", handle, tc.opts...)
			require.ErrorIs(t, err, ErrUnsupported)
			require.ErrorContains(t, err, option+" with broker limited")
		})
	}
	_, err := CheckSubscribe(limited{can: Capabilities{FanOut: true}}, "t", handle, Retry(RetryPolicy{Attempts: 1}))
	require.NoError(t, err, "a single try is no retry")
}

func TestClone(t *testing.T) {
	m := &Message{ID: "i", Key: "k", Header: map[string]string{"a": "b"}, Body: []byte("x")}
	c := m.Clone()
	require.Equal(t, m, c)
	c.Header["a"], c.Body[0] = "c", 'y'
	require.Equal(t, "b", m.Header["a"])
	require.Equal(t, "x", string(m.Body))
}

func TestNewIDIsUnique(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		seen[NewID()] = true
	}
	require.Len(t, seen, 1000)
}
