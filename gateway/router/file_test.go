package router

import (
	"errors"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway"
)

// TestMistakes holds that what is wrong is told with its line, and what to do about it.
func TestMistakes(t *testing.T) {
	route := func(lines string) string {
		return "routes:\n- name: a\n  to: {url: http://a}\n" + lines
	}
	for name, c := range map[string]struct{ file, want string }{
		"no YAML":             {"routes:\n- name: [", "f:2: did not find"},
		"tabs":                {"routes:\n\t- name: a", "f:2: found character that cannot start"},
		"two documents":       {"routes: []\n---\nroutes: []", "f:2: a file has one document"},
		"empty":               {"", "f:1: it is empty"},
		"no mapping":          {"- a", "f:1: a mapping is wanted"},
		"an unknown key":      {"routs: []", "f:1: unknown key \"routs\": did you mean routes?"},
		"another":             {route("  prioritty: 3"), "f:4: unknown key \"prioritty\": did you mean priority?"},
		"one like nothing":    {"xyzzyxyz: []", "known are routes, upstreams"},
		"a key twice":         {route("  name: b"), "f:4: \"name\" is there twice"},
		"a name twice":        {route("- name: a\n  to: {url: http://a}"), "f:4: the route a is in line 2 already"},
		"no name":             {"routes:\n- to: {url: http://a}", "f:2: the route has no name"},
		"a bad name":          {"routes:\n- name: a b\n  to: {url: http://a}", "f:2: \"a b\" is no name"},
		"no target":           {"routes:\n- name: a", "f:2: the route leads nowhere"},
		"an empty target":     {"routes:\n- name: a\n  to: []", "f:2: the route leads nowhere"},
		"two targets in one":  {"routes:\n- name: a\n  to: {url: http://a, service_http: b}", "f:3: a target is one of"},
		"an alias":            {"routes:\n- &a\n  name: a\n  to: {url: http://a}\n- *a", "f:5: aliases are not supported"},
		"a number":            {route("  priority: high"), "f:4: \"high\" is not a whole number"},
		"a duration":          {route("  timeout: 5"), "f:4: \"5\" is no duration"},
		"a size":              {route("  max_body: many"), "f:4: \"many\" is not a size"},
		"a null":              {route("  timeout:"), "f:4: a plain value is wanted"},
		"a list for a value":  {route("  timeout: [1s]"), "f:4: a plain value is wanted"},
		"a path":              {route("  match: {path: a}"), "f:4: the path \"a\" must begin with a slash"},
		"an encoded path":     {route("  match: {path: /a%20b}"), "write it decoded"},
		"a path not normal":   {route("  match: {prefix: /a/../b}"), "is never asked for"},
		"two paths":           {route("  match: {prefix: /a, path: /b}"), "one of path, prefix, template and regex"},
		"a template":          {route("  match: {template: '/a{b}'}"), "is no parameter"},
		"a parameter twice":   {route("  match: {template: '/{b}/{b}'}"), "is there twice"},
		"a rest in between":   {route("  match: {template: '/{b...}/c'}"), "is the last part"},
		"a reserved name":     {route("  match: {template: '/{host}'}"), "cannot be a parameter"},
		"a regex":             {route("  match: {regex: '('}"), "is no regular expression"},
		"a regex of groups":   {route("  match: {regex: 'a)(b'}"), "is no regular expression"},
		"a regex that quotes": {route("  match: {regex: '\\Qa'}"), "is no regular expression"},
		"a host":              {route("  match: {host: A.example.com}"), "is no host"},
		"a host with a port":  {route("  match: {host: 'a:80'}"), "is no host"},
		"a wildcard inside":   {route("  match: {host: 'a.*.com'}"), "is no host"},
		"an address":          {route("  match: {host: '0:0::1'}"), "write ::1"},
		"a scheme":            {route("  match: {scheme: ftp}"), "neither http nor https"},
		"a method":            {route("  match: {methods: get}"), "write it like GET"},
		"a header":            {route("  match: {headers: {X_A: b}}"), "an underscore"},
		"the host as header":  {route("  match: {headers: {Host: b}}"), "by  host:"},
		"two conditions":      {route("  match: {headers: {A: {exact: b, prefix: c}}}"), "a condition has one of"},
		"no condition":        {route("  match: {query: {a: {}}}"), "a condition has one of"},
		"absent: false":       {route("  match: {query: {a: {absent: false}}}"), "write present: true"},
		"a weight":            {"routes:\n- name: a\n  to: [{url: http://a, weight: -1}]", "f:3: \"-1\" is not a whole number"},
		"no weight":           {"routes:\n- name: a\n  to: [{url: http://a, weight: 0}]", "f:2: all weights are 0"},
		"too much weight":     {"routes:\n- name: a\n  to: [{url: http://a, weight: 9999}, {url: http://b, weight: 2}]", "add up to 10001"},
		"a URL":               {"routes:\n- name: a\n  to: {url: ftp://a}", "f:3: ftp://a is no URL of an upstream"},
		"a password":          {"routes:\n- name: a\n  to: {url: 'http://u:secret@a'}", "has a password"},
		"a query":             {"routes:\n- name: a\n  to: {url: 'http://a?b'}", "has a query"},
		"no upstream":         {"upstreams: {shop: {url: http://a}}\nroutes:\n- name: a\n  to: {upstream: shp}", "f:4: there is no upstream \"shp\": did you mean shop?"},
		"an empty upstream":   {"upstreams: {shop: {}}\nroutes: []", "f:1: an upstream has either url or service_http"},
		"no endpoint":         {"routes:\n- name: a\n  to: {service: a}", "f:3: a service is called by its endpoint"},
		"an endpoint alone":   {"routes:\n- name: a\n  to: {url: http://a, endpoint: b}", "belong to service"},
		"a parameter unknown": {route("  rewrite: {path: '/{id}'}"), "f:4: {id} is no parameter of this route"},
		"a prefix not there":  {route("  match: {prefix: /b}\n  rewrite: {strip_prefix: /a}"), "f:5: no path that this route takes"},
		"two rewrites":        {route("  rewrite: {strip_prefix: /, path: /a}"), "rewritten in one way"},
		"a header not yours":  {route("  request_headers: {set: {X-Forwarded-For: a}}"), "is set by the gateway"},
		"a header of two":     {route("  response_headers: {set: {A: \"b\\nc\"}}"), "one line"},
		"a redirect":          {"routes:\n- name: a\n  to: {redirect: {to: '//evil.example'}}", "is never asked for"},
		"one by parameter":    {"routes:\n- name: a\n  match: {template: '/{h}'}\n  to: {redirect: {to: 'https://{h}/'}}", "is no location"},
		"one of a suffix":     {"routes:\n- name: a\n  match: {template: '/{h}'}\n  to: {redirect: {to: 'https://{host}{h}/'}}", "is no location"},
		"one with a user":     {"routes:\n- name: a\n  to: {redirect: {to: 'https://a@b/'}}", "is no location"},
		"one without a place": {"routes:\n- name: a\n  to: {redirect: {}}", "a redirect wants to"},
		"a body of nothing":   {"routes:\n- name: a\n  to: {respond: {status: 204, body: a}}", "has no body"},
		"a status":            {"routes:\n- name: a\n  to: {redirect: {to: /, status: 200}}", "is no status of a redirect"},
		"a retry":             {route("  retries: {on: [500]}"), "nothing that is tried again"},
		"a fraction":          {route("  mirror: {url: http://b, fraction: 2}"), "is no fraction"},
		"a mirror of nothing": {route("  mirror: {fraction: 1}"), "f:4: a mirror leads to one of"},
		"a mirror of two":     {"upstreams: {shop: {url: http://a}}\n" + route("  mirror: {url: http://b, upstream: shop}"), "f:5: a mirror leads to one of"},
		"one of others":       {route("  mirror: {url: http://b, service_http: c}"), "f:4: a mirror leads to one of"},
		"a mirror's version":  {"upstreams: {shop: {url: http://a}}\n" + route("  mirror: {upstream: shop, version: '1'}"), "f:5: version belongs to service_http"},
		"and of a URL":        {route("  mirror: {url: http://b, version: '1'}"), "f:4: version belongs to service_http"},
		"sticky by nothing":   {route("  sticky: {}"), "f:4: sticky goes by one of client, header and cookie"},
		"sticky by two":       {route("  sticky: {client: true, cookie: a}"), "f:4: sticky goes by one of client, header and cookie"},
		"not sticky":          {route("  sticky: {client: false}"), "f:4: write client: true"},
		"health of nothing":   {"upstreams: {shop: {url: http://a, health: {interval: 1s}}}\nroutes: []", "health wants the path"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse("f", []byte(c.file), Config{})
			require.ErrorContains(t, err, c.want)
			require.Regexp(t, `^f:\d+: `, err.Error())
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

// TestKeysOfTargets holds that a key which would do nothing is refused: who wrote it relies on it.
func TestKeysOfTargets(t *testing.T) {
	keys := map[string]string{
		"rewrite": "{host: x}", "idle_timeout": "1s", "retries": "{attempts: 1}", "mirror": "{url: http://m}",
		"request_headers": "{set: {A: b}}", "timeout": "1s", "max_body": "1B", "response_headers": "{set: {A: b}}",
	}
	kinds := map[string]string{
		"url": "{url: http://a}", "service_http": "{service_http: a}", "upstream": "{upstream: shop}",
		"service": "{service: a, endpoint: b}", "redirect": "{redirect: {to: /}}", "respond": "{respond: {}}",
	}
	heeded := map[string][]string{
		"url":      slices.Sorted(maps.Keys(keys)),
		"service":  {"max_body", "request_headers", "response_headers", "timeout"},
		"redirect": {"response_headers"},
	}
	heeded["service_http"], heeded["upstream"], heeded["respond"] = heeded["url"], heeded["url"], heeded["redirect"]
	read := func(key, to string) error {
		_, err := parse("f", []byte("upstreams: {shop: {url: http://a}}\nroutes:\n- name: a\n  to: "+to+"\n  "+key+": "+keys[key]+"\n"), Config{})
		return err
	}
	for kind, to := range kinds {
		for key := range keys {
			if err := read(key, to); slices.Contains(heeded[kind], key) {
				require.NoError(t, err, "%s of %s", key, kind)
			} else {
				require.ErrorContains(t, err, "f:5: "+key+" would do nothing here: it is for routes that lead to ", "%s of %s", key, kind)
			}
		}
	}
	require.NoError(t, read("rewrite", "[{url: http://a}, {service: a, endpoint: b}]"), "for some of what it leads to")
	require.ErrorContains(t, read("rewrite", "[{service: b, endpoint: b}, {service: a, endpoint: b}]"), "rewrite would do nothing here")
	require.NotContains(t, read("rewrite", "[{service: b}, {nix: a}]").Error(), "would do nothing", "it is not known where it leads")
	_, err := parse("f", []byte("routes: [{name: a, to: {respond: {}}}]"), Config{Timeout: 1, IdleTimeout: 1, MaxBody: 1})
	require.NoError(t, err, "settings are for all routes")
}

// TestAllMistakesAtOnce holds that mistakes come by their lines, though some are found later, and that the log is spared.
func TestAllMistakesAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.yaml")
	check := func(text string) []string {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return strings.Split(replace(checked(file).Error(), file, "f"), "\n")
	}
	require.Equal(t, []string{"f:3: \"x\" is not a whole number from -1000000 to 1000000", "f:5: a mirror leads to one of url, service_http and upstream"},
		check("routes:\n- name: a\n  priority: x\n  to: {url: http://a}\n  mirror: {fraction: 1}\n"), "neither hides the other")

	var lines []string
	for _, m := range check("routes:\n- name: a\n  priority: x\n  rewrite: {path: '/{b}'}\n  to: {upstream: gone}\n  timeout: y\n- nam: b\n") {
		lines = append(lines, m[:4])
	}
	require.Equal(t, []string{"f:3:", "f:4:", "f:5:", "f:6:", "f:7:", "f:7:", "f:7:"}, lines)

	require.Len(t, check("routes:\n"+strings.Repeat("- x\n", 1000)), 1000)
	many := "routes:\n" + strings.Repeat("- x\n", 1234)
	all := check(many)
	require.Len(t, all, 1001)
	require.Equal(t, "f: and 234 more", all[1000])

	f := start(t, "routes: []")
	err := f.router.load([]byte(many))
	require.Equal(t, 20, strings.Count(err.Error(), "\n"))
	require.ErrorContains(t, err, "and 1214 more")
}

// TestOneMistakeIsToldOnce: what is wrong with a value is not also told as if it were missing.
func TestOneMistakeIsToldOnce(t *testing.T) {
	for name, c := range map[string]struct{ route, want string }{
		"redirect":        {"to: {redirect: {to: '/{nix}'}}", "{nix} is no parameter"},
		"redirect's keys": {"to: {redirect: {too: /}}", "did you mean to?"},
		"regex":           {"to: {url: http://a}, rewrite: {regex: {match: '(', to: x}}", "missing closing )"},
		"prefix":          {"to: {url: http://a}, rewrite: {replace_prefix: {fro: /a, to: /b}}", "did you mean from?"},
		"mirror":          {"to: {url: http://a}, mirror: {url: [x]}", "is no URL"},
		"target":          {"to: {upstream: gone}", "there is no upstream"},
		"priority":        {"to: {url: http://a}, priority: x", "is not a whole number"},
		"name":            {"to: {url: http://a}, name: '!'", "is no name"},
	} {
		t.Run(name, func(t *testing.T) {
			route := c.route
			if name != "name" {
				route += ", name: a"
			}
			_, err := parse("f", []byte("routes: [{"+route+"}]"), Config{})
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestJSON(t *testing.T) {
	doc, err := parse("f", []byte("{\n\t\"routes\": [\n\t\t{\"name\": \"a\", \"match\": {\"path\": \"/a\"}, \"to\": {\"respond\": {\"body\": \"a\\u0020b\"}}}\n\t]\n}\n"), Config{})
	require.NoError(t, err)
	require.Equal(t, 3, doc.routes[0].line)
	require.Equal(t, "a b", doc.routes[0].targets[0].respond.body)
}

// TestDocumentation reads each example that users see.
func TestDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../docs/routes.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	require.GreaterOrEqual(t, len(blocks), 5)
	for _, b := range blocks {
		_, err := parse("docs/routes.md", []byte(b[1]), Config{})
		require.NoError(t, err, b[1])
	}

	source, err := os.ReadFile("router.go")
	require.NoError(t, err)
	_, example, ok := strings.Cut(string(source), "has all of them:\n//\n")
	require.True(t, ok)
	example, _, ok = strings.Cut(example, "//\n// # Order")
	require.True(t, ok)
	doc, err := parse("router.go", []byte(strings.ReplaceAll(strings.ReplaceAll(example, "//\t", ""), "//", "//")), Config{})
	require.NoError(t, err)
	require.Len(t, doc.routes, 3)
}

// TestEveryKeyIsDocumented finds the keys in the source, so that none is forgotten.
func TestEveryKeyIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/routes.md")
	require.NoError(t, err)
	files, err := filepath.Glob("file*.go")
	require.NoError(t, err)
	var source []byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		if !strings.HasSuffix(file, "_test.go") {
			source = append(source, text...)
		}
	}
	keys := regexp.MustCompile(`(?m)^\t+"([a-z_]+)": |known\["([a-z_]+)"\]`).FindAllStringSubmatch(string(source), -1)
	require.Greater(t, len(keys), 40)
	for _, k := range keys {
		require.Contains(t, string(page), "`"+k[1]+k[2]+"`")
	}
}

// checked is what is wrong with a file.
func checked(file string) error {
	_, err := Check(file)
	return err
}

func TestCheckAndExplain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`
upstreams:
  shop: {url: "http://10.0.0.1:8080"}
routes:
- name: beta
  match: {prefix: /cart, headers: {X-Beta: "1", X-Api-Key: hidden}}
  to: {url: "http://beta"}
- name: cart
  match: {template: "/cart/{id}", methods: GET, host: shop.example.com}
  rewrite: {path: "/v2/{id}"}
  to: [{upstream: shop, weight: 9}, {service: cart, endpoint: Cart.Get}]
- name: old
  match: {prefix: /old}
  to: {redirect: {to: "https://{host}/new"}}
- name: all
  to: {respond: {status: 404}}
`), 0o600))
	require.NoError(t, checked(file))

	e, err := Explain(file, httptest.NewRequest("GET", "http://Shop.example.com/x/../cart/7?a=b", nil))
	require.NoError(t, err)
	require.True(t, e.Matched)
	require.Equal(t, replace(`GET http://shop.example.com/cart/7?a=b
route cart takes it (FILE:8): path /cart/{id}, host shop.example.com, method GET
  id = "7"
  to (9 of 10) upstream shop (http://10.0.0.1:8080), path /v2/7
  to (1 of 10) endpoint Cart.Get of service cart
not route all (line 15): it matches, and comes later
not route beta (line 5): header X-Beta must be exactly "1", but it is not there
not route old (line 12): the path is /cart/7, it takes path /old or below
`, "FILE", file), e.String())
	require.Equal(t, []Destination{
		{Weight: 9, Upstream: "shop", URL: []string{"http://10.0.0.1:8080"}, Path: "/v2/7"},
		{Weight: 1, Service: "cart", Endpoint: "Cart.Get"},
	}, e.To)
	require.Equal(t, map[string]string{"id": "7"}, e.Params)
	require.Equal(t, Other{"old", 12, "the path is /cart/7, it takes path /old or below"}, e.Others[2])

	r := httptest.NewRequest("GET", "http://a/cart", nil)
	r.Header.Set("X-Beta", "1")
	e, err = Explain(file, r)
	require.NoError(t, err)
	require.True(t, e.Matched)
	require.Contains(t, e.String(), "X-Api-Key must be exactly ***, but it is not there")
	require.NotContains(t, e.String(), "hidden")

	e, err = Explain(file, httptest.NewRequest("GET", "http://a/old/x?q=1", nil))
	require.NoError(t, err)
	require.Contains(t, e.String(), "a redirect (302) to https://a/new?q=1")

	e, err = Explain(file, httptest.NewRequest("GET", "http://a/x", nil))
	require.NoError(t, err)
	require.Equal(t, []Destination{{Weight: 1, Status: 404}}, e.To)

	_, err = Explain(file, httptest.NewRequest("GET", "http://a/%2e%2e/x", nil))
	require.ErrorContains(t, err, "the gateway refuses the request")

	require.NoError(t, os.WriteFile(file, []byte("routes: [{}]"), 0o600))
	require.ErrorContains(t, checked(file), file+":1: the route has no name")
	_, err = Explain(file, httptest.NewRequest("GET", "/", nil))
	require.Error(t, err)
	require.ErrorIs(t, checked(file+"x"), os.ErrNotExist)
}

