package openapi

import (
	"regexp"
	"strings"
)

// RPC is the path at which every endpoint can be called: the body names it.
const RPC = "/v1/rpc"

// segment is what a short path is made of here; the gateway takes more.
var segment = regexp.MustCompile(`^[A-Za-z0-9_~][A-Za-z0-9_~-]*$`)

var version = regexp.MustCompile(`^v[0-9]+$`)

// pathOf is the short path that leads to an endpoint: the rules of package rpc, read backwards. "" if there is none.
func pathOf(service, endpoint string) string {
	receiver, method, ok := strings.Cut(endpoint, ".")
	if !ok {
		return ""
	}
	parts := strings.Split(service, ".")
	for _, p := range append([]string{receiver, method}, parts...) {
		if !segment.MatchString(p) {
			return ""
		}
	}
	for _, path := range candidates(parts, kebab(receiver), kebab(method)) {
		if s, e, ok := target(path); ok && s == service && e == endpoint && path != RPC {
			return path
		}
	}
	return ""
}

// candidates are the paths that could lead there, the shortest first.
func candidates(service []string, receiver, method string) []string {
	base := "/" + strings.Join(service, "/")
	if method == "call" {
		return []string{base, base + "/" + method, base + "/" + receiver + "/" + method}
	}
	return []string{base + "/" + method, base + "/" + receiver + "/" + method}
}

// kebab writes SayHello as say-hello. A name with capitals in a row stays as it is.
func kebab(name string) string {
	var b strings.Builder
	for i, c := range name {
		upper := 'A' <= c && c <= 'Z'
		if upper && i+1 < len(name) && 'A' <= name[i+1] && name[i+1] <= 'Z' {
			return name
		}
		if upper && i > 0 {
			b.WriteByte('-')
		}
		b.WriteRune(c)
	}
	return strings.ToLower(b.String())
}

// target is what package rpc makes of a path.
func target(path string) (service, endpoint string, ok bool) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	switch n := len(parts); {
	case n == 1:
		return parts[0], camel(parts[0]) + ".Call", true
	case n == 2:
		return parts[0], camel(parts[0]) + "." + camel(parts[1]), true
	case n == 3 && version.MatchString(parts[0]):
		return parts[0] + "." + parts[1], camel(parts[1]) + "." + camel(parts[2]), true
	default:
		return strings.Join(parts[:n-2], "."), camel(parts[n-2]) + "." + camel(parts[n-1]), true
	}
}

func camel(s string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(s, "-") {
		if word != "" {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}
