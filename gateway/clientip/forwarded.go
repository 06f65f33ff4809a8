package clientip

import (
	"errors"
	"strings"
)

// element is what one proxy wrote into Forwarded, as far as it is used here.
type element struct{ node, proto string }

var errForwarded = errors.New("the header Forwarded is malformed")

// appendForwarded reads a line of Forwarded by RFC 7239, all of it: where an entry begins is only known from the left, since
// a comma may be in a quoted string. It stops after too many.
func appendForwarded(elements []element, line string) ([]element, error) {
	for len(elements) <= maxHops {
		e, rest, err := cutElement(line)
		if err != nil {
			return nil, err
		}
		elements = append(elements, e)
		if rest == "" {
			break
		}
		line = rest[1:] // the comma
	}
	return elements, nil
}

// cutElement reads pairs up to the end or to a comma, which rest begins with. The empty elements and pairs that the RFC lets
// pass are errors: no proxy writes them.
func cutElement(s string) (e element, rest string, err error) {
	for {
		name, after := cutToken(strings.TrimLeft(s, " \t"))
		value, after, ok := cutValue(after)
		if name == "" || !ok || !e.set(name, value) {
			return element{}, "", errForwarded
		}
		s = strings.TrimLeft(after, " \t")
		switch {
		case s == "" || s[0] == ',':
			return e, s, nil
		case s[0] != ';':
			return element{}, "", errForwarded
		}
		s = s[1:]
	}
}

// set refuses what is there already, and what is there but empty.
func (e *element) set(name, value string) bool {
	field := &e.node
	switch {
	case strings.EqualFold(name, "for"):
	case strings.EqualFold(name, "proto"):
		field = &e.proto
	default:
		return true
	}
	if *field != "" || value == "" {
		return false
	}
	*field = value
	return true
}

// cutToken reads a token of RFC 9110; "" if there is none.
func cutToken(s string) (token, rest string) {
	i := 0
	for i < len(s) && isTokenByte(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

func isTokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// cutValue reads an equals sign and a token or a quoted string.
func cutValue(s string) (value, rest string, ok bool) {
	if s == "" || s[0] != '=' {
		return "", "", false
	}
	s = s[1:]
	if s == "" || s[0] != '"' {
		value, rest = cutToken(s)
		return value, rest, value != ""
	}
	escaped := false
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			value = s[1:i]
			if escaped {
				value = unescape(value)
			}
			return value, s[i+1:], true
		}
	}
	return "", "", false
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