// TestExplainAllDestinations, also where a request would not get, and other routes than are shown.
func TestExplainAllDestinations(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.yaml")
	explain := func(routes, path string) *Explanation {
		require.NoError(t, os.WriteFile(file, []byte("routes:\n"+routes), 0o600))
		e, err := Explain(file, httptest.NewRequest("GET", "http://a"+path, nil))
		require.NoError(t, err)
		return e
	}
	for to, want := range map[string]string{
		"{service: a, endpoint: A.B, version: '1'}": "endpoint A.B of service a, version 1",
		"{service_http: a}":                         "the HTTP address of service a, path /x",
		"{service_http: a, version: '1'}":           "the HTTP address of service a, version 1, path /x",
		"{url: [http://b, http://c]}":               "http://b or http://c, path /x",
		"{redirect: {to: 'http://b/c'}}":            "a redirect (302) to http://b/c",
		"{respond: {status: 410}}":                  "an answer of 410",
	} {
		require.Contains(t, explain("- {name: all, to: "+to+"}", "/x").String(), "\n  to "+want+"\n")
	}
	climbs := explain("- {name: all, match: {regex: '/climb(?P<dots>.*)'}, rewrite: {path: '/{dots}/x'}, to: {url: http://b}}", "/climb..")
	require.Contains(t, climbs.To[0].Error, "cannot be rewritten")
	require.Contains(t, climbs.String(), "  to nothing: ")

	many := explain(strings.TrimPrefix(thousand(100), "routes:\n")+"- {name: gone, match: {host: b}, to: {respond: {}}}\n", "/nothing")
	require.False(t, many.Matched)
	require.Contains(t, many.String(), "\nno route takes it: ")
	require.NotContains(t, many.String(), "route gone", "nothing of it holds")
	require.Len(t, many.Others, 20, "all that have no host")
	require.Contains(t, many.String(), "\nand 15 others\n")
}

