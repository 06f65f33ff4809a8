package rpc_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/rpc"
	"github.com/plugmicro/micro/registry"
)

func TestPathsLeadToEndpoints(t *testing.T) {
	w := newWorld(t)
	for path, want := range map[string]string{
		"/greeter":                   "called",
		"/greeter/hello":             "Hello, Ada",
		"/greeter/hello/":            "Hello, Ada",
		"//greeter/./hello":          "Hello, Ada",
		"/greeter/say-hello":         "Hello, Ada",
		"/greeter/greeter/say-hello": "Hello, Ada",
		"/greeter/Greeter.Hello":     "Hello, Ada",
		"/shop/cart/cart/add-item":   "added",
		"/shop/cart/Cart.AddItem":    "added",
		"/shop.cart/Cart.AddItem":    "added",
	} {
		a := w.do("POST", path, `{"name":"Ada"}`, jsonType)
		require.Equal(t, answer{200, a.header, `{"message":"` + want + `"}`}, a, path)
		require.Equal(t, "application/json", a.header.Get("Content-Type"))
		require.Equal(t, "nosniff", a.header.Get("X-Content-Type-Options"))
	}
	require.Equal(t, `"ADA"`, w.do("POST", "/greeter/Upper", `"Ada"`, jsonType).body, "an exact name without a dot")
}

func TestUnknown(t *testing.T) {
	w := newWorld(t, with(func(o *rpc.Options) { o.Services = []string{"greet*"} }))
	w.serve("greeting", "1.0.0", Cart{})
	require.Eventually(t, func() bool { return w.dir.Service("greeting") != nil }, soon, time.Millisecond)
	for path, want := range map[string]string{
		"/":                            "the path names no service: it is /SERVICE/ENDPOINT",
		"/greeter/helo":                "service greeter has no endpoint Greeter.Helo: did you mean Greeter.Hello?",
		"/greeter/Greeter.hello":       "service greeter has no endpoint Greeter.hello: did you mean Greeter.Hello?",
		"/greeter/zzzzzzzzzzz":         "service greeter has no endpoint Greeter.Zzzzzzzzzzz",
		"/greter/hello":                "there is no service greter: did you mean greeter?",
		"/shop.cart/Cart.AddItem":      "there is no service shop.cart",
		"/shop.car/Cart.AddItem":       "there is no service shop.car",
		"/_internal/Cart.AddItem":      "there is no service _internal",
		"/" + strings.Repeat("a", 2e3): "there is no service " + strings.Repeat("a", 97) + "…",
		"/" + strings.Repeat("ä", 500): "there is no service " + strings.Repeat("ä", 48) + "…", // not half of a 49th
	} {
		p := w.problem(w.do("POST", path, `{}`, jsonType))
		require.Equal(t, 404, p.Status)
		require.Equal(t, want, p.Detail, path)
	}
}

// TestPathsThatAreNotRemembered: a stranger can write one endpoint in any number of ways, of any length.
func TestPathsThatAreNotRemembered(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/greeter/hello", "/greeter/Hello", "/greeter/Greeter.Hello", "/greeter/hello-", "/greeter/-hello", "/greeter/--hello",
		"/greeter-/hello", "/greeter/" + strings.Repeat("-", 5000) + "hello"} {
		want := 200
		if strings.HasPrefix(path, "/greeter-/") { // the service's name is not changed
			want = 404
		}
		require.Equal(t, want, w.do("POST", path, `{"name":"Ada"}`, jsonType).status, path)
	}
	require.Equal(t, 3, w.handler.Found())
}

func TestMethods(t *testing.T) {
	w := newWorld(t)
	for _, method := range []string{"PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} {
		a := w.do(method, "/greeter/hello", "")
		require.Equal(t, 405, a.status)
		require.Equal(t, "GET, HEAD, POST", a.header.Get("Allow"))
		require.Equal(t, "greeter Greeter.Hello is called with POST or GET", w.problem(a).Detail)
	}
	a := w.do("GET", gateway.ExplicitPath, "")
	require.Equal(t, 405, a.status)
	require.Equal(t, "POST", a.header.Get("Allow"))
	a = w.do("HEAD", "/greeter/hello?name=Ada", "")
	require.Equal(t, 200, a.status)
	require.Empty(t, a.body)
	a = w.do("HEAD", "/greeter/count?zip=1", "")
	require.Equal(t, 405, a.status)
	require.Equal(t, "GET, POST", a.header.Get("Allow"))
}

