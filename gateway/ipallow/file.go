package ipallow

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/clientip"
)

// maxErrors is how many are told at once.
const maxErrors = 20

// parser collects what is wrong with a file.
type parser struct {
	file string
	errs []error
}

// parse makes the lists of the settings and of the file, if there is one. Its error joins everything that is wrong in it, each
// with its line.
func parse(c Config, data []byte) (*lists, error) {
	p := &parser{file: c.File}
	l := new(lists)
	all := forAll()
	p.addTexts(all, "allow", c.Allow)
	p.addTexts(all, "deny", c.Deny)
	if c.File != "" {
		p.document(data, l, all)
	}
	if len(p.errs) > maxErrors {
		p.errs = append(p.errs[:maxErrors], fmt.Errorf("%s: and %d more", c.File, len(p.errs)-maxErrors))
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	l.routes.sort()
	l.services.sort()
	l.routes = append(l.routes, all)
	return l, nil
}

func (p *parser) fail(n *yaml.Node, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s:%d: %s", p.file, n.Line, fmt.Sprintf(format, args...)))
}

// addTexts adds what the settings have, which was validated.
func (p *parser) addTexts(r *rule, key string, texts []string) {
	for _, text := range texts {
		prefix, err := clientip.ParsePrefix(text)
		if err != nil {
			p.errs = append(p.errs, err)
			continue
		}
		r.set(key).Add(prefix)
	}
}

// set is the list of that key.
func (r *rule) set(key string) *clientip.Set {
	if key == "deny" {
		return &r.deny
	}
	if r.allow == nil {
		r.allow = new(clientip.Set)
	}
	return r.allow
}

func (p *parser) document(data []byte, l *lists, all *rule) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		p.errs = append(p.errs, fmt.Errorf("%s:1: it is empty: write allow, deny, routes or services", p.file))
		return
	case err != nil:
		p.errs = append(p.errs, fmt.Errorf("%s:%s", p.file, lineFirst(err)))
		return
	}
	var more yaml.Node
	if decoder.Decode(&more) != io.EOF {
		p.fail(&more, "there is more than one document: leave one")
	}
	root := doc.Content[0]
	values := p.mapping(root, "allow", "deny", "routes", "services")
	if len(values) == 0 {
		p.fail(root, "it has no list: write allow, deny, routes or services")
	}
	p.addLists(all, values)
	for _, n := range p.sequence(values["routes"]) {
		l.routes = p.add(l.routes, n, p.route(n))
	}
	for _, n := range p.sequence(values["services"]) {
		l.services = p.add(l.services, n, p.service(n))
	}
}

// lineFirst is an error of the parser, which leaves out that it is in the first line.
func lineFirst(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if after, ok := strings.CutPrefix(text, "line "); ok {
		return after
	}
	return "1: " + text
}

// add refuses a second rule for the same: it would be chance which one counts.
func (p *parser) add(rs rules, n *yaml.Node, r *rule) rules {
	if slices.ContainsFunc(rs, func(other *rule) bool { return other.name == r.name }) {
		p.fail(n, "the %s is there twice: put them together", r.name)
	}
	return append(rs, r)
}

func (p *parser) route(n *yaml.Node) *rule {
	values := p.mapping(n, "host", "path", "allow", "deny")
	host, path := p.text(values["host"]), p.text(values["path"])
	if host == "" && path == "" {
		p.fail(n, "a route has a host, a path or both")
	}
	if host != "" {
		name, ok := checkHost(host)
		if !ok {
			p.fail(values["host"], "no request has the host %q: write a name in lower case, without a port, an address, or *.example.com", host)
		}
		if host = name; host == "*" {
			host = ""
		}
	}
	if path != "" {
		if err := gateway.CheckPaths("path", []string{path}); err != nil {
			p.fail(values["path"], "%v", err)
		}
		path = strings.TrimSuffix(path, "/")
	}
	r := forRoute(host, path)
	p.addOwnLists(n, r, values)
	return r
}

func (p *parser) service(n *yaml.Node) *rule {
	values := p.mapping(n, "service", "endpoint", "allow", "deny")
	service := p.text(values["service"])
	if service == "" {
		p.fail(n, "the name of the service is missing")
	}
	r := forService(service, p.text(values["endpoint"]))
	p.addOwnLists(n, r, values)
	return r
}

func (p *parser) addOwnLists(n *yaml.Node, r *rule, values map[string]*yaml.Node) {
	if values["allow"] == nil && values["deny"] == nil {
		p.fail(n, "it has no list: write allow, deny or both")
	}
	p.addLists(r, values)
}

func (p *parser) addLists(r *rule, values map[string]*yaml.Node) {
	for _, key := range []string{"allow", "deny"} {
		for _, n := range p.sequence(values[key]) {
			prefix, err := clientip.ParsePrefix(n.Value)
			switch {
			case n.Kind != yaml.ScalarNode:
				p.fail(n, "an address or a prefix is wanted: put one of IPv6 into quotes")
			case err != nil:
				p.fail(n, "%v", err)
			default:
				r.set(key).Add(prefix)
			}
		}
	}
}

// mapping is the values of the known keys that are there.
func (p *parser) mapping(n *yaml.Node, known ...string) map[string]*yaml.Node {
	values := make(map[string]*yaml.Node, len(known))
	if n.Kind != yaml.MappingNode {
		p.fail(n, "a mapping is wanted: %s", strings.Join(known, ", "))
		return values
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case !slices.Contains(known, key.Value):
			p.fail(key, "unknown key %q: it is one of %s", key.Value, strings.Join(known, ", "))
		case values[key.Value] != nil:
			p.fail(key, "%s is there twice: leave one", key.Value)
		default:
			values[key.Value] = value
		}
	}
	return values
}

// sequence is what is in a list; nil if it is not there. One that is there and empty is an error: nobody can tell whether
// nobody or everybody is meant.
func (p *parser) sequence(n *yaml.Node) []*yaml.Node {
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.SequenceNode && len(n.Content) > 0:
		return n.Content
	case n.Kind == yaml.SequenceNode, n.Tag == "!!null":
		p.fail(n, "the list is empty: add to it, or remove its key")
	default:
		p.fail(n, "a list is wanted")
	}
	return nil
}

// text is a scalar; "" if it is not there. One that is there and empty would match more than is meant.
func (p *parser) text(n *yaml.Node) string {
	switch {
	case n == nil:
		return ""
	case n.Kind != yaml.ScalarNode || n.Value == "" || n.Tag == "!!null":
		p.fail(n, "a name is wanted, or no key")
	}
	return n.Value
}

// checkHost says how Prepare writes the host of a pattern, and whether that is what is written here.
func checkHost(pattern string) (normal string, ok bool) {
	name, wildcard := strings.CutPrefix(pattern, "*.")
	if pattern == "*" {
		return pattern, true
	}
	normal, err := gateway.Prepare(&http.Request{Host: name, URL: &url.URL{Path: "/"}})
	if err != nil || normal != name && (wildcard || "["+normal+"]" != name) {
		return pattern, false
	}
	if wildcard {
		normal = pattern
	}
	return normal, true
}
