package router

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/http/httpguts"
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