func TestGet(t *testing.T) {
	w := newWorld(t)
	a := w.do("GET", "/greeter/hello?name=Ada", "")
	require.Equal(t, `{"message":"Hello, Ada"}`, a.body)
	require.Equal(t, "no-store", a.header.Get("Cache-Control"))
	require.Equal(t, `{"message":"Hello, "}`, w.do("GET", "/greeter/hello", "").body)
	all := "name=Ada&age=7&loud=true&rate=0.5&tags=a&tags=b&nums=1&labels.env=prod&key=AQI&from.city=Bonn&from.zip=53111"
	const want = `{"name":"Ada","age":7,"loud":true,"rate":0.5,"tags":["a","b"],"nums":[1],"labels":{"env":"prod"},"key":"AQI=","from":{"city":"Bonn","zip":53111}}`
	require.Equal(t, want, w.do("GET", "/greeter/echo?"+all, "").body)
	require.Equal(t, want, w.do("POST", "/greeter/echo?"+all, `{"age":8}`, jsonType).body, "POST takes them, too")
	require.Equal(t, want, w.do("GET", "/greeter/echo?"+strings.Replace(all, "name=Ada&", "", 1), `{"name":"Ada"}`, jsonType).body)
	p := w.problem(w.do("GET", "/greeter/echo?nam=Ada", ""))
	require.Equal(t, 400, p.Status)
	require.Equal(t, `parameter "nam" is unknown: did you mean name?`, p.Detail)
	p = w.problem(w.do("POST", "/greeter/Upper?value=x", "\n\x01a", "Content-Type: application/protobuf"))
	require.Equal(t, 415, p.Status)
}

func TestTypes(t *testing.T) {
	w := newWorld(t)
	ada, err := proto.Marshal(wrapperspb.String("Ada"))
	require.NoError(t, err)
	upper, err := proto.Marshal(wrapperspb.String("ADA"))
	require.NoError(t, err)
	for name, c := range map[string]struct {
		path, body, contentType string
		status                  int
		want                    string // the body, or the detail
	}{
		"JSON":                  {"/greeter/hello", `{"name":"Ada"}`, "application/json", 200, `{"message":"Hello, Ada"}`},
		"JSON with a charset":   {"/greeter/hello", `{"name":"Ada"}`, "Application/JSON; charset=UTF-8", 200, `{"message":"Hello, Ada"}`},
		"another charset":       {"/greeter/hello", `{}`, "application/json; charset=latin1", 415, `charset "latin1" is not taken: send application/json, application/protobuf or application/octet-stream`},
		"no type":               {"/greeter/hello", `{"name":"Ada"}`, "", 200, `{"message":"Hello, Ada"}`},
		"curl":                  {"/greeter/hello", `{"name":"Ada"}`, "application/x-www-form-urlencoded", 200, `{"message":"Hello, Ada"}`},
		"curl with a space":     {"/greeter/hello", " \n {\"name\":\"Ada\"}", "application/x-www-form-urlencoded", 200, `{"message":"Hello, Ada"}`},
		"a form":                {"/greeter/hello", `name=Ada`, "application/x-www-form-urlencoded", 415, `forms are not taken: send JSON, as in curl -d '{"name":"Ada"}'`},
		"a form with files":     {"/greeter/hello", `x`, "multipart/form-data; boundary=x", 415, `Content-Type "multipart/form-data" is not taken: send application/json, application/protobuf or application/octet-stream`},
		"text":                  {"/greeter/hello", `{}`, "text/plain", 415, `Content-Type "text/plain" is not taken: send application/json, application/protobuf or application/octet-stream`},
		"no type that is one":   {"/greeter/hello", `{}`, "x y", 415, `a Content-Type that is none is not taken: send application/json, application/protobuf or application/octet-stream`},
		"lines for a call":      {"/greeter/hello", `{}`, "application/x-ndjson", 415, `Content-Type "application/x-ndjson" is not taken: send application/json, application/protobuf or application/octet-stream`},
		"protobuf":              {"/greeter/Upper", string(ada), "application/protobuf", 200, string(upper)},
		"protobuf, the old way": {"/greeter/Upper", string(ada), "application/x-protobuf", 200, string(upper)},
		"protobuf, empty":       {"/greeter/Upper", "", "application/protobuf", 200, ""},
		"protobuf for Go":       {"/greeter/hello", "x", "application/protobuf", 400, "decode the request of Greeter.Hello: its type is no protobuf message: use application/json"},
		"bytes":                 {"/shop.cart/Cart.Blob", "\x00\x01", "application/octet-stream", 200, "\x00\x01"},
		"no JSON":               {"/greeter/hello", `{"name":`, "application/json", 400, "decode the request of Greeter.Hello: unexpected end of JSON input"},
		"JSON of another form":  {"/greeter/hello", `[]`, "application/json", 400, "decode the request of Greeter.Hello: json: cannot unmarshal array into Go value of type rpc_test.Hello"},
		"nothing":               {"/greeter/hello", "", "application/json", 200, `{"message":"Hello, "}`},
	} {
		t.Run(name, func(t *testing.T) {
			var headers []string
			if c.contentType != "" {
				headers = append(headers, "Content-Type: "+c.contentType)
			}
			a := w.do("POST", c.path, c.body, headers...)
			require.Equal(t, c.status, a.status, a.body)
			if c.status != 200 {
				require.Equal(t, c.want, w.problem(a).Detail)
				return
			}
			require.Equal(t, c.want, a.body)
			if strings.Contains(c.contentType, "protobuf") {
				require.Equal(t, "application/protobuf", a.header.Get("Content-Type"))
			}
		})
	}
	p := w.problem(w.do("POST", "/greeter/hello", "{}", jsonType, jsonType))
	require.Equal(t, 400, p.Status)
	p = w.problem(w.do("POST", "/greeter/hello", "{}", jsonType, "Content-Encoding: gzip"))
	require.Equal(t, 415, p.Status)
}

