package page_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/page"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
)

// do asks the page, as something that is no browser unless header says so.
func (r *rig) do(method, path, body string, header http.Header) *http.Response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	require.NoError(r.t, err)
	if header != nil {
		req.Header = header
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { res.Body.Close() })
	return res
}

func text(t testing.TB, res *http.Response) string {
	t.Helper()
	data, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return string(data)
}

func problem(t testing.TB, res *http.Response) gateway.Problem {
	t.Helper()
	require.Equal(t, "application/problem+json", res.Header.Get("Content-Type"))
	var p gateway.Problem
	require.NoError(t, json.NewDecoder(res.Body).Decode(&p))
	require.Equal(t, res.StatusCode, p.Status)
	return p
}

var asJSON = http.Header{"Content-Type": {"application/json"}}

func TestDirectoryIsNeeded(t *testing.T) {
	_, err := page.New(page.Options{})
	require.ErrorContains(t, err, "Directory")
}

func TestFiles(t *testing.T) {
	r := newRig(t)
	for path, typ := range map[string]string{
		"/": "text/html; charset=utf-8", "/app.js": "text/javascript; charset=utf-8", "/style.css": "text/css; charset=utf-8", "/icon.svg": "image/svg+xml",
	} {
		res := r.do("GET", path, "", nil)
		require.Equal(t, 200, res.StatusCode, path)
		require.Equal(t, typ, res.Header.Get("Content-Type"))
		require.Equal(t, "no-referrer", res.Header.Get("Referrer-Policy"))
		policy := res.Header.Get("Content-Security-Policy")
		require.Contains(t, policy, "default-src 'none'")
		require.Contains(t, policy, "frame-ancestors 'none'")
		require.NotContains(t, policy, "unsafe")
		require.NotEmpty(t, text(t, res))
		again := r.do("GET", path, "", http.Header{"If-None-Match": {res.Header.Get("Etag")}})
		require.Equal(t, http.StatusNotModified, again.StatusCode)
	}
	for _, path := range []string{"/static/app.js", "/index.html", "/x", "/api/x"} {
		require.Contains(t, problem(t, r.do("GET", path, "", nil)).Detail, path)
	}
}

