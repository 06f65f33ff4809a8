package router

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/yamlfile"
)

// maxChecked bounds what Check says of a file that is something else.
const maxChecked = 1000

// Check says what is wrong with a file of routes, each mistake with file and line, in the order of the lines.
func Check(file string) error {
	_, err := read(file)
	return yamlfile.Shorten(err, maxChecked)
}

func read(file string) (*document, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parse(file, data, Config{Timeout: 30 * time.Second, IdleTimeout: 5 * time.Minute})
}

// Unreachable says which routes of a file take nothing, because a route before takes all that they could, each with file
// and line. That is no mistake, the file works. It finds what is plain to see: the other route has conditions of host and path
// only.
func Unreachable(file string) ([]string, error) {
	doc, err := read(file)
	if err != nil {
		return nil, yamlfile.Shorten(err, maxChecked)
	}
	var found []string
	for i, rt := range doc.routes {
		if j := slices.IndexFunc(doc.routes[:i], func(before *route) bool { return before.match.covers(&rt.match) }); j >= 0 {
			before := doc.routes[j]
			found = append(found, fmt.Sprintf("%s:%d: nothing gets to route %s: route %s (line %d) comes before and takes all of it",
				file, rt.line, rt.name, before.name, before.line))
		}
	}
	return found, nil
}

// covers says that m certainly takes everything that o takes.
func (m *matcher) covers(o *matcher) bool {
	if m.scheme != "" || len(m.methods)+len(m.headers)+len(m.query) > 0 {
		return false
	}
	anyHost := len(m.hosts) == 0 || slices.Contains(m.hosts, "*")
	if !anyHost && (len(o.hosts) == 0 || slices.ContainsFunc(o.hosts, func(host string) bool { return !slices.Contains(m.hosts, host) })) {
		return false
	}
	switch {
	case m.path.kind == anyPath:
		return true
	case m.path.kind == prefixPath && o.path.kind != regexPath && o.path.kind != anyPath:
		return o.path.canBeBelow(m.path.text) // then all are
	}
	return m.path.kind == o.path.kind && m.path.text == o.path.text
}

// maxShown bounds how many routes that do not match are explained.
const maxShown = 5

// Explain says in text which route of a file takes r, what becomes of it there, and what kept the nearest others from it.
// Its error is about the file, or about r where the gateway would not let it in.
func Explain(file string, r *http.Request) (text string, matched bool, err error) {
	doc, err := read(file)
	if err != nil {
		return "", false, yamlfile.Shorten(err, maxLogged)
	}
	r = r.Clone(r.Context())
	r.Host = cmp.Or(r.Host, r.URL.Host, "localhost")
	r.URL.Path = cmp.Or(r.URL.Path, "/")
	scheme := cmp.Or(r.URL.Scheme, "http")
	host, err := gateway.Prepare(r)
	if err != nil {
		return "", false, fmt.Errorf("the gateway refuses the request: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s://%s%s\n", r.Method, scheme, r.Host, r.URL.RequestURI())
	taken := newIndex(doc.routes).find(r, host, scheme == "https")
	if taken == nil {
		b.WriteString("no route takes it: it is for the service that its path names, or 404 with --middleware-router-only\n")
	} else {
		fmt.Fprintf(&b, "route %s takes it (%s:%d): %s\n", taken.name, file, taken.line, &taken.match)
		taken.describe(&b, r)
	}
	explainOthers(&b, doc, taken, func(rt *route) (string, int) { return rt.match.why(r, host, scheme == "https") })
	return b.String(), taken != nil, nil
}

// describe says what becomes of r.
func (rt *route) describe(b *strings.Builder, r *http.Request) {
	params := rt.match.path.values(r.URL.Path)
	for _, name := range rt.match.path.params {
		fmt.Fprintf(b, "  %s = %q\n", name, params[name])
	}
	total := 0
	for _, t := range rt.targets {
		total += t.weight
	}
	path, err := rt.rewrite.apply(r.URL.Path, valuesOf(r, params))
	for _, t := range rt.targets {
		b.WriteString("  to ")
		if len(rt.targets) > 1 {
			fmt.Fprintf(b, "(%d of %d) ", t.weight, total)
		}
		switch {
		case t.service != nil:
			fmt.Fprintf(b, "endpoint %s of service %s", t.service.Endpoint, t.service.Service)
			if t.service.Version != "" {
				fmt.Fprintf(b, ", version %s", t.service.Version)
			}
		case t.upstream != nil && err != nil:
			fmt.Fprintf(b, "nothing: %v", err)
		case t.upstream != nil:
			fmt.Fprintf(b, "%s, path %s", t.upstream, path)
		case t.redirect != nil:
			location, err := t.redirect.location(r, params)
			if err != nil {
				location = err.Error()
			}
			fmt.Fprintf(b, "a redirect (%d) to %s", t.redirect.status, location)
		default:
			fmt.Fprintf(b, "an answer of %d", t.respond.status)
		}
		b.WriteByte('\n')
	}
}

func (s *upstreamSpec) String() string {
	what := strings.Join(s.urls, " or ")
	if s.service != "" {
		what = "the HTTP address of service " + s.service
	}
	if s.named {
		return fmt.Sprintf("upstream %s (%s)", s.name, what)
	}
	return what
}

// explainOthers says why not those that come nearest, or what takes it first.
func explainOthers(b *strings.Builder, doc *document, taken *route, why func(*route) (reason string, met int)) {
	type other struct {
		route  *route
		reason string
		met    int
	}
	var others []other
	for _, rt := range doc.routes {
		if rt == taken {
			continue
		}
		if reason, met := why(rt); met > 0 || reason == "" {
			others = append(others, other{rt, cmp.Or(reason, "it matches, and comes later"), met})
		}
	}
	slices.SortStableFunc(others, func(a, b other) int { return cmp.Compare(b.met, a.met) })
	for i, o := range others {
		if i == maxShown {
			fmt.Fprintf(b, "and %d others\n", len(others)-i)
			break
		}
		fmt.Fprintf(b, "not route %s (line %d): %s\n", o.route.name, o.route.line, o.reason)
	}
}
