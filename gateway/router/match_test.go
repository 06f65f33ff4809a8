package router

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway"
)

// linear is what the index must agree with: one route after the other, by other means where there are some.
func linear(routes []*route, r *http.Request, host string, secure bool) *route {
	for _, rt := range routes {
		if takes(&rt.match, r, host, secure) {
			return rt
		}
	}
	return nil
}

func takes(m *matcher, r *http.Request, host string, secure bool) bool {
	hostOK := len(m.hosts) == 0
	for _, pattern := range m.hosts {
		hostOK = hostOK || gateway.MatchHost(host, pattern)
	}
	path, pathOK := r.URL.Path, true
	switch m.path.kind {
	case exactPath:
		pathOK = path == m.path.text
	case prefixPath:
		pathOK = gateway.HasPrefix(path, m.path.text)
	case templatePath:
		pathOK = regexOf(m.path.text).MatchString(path)
	case regexPath:
		pathOK = regexp.MustCompile(`\A(?:` + m.path.text + `)\z`).MatchString(path)
	}
	reason, _ := m.why(r, host, secure)
	if ok := hostOK && pathOK && m.accepts(r, secure); ok != (reason == "") {
		panic("what is explained is not what is done: " + reason)
	}
	return hostOK && pathOK && m.accepts(r, secure)
}

func regexOf(template string) *regexp.Regexp {
	var b strings.Builder
	for i, part := range regexp.MustCompile(`\{[^}]*\}`).Split(template, -1) {
		if i > 0 {
			b.WriteString("PARAM")
		}
		b.WriteString(regexp.QuoteMeta(part))
	}
	text := b.String()
	if strings.HasSuffix(template, "...}") {
		text = strings.TrimSuffix(text, "PARAM") + `(?s:.*)`
	}
	return regexp.MustCompile(`\A` + strings.ReplaceAll(text, "PARAM", "[^/]+") + `\z`)
}

// TestIndexAgreesWithTheFile compares the index with one route after the other, for random files and requests of few words,
// so that much of it collides.
func TestIndexAgreesWithTheFile(t *testing.T) {
	hits := 0
	for seed := range uint64(120) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		var file strings.Builder
		file.WriteString("routes:\n")
		for i := range 1 + rnd.IntN(40) {
			fmt.Fprintf(&file, "- {name: r%d, priority: %d, match: {%s}, to: {respond: {}}}\n", i, rnd.IntN(3), strings.Join(randomMatch(rnd), ", "))
		}
		doc, err := parse("f", []byte(file.String()), Config{})
		require.NoError(t, err, file.String())
		ix := newIndex(doc.routes)
		for range 200 {
			r, host := randomRequest(rnd)
			secure := rnd.IntN(2) == 0
			got, want := ix.find(r, host, secure), linear(doc.routes, r, host, secure)
			require.Equal(t, want, got, "seed %d: %s %s%s %v\n%s", seed, r.Method, host, r.URL, r.Header, &file)
			if got == nil {
				continue
			}
			hits++
			for _, before := range doc.routes[:got.rank] {
				require.False(t, before.match.covers(&got.match), "%s is reached, after %s\n%s", got.name, before.name, &file)
			}
		}
	}
	require.Greater(t, hits, 8000, "the requests find routes at all")
}

var words = []string{"a", "b", "c", "ab"}

func word(rnd *rand.Rand) string { return words[rnd.IntN(len(words))] }

func randomPath(rnd *rand.Rand, part func() string) string {
	p := ""
	for range rnd.IntN(4) {
		p += "/" + part()
	}
	if p == "" || rnd.IntN(5) == 0 {
		p += "/"
	}
	return p
}

