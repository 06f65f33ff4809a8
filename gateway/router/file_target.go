package router

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/yamlfile"
)

// upstreamFields are the ways to name an upstream in place: a spec of its own, or the name of one.
func (p *parser) upstreamFields(spec *upstreamSpec, named **upstreamSpec) yamlfile.Fields {
	return yamlfile.Fields{
		"url":          p.Texts(&spec.urls, func(string) error { return nil }),
		"service_http": p.String(&spec.service, checkService),
		"version":      p.String(&spec.version, checkService),
		"upstream": func(n *yaml.Node) {
			p.Text(func(name string) error {
				p.Later(func() {
					if *named = p.doc.upstreams[name]; *named == nil {
						p.Fail(n, "there is no upstream %q: %s", name, yamlfile.DidYouMean(name, slices.Sorted(maps.Keys(p.doc.upstreams))))
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
	p.Pairs(n, func(key, value *yaml.Node) {
		if err := checkName(key.Value); err != nil {
			p.Fail(key, "%v", err)
		}
		spec := newUpstreamSpec(key.Line)
		spec.name, spec.named = key.Value, true
		known := p.upstreamFields(spec, nil)
		delete(known, "upstream")
		known["health"] = func(n *yaml.Node) { p.health(n, spec) }
		known["breaker"] = func(n *yaml.Node) { p.breaker(n, spec) }
		p.Mapping(value, known)
		p.finish(value, spec)
		p.doc.upstreams[key.Value] = spec
	})
}

// finish checks an upstream as a whole.
func (p *parser) finish(n *yaml.Node, spec *upstreamSpec) {
	switch {
	case len(spec.urls) > 0 == (spec.service != ""):
		p.Fail(n, "an upstream has either url or service_http")
		return
	case spec.version != "" && spec.service == "":
		p.Fail(n, "version belongs to service_http")
	}
	for _, text := range spec.urls {
		if _, err := parseUpstreamURL(text); err != nil {
			p.Fail(n, "%v", err)
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
	p.Complete(n, yamlfile.Fields{
		"path":     p.String(&h.path, checkPath),
		"interval": p.Duration(&h.interval),
		"timeout":  p.Duration(&h.timeout),
		"up":       p.Int(&h.up, 1, 100),
		"down":     p.Int(&h.down, 1, 100),
	}, func() bool { return h.path != "" }, "health wants the path that is asked")
}

func (p *parser) breaker(n *yaml.Node, spec *upstreamSpec) {
	p.Mapping(n, yamlfile.Fields{
		"failures": p.Int(&spec.breaker.failures, 0, 1000),
		"open":     p.Duration(&spec.breaker.open),
		"statuses": p.Each(p.Text(func(s string) error {
			status, err := strconv.Atoi(s)
			if err != nil || status < 500 || status > 599 {
				return fmt.Errorf("%q is no status of a failure: choose of 500 to 599", s)
			}
			spec.breaker.statuses = append(spec.breaker.statuses, status)
			return nil
		})),
	})
}

// target returns the key that says where it leads, or "" if it is wrong.
func (p *parser) target(n *yaml.Node, r *route) string {
	t := &target{line: n.Line, weight: 1}
	spec := newUpstreamSpec(n.Line)
	known := p.upstreamFields(spec, &t.upstream)
	var call gateway.Target
	known["weight"] = p.Int(&t.weight, 0, maxWeights)
	known["service"] = p.String(&call.Service, checkService)
	known["endpoint"] = p.String(&call.Endpoint, checkService)
	known["redirect"] = func(n *yaml.Node) { p.redirect(n, r, t) }
	known["respond"] = func(n *yaml.Node) { p.respond(n, t) }
	given, kind := p.oneOf(n, known, []string{"url", "service_http", "upstream", "service", "redirect", "respond"},
		"a target is one of service, service_http, url, upstream, redirect and respond")
	r.targets = append(r.targets, t)
	switch {
	case kind == "":
	case kind == "service":
		if call.Endpoint == "" {
			p.Fail(n, "a service is called by its endpoint: write  endpoint: Greeter.Hello, or service_http for its HTTP address")
		}
		call.Version, t.service = spec.version, &call
	case given["endpoint"] || given["version"] && kind != "service_http":
		p.Fail(n, "endpoint and version belong to service")
	case kind == "url" || kind == "service_http":
		p.finish(n, spec)
		t.upstream = spec
	}
	return kind
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
	p.Complete(n, yamlfile.Fields{
		"to": p.Text(func(s string) (err error) {
			t.redirect.to, err = parsePattern(s, append(slices.Clone(r.match.path.params), builtin...))
			return cmp.Or(err, checkLocation(s))
		}),
		"status":     p.Text(status),
		"keep_query": p.Bool(&t.redirect.keepQuery),
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
	p.Mapping(n, yamlfile.Fields{
		"status":  p.Int(&t.respond.status, 200, 599),
		"body":    p.String(&t.respond.body, yamlfile.Anything),
		"headers": p.headers(&t.respond.header),
	})
	if s := t.respond.status; t.respond.body != "" && (s == http.StatusNoContent || s == http.StatusNotModified) {
		p.Fail(n, "an answer of %d has no body", s)
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
		p.Fail(n, "the route leads nowhere: to is empty")
	case len(r.targets) == 1 && r.targets[0].weight > 0:
	case total == 0:
		p.Fail(n, "all weights are 0: nothing would be answered")
	case total/divisor > maxWeights:
		p.Fail(n, "the weights add up to %d: %d is the limit; 99 and 1 are one in a hundred", total/divisor, maxWeights)
	default:
		r.weigh()
	}
}