// TestNothingFromElsewhere holds that the files load nothing from another place, and run nothing that is not in a file.
func TestNothingFromElsewhere(t *testing.T) {
	files, err := filepath.Glob("static/*")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, name := range files {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		content := strings.ReplaceAll(string(data), "http://www.w3.org/2000/svg", "")
		require.NotRegexp(t, `https?://|url\(|@import`, content, name)
		require.NotRegexp(t, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function`, content, name)
		if strings.HasSuffix(name, ".html") {
			require.NotRegexp(t, regexp.MustCompile(`(?i)\son\w+=|style=|<style|<script>`), content, name)
		}
	}
}

func TestCall(t *testing.T) {
	r := newRig(t)
	r.start("greeter", "1", 1, Greeter{})
	r.start("orders", "1", 1, Orders{})
	awaitService(r, "orders")
	res := r.do("POST", "/call?service=greeter&endpoint=Greeter.Hello", `{"name":"Ada"}`, asJSON)
	require.Equal(t, 200, res.StatusCode)
	require.JSONEq(t, `{"message":"Hello, Ada"}`, text(t, res))
	require.Contains(t, res.Header.Get("Content-Security-Policy"), "default-src 'none'")

	p := problem(t, r.do("POST", "/call?service=greeter&endpoint=Greeter.Hello", `{}`, asJSON))
	require.Equal(t, "InvalidArgument", p.Code)
	require.Contains(t, p.Detail, "whom to greet")
	require.Equal(t, "7", p.ID)
	for path, status := range map[string]int{
		"/call?service=greeter":        400,
		"/call?endpoint=Greeter.Hello": 400,
		"/call":                        400,
		"/call?service=nobody&endpoint=Greeter.Hello":     404,
		"/call?service=greeter&endpoint=Greeter.Nonsense": 404,
	} {
		require.Equal(t, status, problem(t, r.do("POST", path, `{}`, asJSON)).Status, path)
	}
	const hello = "/call?service=greeter&endpoint=Greeter.Hello"
	for _, typ := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"} {
		require.Equal(t, 415, problem(t, r.do("POST", hello, `{"name":"Ada"}`, http.Header{"Content-Type": {typ}})).Status, typ)
	}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		require.Equal(t, 405, problem(t, r.do(method, hello, "", asJSON)).Status, method)
	}
}

// TestTargetIsTheName holds that what is called is what the query names, however odd, and not what a path makes of it.
func TestTargetIsTheName(t *testing.T) {
	var got atomic.Pointer[gateway.Target]
	r := newRig(t, func(o *page.Options) {
		o.Call = http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
			got.Store(gateway.Of(req).Target)
			if req.URL.RawQuery != "" || req.URL.Path != "/" {
				panic("the query is not the call's: " + req.URL.String())
			}
		})
	})
	for _, name := range []string{"a/b", "..", "a b", "%2f", "</script>", "ä", "a;b", "a&endpoint=b", "#"} {
		res := r.do("POST", "/call?service="+url.QueryEscape(name)+"&endpoint="+url.QueryEscape(name), "{}", asJSON)
		require.Equal(t, 200, res.StatusCode)
		require.Equal(t, gateway.Target{Service: name, Endpoint: name}, *got.Load())
	}
}

func TestWhatIsNotGivenIsNotOffered(t *testing.T) {
	r := newRig(t, func(o *page.Options) { o.Call, o.Broker, o.Probe = nil, nil, nil })
	var about map[string]any
	require.NoError(t, json.NewDecoder(r.do("GET", "/api/about", "", nil).Body).Decode(&about))
	require.Equal(t, []any{false, false, false}, []any{about["calls"], about["events"], about["health"]})
	require.Equal(t, 501, problem(t, r.do("POST", "/call?service=a&endpoint=b", "{}", asJSON)).Status)
	require.Equal(t, 501, problem(t, r.do("GET", "/api/events?topic=a", "", nil)).Status)
	require.Equal(t, 501, problem(t, r.do("GET", "/api/health?service=a", "", nil)).Status)
}

// sse reads events until it was told enough.
type sse struct {
	t     testing.TB
	lines *bufio.Scanner
}

func (r *rig) follow(path string) *sse {
	r.t.Helper()
	res := r.do("GET", path, "", nil)
	require.Equal(r.t, 200, res.StatusCode)
	require.Equal(r.t, "text/event-stream", res.Header.Get("Content-Type"))
	s := &sse{t: r.t, lines: bufio.NewScanner(res.Body)}
	s.lines.Buffer(nil, 1<<20)
	return s
}

// next decodes the next event into v and returns its name; "" is the end.
func (s *sse) next(v any) string {
	s.t.Helper()
	name := ""
	for s.lines.Scan() {
		line := s.lines.Text()
		if n, ok := strings.CutPrefix(line, "event: "); ok {
			name = n
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			require.NoError(s.t, json.Unmarshal([]byte(data), v), data)
			return name
		}
	}
	return ""
}

// change is what the stream of services says.
type change struct {
	Ready    bool
	All      bool
	Services []struct {
		Name     string
		Versions []*registry.Service
		Paths    map[string]string
	}
	Gone []string
}

// awaitService waits until the page knows a service.
func awaitService(r *rig, name string) {
	r.t.Helper()
	s := r.follow("/api/services")
	for {
		var c change
		require.NotEmpty(r.t, s.next(&c))
		for _, x := range c.Services {
			if x.Name == name {
				return
			}
		}
	}
}

func TestServicesAreFollowed(t *testing.T) {
	r := newRig(t)
	s := r.follow("/api/services")
	var c change
	require.Equal(t, "services", s.next(&c))
	require.True(t, c.All)
	require.True(t, c.Ready)
	require.Empty(t, c.Services)

	stop := r.start("greeter", "1", 1, Greeter{})
	c = change{}
	s.next(&c)
	require.False(t, c.All)
	require.Len(t, c.Services, 1)
	require.Equal(t, "greeter", c.Services[0].Name)
	require.Equal(t, map[string]string{"Greeter.Hello": "/greeter/hello"}, c.Services[0].Paths)
	require.Len(t, c.Services[0].Versions[0].Nodes, 1)

	r.start("orders", "1", 1, Orders{})
	c = change{}
	s.next(&c)
	require.Len(t, c.Services, 1, "only what became different")
	require.Equal(t, "orders", c.Services[0].Name)

	stop()
	c = change{}
	s.next(&c)
	require.Equal(t, []string{"greeter"}, c.Gone)
	require.Empty(t, c.Services)
}

func TestHealth(t *testing.T) {
	r := newRig(t)
	r.start("greeter", "1", 2, Greeter{})
	r.register(&registry.Service{Name: "greeter", Version: "2", Nodes: []*registry.Node{{ID: "away", Address: "127.0.0.1:1"}}})
	awaitService(r, "greeter")
	var health struct {
		Nodes map[string]struct {
			Reachable bool
			Ms        float64
			Error     string
		}
	}
	require.Eventually(t, func() bool {
		require.NoError(t, json.NewDecoder(r.do("GET", "/api/health?service=greeter", "", nil).Body).Decode(&health))
		return len(health.Nodes) == 3
	}, soon, 10*time.Millisecond)
	require.True(t, health.Nodes["greeter-1-0"].Reachable)
	require.Positive(t, health.Nodes["greeter-1-1"].Ms)
	require.False(t, health.Nodes["away"].Reachable)
	require.Contains(t, health.Nodes["away"].Error, "nobody listens")
	require.JSONEq(t, `{"nodes":{}}`, text(t, r.do("GET", "/api/health?service=nobody", "", nil)), "only what is registered is dialled")
}

// message is what the stream of events says.
type message struct {
	ID, Key, Body string
	Header        map[string]string
	Binary, Cut   bool
	Size, Dropped int
}

func TestEvents(t *testing.T) {
	r := newRig(t)
	s := r.follow("/api/events?topic=greetings")
	require.Equal(t, "bound", s.next(new(any)))
	r.publish("greetings", &broker.Message{ID: "1", Key: "k", Header: map[string]string{"A": "b"}, Body: []byte(`{"name":"Ada"}`)})
	r.publish("other", &broker.Message{ID: "2"})
	r.publish("greetings", &broker.Message{ID: "3", Body: []byte{0xff, 0}})
	r.publish("greetings", &broker.Message{ID: "4", Body: []byte("a" + strings.Repeat("ä", 40_000))})
	var m message
	require.Equal(t, "message", s.next(&m))
	require.Equal(t, message{ID: "1", Key: "k", Body: `{"name":"Ada"}`, Header: m.Header, Size: 14}, m)
	require.Equal(t, "b", m.Header["A"])
	m = message{}
	s.next(&m)
	require.Equal(t, message{ID: "3", Body: "/wA=", Binary: true, Size: 2}, m)
	m = message{}
	s.next(&m)
	require.Equal(t, message{ID: "4", Body: "a" + strings.Repeat("ä", 16383), Cut: true, Size: 80_001}, m, "cut between characters")
}

func TestEventsThatCannotBe(t *testing.T) {
	r := newRig(t)
	require.Equal(t, 400, problem(t, r.do("GET", "/api/events", "", nil)).Status)
	require.Contains(t, problem(t, r.do("GET", "/api/events?topic=a+b", "", nil)).Detail, "a b")
	away := newRig(t, func(o *page.Options) {
		o.Broker = func() (broker.Broker, error) { return nil, errors.New("nobody answers at 10.0.0.1:9092") }
	})
	p := problem(t, away.do("GET", "/api/events?topic=a", "", nil))
	require.Equal(t, 503, p.Status)
	require.Contains(t, p.Detail, "10.0.0.1:9092")
}

// counting counts the subscriptions that are open.
type counting struct {
	broker.Broker
	open atomic.Int64
}

type counted struct {
	broker.Subscription
	of *counting
}

func (c *counting) Subscribe(ctx context.Context, topic string, h broker.Handler, opts ...broker.SubscribeOption) (broker.Subscription, error) {
	s, err := c.Broker.Subscribe(ctx, topic, h, opts...)
	if err == nil {
		c.open.Add(1)
	}
	return &counted{s, c}, err
}

func (c *counted) Close() error {
	c.of.open.Add(-1)
	return c.Subscription.Close()
}

func TestListenersAreBoundedAndLeaveNothing(t *testing.T) {
	var c counting
	r := newRig(t, func(o *page.Options) {
		open := o.Broker
		o.Broker = func() (_ broker.Broker, err error) {
			if c.Broker == nil {
				c.Broker, err = open()
			}
			return &c, err
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 16 {
		req, err := http.NewRequestWithContext(ctx, "GET", r.url+"/api/events?topic=a", nil)
		require.NoError(t, err)
		res, err := client.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		require.Equal(t, 200, res.StatusCode)
	}
	require.EqualValues(t, 16, c.open.Load())
	require.Equal(t, 429, problem(t, r.do("GET", "/api/events?topic=a", "", nil)).Status)
	cancel()
	require.Eventually(t, func() bool { return c.open.Load() == 0 }, soon, time.Millisecond)
	s := r.follow("/api/events?topic=a")
	require.Equal(t, "bound", s.next(new(any)))
}

func TestCloseEndsStreams(t *testing.T) {
	r := newRig(t)
	services, events := r.follow("/api/services"), r.follow("/api/events?topic=a")
	services.next(new(any))
	events.next(new(any))
	r.page.Close()
	require.Empty(t, services.next(new(any)))
	require.Empty(t, events.next(new(any)))
	r.page.Close()
}

// slow is a browser that takes nothing until goOn is closed.
type slow struct {
	header  http.Header
	waiting chan struct{} // closed when it was given something
	goOn    chan struct{}

	mu   sync.Mutex
	text []byte
}

func (s *slow) Header() http.Header { return s.header }
func (s *slow) WriteHeader(int)     {}
func (s *slow) Flush()              {}

func (s *slow) Write(b []byte) (int, error) {
	select {
	case <-s.goOn:
	default:
		close(s.waiting)
		<-s.goOn
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, b...)
	return len(b), nil
}

func (s *slow) got() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text)
}

// TestSlowBrowserHoldsUpNobody holds that a broker is not held up, that memory is bounded, and that what is lost is said.
func TestSlowBrowserHoldsUpNobody(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	s := &slow{header: http.Header{}, waiting: make(chan struct{}), goOn: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.page.ServeHTTP(s, httptest.NewRequestWithContext(ctx, "GET", "/api/events?topic=a", nil))
	}()
	<-s.waiting
	handled := make(chan struct{}, 1001)
	sub, err := r.broker.Subscribe(t.Context(), "a", func(context.Context, *broker.Message) error {
		handled <- struct{}{}
		return nil
	})
	require.NoError(t, err)
	defer sub.Close()
	for range 1000 {
		r.publish("a", &broker.Message{Key: "k", Body: []byte("x")})
	}
	for range 1000 {
		<-handled
	}
	close(s.goOn)
	r.publish("a", &broker.Message{ID: "the last", Key: "k"})
	require.Eventually(t, func() bool { return strings.Contains(s.got(), "the last") }, soon, time.Millisecond)
	cancel()
	<-done
	require.Less(t, strings.Count(s.got(), "event: message"), 1001)
	require.Regexp(t, `"dropped":\d{3}`, s.got())
}

func TestSecretsAreMasked(t *testing.T) {
	type config struct {
		Password plugin.Secret `default:"default-secret" help:"the password"`
		Address  string        `default:"127.0.0.1"`
	}
	type thing interface{ Thing() }
	catalog := plugin.NewCatalog()
	plugin.NewKindIn[thing](catalog, "thing")
	plugin.RegisterIn(catalog, "one", func(*plugin.Env, config) (thing, error) { return nil, nil })
	loader := plugin.NewLoader(catalog)
	require.NoError(t, loader.Parse([]string{"--thing=one", "--thing-password=hunter2", "--thing-address=10.0.0.1"}))
	settings, err := loader.Load(nil)
	require.NoError(t, err)
	r := newRig(t, func(o *page.Options) { o.Settings, o.Kinds = settings.All(), catalog.Kinds() })
	about := text(t, r.do("GET", "/api/about", "", nil))
	require.Contains(t, about, "10.0.0.1")
	require.Contains(t, about, "thing-password")
	require.NotContains(t, about, "hunter2")
	require.NotContains(t, about, "default-secret")
}