func randomMatch(rnd *rand.Rand) []string {
	var m []string
	plain := randomPath(rnd, func() string { return word(rnd) })
	switch rnd.IntN(6) {
	case 0:
		m = append(m, "path: "+plain)
	case 1, 2:
		m = append(m, "prefix: "+plain)
	case 3:
		n := 0
		p := randomPath(rnd, func() string {
			if n++; rnd.IntN(2) == 0 {
				return fmt.Sprintf("{p%d}", n)
			}
			return word(rnd)
		})
		if rnd.IntN(3) == 0 {
			p = strings.TrimSuffix(p, "/") + "/{rest...}"
		}
		m = append(m, "template: '"+p+"'")
	case 4:
		m = append(m, "regex: '"+[]string{"/a.*", "^/b|/c/.*", "(?i)/AB/.*", "/[ab]+/c", "^/a"}[rnd.IntN(5)]+"'")
	}
	if rnd.IntN(2) == 0 {
		m = append(m, "host: ["+[]string{"a.x", "'*.x'", "b.a.x, c", "'*'", "'*.a.x'", "10.0.0.1"}[rnd.IntN(6)]+"]")
	}
	if rnd.IntN(4) == 0 {
		m = append(m, "methods: ["+[]string{"GET", "POST", "GET, POST", "HEAD"}[rnd.IntN(4)]+"]")
	}
	if rnd.IntN(6) == 0 {
		m = append(m, "scheme: "+[]string{"http", "https"}[rnd.IntN(2)])
	}
	condition := []string{"a", "{prefix: a}", "{regex: 'a|b'}", "{present: true}", "{absent: true}"}
	if rnd.IntN(4) == 0 {
		m = append(m, "headers: {X-A: "+condition[rnd.IntN(5)]+"}")
	}
	if rnd.IntN(4) == 0 {
		m = append(m, "query: {q: "+condition[rnd.IntN(5)]+"}")
	}
	return m
}

func randomRequest(rnd *rand.Rand) (*http.Request, string) {
	r := httptest.NewRequest([]string{"GET", "POST", "HEAD", "PUT"}[rnd.IntN(4)], "/", nil)
	r.URL.Path = randomPath(rnd, func() string { return word(rnd) })
	for range rnd.IntN(3) {
		r.Header.Add("X-A", word(rnd))
	}
	r.URL.RawQuery = []string{"", "q=a", "q=b", "q=a&q=a", "%71=ab", "x=y"}[rnd.IntN(6)]
	return r, []string{"a.x", "b.a.x", "c", "x", "10.0.0.1", "d.x"}[rnd.IntN(6)]
}

func TestConditions(t *testing.T) {
	doc, err := parse("f", []byte(`
routes:
- {name: exact, match: {headers: {X-A: "1"}}, to: {respond: {}}}
- {name: prefix, match: {headers: {X-A: {prefix: v}}}, to: {respond: {}}}
- {name: regex, match: {headers: {X-A: {regex: "b+"}}}, to: {respond: {}}}
- {name: query, match: {query: {a b: "c d"}}, to: {respond: {}}}
- {name: absent, match: {query: {x: {absent: true}}, headers: {X-A: {absent: true}}}, to: {respond: {}}}
- {name: present, match: {query: {x: {present: true}}}, to: {respond: {}}}
`), Config{})
	require.NoError(t, err)
	ix := newIndex(doc.routes)
	for _, c := range []struct {
		query string
		a     []string
		want  string
	}{
		{"", []string{"1"}, "exact"},
		{"x", []string{"1", "1"}, "present"},
		{"", []string{"1", "2"}, ""},
		{"", []string{"1, 1"}, ""},
		{"", []string{"v9"}, "prefix"},
		{"", []string{"bbb"}, "regex"},
		{"", []string{"abbb"}, ""},
		{"", nil, "absent"},
		{"a+b=c%20d", nil, "query"},
		{"%61%20b=c+d&x", nil, "query"},
		{"a+b=c+d&a%20b=e&x=1", nil, "present"},
		{"x=1&x=2", nil, "present"},
	} {
		r := httptest.NewRequest("GET", "/?"+c.query, nil)
		r.Header["X-A"] = c.a
		got := ""
		if rt := ix.find(r, "h", false); rt != nil {
			got = rt.name
		}
		require.Equal(t, c.want, got, "%s %q", c.query, c.a)
	}
}