func TestAccept(t *testing.T) {
	w := newWorld(t)
	for accept, ok := range map[string]bool{
		"":                                  true,
		"*/*":                               true,
		"application/json":                  true,
		"application/*":                     true,
		"text/html, */*;q=0.1":              true,
		"text/html,application/json;q=0.9":  true,
		"text/html":                         false,
		"application/protobuf":              false,
		"application/json;q=0":              false,
		"application/json; q=0, */*":        false,
		"text/*, application/json;q=0.0001": true,
	} {
		var headers []string
		if accept != "" {
			headers = append(headers, "Accept: "+accept)
		}
		a := w.do("POST", "/greeter/hello", `{}`, append(headers, jsonType)...)
		if ok {
			require.Equal(t, 200, a.status, accept)
			continue
		}
		require.Equal(t, 406, w.problem(a).Status, accept)
	}
	require.EqualValues(t, 7, w.greeter.calls.Load(), "what nobody takes is not called")
}

func TestPagesOfOtherOrigins(t *testing.T) {
	vouched := false
	w := newWorld(t, middleware(func(_ *http.Request, info *gateway.Info) error {
		info.CrossOrigin = vouched
		return nil
	}))
	form := "Content-Type: application/x-www-form-urlencoded"
	own := "Origin: " + w.http.URL
	for name, c := range map[string]struct {
		method, path, body string
		headers            []string
		ok                 bool
	}{
		"curl":                              {"POST", "/greeter/hello", "{}", []string{form}, true},
		"a form of another site":            {"POST", "/greeter/hello", "{}", []string{form, "Sec-Fetch-Site: cross-site"}, false},
		"a form of a sibling":               {"POST", "/greeter/hello", "{}", []string{form, "Sec-Fetch-Site: same-site"}, false},
		"a form of the own site":            {"POST", "/greeter/hello", "{}", []string{form, "Sec-Fetch-Site: same-origin", "Origin: http://behind.a.proxy"}, true},
		"typed by hand":                     {"POST", "/greeter/hello", "{}", []string{form, "Sec-Fetch-Site: none"}, true},
		"an old browser":                    {"POST", "/greeter/hello", "{}", []string{form, "Origin: https://evil.example"}, false},
		"an old browser, own site":          {"POST", "/greeter/hello", "{}", []string{form, own}, true},
		"a sandboxed page":                  {"POST", "/greeter/hello", "{}", []string{form, "Origin: null"}, false},
		"no type":                           {"POST", "/greeter/hello", "{}", []string{"Origin: https://evil.example"}, false},
		"no body":                           {"POST", "/greeter/hello", "", []string{"Origin: https://evil.example"}, false},
		"the explicit path":                 {"POST", gateway.ExplicitPath, `{"service":"greeter","endpoint":"Greeter.Hello"}`, []string{form, "Origin: https://evil.example"}, false},
		"JSON, which a browser asks for":    {"POST", "/greeter/hello", "{}", []string{jsonType, "Sec-Fetch-Site: cross-site"}, true},
		"GET":                               {"GET", "/greeter/hello", "", []string{"Sec-Fetch-Site: cross-site"}, false},
		"GET of an old browser":             {"GET", "/greeter/hello", "", []string{"Origin: https://evil.example"}, false},
		"HEAD":                              {"HEAD", "/greeter/hello", "", []string{"Sec-Fetch-Site: cross-site"}, false},
		"GET of what is idempotent":         {"GET", "/greeter/read", "", []string{"Sec-Fetch-Site: cross-site"}, false},
		"GET of the own site":               {"GET", "/greeter/hello", "", []string{"Sec-Fetch-Site: same-origin"}, true},
		"GET of a stream":                   {"GET", "/greeter/count", "", []string{"Sec-Fetch-Site: cross-site"}, false},
		"two values are none that is known": {"GET", "/greeter/hello", "", []string{"Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			before := w.greeter.calls.Load()
			a := w.do(c.method, c.path, c.body, c.headers...)
			if c.ok {
				require.Equal(t, 200, a.status, a.body)
			} else {
				require.Equal(t, 403, a.status, a.body)
				require.Equal(t, before, w.greeter.calls.Load())
			}
			vouched = true
			defer func() { vouched = false }()
			require.Equal(t, 200, w.do(c.method, c.path, c.body, c.headers...).status, "a middleware knows the origin")
		})
	}
}

