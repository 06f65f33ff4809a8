package ipallow

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/clientip"
	"github.com/plugmicro/micro/internal/yamlfile"
)

// maxErrors is how many are told at once.
const maxErrors = 20

// parse makes the lists of the settings, which are validated, and of the file, if there is one. Its error has everything that
// is wrong in that, each with its line.
func parse(c Config, data []byte) (*lists, error) {
	p := &parser{lists: new(lists), all: forAll()}
	for key, texts := range map[string][]string{"allow": c.Allow, "deny": c.Deny} {
		for _, text := range texts {
			if err := p.all.add(key, text); err != nil {
				return nil, err
			}
		}
	}
	if c.File != "" {
		err := yamlfile.Read(c.File, data, "write allow, deny, routes or services", func(f *yamlfile.File, root *yaml.Node) {
			p.File = f
			p.document(root)
		})
		if err != nil {
			return nil, yamlfile.Shorten(err, maxErrors)
		}
	}
	p.lists.routes.sort()
	p.lists.services.sort()
	p.lists.routes = append(p.lists.routes, p.all)
	return p.lists, nil
}

// add puts an entry on the list of that key.
func (r *rule) add(key, text string) error {
	prefix, err := clientip.ParsePrefix(text)
	if err != nil {
		return err
	}
	set := &r.deny
	if key == "allow" {
		if r.allow == nil {
			r.allow = new(clientip.Set)
		}
		set = r.allow
	}
	set.Add(prefix)
	return nil
}

// parser reads a file of lists.
type parser struct {
	*yamlfile.File
	lists *lists
	all   *rule
}

func (p *parser) document(root *yaml.Node) {
	p.Complete(root, yamlfile.Fields{
		"allow":    p.list(p.entry(p.all, "allow")),
		"deny":     p.list(p.entry(p.all, "deny")),
		"routes":   p.list(p.route),
		"services": p.list(p.service),
	}, func() bool { return len(root.Content) > 0 }, "it has no list: write allow, deny, routes or services")
}

// list reads a list, item by item. An empty one is an error: nobody can tell whether nobody or everybody is meant.
func (p *parser) list(read func(*yaml.Node)) func(*yaml.Node) {
	return func(n *yaml.Node) {
		switch {
		case n.Kind == yaml.SequenceNode && len(n.Content) > 0:
			p.Each(read)(n)
		case n.Kind == yaml.SequenceNode, n.Tag == "!!null":
			p.Fail(n, "the list is empty: add to it, or remove its key")
		default:
			p.Fail(n, "a list is wanted")
		}
	}
}

// entry reads an entry of the list of that key.
func (p *parser) entry(r *rule, key string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode {
			p.Fail(n, "an address or a prefix is wanted: put one of IPv6 into quotes")
		} else if err := r.add(key, n.Value); err != nil {
			p.Fail(n, "%v", err)
		}
	}
}

func (p *parser) route(n *yaml.Node) {
	var host, path string
	p.rule(n, &p.lists.routes, yamlfile.Fields{
		"host": p.Text(func(s string) (err error) { host, err = gateway.CheckHost(s); return err }),
		"path": p.String(&path, checkPath),
	}, func() *rule {
		if host == "" && path == "" {
			p.Fail(n, "a route has a host, a path or both")
		}
		if host == "*" {
			host = ""
		}
		return forRoute(host, strings.TrimSuffix(path, "/"))
	})
}

func (p *parser) service(n *yaml.Node) {
	var service, endpoint string
	p.rule(n, &p.lists.services, yamlfile.Fields{
		"service":  p.String(&service, checkName),
		"endpoint": p.String(&endpoint, checkName),
	}, func() *rule {
		if service == "" {
			p.Fail(n, "the name of the service is missing")
		}
		return forService(service, endpoint)
	})
}

// rule reads a rule of rs: what it is for, in known, and then its lists. A second rule for the same is refused: it would be
// chance which one counts.
func (p *parser) rule(n *yaml.Node, rs *rules, known yamlfile.Fields, made func() *rule) {
	var allow, deny *yaml.Node
	known["allow"] = func(n *yaml.Node) { allow = n }
	known["deny"] = func(n *yaml.Node) { deny = n }
	before := p.Failed()
	p.Mapping(n, known)
	if p.Failed() > before {
		return
	}
	r := made()
	if allow == nil && deny == nil {
		p.Fail(n, "it has no list: write allow, deny or both")
	}
	if allow != nil {
		p.list(p.entry(r, "allow"))(allow)
	}
	if deny != nil {
		p.list(p.entry(r, "deny"))(deny)
	}
	if slices.ContainsFunc(*rs, func(other *rule) bool { return other.name == r.name }) {
		p.Fail(n, "the %s is there twice: put them together", r.name)
	}
	*rs = append(*rs, r)
}

// checkName refuses what is there and empty: it would match more than is meant.
func checkName(s string) error {
	if s == "" {
		return errors.New("a name is wanted, or no key")
	}
	return nil
}

func checkPath(s string) error {
	return cmp.Or(checkName(s), gateway.CheckPaths("path", []string{s}))
}