// TestWhyNot holds that what is explained is so, for every kind of condition and whether it is there never, once or twice.
func TestWhyNot(t *testing.T) {
	for _, c := range []struct{ match, url, header, want string }{
		{"host: [a.x, '*.b']", "http://c.x/", "", "the host is c.x, it takes a.x, *.b"},
		{"path: /a", "/b", "", "the path is /b, it takes path /a"},
		{"prefix: /a", "/ab", "", "the path is /ab, it takes path /a or below"},
		{"template: '/a/{id}'", "/a", "", "the path is /a, it takes path /a/{id}"},
		{"regex: '/[ab]'", "/c", "", "the path is /c, it takes path like /[ab]"},
		{"methods: [PUT, GET]", "/", "", "the method is POST, it takes PUT, GET"},
		{"scheme: https", "http://h/", "", "the scheme is http, it takes https"},
		{"scheme: http", "https://h/", "", "the scheme is https, it takes http"},
		{"headers: {X-B: '1'}", "/", "", `header X-B must be exactly "1", but it is not there`},
		{"headers: {X-B: '1'}", "/", "2", `header X-B must be exactly "1", but it is not`},
		{"headers: {X-B: '1'}", "/", "1 1", `header X-B must be exactly "1", but it came 2 times`},
		{"headers: {X-B: {exact: '1'}}", "/", "2", `header X-B must be exactly "1", but it is not`},
		{"headers: {X-B: {prefix: v}}", "/", "", `header X-B must begin with "v", but it is not there`},
		{"headers: {X-B: {prefix: v}}", "/", "w", `header X-B must begin with "v", but it does not`},
		{"headers: {X-B: {prefix: v}}", "/", "v v", `header X-B must begin with "v", but it came 2 times`},
		{"headers: {X-B: {regex: v+}}", "/", "", `header X-B must be like "v+", but it is not there`},
		{"headers: {X-B: {regex: v+}}", "/", "w", `header X-B must be like "v+", but it is not`},
		{"headers: {X-B: {regex: v+}}", "/", "v v", `header X-B must be like "v+", but it came 2 times`},
		{"headers: {X-B: {present: true}}", "/", "", "header X-B must be there, but it is not there"},
		{"headers: {X-B: {absent: true}}", "/", "1", "header X-B must not be there, but it is"},
		{"headers: {X-B: {absent: true}}", "/", "1 2", "header X-B must not be there, but it is"},
		{"query: {q: '1'}", "/", "", `query parameter q must be exactly "1", but it is not there`},
		{"query: {q: '1'}", "/?q=2", "", `query parameter q must be exactly "1", but it is not`},
		{"query: {q: '1'}", "/?q=1&q=1", "", `query parameter q must be exactly "1", but it came 2 times`},
		{"query: {q: {prefix: v}}", "/?q=w", "", `query parameter q must begin with "v", but it does not`},
		{"query: {q: {regex: v+}}", "/?q=w", "", `query parameter q must be like "v+", but it is not`},
		{"query: {q: {present: true}}", "/?x", "", "query parameter q must be there, but it is not there"},
		{"query: {q: {absent: true}}", "/?q", "", "query parameter q must not be there, but it is"},
		{"query: {q: {absent: true}}", "/?q=1&q=2", "", "query parameter q must not be there, but it is"},
	} {
		doc, err := parse("f", []byte("routes: [{name: a, match: {"+c.match+"}, to: {respond: {}}}]"), Config{})
		require.NoError(t, err)
		r := httptest.NewRequest("POST", c.url, nil)
		for _, v := range strings.Fields(c.header) {
			r.Header.Add("X-B", v)
		}
		reason, _ := doc.routes[0].match.why(r, r.Host, r.URL.Scheme == "https")
		require.Equal(t, c.want, reason)
	}
}

func TestOrder(t *testing.T) {
	find := func(routes string) string {
		doc, err := parse("f", []byte("routes: ["+routes+"]"), Config{})
		require.NoError(t, err)
		return newIndex(doc.routes).find(httptest.NewRequest("GET", "/a/b", nil), "h", false).name
	}
	const (
		exact  = "{name: exact, match: {path: /a/b}, to: {respond: {}}},"
		prefix = "{name: prefix, match: {prefix: /a}, to: {respond: {}}},"
		regex  = "{name: regex, match: {regex: '/a/.*'}, to: {respond: {}}},"
		first  = "{name: first, priority: 1, to: {respond: {}}},"
		last   = "{name: last, priority: -1, to: {respond: {}}},"
	)
	require.Equal(t, "exact", find(exact+prefix+regex))
	require.Equal(t, "prefix", find(prefix+exact+regex))
	require.Equal(t, "regex", find(regex+prefix+exact))
	require.Equal(t, "first", find(exact+prefix+first))
	require.Equal(t, "exact", find(last+exact+prefix))
}

