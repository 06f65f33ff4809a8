package rpc

import (
	"strings"

	"github.com/plugmicro/micro/gateway"
)

// TargetsOf are the endpoints that a path can mean, of which the first that exists is meant: what the rules make of it, and what
// an exact name has. There is none for a path that ends before it names anything.
func TargetsOf(path string) (targets []gateway.Target) {
	parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/"), "/")
	n := len(parts)
	last := parts[n-1]
	add := func(service, endpoint string) {
		if service != "" {
			targets = append(targets, gateway.Target{Service: service, Endpoint: endpoint})
		}
	}
	switch {
	case last == "":
		return nil
	case n == 1:
		add(last, camel(last)+".Call")
		return targets
	case strings.Contains(last, "."): // an exact name and nothing else
	case n == 2:
		add(parts[0], camel(parts[0])+"."+camel(last))
	case n == 3 && isVersion(parts[0]):
		add(parts[0]+"."+parts[1], camel(parts[1])+"."+camel(last))
	default:
		add(strings.Join(parts[:n-2], "."), camel(parts[n-2])+"."+camel(last))
	}
	add(strings.Join(parts[:n-1], "."), last)
	return targets
}

// isVersion says whether s is v and digits.
func isVersion(s string) bool {
	digits, ok := strings.CutPrefix(s, "v")
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// camel writes baz-xyz as BazXyz.
func camel(s string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(s, "-") {
		if word != "" {
			b.WriteString(strings.ToUpper(word[:1]))
			b.WriteString(word[1:])
		}
	}
	return b.String()
}
