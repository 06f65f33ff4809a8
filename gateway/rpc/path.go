package rpc

import "strings"

// EndpointOf is what a path says by the rules: the service and its endpoint, and, if they differ, the two as an exact name
// has them. None is "".
func EndpointOf(path string) (service, endpoint, exactService, exactEndpoint string) {
	parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/"), "/")
	n := len(parts)
	last := parts[n-1]
	switch {
	case last == "":
		return "", "", "", ""
	case n > 1:
		exactService, exactEndpoint = strings.Join(parts[:n-1], "."), last
	}
	switch {
	case n > 1 && strings.Contains(last, "."):
	case n == 1:
		service, endpoint = last, camel(last)+".Call"
	case n == 2:
		service, endpoint = parts[0], camel(parts[0])+"."+camel(last)
	case n == 3 && isVersion(parts[0]):
		service, endpoint = parts[0]+"."+parts[1], camel(parts[1])+"."+camel(last)
	default:
		service, endpoint = strings.Join(parts[:n-2], "."), camel(parts[n-2])+"."+camel(last)
	}
	return service, endpoint, exactService, exactEndpoint
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