func TestExplicit(t *testing.T) {
	w := newWorld(t, with(func(o *rpc.Options) { o.Services = []string{"greeter"} }))
	for body, want := range map[string]string{
		`{"service":"greeter","endpoint":"Greeter.Hello","body":{"name":"Ada"}}`: `{"message":"Hello, Ada"}`,
		`{"service":"greeter","endpoint":"Greeter.Hello","body":null}`:           `{"message":"Hello, "}`,
		`{"service":"greeter","endpoint":"Greeter.Hello"}`:                       `{"message":"Hello, "}`,
		`{"service":"greeter","endpoint":"Upper","body":"ada"}`:                  `"ADA"`,
	} {
		a := w.do("POST", gateway.ExplicitPath, body)
		require.Equal(t, 200, a.status, a.body)
		require.Equal(t, want, a.body)
	}
	for body, want := range map[string]gateway.Problem{
		``:                                    {Status: 400, Detail: "the body is wrong"},
		`[]`:                                  {Status: 400, Detail: "the body is wrong"},
		`{}`:                                  {Status: 400, Detail: "names no service"},
		`{"service":"x"}`:                     {Status: 400, Detail: "names no service or no endpoint"},
		`{"method":"x"}`:                      {Status: 400, Detail: `unknown field "method"`},
		`{"service":"a","endpoint":"b"} {}`:   {Status: 400, Detail: "goes on after its end"},
		`{"service":"nobody","endpoint":"b"}`: {Status: 404, Detail: "there is no service nobody"},
		`{"service":"shop.cart","endpoint":"Cart.AddItem"}`:                     {Status: 404, Detail: "there is no service shop.cart"},
		`{"service":"greeter","endpoint":"greeter.hello"}`:                      {Status: 404, Detail: "did you mean Greeter.Hello?"},
		`{"service":"greeter","endpoint":"Greeter.Sum"}`:                        {Status: 400, Detail: "takes a stream"},
		`{"service":"greeter","endpoint":"Greeter.Fail","body":{"zip":5}}`:      {Status: 404, Detail: "as you say"},
		`{"service":"greeter","endpoint":"Greeter.Hello","body":{"name":"Ada"}`: {Status: 400, Detail: "the body is wrong"},
	} {
		p := w.problem(w.do("POST", gateway.ExplicitPath, body))
		require.Equal(t, want.Status, p.Status, body)
		require.Contains(t, p.Detail, want.Detail)
	}
	require.Equal(t, 415, w.do("POST", gateway.ExplicitPath, `{}`, "Content-Type: application/protobuf").status)
	require.Equal(t, 400, w.do("POST", gateway.ExplicitPath+"?x=1", `{}`).status)
	require.Equal(t, 406, w.do("POST", gateway.ExplicitPath, `{"service":"greeter","endpoint":"Greeter.Hello"}`, "Accept: text/html").status)
	a := w.do("POST", gateway.ExplicitPath, `{"service":"greeter","endpoint":"Greeter.Count","body":{"zip":2}}`)
	require.Equal(t, "{\"zip\":1}\n{\"zip\":2}\n", a.body, "a stream of answers")
}

