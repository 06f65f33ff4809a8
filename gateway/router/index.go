package router

import (
	"net"
	"net/http"
	"strings"
)

// index finds the first of many routes that takes a request, in a time that does not grow with their number. What it cannot
// tell apart, routes of one host whose paths are regular expressions, or that have the same path, it tries in turn.
type index struct {
	hosts    map[string]*paths
	suffixes map[string]*paths // ".example.com", of *.example.com
	any      *paths
}

// paths are the routes of one host.
type paths struct {
	exact map[string][]*route
	root  step
	regex []*route
}

// step is what is known after some segments of a path.
type step struct {
	next  map[string]*step
	param *step
	below []*route // prefixes that end here
	rest  []*route // templates with a rest that begins here
	here  []*route // templates that end here
}

// newIndex wants routes in the order in which they are tried.
func newIndex(routes []*route) *index {
	ix := &index{hosts: make(map[string]*paths), suffixes: make(map[string]*paths), any: new(paths)}
	for _, r := range routes {
		if len(r.match.hosts) == 0 {
			ix.any.add(r)
		}
		for _, host := range r.match.hosts {
			ix.of(host).add(r)
		}
	}
	return ix
}

func (ix *index) of(host string) *paths {
	m, key := ix.hosts, host
	if suffix, ok := strings.CutPrefix(host, "*"); ok {
		if suffix == "" {
			return ix.any
		}
		m, key = ix.suffixes, suffix
	}
	if m[key] == nil {
		m[key] = new(paths)
	}
	return m[key]
}

func (p *paths) add(r *route) {
	switch r.match.path.kind {
	case exactPath:
		if p.exact == nil {
			p.exact = make(map[string][]*route)
		}
		p.exact[r.match.path.text] = append(p.exact[r.match.path.text], r)
	case regexPath:
		p.regex = append(p.regex, r)
	default:
		p.root.add(r)
	}
}

func (s *step) add(r *route) {
	for _, seg := range r.match.path.segments {
		switch {
		case seg.rest:
			s.rest = append(s.rest, r)
			return
		case seg.param:
			if s.param == nil {
				s.param = new(step)
			}
			s = s.param
		default:
			if s.next == nil {
				s.next = make(map[string]*step)
			}
			if s.next[seg.text] == nil {
				s.next[seg.text] = new(step)
			}
			s = s.next[seg.text]
		}
	}
	if r.match.path.kind == templatePath {
		s.here = append(s.here, r)
	} else {
		s.below = append(s.below, r)
	}
}

// find returns nil if no route takes r, whose path gateway.Prepare has seen.
func (ix *index) find(r *http.Request, host string, secure bool) *route {
	if !strings.HasPrefix(r.URL.Path, "/") {
		return nil
	}
	s := search{r: r, secure: secure}
	s.paths(ix.any)
	s.paths(ix.hosts[host])
	if len(ix.suffixes) > 0 {
		for i := 1; i < len(host); i++ {
			if host[i] != '.' {
				continue
			}
			if p := ix.suffixes[host[i:]]; p != nil && net.ParseIP(host) == nil {
				s.paths(p)
			}
		}
	}
	return s.best
}

// search is for one request.
type search struct {
	r      *http.Request
	secure bool
	best   *route
}

func (s *search) paths(p *paths) {
	if p == nil {
		return
	}
	path := s.r.URL.Path
	s.try(p.exact[path])
	s.walk(&p.root, path[1:], true)
	for _, r := range p.regex {
		if s.best != nil && r.rank > s.best.rank {
			break
		}
		if strings.HasPrefix(path, r.match.path.literal) && r.match.path.re.MatchString(path) && r.match.accepts(s.r, s.secure) {
			s.best = r
			break
		}
	}
}

// walk tries what is at and behind a step; more says that rest is there, even if it is empty.
func (s *search) walk(at *step, rest string, more bool) {
	s.try(at.below)
	if !more {
		s.try(at.here)
		return
	}
	s.try(at.rest)
	if at.next == nil && at.param == nil {
		return
	}
	part, rest, more := strings.Cut(rest, "/")
	if next := at.next[part]; next != nil {
		s.walk(next, rest, more)
	}
	if at.param != nil && part != "" {
		s.walk(at.param, rest, more)
	}
}

// try takes the first of routes that is better than what was found so far.
func (s *search) try(routes []*route) {
	for _, r := range routes {
		if s.best != nil && r.rank >= s.best.rank {
			return
		}
		if r.match.accepts(s.r, s.secure) {
			s.best = r
			return
		}
	}
}
