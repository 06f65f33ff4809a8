package router

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/http/httpguts"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/yamlfile"
)

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
	p.Mapping(n, yamlfile.Fields{
		"strip_prefix": p.Text(func(s string) error { rw.to = "/"; return from(s) }),
		"replace_prefix": func(n *yaml.Node) {
			p.Complete(n, yamlfile.Fields{"from": p.Text(from), "to": p.String(&rw.to, checkPath)},
				func() bool { return rw.from != "" && rw.to != "" }, "replace_prefix wants from and to")
		},
		"path": p.Text(pathPattern),
		"regex": func(n *yaml.Node) {
			ways++
			p.Complete(n, yamlfile.Fields{
				"match": p.Text(func(s string) (err error) {
					rw.regex, err = regexp.Compile(s)
					return err
				}),
				"to": p.String(&rw.replace, yamlfile.Anything),
			}, func() bool { return rw.regex != nil && rw.replace != "" }, "regex wants match and to")
		},
		"host": p.Text(func(s string) (err error) {
			rw.host, err = hostHeader(s)
			return err
		}),
	})
	if ways > 1 {
		p.Fail(n, "a path is rewritten in one way: strip_prefix, replace_prefix, path or regex")
	}
}

// hostHeader is what a server sees as the host.
func hostHeader(s string) (string, error) {
	if s == upstreamHost {
		return s, nil
	}
	if strings.Contains(s, "*") {
		return "", errors.New("a host is one name here")
	}
	host, err := gateway.CheckHost(s)
	if strings.Contains(host, ":") {
		return "[" + host + "]", err
	}
	return host, err
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
	p.Mapping(n, yamlfile.Fields{
		"set": p.headers(&c.set),
		"add": p.headers(&c.add),
		"remove": p.Each(p.Text(func(s string) error {
			name, err := changeable(s)
			c.remove = append(c.remove, name)
			return err
		})),
	})
}

func (p *parser) headers(m *map[string]string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		*m = make(map[string]string)
		p.Pairs(n, func(key, value *yaml.Node) {
			name, err := changeable(key.Value)
			if err != nil {
				p.Fail(key, "%v", err)
				return
			}
			p.Text(func(s string) error {
				(*m)[name] = s
				if !httpguts.ValidHeaderFieldValue(s) {
					return errors.New("the value of a header is one line without control characters")
				}
				return nil
			})(value)
		})
	}
}
