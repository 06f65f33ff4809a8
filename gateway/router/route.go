package router

import (
	"cmp"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/plugmicro/micro/gateway"
)

// route is one entry of the file. It does not change once it is in use.
type route struct {
	name     string
	line     int
	priority int
	rank     int // place in the order in which routes are tried
	match    matcher

	targets  []*target
	schedule []uint16 // targets in proportion to their weights; nil for one
	turn     atomic.Uint64
	sticky   *sticky

	rewrite  rewrite
	request  headerChange
	response headerChange

	timeout time.Duration // until the head of the answer
	idle    time.Duration // between two pieces of a body
	maxBody int64
	retries retries
	mirror  *mirror
}

// target is where a route sends a request: one of service, upstream, redirect and respond is set.
type target struct {
	line     int
	weight   int
	service  *gateway.Target
	upstream *upstreamSpec
	pool     *upstream // of the upstream, once the routes are in use
	redirect *redirect
	respond  *respond
}

type redirect struct {
	to        *pattern
	status    int
	keepQuery bool
}

type respond struct {
	status int
	header map[string]string
	body   string
}

type retries struct {
	attempts int
	connect  bool
	statuses []int
}

// schedule is a round of smooth weighted turns: in each round, wherever it is begun, a target has as many turns as its
// weight says, and they are spread evenly.
func schedule(weights []int) []uint16 {
	divisor, total := 0, 0
	for _, w := range weights {
		divisor = gcd(divisor, w)
	}
	for _, w := range weights {
		total += w / divisor
	}
	turns := make([]uint16, 0, total)
	credit := make([]int, len(weights))
	for range total {
		best := 0
		for i, w := range weights {
			credit[i] += w / divisor
			if credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= total
		turns = append(turns, uint16(best))
	}
	return turns
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// weigh makes the schedule. Routes that are read again begin anywhere in it, so that the first target does not get more.
func (rt *route) weigh() {
	if len(rt.targets) < 2 {
		return
	}
	weights := make([]int, len(rt.targets))
	for i, t := range rt.targets {
		weights[i] = t.weight
	}
	rt.schedule = schedule(weights)
	rt.turn.Store(rand.Uint64N(uint64(len(rt.schedule))))
}

// pick chooses the target of one request.
func (rt *route) pick(r *http.Request, info *gateway.Info) *target {
	if rt.schedule == nil {
		return rt.targets[0]
	}
	turn := uint64(0)
	if key := rt.sticky.key(r, info); key != "" {
		turn = hash(key)
	} else {
		turn = rt.turn.Add(1)
	}
	return rt.targets[rt.schedule[turn%uint64(len(rt.schedule))]]
}

// sticky says by what requests are told to belong together. They go to the same target, in every gateway.
type sticky struct {
	client         bool
	header, cookie string
}

func (s *sticky) key(r *http.Request, info *gateway.Info) string {
	switch {
	case s == nil:
		return ""
	case s.client && info.Client.IsValid():
		return info.Client.String()
	case s.header != "":
		return strings.Join(r.Header[s.header], ",")
	case s.cookie != "":
		if c, err := r.Cookie(s.cookie); err == nil {
			return c.Value
		}
	}
	return ""
}

func hash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	sum := h.Sum64()
	return sum ^ sum>>32 // the low bits of FNV alone are not spread well
}

// rewrite is what becomes of path and host on the way to an upstream.
type rewrite struct {
	from, to string // a prefix and what comes in its place
	path     *pattern
	regex    *regexp.Regexp
	replace  string
	host     string
}

// upstreamHost as the host has the upstream see the host of its own URL.
const upstreamHost = "{upstream}"

// apply returns the path that is forwarded, in normal form.
func (rw *rewrite) apply(path string, value func(string) string) (string, error) {
	switch {
	case rw.from != "":
		if !gateway.HasPrefix(path, rw.from) {
			return path, nil
		}
		return normal(cmp.Or(strings.TrimSuffix(rw.to, "/")+path[len(strings.TrimSuffix(rw.from, "/")):], "/"))
	case rw.path != nil:
		return normal(rw.path.expand(value))
	case rw.regex != nil:
		return normal(rw.regex.ReplaceAllString(path, rw.replace))
	}
	return path, nil
}

// headerChange is done in this order: remove, set, add.
type headerChange struct {
	set, add map[string]string
	remove   []string
}

func (c *headerChange) empty() bool { return len(c.set)+len(c.add)+len(c.remove) == 0 }

// names says whether it is about that header.
func (c *headerChange) names(header string) bool {
	_, set := c.set[header]
	_, added := c.add[header]
	return set || added || slices.Contains(c.remove, header)
}

func (c *headerChange) apply(h http.Header) {
	for _, name := range c.remove {
		delete(h, name)
	}
	for name, value := range c.set {
		h[name] = []string{value}
	}
	for name, value := range c.add {
		h[name] = append(h[name], value)
	}
}

// hold is apply for what comes before the final header: nothing comes through that is removed or replaced, and nothing is added.
func (c *headerChange) hold(h http.Header) {
	for _, name := range c.remove {
		delete(h, name)
	}
	for name, value := range c.set {
		if _, ok := h[name]; ok {
			h[name] = []string{value}
		}
	}
}

// leaveType keeps net/http from guessing the type of a body out of its first bytes: what users sent could become a page.
func leaveType(h http.Header) {
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil
	}
}

// valuesOf gives patterns the parameters, and the host and the path of r.
func valuesOf(r *http.Request, params map[string]string) func(string) string {
	return func(name string) string {
		switch name {
		case "host":
			return r.Host
		case "path":
			return r.URL.Path
		}
		return params[name]
	}
}

// location is where a redirect leads to. Behind the scheme and the host, which no parameter can change, it is a path in
// normal form.
func (rd *redirect) location(r *http.Request, params map[string]string) (string, error) {
	to := rd.to.expand(valuesOf(r, params))
	origin := ""
	if i := strings.Index(to, "://"); i >= 0 && !strings.HasPrefix(to, "/") {
		if j := strings.IndexByte(to[i+3:], '/'); j >= 0 {
			origin, to = to[:i+3+j], to[i+3+j:]
		} else {
			origin, to = to, "/"
		}
	}
	path, err := normal(to)
	if err != nil {
		return "", err
	}
	u := url.URL{}
	setPath(&u, path)
	location := origin + u.EscapedPath()
	if rd.keepQuery && r.URL.RawQuery != "" {
		location += "?" + r.URL.RawQuery
	}
	return location, nil
}
