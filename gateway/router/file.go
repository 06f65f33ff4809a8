package router

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/http/httpguts"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/nearest"
	"github.com/plugmicro/micro/plugin"
)

// document is what a file of routes says.
type document struct {
	routes    []*route // in the order in which they are tried
	upstreams map[string]*upstreamSpec
}

// maxWeights is for the sum of the weights of a route, divided by what divides them all.
const maxWeights = 10000

// mistakes are all that is wrong with a file, in the order of its lines.
type mistakes []mistake

type mistake struct {
	file string
	line int
	text string
}

func (m mistake) String() string { return fmt.Sprintf("%s:%d: %s", m.file, m.line, m.text) }

// Error implements error.
func (m mistakes) Error() string { return m.first(len(m)) }

func (m mistakes) first(n int) string {
	var b strings.Builder
	for i, mistake := range m {
		if i == n {
			fmt.Fprintf(&b, "\n%s: and %d more", mistake.file, len(m)-n)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(mistake.String())
	}
	return b.String()
}

// atMost shortens an error of parse to n mistakes.
func atMost(n int, err error) error {
	if all := mistakes(nil); errors.As(err, &all) {
		return errors.New(all.first(n))
	}
	return err
}

// parser collects all that is wrong with a file.
type parser struct {
	file     string
	defaults Config
	errs     mistakes
	doc      document
	lines    map[string]int // of the routes, by their names
	pending  []func()       // checks that need the whole file
}

// parse reads a file of routes, YAML or JSON. Its error has everything that is wrong, each with file and line.
func parse(file string, data []byte, defaults Config) (*document, error) {
	p := &parser{file: file, defaults: defaults, lines: make(map[string]int), doc: document{upstreams: make(map[string]*upstreamSpec)}}
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '{' {
		data = bytes.ReplaceAll(data, []byte("\t"), []byte(" ")) // JSON may be indented with tabs, YAML not
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var root yaml.Node
	switch err := decoder.Decode(&root); {
	case errors.Is(err, io.EOF) || err == nil && len(root.Content) == 0:
		return nil, fmt.Errorf("%s:1: it is empty: write  routes: []  for no routes", file)
	case err != nil:
		return nil, fmt.Errorf("%s%s", file, yamlLine.ReplaceAllString(strings.TrimPrefix(err.Error(), "yaml"), ":$1: "))
	}
	var second yaml.Node
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s:%d: a file has one document: leave one", file, max(second.Line, 1))
	}
	p.mapping(root.Content[0], fields{
		"routes":    p.each(p.route),
		"upstreams": p.upstreams,
	})
	for _, check := range p.pending {
		check()
	}
	if len(p.errs) > 0 {
		slices.SortStableFunc(p.errs, func(a, b mistake) int { return cmp.Compare(a.line, b.line) })
		return nil, p.errs
	}
	slices.SortStableFunc(p.doc.routes, func(a, b *route) int { return cmp.Compare(b.priority, a.priority) })
	for i, r := range p.doc.routes {
		r.rank = i
	}
	return &p.doc, nil
}

func (p *parser) fail(n *yaml.Node, format string, args ...any) { p.failAt(n.Line, format, args...) }

func (p *parser) failAt(line int, format string, args ...any) {
	p.errs = append(p.errs, mistake{p.file, line, fmt.Sprintf(format, args...)})
}

// yamlLine is how errors of the YAML parser say where.
var yamlLine = regexp.MustCompile(`^: line (\d+): `)

// fields are the keys of a mapping, each with what reads its value.
type fields map[string]func(*yaml.Node)

func (p *parser) mapping(n *yaml.Node, known fields) {
	p.pairs(n, func(key, value *yaml.Node) {
		read, ok := known[key.Value]
		if !ok {
			p.fail(key, "unknown key %q: %s", key.Value, didYouMean(key.Value, slices.Sorted(maps.Keys(known))))
			return
		}
		read(value)
	})
}

// complete reads a mapping, and tells what it wants if that is not there and nothing else is wrong with it.
func (p *parser) complete(n *yaml.Node, known fields, has func() bool, wants string) {
	before := len(p.errs)
	p.mapping(n, known)
	if len(p.errs) == before && !has() {
		p.fail(n, "%s", wants)
	}
}

// pairs calls f for each pair of a mapping.
func (p *parser) pairs(n *yaml.Node, f func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		p.fail(n, "a mapping is wanted here: key: value")
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode:
			p.fail(key, "a key is a plain name")
		case seen[key.Value]:
			p.fail(key, "%q is there twice: leave one", key.Value)
		case value.Kind == yaml.AliasNode:
			p.fail(value, "aliases are not supported: write the value out")
		default:
			seen[key.Value] = true
			f(key, value)
		}
	}
}

