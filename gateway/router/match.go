package router

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/plugmicro/micro/gateway"
)

// matcher is what a request must be like for a route to take it. What is empty takes everything.
type matcher struct {
	scheme  string // of what the client speaks
	methods []string
	hosts   []string
	path    pathMatch
	headers []condition
	query   []condition
}

// pathKind is how a path is compared.
type pathKind int

const (
	anyPath pathKind = iota
	exactPath
	prefixPath
	templatePath
	regexPath
)

type pathMatch struct {
	kind     pathKind
	text     string
	segments []segment      // of a prefix or a template
	re       *regexp.Regexp // anchored
	literal  string         // what all paths begin with that re matches
	params   []string
}

func (p *pathMatch) String() string {
	switch p.kind {
	case exactPath:
		return "path " + p.text
	case prefixPath:
		return "path " + p.text + " or below"
	case templatePath:
		return "path " + p.text
	case regexPath:
		return "path like " + p.text
	}
	return "any path"
}

// values are the parameters of a path that was matched.
func (p *pathMatch) values(path string) map[string]string {
	switch {
	case len(p.params) == 0:
		return nil
	case p.kind == templatePath:
		return params(p.segments, path)
	}
	found := p.re.FindStringSubmatch(path)
	values := make(map[string]string, len(p.params))
	for i, name := range p.re.SubexpNames() {
		if name != "" && i < len(found) {
			values[name] = found[i]
		}
	}
	return values
}

// matches compares one path by itself; the index does the same for many.
func (p *pathMatch) matches(path string) bool {
	switch p.kind {
	case exactPath:
		return path == p.text
	case prefixPath:
		return gateway.HasPrefix(path, p.text)
	case templatePath:
		return matchSegments(p.segments, path)
	case regexPath:
		return p.re.MatchString(path)
	}
	return true
}

func matchSegments(segments []segment, path string) bool {
	rest, more := path[1:], true
	for _, seg := range segments {
		if !more {
			return false
		}
		if seg.rest {
			return true
		}
		var part string
		part, rest, more = strings.Cut(rest, "/")
		if seg.param && part == "" || !seg.param && part != seg.text {
			return false
		}
	}
	return !more
}

// conditionKind is how the value of a header or of a query parameter is compared.
type conditionKind int

const (
	isExactly conditionKind = iota
	beginsWith
	isLike
	isPresent
	isAbsent
)

// condition is about one header or one parameter of the query. If it came more than once, only isPresent can be met: the
// server behind might take another value than the one that was compared here.
type condition struct {
	name string
	kind conditionKind
	text string
	re   *regexp.Regexp
}

func (c *condition) met(value string, count int) bool {
	switch c.kind {
	case isAbsent:
		return count == 0
	case isPresent:
		return count > 0
	}
	if count != 1 {
		return false
	}
	switch c.kind {
	case beginsWith:
		return strings.HasPrefix(value, c.text)
	case isLike:
		return c.re.MatchString(value)
	}
	return value == c.text
}

var secretName = regexp.MustCompile(`(?i)auth|cookie|key|password|secret|session|token`)

// String shows neither what the request has, which may be a secret, nor what it must have if the name is that of one.
func (c *condition) String() string {
	text := strconv.Quote(c.text)
	if secretName.MatchString(c.name) {
		text = "***"
	}
	switch c.kind {
	case isExactly:
		return c.name + " must be exactly " + text
	case beginsWith:
		return c.name + " must begin with " + text
	case isLike:
		return c.name + " must be like " + text
	case isPresent:
		return c.name + " must be there"
	}
	return c.name + " must not be there"
}

func headerValue(h http.Header, name string) (string, int) {
	values := h[name]
	if len(values) == 0 {
		return "", 0
	}
	return values[0], len(values)
}

