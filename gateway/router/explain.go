package router

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/yamlfile"
)

// maxChecked bounds what Check says of a file that is something else.
const maxChecked = 1000

// Check says what is wrong with a file of routes, each mistake with file and line, in the order of the lines. If nothing is,
// warnings say which routes take nothing, because a route before takes all that they could. It finds what is plain to
// see: the other route has conditions of host and path only.
func Check(file string) (warnings []string, err error) {
	doc, err := read(file)
	if err != nil {
		return nil, yamlfile.Shorten(err, maxChecked)
	}
	for i, rt := range doc.routes {
		if j := slices.IndexFunc(doc.routes[:i], func(before *route) bool { return before.match.covers(&rt.match) }); j >= 0 {
			before := doc.routes[j]
			warnings = append(warnings, fmt.Sprintf("%s:%d: nothing gets to route %s: route %s (line %d) comes before and takes all of it",
				file, rt.line, rt.name, before.name, before.line))
		}
	}
	return warnings, nil
}

// read leaves the settings out: they say nothing of which route takes what.
func read(file string) (*document, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parse(file, data, Config{})
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

// Explanation says what becomes of a request.
type Explanation struct {
	File    string            `json:"file"`
	Method  string            `json:"method"`
	URL     string            `json:"url"` // in the normal form in which it is routed
	Matched bool              `json:"matched"`
	Route   string            `json:"route,omitempty"` // that takes it
	Line    int               `json:"line,omitempty"`
	Takes   string            `json:"takes,omitempty"` // what that route takes
	Params  map[string]string `json:"params,omitempty"`
	To      []Destination     `json:"to,omitempty"` // one of these, by their weights
	Others  []Other           `json:"others,omitempty"`
}

// Destination is where a request goes, under the names that the file has for it: a call of an endpoint, a request to a
// server, with its path, a redirect, or an answer.
type Destination struct {
	Weight      int      `json:"weight"`
	Service     string   `json:"service,omitempty"`
	Endpoint    string   `json:"endpoint,omitempty"`
	Version     string   `json:"version,omitempty"`
	ServiceHTTP string   `json:"service_http,omitempty"`
	URL         []string `json:"url,omitempty"`
	Upstream    string   `json:"upstream,omitempty"`
	Path        string   `json:"path,omitempty"`
	Redirect    string   `json:"redirect,omitempty"` // where it leads
	Status      int      `json:"status,omitempty"`   // of a redirect or an answer
	Error       string   `json:"error,omitempty"`    // why it goes nowhere
}

// Other is a route that does not take the request, though some of its conditions hold.
type Other struct {
	Route  string `json:"route"`
	Line   int    `json:"line"`
	Reason string `json:"reason"`
}

// Explain says which route of a file takes r, what becomes of it there, and what kept others from it, the nearest first. It is
// an error, too, if the gateway would not let r in.
func Explain(file string, r *http.Request) (*Explanation, error) {
	doc, err := read(file)
	if err != nil {
		return nil, yamlfile.Shorten(err, maxLogged)
	}
	r = r.Clone(r.Context())
	r.Host = cmp.Or(r.Host, r.URL.Host, "localhost")
	r.URL.Path = cmp.Or(r.URL.Path, "/")
	scheme := cmp.Or(r.URL.Scheme, "http")
	secure := scheme == "https"
	host, err := gateway.Prepare(r)
	if err != nil {
		return nil, fmt.Errorf("the gateway refuses the request: %w", err)
	}
	e := &Explanation{File: file, Method: r.Method, URL: fmt.Sprintf("%s://%s%s", scheme, r.Host, r.URL.RequestURI())}
	taken := newIndex(doc.routes).find(r, host, secure)
	if taken != nil {
		e.Matched, e.Route, e.Line, e.Takes = true, taken.name, taken.line, taken.match.String()
		e.Params = taken.match.path.values(r.URL.Path)
		for _, t := range taken.targets {
			e.To = append(e.To, taken.destination(t, r, e.Params))
		}
	}
	e.Others = others(doc, taken, func(rt *route) (string, int) { return rt.match.why(r, host, secure) })
	return e, nil
}

// destination is what becomes of r if t is chosen.
func (rt *route) destination(t *target, r *http.Request, params map[string]string) Destination {
	d := Destination{Weight: t.weight}
	var err error
	switch {
	case t.service != nil:
		d.Service, d.Endpoint, d.Version = t.service.Service, t.service.Endpoint, t.service.Version
	case t.upstream != nil:
		d.ServiceHTTP, d.Version, d.URL = t.upstream.service, t.upstream.version, t.upstream.urls
		if t.upstream.named {
			d.Upstream = t.upstream.name
		}
		d.Path, err = rt.rewrite.apply(r.URL.Path, valuesOf(r, params))
	case t.redirect != nil:
		d.Status = t.redirect.status
		d.Redirect, err = t.redirect.location(r, params)
	default:
		d.Status = t.respond.status
	}
	if err != nil {
		d.Error = err.Error()
	}
	return d
}

// others says why not those that come nearest, or what takes it first.
func others(doc *document, taken *route, why func(*route) (reason string, met int)) []Other {
	near := make(map[int][]Other) // by how many conditions hold
	for _, rt := range doc.routes {
		if rt == taken {
			continue
		}
		if reason, met := why(rt); met > 0 || reason == "" {
			near[met] = append(near[met], Other{rt.name, rt.line, cmp.Or(reason, "it matches, and comes later")})
		}
	}
	var all []Other
	for _, met := range slices.Backward(slices.Sorted(maps.Keys(near))) {
		all = append(all, near[met]...)
	}
	return all
}

// maxShown bounds how many routes that do not match String shows.
const maxShown = 5

// String is for people.
func (e *Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", e.Method, e.URL)
	if e.Matched {
		fmt.Fprintf(&b, "route %s takes it (%s:%d): %s\n", e.Route, e.File, e.Line, e.Takes)
	} else {
		b.WriteString("no route takes it: it is for the service that its path names, or 404 with --middleware-router-only\n")
	}
	for _, name := range slices.Sorted(maps.Keys(e.Params)) {
		fmt.Fprintf(&b, "  %s = %q\n", name, e.Params[name])
	}
	total := 0
	for _, d := range e.To {
		total += d.Weight
	}
	for _, d := range e.To {
		share := ""
		if len(e.To) > 1 {
			share = fmt.Sprintf("(%d of %d) ", d.Weight, total)
		}
		fmt.Fprintf(&b, "  to %s%s\n", share, d)
	}
	for _, o := range e.Others[:min(len(e.Others), maxShown)] {
		fmt.Fprintf(&b, "not route %s (line %d): %s\n", o.Route, o.Line, o.Reason)
	}
	if more := len(e.Others) - maxShown; more > 0 {
		fmt.Fprintf(&b, "and %d others\n", more)
	}
	return b.String()
}

// String is for people.
func (d Destination) String() string {
	switch {
	case d.Error != "":
		return "nothing: " + d.Error
	case d.Service != "":
		return "endpoint " + d.Endpoint + " of service " + d.Service + d.ofVersion()
	case d.Redirect != "":
		return fmt.Sprintf("a redirect (%d) to %s", d.Status, d.Redirect)
	case d.Path == "":
		return fmt.Sprintf("an answer of %d", d.Status)
	}
	where := strings.Join(d.URL, " or ")
	if d.ServiceHTTP != "" {
		where = "the HTTP address of service " + d.ServiceHTTP + d.ofVersion()
	}
	if d.Upstream != "" {
		where = fmt.Sprintf("upstream %s (%s)", d.Upstream, where)
	}
	return where + ", path " + d.Path
}

func (d Destination) ofVersion() string {
	if d.Version == "" {
		return ""
	}
	return ", version " + d.Version
}