func TestConfig(t *testing.T) {
	good := Config{File: "f", Timeout: 1, IdleTimeout: 1}
	require.NoError(t, good.Validate())
	require.Error(t, Config{Timeout: 1, IdleTimeout: 1}.Validate())
	require.Error(t, Config{File: "f", IdleTimeout: 1}.Validate())
}

// FuzzParse holds that any file is read or refused, and what is read can be asked.
func FuzzParse(f *testing.F) {
	page, err := os.ReadFile("../../docs/routes.md")
	require.NoError(f, err)
	for _, b := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		f.Add(b[1], "/a/b")
	}
	f.Add("routes: [{name: a, match: {template: '/{a}/{b...}'}, rewrite: {path: '/x{b}/{a}'}, to: {url: http://a/b}}]", "/a/../b;c")
	f.Add("routes: [{name: a, match: {regex: '/(?P<x>.*)'}, rewrite: {regex: {match: '(.)', to: '$1$1'}}, to: {redirect: {to: '/{x}'}}}]", "/../x")
	f.Fuzz(func(t *testing.T, file, path string) {
		doc, err := parse("f", []byte(file), Config{})
		if err != nil {
			return
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = path
		host, err := gateway.Prepare(r)
		if err != nil {
			return
		}
		rt := newIndex(doc.routes).find(r, host, false)
		require.Equal(t, linear(doc.routes, r, host, false), rt)
		if rt == nil {
			return
		}
		params := rt.match.path.values(r.URL.Path)
		if to, err := rt.rewrite.apply(r.URL.Path, valuesOf(r, params)); err == nil {
			require.True(t, isNormal(to), "%q", to)
		} else {
			require.True(t, errors.As(err, new(*gateway.Problem)))
		}
		for _, target := range rt.targets {
			if target.redirect != nil {
				if to, err := target.redirect.location(r, params); err == nil {
					require.Regexp(t, `^(/([^/]|$)|https?://[^/]+(/([^/]|$)|$|\?))`, to)
				}
			}
		}
	})
}