func TestParams(t *testing.T) {
	for _, c := range []struct {
		match, path string
		want        map[string]string // nil: it does not match
	}{
		{"template: '/users/{id}'", "/users/7", map[string]string{"id": "7"}},
		{"template: '/users/{id}'", "/users/a b;c?d", map[string]string{"id": "a b;c?d"}},
		{"template: '/users/{id}'", "/users/", nil},
		{"template: '/users/{id}'", "/users/7/", nil},
		{"template: '/users/{id}/'", "/users/7/", map[string]string{"id": "7"}},
		{"template: '/{a}/x/{b...}'", "/1/x/2/3/", map[string]string{"a": "1", "b": "2/3/"}},
		{"template: '/{a}/x/{b...}'", "/1/x/", map[string]string{"a": "1", "b": ""}},
		{"template: '/{a}/x/{b...}'", "/1/x", nil},
		{"regex: '/v(?P<major>\\d+)/(?P<rest>.*)'", "/v12/a/b", map[string]string{"major": "12", "rest": "a/b"}},
	} {
		doc, err := parse("f", []byte("routes: [{name: a, match: {"+c.match+"}, to: {respond: {}}}]"), Config{})
		require.NoError(t, err)
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = c.path
		rt := newIndex(doc.routes).find(r, "h", false)
		require.Equal(t, c.want != nil, rt != nil, c.path)
		if rt != nil {
			require.Equal(t, c.want, rt.match.path.values(c.path))
		}
	}
}

