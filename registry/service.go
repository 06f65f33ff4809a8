package registry

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what can be registered, in bytes where nothing else is said. A plugin whose backend takes less says so in
// its documentation, and answers ErrInvalid.
const (
	MaxName    = 255     // names of services and endpoints, versions, node IDs
	MaxAddress = 1024    // addresses of nodes
	MaxDepth   = 32      // levels of a Value
	MaxSize    = 1 << 20 // all strings of a service, plus 16 for each of its parts
)

// Validate says whether s can be registered; if not, the error matches ErrInvalid and says why. Implementations call it
// first in Register: what passes is finite, so that it can be copied and encoded, and is valid UTF-8 throughout.
func Validate(s *Service) error {
	if s == nil {
		return fmt.Errorf("%w: it is nil", ErrInvalid)
	}
	v := &validator{left: MaxSize}
	v.service(s)
	if v.problem != "" {
		return fmt.Errorf("%w: %s", ErrInvalid, v.problem)
	}
	return nil
}

// validator walks a service until the first problem. What is left of the size also ends the walk of a Value that
// contains itself.
type validator struct {
	left    int
	problem string
}

func (v *validator) fail(format string, args ...any) {
	if v.problem == "" {
		v.problem = fmt.Sprintf(format, args...)
	}
}

func (v *validator) service(s *Service) {
	v.name("the service name", s.Name, true)
	v.name("the version", s.Version, false)
	v.metadata("the service", s.Metadata)
	for _, e := range s.Endpoints {
		if e == nil {
			v.fail("an endpoint is nil")
			return
		}
		v.name("an endpoint name", e.Name, true)
		v.metadata("endpoint "+e.Name, e.Metadata)
		v.value(e.Request, MaxDepth)
		v.value(e.Response, MaxDepth)
	}
	if len(s.Nodes) == 0 {
		v.fail("service %s has no nodes", s.Name)
	}
	v.nodes(s.Nodes)
}

func (v *validator) nodes(nodes []*Node) {
	seen := make(map[string]bool, len(nodes))
	for _, n := range nodes {
		if n == nil {
			v.fail("a node is nil")
			return
		}
		v.name("a node ID", n.ID, true)
		if seen[n.ID] {
			v.fail("node %s is there twice", n.ID)
		}
		seen[n.ID] = true
		v.label("the address of node "+n.ID, n.Address, MaxAddress, true)
		v.metadata("node "+n.ID, n.Metadata)
	}
}

// value takes nil for absent at the top only: the fields of a message are there.
func (v *validator) value(x *Value, depth int) {
	if x == nil || v.problem != "" {
		return
	}
	if depth == 0 {
		v.fail("a value has more than %d levels", MaxDepth)
		return
	}
	v.text("a value", x.Name)
	v.text("a value", x.Type)
	for _, field := range x.Values {
		if field == nil {
			v.fail("a field of value %s is nil", x.Name)
		}
		v.value(field, depth-1)
		if v.problem != "" {
			return
		}
	}
}

func (v *validator) metadata(of string, m map[string]string) {
	for key, value := range m {
		v.text("the metadata of "+of, key)
		v.text("the metadata of "+of, value)
	}
}

func (v *validator) name(what, s string, must bool) { v.label(what, s, MaxName, must) }

func (v *validator) label(what, s string, limit int, must bool) {
	switch {
	case must && strings.TrimSpace(s) == "":
		v.fail("%s is empty", what)
	case len(s) > limit:
		v.fail("%s has %d bytes, the limit is %d", what, len(s), limit)
	case strings.ContainsFunc(s, unicode.IsControl):
		v.fail("%s contains a control character: %q", what, s)
	}
	v.text(what, s)
}

// text takes the cost of one string off what is left.
func (v *validator) text(what, s string) {
	if !utf8.ValidString(s) {
		v.fail("%s is not valid UTF-8: %.80q", what, s)
	}
	if v.left -= len(s) + 16; v.left < 0 {
		v.fail("it is larger than %d bytes", MaxSize)
	}
}

// Clone returns a copy that shares nothing with s.
func (s *Service) Clone() *Service {
	if s == nil {
		return nil
	}
	c := *s
	c.Metadata = maps.Clone(s.Metadata)
	c.Endpoints = cloneAll(s.Endpoints, (*Endpoint).clone)
	c.Nodes = cloneAll(s.Nodes, (*Node).clone)
	return &c
}

func (n *Node) clone() *Node {
	if n == nil {
		return nil
	}
	c := *n
	c.Metadata = maps.Clone(n.Metadata)
	return &c
}

func (e *Endpoint) clone() *Endpoint {
	if e == nil {
		return nil
	}
	c := *e
	c.Metadata = maps.Clone(e.Metadata)
	c.Request = e.Request.clone()
	c.Response = e.Response.clone()
	return &c
}

func (v *Value) clone() *Value {
	if v == nil {
		return nil
	}
	c := *v
	c.Values = cloneAll(v.Values, (*Value).clone)
	return &c
}

func cloneAll[T any](list []T, clone func(T) T) []T {
	if list == nil {
		return nil
	}
	c := make([]T, len(list))
	for i, x := range list {
		c[i] = clone(x)
	}
	return c
}

// Equal compares all fields, the lists in their order. Nil and empty are the same, as they are on the wire.
func (s *Service) Equal(o *Service) bool {
	if s == nil || o == nil {
		return s == o
	}
	return s.Name == o.Name && s.Version == o.Version && maps.Equal(s.Metadata, o.Metadata) &&
		slices.EqualFunc(s.Endpoints, o.Endpoints, (*Endpoint).equal) &&
		slices.EqualFunc(s.Nodes, o.Nodes, (*Node).equal)
}

func (n *Node) equal(o *Node) bool {
	if n == nil || o == nil {
		return n == o
	}
	return n.ID == o.ID && n.Address == o.Address && maps.Equal(n.Metadata, o.Metadata)
}

func (e *Endpoint) equal(o *Endpoint) bool {
	if e == nil || o == nil {
		return e == o
	}
	return e.Name == o.Name && maps.Equal(e.Metadata, o.Metadata) &&
		e.Request.equal(o.Request) && e.Response.equal(o.Response)
}

func (v *Value) equal(o *Value) bool {
	if v == nil || o == nil {
		return v == o
	}
	return v.Name == o.Name && v.Type == o.Type && slices.EqualFunc(v.Values, o.Values, (*Value).equal)
}
