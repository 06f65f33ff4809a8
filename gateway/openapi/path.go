package openapi

import (
	"regexp"
	"slices"
	"strings"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/rpc"
)

// reserved are the paths that the gateway answers itself.
var reserved = []string{gateway.ExplicitPath, "/healthz", "/readyz", "/openapi.json"}

var (
	// segment is what a path is made of here; the gateway takes more.
	segment = regexp.MustCompile(`^[A-Za-z0-9_~][A-Za-z0-9_~-]*$`)
	// exact is a name that the gateway takes as it is, as the last segment.
	exact = regexp.MustCompile(`^[A-Za-z0-9_~-]+(\.[A-Za-z0-9_~-]+)+$`)
)

// Path is the shortest path that leads to an endpoint: the rules of package rpc, read backwards. It is "" for names that
// are better not written in a path.
func Path(service, endpoint string) string {
	parts := strings.Split(service, ".")
	if slices.ContainsFunc(parts, func(p string) bool { return !segment.MatchString(p) }) || !exact.MatchString(endpoint) {
		return ""
	}
	receiver, method, _ := strings.Cut(endpoint, ".")
	meant := gateway.Target{Service: service, Endpoint: endpoint}
	for _, path := range candidates(parts, kebab(receiver), kebab(method)) {
		if slices.Index(rpc.TargetsOf(path), meant) == 0 && !strings.Contains(method, ".") && !slices.Contains(reserved, path) {
			return path
		}
	}
	return "/" + strings.Join(parts, "/") + "/" + endpoint
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