func TestRewrite(t *testing.T) {
	for _, c := range []struct {
		match, rewrite, path, want string // "" is refused
	}{
		{"prefix: /api", "strip_prefix: /api", "/api", "/"},
		{"prefix: /api", "strip_prefix: /api", "/api/", "/"},
		{"prefix: /api", "strip_prefix: /api/", "/api/x/", "/x/"},
		{"prefix: /", "strip_prefix: /", "/x", "/x"},
		{"prefix: /api", "replace_prefix: {from: /api, to: /v2/}", "/api", "/v2"},
		{"prefix: /api", "replace_prefix: {from: /api, to: /v2}", "/api/x", "/v2/x"},
		{"prefix: /api", "replace_prefix: {from: /, to: /v2}", "/api/x", "/v2/api/x"},
		{"template: '/a/{id}'", "path: '/b/{id}/c'", "/a/x y", "/b/x y/c"},
		{"template: '/a/{id}'", "path: '/b/{id}/c'", "/a/?x=#", "/b/?x=#/c"},
		{"template: '/a/{rest...}'", "path: '/b/{rest}'", "/a/", "/b/"},
		{"template: '/a/{rest...}'", "path: '/b/{rest}/c'", "/a/", "/b/c"},
		{"template: '/a/{rest...}'", "path: '/b{path}'", "/a/x", "/b/a/x"},
		{"regex: '/a(?P<dots>.*)'", "path: '/b/{dots}/c'", "/a..", ""},
		{"regex: '/a(?P<dots>.*)'", "path: '/b/.{dots}/c'", "/a.", ""},
		{"regex: '/a(?P<dots>.*)'", "path: '/b/{dots}'", "/a/x", "/b/x"},
		{"prefix: /", "regex: {match: '^/v(\\d+)/(.*)', to: '/$2/$1'}", "/v3/x", "/x/3"},
		{"prefix: /", "regex: {match: 'x', to: '..'}", "/a/x/b", ""},
		{"prefix: /", "regex: {match: '^/a', to: 'b'}", "/a", ""},
	} {
		doc, err := parse("f", []byte("routes: [{name: a, match: {"+c.match+"}, rewrite: {"+c.rewrite+"}, to: {url: 'http://a'}}]"), Config{})
		require.NoError(t, err)
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = c.path
		rt := newIndex(doc.routes).find(r, "h", false)
		require.NotNil(t, rt, c.path)
		got, err := rt.rewrite.apply(c.path, valuesOf(r, rt.match.path.values(c.path)))
		if c.want == "" {
			require.Equal(t, 400, gateway.ProblemOf(err).Status, "%s became %q", c.path, got)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
}

// TestWeights holds that any round has exactly the shares, evenly spread.
func TestWeights(t *testing.T) {
	require.Equal(t, []uint16{0, 0, 1, 0, 0}, schedule([]int{4, 1}))
	require.Equal(t, []uint16{0, 1, 0, 2, 0, 1, 0}, schedule([]int{4, 2, 1}))
	require.Len(t, schedule([]int{50, 50}), 2)
	require.NotContains(t, schedule([]int{1, 0}), uint16(1))

	doc, err := parse("f", []byte("routes: [{name: a, to: [{weight: 99, respond: {}}, {weight: 1, respond: {}}]}]"), Config{})
	require.NoError(t, err)
	rt := doc.routes[0]
	for range 5 {
		got := make(map[*target]int)
		for range 1000 {
			got[rt.pick(nil, nil)]++
		}
		require.Equal(t, 990, got[rt.targets[0]])
		require.Equal(t, 10, got[rt.targets[1]])
	}
}

func TestSticky(t *testing.T) {
	for how, change := range map[string]func(*http.Request, *gateway.Info, string){
		"client: true":   func(_ *http.Request, i *gateway.Info, _ string) {},
		"header: X-User": func(r *http.Request, _ *gateway.Info, key string) { r.Header.Set("X-User", key) },
		"cookie: user": func(r *http.Request, _ *gateway.Info, key string) {
			r.AddCookie(&http.Cookie{Name: "user", Value: key})
		},
	} {
		t.Run(how, func(t *testing.T) {
			doc, err := parse("f", []byte("routes: [{name: a, sticky: {"+how+"}, to: [{weight: 3, respond: {}}, {weight: 1, respond: {}}]}]"), Config{})
			require.NoError(t, err)
			rt := doc.routes[0]
			got := make(map[*target]int)
			for i := range 4000 {
				key := fmt.Sprintf("10.0.%d.%d", i/250, i%250)
				r, info := httptest.NewRequest("GET", "/", nil), &gateway.Info{Client: netip.MustParseAddr(key)}
				change(r, info, key)
				first := rt.pick(r, info)
				require.Same(t, first, rt.pick(r, info))
				got[first]++
			}
			require.InDelta(t, 3000, got[rt.targets[0]], 150)
		})
	}
}

// thousand are as many routes as in the promise, over hosts, prefixes, templates and exact paths.
func thousand(n int) string {
	var b strings.Builder
	b.WriteString("routes:\n")
	for i := range n {
		host := fmt.Sprintf("host: h%d.example.com, ", i%20)
		if i%5 == 0 {
			host = ""
		}
		path := []string{"path: /s%d/x", "prefix: /p%d", "template: '/t%d/{id}'", "template: '/u%d/{rest...}'"}[i%4]
		fmt.Fprintf(&b, "- {name: r%d, match: {%s"+path+"}, to: {respond: {}}}\n", i, host, i)
	}
	fmt.Fprintf(&b, "- {name: last, match: {prefix: /api, host: a.example.com, methods: GET}, to: {respond: {}}}\n")
	return b.String()
}

func benchIndex(t testing.TB, n int) (*index, *http.Request) {
	doc, err := parse("f", []byte(thousand(n)), Config{})
	require.NoError(t, err)
	ix, r := newIndex(doc.routes), httptest.NewRequest("GET", "/api/v1/things/7", nil)
	require.Equal(t, "last", ix.find(r, "a.example.com", false).name)
	return ix, r
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{0, 1000} {
		b.Run(fmt.Sprintf("routes=%d", n+1), func(b *testing.B) {
			ix, r := benchIndex(b, n)
			b.ReportAllocs()
			for b.Loop() {
				ix.find(r, "a.example.com", false)
			}
		})
	}
}

// TestThousandRoutesCostNothing: routes of other hosts and paths are not even looked at. How long it takes, make bench says.
func TestThousandRoutesCostNothing(t *testing.T) {
	many, r := benchIndex(t, 1000)
	require.Zero(t, testing.AllocsPerRun(100, func() { many.find(r, "a.example.com", false) }))

	doc, err := parse("f", []byte(thousand(1000)), Config{})
	require.NoError(t, err)
	ix := newIndex(doc.routes)
	for _, rt := range doc.routes {
		if rt.name != "last" { // who compares anything with it panics
			rt.match = matcher{path: pathMatch{kind: regexPath}, headers: []condition{{name: "Poison", kind: isLike}}}
		}
	}
	r.Header.Set("Poison", "1")
	require.Panics(t, func() { linear(doc.routes, r, "a.example.com", false) })
	require.Equal(t, "last", ix.find(r, "a.example.com", false).name)
}