func TestTargetOfARoute(t *testing.T) {
	target := &gateway.Target{Service: "shop.cart", Endpoint: "Cart.AddItem"}
	params := map[string]string{}
	w := newWorld(t, with(func(o *rpc.Options) { o.Services = []string{"nothing"} }),
		middleware(func(_ *http.Request, info *gateway.Info) error {
			info.Target, info.Params = target, params
			return nil
		}))
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		require.Equal(t, `{"message":"added"}`, w.do(method, "/anything", "").body, method)
	}
	require.Equal(t, 405, w.do("OPTIONS", "/anything", "").status)
	require.Equal(t, `{"message":"added"}`, w.do("POST", gateway.ExplicitPath, "").body, "a route goes before the explicit path")

	target, params = &gateway.Target{Service: "greeter", Endpoint: "Greeter.Echo"}, map[string]string{"name": "Ada", "from.zip": "7"}
	require.Equal(t, `{"name":"Ada","age":7,"from":{"zip":7}}`, w.do("PUT", "/users/Ada?age=7&name=Eve", `{"name":"Eve"}`, jsonType).body)
	require.Equal(t, 415, w.do("PUT", "/users/Ada", `x`, "Content-Type: application/protobuf").status)

	target, params = &gateway.Target{Service: "greeter", Endpoint: "Greeter.Nope"}, nil
	require.Equal(t, 404, w.problem(w.do("POST", "/x", "")).Status)

	other := &Greeter{}
	n := w.serve("greeter", "2.0.0", other)
	require.NotNil(t, n)
	require.Eventually(t, func() bool { return len(w.dir.Service("greeter")) == 2 }, soon, time.Millisecond)
	for _, version := range []string{"1.0.0", "2.0.0"} {
		target = &gateway.Target{Service: "greeter", Endpoint: "Greeter.Echo", Version: version}
		for range 10 {
			require.Equal(t, 200, w.do("POST", "/x", "").status)
		}
	}
	target = &gateway.Target{Service: "greeter", Endpoint: "Greeter.Hello", Version: "1.0.0"}
	before := w.greeter.calls.Load()
	for range 10 {
		require.Equal(t, 200, w.do("POST", "/x", "").status)
	}
	require.Equal(t, before+10, w.greeter.calls.Load())
	target = &gateway.Target{Service: "greeter", Endpoint: "Greeter.Hello", Version: "3.0.0"}
	require.Equal(t, 503, w.problem(w.do("POST", "/x", "")).Status)

	w.held()
	target = &gateway.Target{Service: "greeter", Endpoint: "Greeter.Hello", Version: "1.0.0", Timeout: 30 * time.Millisecond}
	require.Equal(t, 504, w.problem(w.do("POST", "/x", "")).Status)
	require.Equal(t, 504, w.problem(w.do("POST", "/x", "", "X-Request-Timeout: 1h")).Status, "no longer than the route lets it")
}

// TestTimeOfARouteIsNotAStreams: it is for calls, and for opening a stream, which then has the time that its client wants.
func TestTimeOfARouteIsNotAStreams(t *testing.T) {
	const beat, timeout = 20 * time.Millisecond, 50 * time.Millisecond
	w := newWorld(t, with(func(o *rpc.Options) { o.Heartbeat = beat }), middleware(func(_ *http.Request, info *gateway.Info) error {
		info.Target = &gateway.Target{Service: "greeter", Endpoint: "Greeter.Count", Timeout: timeout}
		return nil
	}))
	for _, header := range [][]string{{"Accept: text/event-stream"}, {"Accept: text/event-stream", "X-Request-Timeout: 1m"}} {
		in := bufio.NewReader(w.open("GET", "/x?zip=1&city=wait", nil, header...).Body)
		require.Equal(t, `data: {"zip":1}`, line(t, in))
		for range 4 * timeout / beat {
			require.Equal(t, "", line(t, in))
			require.Equal(t, ":", line(t, in))
		}
	}
}

// TestNodesWithoutTheEndpoint: while a version is rolled out, calls go to the nodes that have what is called.
func TestNodesWithoutTheEndpoint(t *testing.T) {
	w := newWorld(t)
	w.serve("greeter", "2.0.0", Cart{})
	require.Eventually(t, func() bool { return len(w.dir.Service("greeter")) == 2 }, soon, time.Millisecond)
	for range 20 {
		require.Equal(t, 200, w.do("POST", "/greeter/Cart.AddItem", "").status)
		require.Equal(t, 200, w.do("POST", "/greeter/hello", "").status)
	}
}

