package broker

import (
	"crypto/rand"
	"maps"
	"slices"
)

// NewID returns a new unique message ID.
func NewID() string { return rand.Text() }

// Clone returns a deep copy.
func (m *Message) Clone() *Message {
	c := *m
	c.Header = maps.Clone(m.Header)
	c.Body = slices.Clone(m.Body)
	return &c
}

// size is about what m takes in memory, in bytes.
func (m *Message) size() int {
	return len(m.ID) + len(m.Key) + headerSize(m.Header) + len(m.Body)
}

func headerSize(h map[string]string) int {
	n := 0
	for k, v := range h {
		n += len(k) + len(v)
	}
	return n
}