// queryValue returns the first value of a parameter, decoded, and how often it is there.
func queryValue(raw, name string) (value string, count int) {
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		key, v, _ := strings.Cut(pair, "=")
		if unescape(key) != name {
			continue
		}
		if count++; count == 1 {
			value = unescape(v)
		}
	}
	return value, count
}

// unescape cannot fail for what gateway.Prepare let through.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	if decoded, err := url.QueryUnescape(s); err == nil {
		return decoded
	}
	return s
}

// takesMethod says whether m is among the methods; GET stands for HEAD, too.
func (m *matcher) takesMethod(method string) bool {
	return len(m.methods) == 0 || slices.Contains(m.methods, method) || method == http.MethodHead && slices.Contains(m.methods, http.MethodGet)
}

func (m *matcher) takesHost(host string) bool {
	return len(m.hosts) == 0 || slices.ContainsFunc(m.hosts, func(pattern string) bool { return gateway.MatchHost(host, pattern) })
}

func (m *matcher) takesScheme(secure bool) bool {
	return m.scheme == "" || (m.scheme == "https") == secure
}

// accepts checks what the index does not know: everything but host and path.
func (m *matcher) accepts(r *http.Request, secure bool) bool {
	if !m.takesMethod(r.Method) || !m.takesScheme(secure) {
		return false
	}
	for i := range m.headers {
		if !m.headers[i].met(headerValue(r.Header, m.headers[i].name)) {
			return false
		}
	}
	for i := range m.query {
		if !m.query[i].met(queryValue(r.URL.RawQuery, m.query[i].name)) {
			return false
		}
	}
	return true
}

// why says what keeps r from matching; met is how many of the conditions hold before. Nothing does if there is no reason.
func (m *matcher) why(r *http.Request, host string, secure bool) (reason string, met int) {
	if !m.takesHost(host) {
		return fmt.Sprintf("the host is %s, it takes %s", host, strings.Join(m.hosts, ", ")), 0
	}
	if !m.path.matches(r.URL.Path) {
		return fmt.Sprintf("the path is %s, it takes %s", r.URL.Path, &m.path), 1
	}
	if !m.takesMethod(r.Method) {
		return fmt.Sprintf("the method is %s, it takes %s", r.Method, strings.Join(m.methods, ", ")), 2
	}
	if !m.takesScheme(secure) {
		return fmt.Sprintf("the scheme is %s, it takes %s", schemeOf(secure), m.scheme), 2
	}
	for i := range m.headers {
		c := &m.headers[i]
		if value, count := headerValue(r.Header, c.name); !c.met(value, count) {
			return "header " + c.String() + c.but(count), 3
		}
	}
	for i := range m.query {
		c := &m.query[i]
		if value, count := queryValue(r.URL.RawQuery, c.name); !c.met(value, count) {
			return "query parameter " + c.String() + c.but(count), 3
		}
	}
	return "", 4
}

// but says what is there instead, of a value that came count times.
func (c *condition) but(count int) string {
	switch {
	case c.kind == isAbsent:
		return ", but it is"
	case count == 0:
		return ", but it is not there"
	case count > 1:
		return fmt.Sprintf(", but it came %d times", count)
	case c.kind == beginsWith:
		return ", but it does not"
	}
	return ", but it is not"
}

func schemeOf(secure bool) string {
	if secure {
		return "https"
	}
	return "http"
}

// String describes the matcher in a line.
func (m *matcher) String() string {
	what := []string{m.path.String()}
	if len(m.hosts) > 0 {
		what = append(what, "host "+strings.Join(m.hosts, " or "))
	}
	if len(m.methods) > 0 {
		what = append(what, "method "+strings.Join(m.methods, " or "))
	}
	if m.scheme != "" {
		what = append(what, "scheme "+m.scheme)
	}
	for i := range m.headers {
		what = append(what, "header "+m.headers[i].String())
	}
	for i := range m.query {
		what = append(what, "query parameter "+m.query[i].String())
	}
	return strings.Join(what, ", ")
}
