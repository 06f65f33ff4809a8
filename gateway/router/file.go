package router

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/http/httpguts"

	"github.com/plugmicro/micro/internal/yamlfile"
)

// document is what a file of routes says.
type document struct {
	routes    []*route // in the order in which they are tried
	upstreams map[string]*upstreamSpec
}

// maxWeights is for the sum of the weights of a route, divided by what divides them all.
const maxWeights = 10000

// parser reads a file of routes.
type parser struct {
	*yamlfile.File
	defaults Config
	doc      document
	lines    map[string]int // of the routes, by their names
}

// parse reads a file of routes, YAML or JSON. Its error has everything that is wrong, each with file and line.
func parse(file string, data []byte, defaults Config) (*document, error) {
	p := &parser{defaults: defaults, lines: make(map[string]int), doc: document{upstreams: make(map[string]*upstreamSpec)}}
	err := yamlfile.Read(file, data, "write  routes: []  for no routes", func(f *yamlfile.File, root *yaml.Node) {
		p.File = f
		p.Mapping(root, yamlfile.Fields{"routes": p.Each(p.route), "upstreams": p.upstreams})
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(p.doc.routes, func(a, b *route) int { return cmp.Compare(b.priority, a.priority) })
	for i, r := range p.doc.routes {
		r.rank = i
	}
	return &p.doc, nil
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
	known := yamlfile.Fields{
		"name":             p.String(&r.name, checkName),
		"priority":         p.Int(&r.priority, -1000000, 1000000),
		"match":            func(n *yaml.Node) { p.match(n, &r.match) },
		"to":               func(n *yaml.Node) { to = n },
		"sticky":           func(n *yaml.Node) { p.sticky(n, r) },
		"rewrite":          func(n *yaml.Node) { rewrite = n },
		"request_headers":  func(n *yaml.Node) { p.headerChange(n, &r.request) },
		"response_headers": func(n *yaml.Node) { p.headerChange(n, &r.response) },
		"timeout":          p.Duration(&r.timeout),
		"idle_timeout":     p.Duration(&r.idle),
		"max_body":         p.Size(&r.maxBody),
		"retries":          func(n *yaml.Node) { p.retries(n, &r.retries) },
		"mirror":           func(n *yaml.Node) { p.mirror(n, r) },
	}
	given := make(map[string]*yaml.Node)
	for key, read := range known {
		known[key] = func(n *yaml.Node) { given[key] = n; read(n) }
	}
	p.Mapping(n, known)
	if r.name == "" && n.Kind == yaml.MappingNode {
		p.Fail(n, "the route has no name: logs and metrics call it by that")
	}
	if line, ok := p.lines[r.name]; ok {
		p.Fail(n, "the route %s is in line %d already", r.name, line)
	}
	if rewrite != nil {
		p.rewrite(rewrite, r)
	}
	if to == nil {
		if n.Kind == yaml.MappingNode {
			p.Fail(n, "the route leads nowhere: write  to: …")
		}
		return
	}
	var kinds []string
	p.Each(func(n *yaml.Node) { kinds = append(kinds, p.target(n, r)) })(to)
	p.weights(n, r)
	p.needless(given, kinds)
	p.doc.routes = append(p.doc.routes, r)
	if r.name != "" {
		p.lines[r.name] = r.line
	}
}

// What heeds keys of a route that not all targets do.
var (
	proxied = []string{"url", "service_http", "upstream"}
	reached = append([]string{"service"}, proxied...)
	heeds   = map[string][]string{
		"rewrite": proxied, "idle_timeout": proxied, "retries": proxied, "mirror": proxied,
		"request_headers": reached, "timeout": reached, "max_body": reached,
	}
)

// needless refuses keys that would do nothing, as whoever wrote them, a limit perhaps, would not know. kinds are those of the
// targets, "" for one that is wrong.
func (p *parser) needless(given map[string]*yaml.Node, kinds []string) {
	if slices.Contains(kinds, "") {
		return
	}
	for key, n := range given {
		by := heeds[key]
		if len(by) > 0 && len(kinds) > 0 && !slices.ContainsFunc(kinds, func(kind string) bool { return slices.Contains(by, kind) }) {
			p.Fail(n, "%s would do nothing here: it is for routes that lead to %s", key, strings.Join(by, ", "))
		}
	}
}

func (p *parser) sticky(n *yaml.Node, r *route) {
	r.sticky = new(sticky)
	known := yamlfile.Fields{
		"client": p.Text(func(s string) error {
			if r.sticky.client = s == "true"; !r.sticky.client {
				return errors.New("write client: true, or no sticky at all")
			}
			return nil
		}),
		"cookie": p.String(&r.sticky.cookie, checkCookie),
		"header": p.Text(func(s string) (err error) {
			r.sticky.header, err = headerName(s)
			return err
		}),
	}
	p.oneOf(n, known, []string{"client", "header", "cookie"}, "sticky goes by one of client, header and cookie")
}

func checkCookie(s string) error {
	if !httpguts.ValidHeaderFieldName(s) {
		return fmt.Errorf("%q is no name of a cookie", s)
	}
	return nil
}

func (p *parser) retries(n *yaml.Node, r *retries) {
	on := false
	p.Mapping(n, yamlfile.Fields{
		"attempts": p.Int(&r.attempts, 0, 10),
		"on": func(n *yaml.Node) {
			on = true
			r.connect = false
			p.Each(p.Text(func(s string) error {
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
		p.Fail(n, "on is empty: write attempts: 0 to try nothing again")
	}
}

func (p *parser) mirror(n *yaml.Node, r *route) {
	r.mirror = &mirror{fraction: 1, maxBody: 64 << 10}
	spec := newUpstreamSpec(n.Line)
	known := p.upstreamFields(spec, &r.mirror.upstream)
	known["fraction"] = p.Text(func(s string) (err error) {
		r.mirror.fraction, err = strconv.ParseFloat(s, 64)
		if err != nil || !(r.mirror.fraction > 0 && r.mirror.fraction <= 1) {
			return fmt.Errorf("%q is no fraction: write a number above 0 and up to 1", s)
		}
		return nil
	})
	known["max_body"] = p.Size(&r.mirror.maxBody)
	given, kind := p.oneOf(n, known, proxied, "a mirror leads to one of url, service_http and upstream")
	if r.mirror.maxBody > 16<<20 {
		p.Fail(n, "mirror: max_body is kept in memory: 16MiB is the limit")
	}
	switch {
	case kind == "upstream" && given["version"]:
		p.Fail(n, "version belongs to service_http")
	case kind == "url" || kind == "service_http":
		p.finish(n, spec)
		r.mirror.upstream = spec
	}
}

// oneOf reads a mapping that has exactly one of several keys, and others. It returns which keys are there, and which of the
// several, "" unless it is one.
func (p *parser) oneOf(n *yaml.Node, known yamlfile.Fields, several []string, wants string) (given map[string]bool, which string) {
	given = make(map[string]bool)
	for key, read := range known {
		known[key] = func(n *yaml.Node) { given[key] = true; read(n) }
	}
	before, count := p.Failed(), 0
	p.Mapping(n, known)
	for _, key := range several {
		if given[key] {
			which = key
			count++
		}
	}
	if count == 1 {
		return given, which
	}
	if p.Failed() == before {
		p.Fail(n, "%s", wants)
	}
	return given, ""
}