func TestWarnings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.yaml")
	for _, c := range []struct {
		before, match string
		want          bool
	}{
		{"{}", "{prefix: /a, host: x}", true},
		{"{prefix: /}", "{template: '/{a}'}", true},
		{"{prefix: /a}", "{path: /a}", true},
		{"{prefix: /a}", "{prefix: /a/b, methods: GET}", true},
		{"{prefix: /a}", "{template: '/a/{b}/c'}", true},
		{"{prefix: /a}", "{path: /ab}", false},
		{"{prefix: /a/b}", "{template: '/a/{b}'}", false},
		{"{prefix: /a}", "{regex: '/a/b'}", false},
		{"{prefix: /a}", "{}", false},
		{"{path: /a}", "{path: /a, query: {q: b}}", true},
		{"{template: '/{a}'}", "{template: '/{a}'}", true},
		{"{template: '/{a}'}", "{path: /a}", false},
		{"{regex: /a+}", "{regex: /a+}", true},
		{"{prefix: /a, methods: GET}", "{path: /a}", false},
		{"{prefix: /a, scheme: http}", "{path: /a}", false},
		{"{prefix: /a, headers: {X: y}}", "{path: /a}", false},
		{"{prefix: /a, query: {x: y}}", "{path: /a}", false},
		{"{host: [x, y]}", "{host: y, path: /a}", true},
		{"{host: '*'}", "{path: /a}", true},
		{"{host: x}", "{path: /a}", false},
		{"{host: x}", "{host: [x, y]}", false},
	} {
		text := "routes:\n- {name: first, match: " + c.before + ", to: {respond: {}}}\n- {name: second, match: " + c.match + ", to: {respond: {}}}\n"
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		found, err := Check(file)
		require.NoError(t, err)
		var want []string
		if c.want {
			want = []string{file + ":3: nothing gets to route second: route first (line 2) comes before and takes all of it"}
		}
		require.Equal(t, want, found, text)
	}
	require.NoError(t, os.WriteFile(file, []byte("routes: [{name: a, to: {respond: {}}}, {name: b, priority: 1, to: {respond: {}}, match: {path: /b}}]"), 0o600))
	found, err := Check(file)
	require.NoError(t, err)
	require.Empty(t, found, "it has a higher priority")
}
