package router

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/http/httpguts"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/yamlfile"
)

func (p *parser) match(n *yaml.Node, m *matcher) {
	var paths []string
	path := func(kind pathKind, compile func(*pathMatch) error) func(*yaml.Node) {
		return p.Text(func(s string) error {
			if paths = append(paths, s); len(paths) > 1 {
				return errors.New("a route has one of path, prefix, template and regex")
			}
			m.path.kind, m.path.text = kind, s
			return compile(&m.path)
		})
	}
	p.Mapping(n, yamlfile.Fields{
		"scheme": p.String(&m.scheme, func(s string) error {
			if s != "http" && s != "https" {
				return fmt.Errorf("%q is neither http nor https", s)
			}
			return nil
		}),
		"methods": p.Texts(&m.methods, checkMethod),
		"host": p.Each(p.Text(func(s string) error {
			host, err := gateway.CheckHost(s)
			m.hosts = append(m.hosts, host)
			return err
		})),
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
		p.Pairs(n, func(key, value *yaml.Node) {
			name, err := canonical(key.Value)
			if err != nil {
				p.Fail(key, "%v", err)
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
		p.String(&c.text, yamlfile.Anything)(n)
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
		return p.Text(func(s string) error {
			if s != "true" {
				return errors.New("write present: true or absent: true")
			}
			return set(kind)(s)
		})
	}
	p.Complete(n, yamlfile.Fields{
		"exact":   p.String(&c.text, set(isExactly)),
		"prefix":  p.String(&c.text, set(beginsWith)),
		"regex":   p.String(&c.text, set(isLike)),
		"present": is(isPresent),
		"absent":  is(isAbsent),
	}, func() bool { return kinds == 1 }, "a condition has one of exact, prefix, regex, present and absent")
}