func TestErrorsOfEndpoints(t *testing.T) {
	w := newWorld(t)
	for code, want := range map[int]int{1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400,
		12: 501, 13: 500, 14: 503, 15: 500, 16: 401, -1: 500} {
		p := w.problem(w.do("POST", "/greeter/fail", fmt.Sprintf(`{"zip":%d}`, code), jsonType))
		require.Equal(t, want, p.Status, code)
		detail := "as you say"
		if code == 2 || code == -1 { // the text of an error without a code was not made for strangers
			detail = "service greeter failed: its log says more"
		}
		require.Equal(t, detail, p.Detail)
	}
}

func TestNoNode(t *testing.T) {
	w := newWorld(t)
	n := w.serve("lonely", "1.0.0", Cart{})
	require.Eventually(t, func() bool { return w.dir.Service("lonely") != nil }, soon, time.Millisecond)
	n.stop()
	p := w.problem(w.do("POST", "/lonely/Cart.AddItem", ""))
	require.Equal(t, 503, p.Status)
	require.Equal(t, "no node of service lonely can be reached", p.Detail, "and not where it was")
	n.deregister()
	require.Eventually(t, func() bool { return w.dir.Service("lonely") == nil }, soon, time.Millisecond)
	p = w.problem(w.do("POST", "/lonely/Cart.AddItem", ""))
	require.Equal(t, 503, p.Status, "a service that was there a moment ago is not unknown")
}

func TestConnectionLost(t *testing.T) {
	w := newWorld(t)
	n := w.serve("fragile", "1.0.0", w.greeter)
	require.Eventually(t, func() bool { return w.dir.Service("fragile") != nil }, soon, time.Millisecond)
	w.held()
	got := make(chan answer, 1)
	go func() { got <- w.do("POST", "/fragile/Greeter.Hello", "") }()
	require.Eventually(t, func() bool { return w.greeter.calls.Load() == 1 }, soon, time.Millisecond)
	n.conns.cut()
	a := <-got
	p := w.problem(a)
	require.Equal(t, 502, p.Status)
	require.Equal(t, "service fragile was lost before its answer came: what was asked may have been done", p.Detail)
}

func TestDeadline(t *testing.T) {
	w := newWorld(t, with(func(o *rpc.Options) { o.Timeout, o.MaxTimeout = time.Hour, time.Minute }))
	left := func(headers ...string) time.Duration {
		a := w.do("POST", "/greeter/told", "", headers...)
		require.Equal(t, 200, a.status, a.body)
		var told Told
		require.NoError(t, json.Unmarshal([]byte(a.body), &told))
		return told.Left
	}
	require.InDelta(t, time.Hour, left(), float64(soon))
	for text, want := range map[string]time.Duration{"30s": 30 * time.Second, "1m": time.Minute, "45": 45 * time.Second, "2.5": 2500 * time.Millisecond,
		"1.5s": 1500 * time.Millisecond, "9h": time.Minute, "1e30": time.Minute, "+Inf": time.Minute} {
		got := left("X-Request-Timeout: " + text)
		require.LessOrEqual(t, got, want, text)
		require.Greater(t, got, want-soon, text)
	}
	for _, text := range []string{"", "soon", "0", "-1s", "-5", "NaN", "1 s", "0s", "1e-30"} {
		require.Equal(t, 400, w.problem(w.do("POST", "/greeter/told", "", "X-Request-Timeout: "+text)).Status, text)
	}
	require.Equal(t, 400, w.do("POST", "/greeter/told", "", "X-Request-Timeout: 1s", "X-Request-Timeout: 2s").status)
	w.held()
	p := w.problem(w.do("POST", "/greeter/hello", "", "X-Request-Timeout: 30ms"))
	require.Equal(t, 504, p.Status)
	require.Equal(t, 504, w.do("GET", "/greeter/hello", "", "X-Request-Timeout: 0.03").status)
}

func TestBodyLimits(t *testing.T) {
	w := newWorld(t, with(func(o *rpc.Options) { o.MaxBody = 100 }))
	fits := `{"name":"` + strings.Repeat("x", 89) + `"}`
	require.Len(t, fits, 100)
	require.Equal(t, 200, w.do("POST", "/greeter/hello", fits, jsonType).status)
	p := w.problem(w.do("POST", "/greeter/hello", fits+" ", jsonType))
	require.Equal(t, 413, p.Status)
	require.Equal(t, "the body is larger than 100 bytes, which is the limit", p.Detail)
	for body, want := range map[string]string{fits: "200", fits + " ": "413"} {
		c := w.dial()
		fmt.Fprintf(c, "POST /greeter/hello HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
		line, err := bufio.NewReader(c).ReadString('\n')
		require.NoError(t, err)
		require.Contains(t, line, want)
	}
	c := w.dial()
	fmt.Fprintf(c, "POST /greeter/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n")
	line, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "413", "refused before it is sent")
}