func didYouMean(name string, known []string) string {
	if near := nearest.Name(name, known); near != "" {
		return fmt.Sprintf("did you mean %s?", near)
	}
	return "known are " + strings.Join(known, ", ")
}

// each reads a list, item by item; what is no list is its only item.
func (p *parser) each(f func(*yaml.Node)) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			f(n)
			return
		}
		for _, item := range n.Content {
			if item.Kind == yaml.AliasNode {
				p.fail(item, "aliases are not supported: write the value out")
				continue
			}
			f(item)
		}
	}
}

// text calls f with a plain value; its error is about that value.
func (p *parser) text(f func(string) error) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			p.fail(n, "a plain value is wanted here")
			return
		}
		if err := f(n.Value); err != nil {
			p.fail(n, "%v", err)
		}
	}
}

func (p *parser) texts(list *[]string, check func(string) error) func(*yaml.Node) {
	return p.each(p.text(func(s string) error {
		*list = append(*list, s)
		return check(s)
	}))
}

func (p *parser) string(s *string, check func(string) error) func(*yaml.Node) {
	return p.text(func(v string) error {
		*s = v
		return check(v)
	})
}

func anything(string) error { return nil }

func (p *parser) int(i *int, least, most int) func(*yaml.Node) {
	return p.text(func(s string) error {
		v, err := strconv.Atoi(s)
		if err != nil || v < least || v > most {
			return fmt.Errorf("%q is not a whole number from %d to %d", s, least, most)
		}
		*i = v
		return nil
	})
}

