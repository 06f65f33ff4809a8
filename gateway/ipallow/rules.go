package ipallow

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/clientip"
	"github.com/plugmicro/micro/internal/loglimit"
)

// lists are all that is in force. They do not change.
type lists struct {
	routes   rules // ends with the lists that are for all
	services rules
}

// rules are sorted: the most specific first.
type rules []*rule

// rule is a pair of lists, and for what they are.
type rule struct {
	name        string // in logs and metrics
	match       func(a, b string) bool
	specificity [3]int
	allow       *clientip.Set // nil: there is none
	deny        clientip.Set

	allowed, denied prometheus.Counter
	limit           loglimit.Limit // a rule of its own each, so that one does not hide what another refuses
}

// decide says whether client may, for a and b: a host and a path, or a service and an endpoint. by is the rule that says it;
// nil if none matches.
func (rs rules) decide(a, b string, client netip.Addr) (by *rule, ok bool) {
	for _, r := range rs {
		if !r.match(a, b) {
			continue
		}
		if r.deny.Contains(client) {
			return r, false
		}
		if by == nil || by.allow == nil {
			by = r
		}
	}
	return by, by != nil && (by.allow == nil || by.allow.Contains(client))
}

// decideAnyEndpoint is for a request of which only the service knows which endpoint it is for: all rules of that service
// must let it pass.
func (rs rules) decideAnyEndpoint(service string, client netip.Addr) (by *rule, ok bool) {
	for _, r := range rs {
		if !r.match(service, "") {
			continue
		}
		if r.deny.Contains(client) || r.allow != nil && !r.allow.Contains(client) {
			return r, false
		}
		by = r
	}
	return by, true
}

func (rs rules) sort() {
	slices.SortStableFunc(rs, func(x, y *rule) int { return slices.Compare(y.specificity[:], x.specificity[:]) })
}

// forAll is the rule of the lists that are for no route.
func forAll() *rule {
	return &rule{name: "all", match: func(string, string) bool { return true }}
}

// forRoute is without host or path for all of them.
func forRoute(host, path string) *rule {
	name := "route " + host + cmp.Or(path, "/")
	host = cmp.Or(host, "*")
	exact := 1
	if strings.HasPrefix(host, "*") {
		exact = 0
	}
	return &rule{
		name:        name,
		match:       func(h, p string) bool { return gateway.MatchHost(h, host) && gateway.HasPrefix(p, path) },
		specificity: [3]int{exact, len(host), len(path)},
	}
}

// forService is without endpoint for all of them, and matches an endpoint that is not known.
func forService(service, endpoint string) *rule {
	return &rule{
		name:        strings.TrimSpace("service " + service + " " + endpoint),
		match:       func(s, e string) bool { return s == service && (endpoint == "" || e == endpoint || e == "") },
		specificity: [3]int{len(endpoint)},
	}
}