// TestLargerThanTheServiceTakes: the transport has a limit of its own.
func TestLargerThanTheServiceTakes(t *testing.T) {
	w := newWorld(t, with(func(o *rpc.Options) { o.MaxBody = 64 << 20 }))
	p := w.problem(w.do("POST", "/greeter/hello", `{"name":"`+strings.Repeat("x", 5<<20)+`"}`, jsonType))
	require.Equal(t, 413, p.Status)
	require.Equal(t, "the request is larger than service greeter takes", p.Detail)
	for _, path := range []string{"/greeter/count", "/greeter/sum"} {
		p = w.problem(w.do("POST", path, `{"city":"`+strings.Repeat("x", 5<<20)+`"}`, jsonType))
		require.Equal(t, 413, p.Status, "%s: %s", path, p.Detail)
		require.Equal(t, "the request is larger than service greeter takes", p.Detail)
	}
	conn := w.socket("/greeter/sum", nil)
	say(t, conn, `{"city":"`+strings.Repeat("x", 5<<20)+`"}`)
	ends(t, conn, 1009, "the request is larger than service greeter takes")
}

func TestSlowBody(t *testing.T) {
	w := newWorld(t, func(w *world, _ *rpc.Options) { w.config.ReadTimeout = 50 * time.Millisecond })
	c := w.dial()
	fmt.Fprintf(c, "POST /greeter/hello HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{")
	rsp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	defer rsp.Body.Close()
	require.Equal(t, 408, rsp.StatusCode)
	text, err := io.ReadAll(rsp.Body)
	require.NoError(t, err)
	require.Contains(t, string(text), "the body did not come in time")
	require.True(t, rsp.Close)
}