func (p *parser) bool(b *bool) func(*yaml.Node) {
	return p.text(func(s string) (err error) {
		if *b, err = strconv.ParseBool(s); err != nil {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		return nil
	})
}

func (p *parser) duration(d *time.Duration) func(*yaml.Node) {
	return p.text(func(s string) (err error) {
		if *d, err = time.ParseDuration(s); err != nil || *d <= 0 {
			return fmt.Errorf("%q is no duration: write it like 300ms, 5s or 1h30m", s)
		}
		return nil
	})
}

func (p *parser) size(n *int64) func(*yaml.Node) {
	return p.text(func(s string) error {
		var size plugin.Size
		if err := size.UnmarshalText([]byte(s)); err != nil {
			return fmt.Errorf("%q is %w", s, err)
		}
		*n = int64(size)
		return nil
	})
}

var routeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$`)

func checkName(s string) error {
	if !routeName.MatchString(s) {
		return fmt.Errorf("%q is no name: use up to 64 letters, digits, and . _ / -", s)
	}
	return nil
}

func (p *parser) route(n *yaml.Node) {
	r := &route{
		line: n.Line, timeout: p.defaults.Timeout, idle: p.defaults.IdleTimeout, maxBody: int64(p.defaults.MaxBody),
		retries: retries{attempts: 1, connect: true},
	}
	var to, rewrite *yaml.Node // read last: they name parameters of the match
	p.mapping(n, fields{
		"name":             p.string(&r.name, checkName),
		"priority":         p.int(&r.priority, -1000000, 1000000),
		"match":            func(n *yaml.Node) { p.match(n, &r.match) },
		"to":               func(n *yaml.Node) { to = n },
		"sticky":           func(n *yaml.Node) { p.sticky(n, r) },
		"rewrite":          func(n *yaml.Node) { rewrite = n },
		"request_headers":  func(n *yaml.Node) { p.headerChange(n, &r.request) },
		"response_headers": func(n *yaml.Node) { p.headerChange(n, &r.response) },
		"timeout":          p.duration(&r.timeout),
		"idle_timeout":     p.duration(&r.idle),
		"max_body":         p.size(&r.maxBody),
		"retries":          func(n *yaml.Node) { p.retries(n, &r.retries) },
		"mirror":           func(n *yaml.Node) { p.mirror(n, r) },
	})
	if r.name == "" && n.Kind == yaml.MappingNode {
		p.fail(n, "the route has no name: logs and metrics call it by that")
	}
	if line, ok := p.lines[r.name]; ok {
		p.fail(n, "the route %s is in line %d already", r.name, line)
	}
	if rewrite != nil {
		p.rewrite(rewrite, r)
	}
	if to == nil {
		if n.Kind == yaml.MappingNode {
			p.fail(n, "the route leads nowhere: write  to: …")
		}
		return
	}
	p.each(func(n *yaml.Node) { p.target(n, r) })(to)
	p.weights(n, r)
	p.doc.routes = append(p.doc.routes, r)
	if r.name != "" {
		p.lines[r.name] = r.line
	}
}

func (p *parser) match(n *yaml.Node, m *matcher) {
	var paths []string
	path := func(kind pathKind, compile func(*pathMatch) error) func(*yaml.Node) {
		return p.text(func(s string) error {
			if paths = append(paths, s); len(paths) > 1 {
				return errors.New("a route has one of path, prefix, template and regex")
			}
			m.path.kind, m.path.text = kind, s
			return compile(&m.path)
		})
	}
	p.mapping(n, fields{
		"scheme": p.string(&m.scheme, func(s string) error {
			if s != "http" && s != "https" {
				return fmt.Errorf("%q is neither http nor https", s)
			}
			return nil
		}),
		"methods":  p.texts(&m.methods, checkMethod),
		"host":     p.texts(&m.hosts, checkHost),
		"path":     path(exactPath, func(pm *pathMatch) error { return checkPath(pm.text) }),
		"prefix":   path(prefixPath, compilePrefix),
		"template": path(templatePath, compileTemplate),
		"regex":    path(regexPath, compileRegex),
		"headers":  p.conditions(&m.headers, headerName),
		"query":    p.conditions(&m.query, func(s string) (string, error) { return s, nil }),
	})
}

func checkMethod(s string) error {
	if !httpguts.ValidHeaderFieldName(s) || strings.ToUpper(s) != s {
		return fmt.Errorf("%q is no method: write it like GET", s)
	}
	return nil
}

func checkHost(s string) error {
	name := strings.TrimPrefix(s, "*.")
	if s == "*" {
		return nil
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		if addr.String() != s || addr.Zone() != "" {
			return fmt.Errorf("the address is never written like that: write %s", addr.WithZone(""))
		}
		return nil
	}
	probe := &http.Request{Host: name, URL: &url.URL{Path: "/"}, Header: http.Header{}}
	if host, err := gateway.Prepare(probe); err != nil || host != name {
		return fmt.Errorf("%q is no host: write a name in lower case, without a port, or *.example.com", s)
	}
	return nil
}

func compilePrefix(pm *pathMatch) error {
	if err := checkPath(pm.text); err != nil {
		return err
	}
	for _, s := range allSegments(strings.TrimSuffix(pm.text, "/")) {
		pm.segments = append(pm.segments, segment{text: s})
	}
	return nil
}

func compileTemplate(pm *pathMatch) (err error) {
	pm.segments, err = parseTemplate(pm.text)
	for _, s := range pm.segments {
		if s.param {
			pm.params = append(pm.params, s.text)
		}
	}
	return err
}

func compileRegex(pm *pathMatch) (err error) {
	if pm.re, err = anchored(pm.text); err != nil {
		return err
	}
	if loose, err := regexp.Compile(strings.TrimPrefix(pm.text, "^")); err == nil {
		pm.literal, _ = loose.LiteralPrefix()
	}
	for _, name := range pm.re.SubexpNames() {
		if name == "" {
			continue
		}
		if slices.Contains(pm.params, name) {
			return fmt.Errorf("the group %s is there twice", name)
		}
		if err := checkParam(name); err != nil {
			return err
		}
		pm.params = append(pm.params, name)
	}
	return nil
}

// anchored has an expression match the whole text. It is compiled alone first, so that it cannot close the group.
func anchored(text string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(text); err != nil {
		return nil, fmt.Errorf("%q is no regular expression of RE2: %w", text, err)
	}
	re, err := regexp.Compile(`^(?:` + text + `)$`)
	if err != nil {
		return nil, fmt.Errorf("%q is no regular expression of RE2: %w", text, err)
	}
	return re, nil
}

func headerName(s string) (string, error) {
	name := http.CanonicalHeaderKey(s)
	switch {
	case !httpguts.ValidHeaderFieldName(s) || strings.Contains(s, "_"):
		return "", fmt.Errorf("%q is no name of a header; those with an underscore do not get here", s)
	case name == "Host":
		return "", errors.New("the host is matched and changed by  host: …")
	}
	return name, nil
}

func (p *parser) conditions(list *[]condition, canonical func(string) (string, error)) func(*yaml.Node) {
	return func(n *yaml.Node) {
		p.pairs(n, func(key, value *yaml.Node) {
			name, err := canonical(key.Value)
			if err != nil {
				p.fail(key, "%v", err)
				return
			}
			c := condition{name: name}
			p.condition(value, &c)
			*list = append(*list, c)
		})
	}
}

func (p *parser) condition(n *yaml.Node, c *condition) {
	if n.Kind == yaml.ScalarNode {
		p.string(&c.text, anything)(n)
		return
	}
	kinds := 0
	set := func(kind conditionKind) func(string) error {
		return func(string) (err error) {
			kinds++
			if c.kind = kind; kind == isLike {
				c.re, err = anchored(c.text)
			}
			return err
		}
	}
	is := func(kind conditionKind) func(*yaml.Node) {
		return p.text(func(s string) error {
			if s != "true" {
				return errors.New("write present: true or absent: true")
			}
			return set(kind)(s)
		})
	}
	p.complete(n, fields{
		"exact":   p.string(&c.text, set(isExactly)),
		"prefix":  p.string(&c.text, set(beginsWith)),
		"regex":   p.string(&c.text, set(isLike)),
		"present": is(isPresent),
		"absent":  is(isAbsent),
	}, func() bool { return kinds == 1 }, "a condition has one of exact, prefix, regex, present and absent")
}

func (p *parser) sticky(n *yaml.Node, r *route) {
	r.sticky = new(sticky)
	p.mapping(n, fields{
		"client": p.bool(&r.sticky.client),
		"cookie": p.string(&r.sticky.cookie, checkCookie),
		"header": p.text(func(s string) (err error) {
			r.sticky.header, err = headerName(s)
			return err
		}),
	})
}

func checkCookie(s string) error {
	if !httpguts.ValidHeaderFieldName(s) {
		return fmt.Errorf("%q is no name of a cookie", s)
	}
	return nil
}

func (p *parser) rewrite(n *yaml.Node, r *route) {
	rw, ways := &r.rewrite, 0
	names := append(slices.Clone(r.match.path.params), "path")
	pathPattern := func(s string) (err error) {
		ways++
		if rw.path, err = parsePattern(s, names); err != nil {
			return err
		}
		return checkPath(sample(s))
	}
	from := func(s string) error {
		ways++
		rw.from = s
		if err := checkPath(s); err != nil {
			return err
		}
		if !r.match.path.canBeBelow(s) {
			return fmt.Errorf("no path that this route takes (%s) begins with %s", &r.match.path, s)
		}
		return nil
	}
	p.mapping(n, fields{
		"strip_prefix": p.text(func(s string) error { rw.to = "/"; return from(s) }),
		"replace_prefix": func(n *yaml.Node) {
			p.complete(n, fields{"from": p.text(from), "to": p.string(&rw.to, checkPath)},
				func() bool { return rw.from != "" && rw.to != "" }, "replace_prefix wants from and to")
		},
		"path": p.text(pathPattern),
		"regex": func(n *yaml.Node) {
			ways++
			p.complete(n, fields{
				"match": p.text(func(s string) (err error) {
					rw.regex, err = regexp.Compile(s)
					return err
				}),
				"to": p.string(&rw.replace, anything),
			}, func() bool { return rw.regex != nil && rw.replace != "" }, "regex wants match and to")
		},
		"host": p.string(&rw.host, func(s string) error {
			if s == upstreamHost {
				return nil
			}
			if strings.Contains(s, "*") {
				return errors.New("a host is one name here")
			}
			return checkHost(s)
		}),
	})
	if ways > 1 {
		p.fail(n, "a path is rewritten in one way: strip_prefix, replace_prefix, path or regex")
	}
}

// canBeBelow says whether some path that is matched is prefix or below it.
func (p *pathMatch) canBeBelow(prefix string) bool {
	switch p.kind {
	case exactPath, prefixPath:
		return gateway.HasPrefix(p.text, prefix)
	case templatePath:
		static := "/"
		for _, s := range p.segments {
			if s.param {
				break
			}
			static = strings.TrimSuffix(static, "/") + "/" + s.text
		}
		return gateway.HasPrefix(static, prefix)
	}
	return true
}

// ofGateway are headers that are not for a file to change: they are the connection's, or say who the client is.
var ofGateway = []string{
	"Connection", "Content-Length", "Forwarded", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding",
	"Upgrade", "X-Real-Ip", "X-Request-Id",
}

func changeable(s string) (string, error) {
	name, err := headerName(s)
	if err == nil && (slices.Contains(ofGateway, name) || strings.HasPrefix(name, "X-Forwarded-")) {
		err = fmt.Errorf("the header %s is set by the gateway itself", name)
	}
	return name, err
}

func (p *parser) headerChange(n *yaml.Node, c *headerChange) {
	p.mapping(n, fields{
		"set": p.headers(&c.set),
		"add": p.headers(&c.add),
		"remove": p.each(p.text(func(s string) error {
			name, err := changeable(s)
			c.remove = append(c.remove, name)
			return err
		})),
	})
}

func (p *parser) headers(m *map[string]string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		*m = make(map[string]string)
		p.pairs(n, func(key, value *yaml.Node) {
			name, err := changeable(key.Value)
			if err != nil {
				p.fail(key, "%v", err)
				return
			}
			p.text(func(s string) error {
				(*m)[name] = s
				if !httpguts.ValidHeaderFieldValue(s) {
					return errors.New("the value of a header is one line without control characters")
				}
				return nil
			})(value)
		})
	}
}

func (p *parser) retries(n *yaml.Node, r *retries) {
	on := false
	p.mapping(n, fields{
		"attempts": p.int(&r.attempts, 0, 10),
		"on": func(n *yaml.Node) {
			on = true
			r.connect = false
			p.each(p.text(func(s string) error {
				switch s {
				case "connect":
					r.connect = true
				case "502", "503", "504":
					status, _ := strconv.Atoi(s)
					r.statuses = append(r.statuses, status)
				default:
					return fmt.Errorf("%q is nothing that is tried again: choose of connect, 502, 503, 504", s)
				}
				return nil
			}))(n)
		},
	})
	if on && !r.connect && len(r.statuses) == 0 {
		p.fail(n, "on is empty: write attempts: 0 to try nothing again")
	}
}

func (p *parser) mirror(n *yaml.Node, r *route) {
	r.mirror = &mirror{fraction: 1, maxBody: 64 << 10}
	spec := newUpstreamSpec(n.Line)
	known := p.upstreamFields(spec, &r.mirror.upstream)
	known["fraction"] = p.text(func(s string) (err error) {
		r.mirror.fraction, err = strconv.ParseFloat(s, 64)
		if err != nil || !(r.mirror.fraction > 0 && r.mirror.fraction <= 1) {
			return fmt.Errorf("%q is no fraction: write a number above 0 and up to 1", s)
		}
		return nil
	})
	known["max_body"] = p.size(&r.mirror.maxBody)
	p.mapping(n, known)
	if r.mirror.maxBody > 16<<20 {
		p.fail(n, "mirror: max_body is kept in memory: 16MiB is the limit")
	}
	if spec.given() {
		p.finish(n, spec)
		r.mirror.upstream = spec
	} else if len(p.errs) == 0 && r.mirror.upstream == nil {
		p.pending = append(p.pending, func() {
			if r.mirror.upstream == nil && len(p.errs) == 0 {
				p.fail(n, "the mirror leads nowhere: write url, service_http or upstream")
			}
		})
	}
}

// upstreamFields are the ways to name an upstream in place: a spec of its own, or the name of one.
func (p *parser) upstreamFields(spec *upstreamSpec, named **upstreamSpec) fields {
	return fields{
		"url":          p.texts(&spec.urls, func(string) error { return nil }),
		"service_http": p.string(&spec.service, checkService),
		"version":      p.string(&spec.version, checkService),
		"upstream": func(n *yaml.Node) {
			p.text(func(name string) error {
				p.pending = append(p.pending, func() {
					if *named = p.doc.upstreams[name]; *named == nil {
						p.fail(n, "there is no upstream %q: %s", name, didYouMean(name, slices.Sorted(maps.Keys(p.doc.upstreams))))
					}
				})
				return nil
			})(n)
		},
	}
}

func checkService(s string) error {
	if strings.TrimSpace(s) == "" {
		return errors.New("it is empty")
	}
	return nil
}

func (p *parser) upstreams(n *yaml.Node) {
	p.pairs(n, func(key, value *yaml.Node) {
		if err := checkName(key.Value); err != nil {
			p.fail(key, "%v", err)
		}
		spec := newUpstreamSpec(key.Line)
		spec.name, spec.named = key.Value, true
		known := p.upstreamFields(spec, nil)
		delete(known, "upstream")
		known["health"] = func(n *yaml.Node) { p.health(n, spec) }
		known["breaker"] = func(n *yaml.Node) { p.breaker(n, spec) }
		p.mapping(value, known)
		p.finish(value, spec)
		p.doc.upstreams[key.Value] = spec
	})
}

// finish checks an upstream as a whole.
func (p *parser) finish(n *yaml.Node, spec *upstreamSpec) {
	switch {
	case len(spec.urls) > 0 == (spec.service != ""):
		p.fail(n, "an upstream has either url or service_http")
		return
	case spec.version != "" && spec.service == "":
		p.fail(n, "version belongs to service_http")
	}
	for _, text := range spec.urls {
		if _, err := parseUpstreamURL(text); err != nil {
			p.fail(n, "%v", err)
		}
	}
	if spec.name == "" {
		spec.name = spec.service
		if len(spec.urls) > 0 {
			spec.name = urlLabel(spec.urls[0])
		}
	}
}

func (p *parser) health(n *yaml.Node, spec *upstreamSpec) {
	h := &health{interval: 5 * time.Second, timeout: 2 * time.Second, up: 2, down: 3}
	spec.health = h
	p.complete(n, fields{
		"path":     p.string(&h.path, checkPath),
		"interval": p.duration(&h.interval),
		"timeout":  p.duration(&h.timeout),
		"up":       p.int(&h.up, 1, 100),
		"down":     p.int(&h.down, 1, 100),
	}, func() bool { return h.path != "" }, "health wants the path that is asked")
}

func (p *parser) breaker(n *yaml.Node, spec *upstreamSpec) {
	p.mapping(n, fields{
		"failures": p.int(&spec.breaker.failures, 0, 1000),
		"open":     p.duration(&spec.breaker.open),
		"statuses": p.each(p.text(func(s string) error {
			status, err := strconv.Atoi(s)
			if err != nil || status < 500 || status > 599 {
				return fmt.Errorf("%q is no status of a failure: choose of 500 to 599", s)
			}
			spec.breaker.statuses = append(spec.breaker.statuses, status)
			return nil
		})),
	})
}

func (p *parser) target(n *yaml.Node, r *route) {
	t := &target{line: n.Line, weight: 1}
	spec := newUpstreamSpec(n.Line)
	known := p.upstreamFields(spec, &t.upstream)
	var call gateway.Target
	given := make(map[string]bool)
	known["weight"] = p.int(&t.weight, 0, maxWeights)
	known["service"] = p.string(&call.Service, checkService)
	known["endpoint"] = p.string(&call.Endpoint, checkService)
	known["redirect"] = func(n *yaml.Node) { p.redirect(n, r, t) }
	known["respond"] = func(n *yaml.Node) { p.respond(n, t) }
	for key, read := range known {
		known[key] = func(n *yaml.Node) { given[key] = true; read(n) }
	}
	before := len(p.errs)
	p.mapping(n, known)
	kinds := 0
	for _, key := range []string{"url", "service_http", "upstream", "service", "redirect", "respond"} {
		if given[key] {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		if len(p.errs) == before {
			p.fail(n, "a target is one of service, service_http, url, upstream, redirect and respond")
		}
	case given["service"]:
		if call.Endpoint == "" {
			p.fail(n, "a service is called by its endpoint: write  endpoint: Greeter.Hello, or service_http for its HTTP address")
		}
		call.Version, t.service = spec.version, &call
	case given["endpoint"] || given["version"] && !given["service_http"]:
		p.fail(n, "endpoint and version belong to service")
	case given["url"] || given["service_http"]:
		p.finish(n, spec)
		t.upstream = spec
	}
	r.targets = append(r.targets, t)
}

func (p *parser) redirect(n *yaml.Node, r *route, t *target) {
	t.redirect = &redirect{status: http.StatusFound, keepQuery: true}
	status := func(s string) error {
		if !slices.Contains([]string{"301", "302", "303", "307", "308"}, s) {
			return fmt.Errorf("%q is no status of a redirect: choose of 301, 302, 303, 307, 308", s)
		}
		t.redirect.status, _ = strconv.Atoi(s)
		return nil
	}
	p.complete(n, fields{
		"to": p.text(func(s string) (err error) {
			t.redirect.to, err = parsePattern(s, append(slices.Clone(r.match.path.params), builtin...))
			return cmp.Or(err, checkLocation(s))
		}),
		"status":     p.text(status),
		"keep_query": p.bool(&t.redirect.keepQuery),
	}, func() bool { return t.redirect.to != nil }, "a redirect wants to: where it leads")
}

var locationForm = regexp.MustCompile(`^(?:https?://(?:\{host\}|[a-z0-9._-]+(?::[0-9]+)?|\[[0-9a-f:]+\](?::[0-9]+)?))?((?:/|\{path\}).*)?$`)

// checkLocation lets nobody be led to a host of a stranger's choice: parameters are in the path only.
func checkLocation(s string) error {
	m := locationForm.FindStringSubmatch(s)
	if m == nil || s == "" {
		return fmt.Errorf("%q is no location: write a path, or http:// or https:// with a host, or {host}, and a path", s)
	}
	if m[1] == "" {
		return nil
	}
	return checkPath(sample(m[1]))
}

// sample is what a pattern of a path can look like.
func sample(s string) string {
	return patternName.ReplaceAllString(strings.ReplaceAll(s, "{path}", "/x"), "x")
}

func (p *parser) respond(n *yaml.Node, t *target) {
	t.respond = &respond{status: http.StatusOK}
	p.mapping(n, fields{
		"status":  p.int(&t.respond.status, 200, 599),
		"body":    p.string(&t.respond.body, anything),
		"headers": p.headers(&t.respond.header),
	})
	if s := t.respond.status; t.respond.body != "" && (s == http.StatusNoContent || s == http.StatusNotModified) {
		p.fail(n, "an answer of %d has no body", s)
	}
}

func (p *parser) weights(n *yaml.Node, r *route) {
	divisor, total := 0, 0
	for _, t := range r.targets {
		divisor = gcd(divisor, t.weight)
		total += t.weight
	}
	switch {
	case len(r.targets) == 0:
		p.fail(n, "the route leads nowhere: to is empty")
	case len(r.targets) == 1 && r.targets[0].weight > 0:
	case total == 0:
		p.fail(n, "all weights are 0: nothing would be answered")
	case total/divisor > maxWeights:
		p.fail(n, "the weights add up to %d: %d is the limit; 99 and 1 are one in a hundred", total/divisor, maxWeights)
	default:
		r.weigh()
	}
}