func TestClientGone(t *testing.T) {
	w := newWorld(t)
	w.held()
	for i, head := range []string{
		"POST /greeter/hello HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
		"GET /greeter/hello HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		c := w.dial()
		io.WriteString(c, head)
		require.Eventually(t, func() bool { return w.greeter.calls.Load() == int64(i+1) }, soon, time.Millisecond)
		c.Close()
		require.Eventually(t, func() bool { return w.greeter.ended.Load() == int64(i+1) }, soon, time.Millisecond, "the call is cancelled")
		require.Eventually(t, func() bool { return w.status.Load() == gateway.ClientClosed }, soon, time.Millisecond)
		w.status.Store(0)
	}
	c := w.dial()
	io.WriteString(c, "POST /greeter/hello HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	c.Close()
	require.Eventually(t, func() bool { return w.status.Load() == gateway.ClientClosed }, soon, time.Millisecond, "in the middle of the body")
	require.EqualValues(t, 2, w.greeter.calls.Load())
}

func TestMetadata(t *testing.T) {
	w := newWorld(t, with(func(o *rpc.Options) {
		o.ForwardHeaders = []string{"authorization", "X-Tenant", "User", "Client-Ip", "Request-Id"}
	}),
		middleware(func(_ *http.Request, info *gateway.Info) error {
			info.SetMetadata("User", "ada")
			return nil
		}))
	a := w.do("POST", "/greeter/told", "", "Authorization: Bearer x", "X-Tenant: acme", "X-Tenant: other", "User: eve", "Client-Ip: 1.1.1.1",
		"Request-Id: forged", "Accept-Language: eo", "Cookie: c")
	var told Told
	require.NoError(t, json.Unmarshal([]byte(a.body), &told))
	require.Equal(t, map[string]string{"authorization": "Bearer x", "x-tenant": "acme, other", "user": "ada", "client-ip": "203.0.113.9", "request-id": "id-7"},
		told.Metadata)

	w = newWorld(t)
	a = w.do("POST", "/greeter/told", "", "Authorization: Bearer x", "Accept-Language: eo", "X-Tenant: acme")
	told = Told{}
	require.NoError(t, json.Unmarshal([]byte(a.body), &told))
	require.Equal(t, map[string]string{"authorization": "Bearer x", "accept-language": "eo", "client-ip": "203.0.113.9", "request-id": "id-7"}, told.Metadata)
}

// TestGuards: whatever way leads to an endpoint, middlewares are asked by its name.
func TestGuards(t *testing.T) {
	var asked []string
	w := newWorld(t, middleware(func(_ *http.Request, info *gateway.Info) error {
		info.Guard(func(service, endpoint string) error {
			asked = append(asked, service+" "+endpoint)
			return gateway.NewProblem(403, "no")
		})
		return nil
	}))
	for _, path := range []string{"/greeter/hello", "/greeter/Greeter.Hello", "/greeter/greeter/hello/", "//greeter/hello"} {
		require.Equal(t, 403, w.problem(w.do("POST", path, "")).Status)
	}
	require.Equal(t, 403, w.do("POST", gateway.ExplicitPath, `{"service":"greeter","endpoint":"Greeter.Hello"}`).status)
	require.Equal(t, []string{"greeter Greeter.Hello", "greeter Greeter.Hello", "greeter Greeter.Hello", "greeter Greeter.Hello", "greeter Greeter.Hello"}, asked)
	asked = nil
	for _, path := range []string{"/greeter/count", "/greeter/sum", "/greeter/chat"} {
		require.Equal(t, 403, w.do("POST", path, "").status)
	}
	require.Equal(t, 403, w.do("POST", gateway.ExplicitPath, `{"service":"greeter","endpoint":"Greeter.Count"}`).status)
	require.Equal(t, 403, w.do("GET", "/greeter/chat", "", handshake...).status)
	require.Equal(t, []string{"greeter Greeter.Count", "greeter Greeter.Sum", "greeter Greeter.Chat", "greeter Greeter.Count", "greeter Greeter.Chat"}, asked)
	require.Zero(t, w.greeter.calls.Load())
}

// TestRouteIsOneOfAFew: what logs and metrics go by is not made of what clients send.
func TestRouteIsOneOfAFew(t *testing.T) {
	var info *gateway.Info
	w := newWorld(t, middleware(func(_ *http.Request, i *gateway.Info) error {
		info = i
		return nil
	}))
	for path, want := range map[string]string{"/greeter/hello": "greeter Greeter.Hello", "/greeter/Greeter.Hello": "greeter Greeter.Hello",
		"/greeter/nope": "", "/x/y": "", "/": "", "/greeter/chat": "greeter Greeter.Chat"} {
		w.do("POST", path, "")
		require.Equal(t, want, info.Route, path)
	}
	w.do("POST", gateway.ExplicitPath, `{"service":"greeter","endpoint":"Greeter.Hello"}`)
	require.Equal(t, "greeter Greeter.Hello", info.Route)
	w.do("POST", gateway.ExplicitPath, `{"service":"greeter","endpoint":"Made.Up"}`)
	require.Equal(t, gateway.ExplicitPath, info.Route)
}

// TestWhatIsRememberedFollowsTheRegistry: looking up once is not looking up for ever.
func TestWhatIsRememberedFollowsTheRegistry(t *testing.T) {
	w := newWorld(t)
	require.Equal(t, 404, w.do("POST", "/late/Cart.AddItem", "").status)
	n := w.serve("late", "1.0.0", Cart{})
	require.Eventually(t, func() bool { return w.do("POST", "/late/Cart.AddItem", "").status == 200 }, soon, time.Millisecond)
	n.at.Endpoints = []*registry.Endpoint{{Name: "Cart.Other"}}
	require.NoError(t, w.store.Open().Register(n.at))
	require.Eventually(t, func() bool { return w.do("POST", "/late/Cart.AddItem", "").status == 404 }, soon, time.Millisecond)
	for i := range 1500 {
		path := "/greeter/hello" + strings.Repeat("-", i)
		require.Equal(t, 200, w.do("POST", path, "").status, "also when there is no more room for it")
	}
}

func TestLargeAnswer(t *testing.T) {
	w := newWorld(t)
	body := `{"name":"` + strings.Repeat("x", 1<<20) + `"}`
	a := w.do("POST", "/greeter/echo", body, jsonType)
	require.Equal(t, body, a.body)
	require.Equal(t, strconv.Itoa(len(body)), a.header.Get("Content-Length"))
}

// TestRegistryUnread: what is not known yet is not said not to exist.
func TestRegistryUnread(t *testing.T) {
	w := newWorld(t)
	closed := w.store.Open()
	require.NoError(t, closed.Close())
	h := rpc.New(w.client, followed(t, closed), rpc.Options{})
	w.handler = h
	require.Equal(t, 503, w.problem(w.do("POST", "/greeter/hello", "")).Status)
	require.NoError(t, h.Shutdown(context.Background()))
}
