package page_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/gateway/page"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
)

// open is the endpoint that is opened, within which the other selectors look.
const open = "details.endpoint[open] "

// button finds one by its text.
func button(text string) string {
	return fmt.Sprintf("[...document.querySelectorAll(%s)].find((b) => b.textContent === %s && b.offsetParent)", quote(open+"button, .single button"), quote(text))
}

func TestServicesShowByThemselves(t *testing.T) {
	r := newRig(t)
	b := r.open("")
	b.sees("No service is registered")
	b.sees("Live")
	stop := r.start("greeter", "1.0.0", 2, Greeter{})
	b.until(`document.querySelector(".list a .meta")?.textContent === "1.0.0 · 2 nodes"`)
	require.Equal(t, "1 service", value[string](b, `document.querySelector(".found").textContent`))
	b.click(".list a")
	b.sees("Greeter.Hello")
	b.sees("127.0.0.1:")
	b.until(`[...document.querySelectorAll("td.reach")].filter((x) => /^reachable in \d/.test(x.textContent)).length === 2`)
	b.sees("2 registered, 2 reachable")
	require.Equal(t, "greeter · Micro gateway", value[string](b, "document.title"))
	stop()
	b.sees("Its last node has left the registry")
	r.start("greeter", "1.0.1", 1, Greeter{})
	b.sees("1 registered, 1 reachable")
	require.False(t, value[bool](b, `document.body.innerText.includes("Its last node")`))
	b.clean()
}

func TestUnreachableNode(t *testing.T) {
	r := newRig(t)
	r.register(&registry.Service{Name: "away"})
	b := r.open("#/s/away")
	b.sees("not reachable")
	b.sees("nobody listens")
	b.sees("It registered no endpoints")
	b.clean()
}

// TestCallByKeyboard does everything with the keys, and holds that the focus can be seen wherever it is.
func TestCallByKeyboard(t *testing.T) {
	r := newRig(t)
	r.start("greeter", "1", 1, Greeter{})
	b := r.open("")
	b.sees("greeter")
	tabTo := func(wanted string) {
		t.Helper()
		for range 40 {
			b.press(kb.Tab)
			require.Equal(t, "solid", value[string](b, `getComputedStyle(document.activeElement).outlineStyle`), value[string](b, "document.activeElement.outerHTML"))
			if value[bool](b, "document.activeElement.matches("+quote(wanted)+")") {
				return
			}
		}
		require.Fail(t, "no way to "+wanted)
	}
	b.press(kb.Tab)
	require.Equal(t, "Skip to content", value[string](b, "document.activeElement.textContent"))
	require.Positive(t, value[float64](b, "document.activeElement.getBoundingClientRect().top"), "it shows when it has the focus")
	tabTo(".list a")
	b.press(kb.Enter)
	b.until(`document.activeElement.tagName === "H1"`)
	tabTo("details.endpoint > summary")
	b.press(kb.Enter)
	b.until(`document.querySelector("details.endpoint[open] form.call")`)
	tabTo("form.call input[type=text]")
	b.press("Ada")
	tabTo("form.call button[type=submit]")
	b.press(kb.Enter)
	b.sees("200 OK")
	b.sees(`"Hello, Ada"`)
	require.Equal(t, "status", value[string](b, `document.querySelector("form.call .status").getAttribute("role")`), "it is read out")
	tabTo("pre[tabindex]") // a long answer can be scrolled
	b.clean()
}

func TestProblemIsShown(t *testing.T) {
	r := newRig(t)
	r.start("greeter", "1", 1, Greeter{})
	b := r.open("#/s/greeter/Greeter.Hello")
	b.click("form.call button[type=submit]")
	b.sees("400 Bad Request")
	b.sees("name is empty: whom to greet?")
	b.sees("InvalidArgument")
	require.Equal(t, "7", value[string](b, `document.querySelector(".problem p:last-child code").textContent`), "under which it is in the logs")
	b.clean("400 (Bad Request)")
}

func TestForm(t *testing.T) {
	r := newRig(t)
	r.start("orders", "1", 1, Orders{})
	b := r.open("#/s/orders/Orders.Place")
	field := func(name, text string) {
		t.Helper()
		b.writeInto(fmt.Sprintf("[...document.querySelectorAll('form.call label')].find((l) => l.textContent.startsWith(%s) && l.offsetParent)?.control", quote(name)), text)
	}
	press := func(text string) { t.Helper(); b.clickOn(button(text)) }
	b.until(`document.querySelector("form.call")`)
	field("id", "9007199254740993") // more than JavaScript can count
	field("total", "1.5e3")
	field("note", `{"a":[1]}`)
	field("token", "AAE=")
	value[any](b, `document.querySelector("form.call details.group > summary").click()`)
	b.until(`document.querySelector("form.call details.group .fields").childElementCount`)
	field("name", "Ada \"the\" <b>")
	press("Add to lines")
	b.until(`document.querySelectorAll("form.call .row .fields .field").length === 2`)
	field("article", "tea")
	field("count", "2")
	press("Add to labels")
	field("key", "env")
	field("value 1", "prod")
	press("Call")
	b.sees("200 OK")
	require.JSONEq(t, `{"id":9007199254740993,"customer":{"name":"Ada \"the\" <b>","emails":null,"address":{"city":""}},"lines":[{"article":"tea","count":2}],
		"paid":false,"total":1500,"labels":{"env":"prod"},"note":{"a":[1]},"token":"AAE="}`, value[string](b, `document.querySelector(".answer pre").textContent`))
	require.Contains(t, value[string](b, `document.querySelector(".answer pre").textContent`), "9007199254740993")

	value[any](b, `document.querySelector("form.call [role=switch]").click()`)
	raw := `document.querySelector("form.call textarea.code").value`
	require.JSONEq(t, `{"id":9007199254740993,"customer":{"name":"Ada \"the\" <b>"},"lines":[{"article":"tea","count":2}],"total":1.5e3,"labels":{"env":"prod"},"note":{"a":[1]},"token":"AAE="}`, value[string](b, raw))
	require.Contains(t, value[string](b, raw), "9007199254740993")
	value[any](b, `(document.querySelector("form.call textarea.code").value = '{"id": 9007199254740995, "paid": true, "customer": {"emails": ["a", "b"]}}', 0)`)
	value[any](b, `document.querySelector("form.call [role=switch]").click()`)
	press("Call")
	b.until(`document.querySelector(".answer pre").textContent.includes("9007199254740995")`)
	require.JSONEq(t, `{"id":9007199254740995,"customer":{"name":"","emails":["a","b"],"address":{"city":""}},"lines":null,"paid":true,"total":0,"labels":null,"note":null,"token":null}`,
		value[string](b, `document.querySelector(".answer pre").textContent`))

	field("total", "much")
	press("Call")
	b.sees("total: a number is wanted")
	require.Equal(t, "true", value[string](b, `document.activeElement.getAttribute("aria-invalid")`), "the focus is where something is wrong")
	b.clean()
}

// TestEntriesStay holds that a service that changes does not take away what was entered.
func TestEntriesStay(t *testing.T) {
	r := newRig(t)
	stop := r.start("greeter", "1", 1, Greeter{})
	b := r.open("#/s/greeter/Greeter.Hello")
	b.until(`document.querySelector("form.call input")`)
	b.write("form.call input[type=text]", "Ad")
	r.start("greeter", "2", 1, Greeter{})
	b.sees("2 registered")
	stop()
	b.until(`document.querySelector("tbody").childElementCount === 1`)
	b.press("a")
	require.Equal(t, "Ada", value[string](b, `document.querySelector("form.call input[type=text]").value`))
	b.press(kb.Enter)
	b.sees("Hello, Ada")
	b.clean()
}

func TestStreamIsShownAndStopped(t *testing.T) {
	r := newRig(t)
	r.start("numbers", "1", 1, Numbers{})
	b := r.open("#/s/numbers/Numbers.Count")
	b.click(open + "button[type=submit]")
	b.until(`document.querySelectorAll(".items li").length >= 3`)
	require.Equal(t, `{"value": 1}`, value[string](b, `document.querySelector(".items li code").textContent`))
	require.Equal(t, "Stop", value[string](b, "document.activeElement.textContent"), "the focus is on what can be done now")
	b.press(kb.Enter)
	b.sees("Stopped after")
	require.Equal(t, "Start", value[string](b, "document.activeElement.textContent"))

	b.write(open+"input[type=text]", "3"+kb.Enter)
	b.sees("Complete · 3 answers")
	b.write(open+"input[type=text]", kb.Backspace+"13"+kb.Enter) // which fails after 13
	b.sees("13 brings bad luck")
	require.Equal(t, 13, value[int](b, `document.querySelectorAll(".items li").length`), "what came before it stays")
	b.write(open+"input[type=text]", kb.Backspace+kb.Backspace+"1000"+kb.Enter)
	b.sees("Complete · 1,000 answers")
	require.Equal(t, 200, value[int](b, `document.querySelectorAll(".items li").length`), "what is shown is bounded")
	b.sees("The last 200 are shown")
	b.clean()
}

func TestStreamsOfRequests(t *testing.T) {
	r := newRig(t)
	r.start("numbers", "1", 1, Numbers{})
	b := r.open("#/s/numbers/Numbers.Square")
	b.write(open+"input[type=text]", "3")
	b.click(open + "button[type=submit]")
	b.sees(`{"value": 9}`)
	b.write(open+"input[type=text]", "0")
	b.clickOn(button("Send"))
	b.sees(`{"value": 900}`)
	b.clickOn(button("End sending"))
	b.sees("Complete · 2 requests, 2 answers")

	b.show("#/s/numbers/Numbers.Sum")
	value[any](b, `document.querySelectorAll("details.endpoint[open]").forEach((d) => { d.open = d.textContent.startsWith("Numbers.Sum"); })`)
	b.write(open+"input[type=text]", "7")
	b.click(open + "button[type=submit]")
	b.sees("1 request sent")
	b.clickOn(button("Send"))
	b.sees("2 requests sent")
	b.clickOn(button("End sending"))
	b.sees("Complete · 2 requests, 1 answer")
	b.sees(`{"value": 14}`)
	b.clean()
}

func TestEventsAreShown(t *testing.T) {
	r := newRig(t)
	b := r.open("#/events")
	b.write(".topic input", "greetings"+kb.Enter)
	b.sees("Listening to greetings")
	b.sees("micro publish greetings")
	r.publish("greetings", &broker.Message{Key: "ada", Header: map[string]string{"Content-Type": "application/json"}, Body: []byte(`{"name":"Ada"}`)})
	b.sees(`{"name": "Ada"}`)
	b.sees("1 event")
	for i := range 250 {
		r.publish("greetings", &broker.Message{Body: fmt.Appendf(nil, "number %d.", i)})
		if i%50 == 49 { // more would be dropped, if the browser is slow
			b.sees(fmt.Sprintf("number %d.", i))
		}
	}
	b.sees("251 events")
	b.sees("number 249.")
	require.Equal(t, 200, value[int](b, `document.querySelectorAll(".events > li").length`))
	require.Equal(t, "number 249.", value[string](b, `document.querySelector(".events pre").textContent`), "the newest first")
	b.clickOn(button("Stop"))
	b.sees("Stopped after 251 events")
	b.write(".topic input", " no topic"+kb.Enter)
	b.sees("400 Bad Request")
	b.sees("Not listening")
	b.clean("400 (Bad Request)")
}

func TestLostConnection(t *testing.T) {
	r := newRig(t)
	r.start("greeter", "1", 1, Greeter{})
	b := r.open("#/events")
	b.sees("Live")
	b.write(".topic input", "greetings"+kb.Enter)
	b.sees("Listening to greetings")
	r.hangUp()
	b.sees("Connection lost: trying again")
	b.sees("Connection lost, trying again…")
	r.serve()
	b.sees("Live")
	b.until(`document.querySelector(".single .status").textContent === "Listening to greetings"`)
	r.publish("greetings", &broker.Message{Body: []byte("again")})
	b.sees("again")
	b.clean("ERR_")
}

// TestNothingIsKnownWithoutConnection holds that nodes are not shown as reachable by what was known once.
func TestNothingIsKnownWithoutConnection(t *testing.T) {
	r := newRig(t)
	r.start("greeter", "1", 2, Greeter{})
	b := r.open("#/s/greeter")
	b.sees("2 registered, 2 reachable")
	r.hangUp()
	b.sees("Connection lost, trying again…")
	b.sees("2 registered when the connection was lost")
	require.Equal(t, []string{"not known any more", "not known any more"}, value[[]string](b, `[...document.querySelectorAll("td.reach")].map((e) => e.textContent)`))
	require.Zero(t, value[int](b, `document.querySelectorAll("main .good").length`))
	r.serve()
	b.sees("2 registered, 2 reachable")
	b.clean("ERR_")
}

func TestUnknownViews(t *testing.T) {
	r := newRig(t)
	r.start("greeter", "1", 1, Greeter{})
	b := r.open("#/bogus/%3Cb%3E")
	b.sees("There is no such view")
	b.sees("#/bogus/%3Cb%3E")
	require.Equal(t, "No such view · Micro gateway", value[string](b, "document.title"))
	require.Zero(t, value[int](b, `document.querySelectorAll("nav [aria-current]").length`))
	b.clickOn(`[...document.querySelectorAll("main a")].find((a) => a.textContent === "All services")`)
	b.sees("Choose one")
	b.show("#/bogus")
	b.until(`document.activeElement.textContent === "There is no such view"`)
	b.show("#/events")
	b.sees("Topic")
	b.show("#main")
	b.sees("Topic")
	b.clean()
}

// TestShortViewsDoNotScroll holds that a view which fits has nothing to scroll, and that the bar of one that does not
// moves nothing when it comes.
func TestShortViewsDoNotScroll(t *testing.T) {
	r := newRig(t)
	b := r.open("")
	for _, size := range [][2]int64{{1280, 860}, {360, 740}} {
		b.size(size[0], size[1])
		for at, text := range map[string]string{"#/": "No service is registered", "#/events": "Name a topic", "#/bogus": "no such view"} {
			b.show(at)
			b.sees(text)
			require.LessOrEqual(t, value[int](b, "document.documentElement.scrollHeight"), int(size[1]), at)
		}
	}
	require.Equal(t, "visible stable", value[string](b, `((s) => s.overflowY + " " + s.scrollbarGutter)(getComputedStyle(document.documentElement))`))
	b.clean()
}

func TestManyServices(t *testing.T) {
	r := newRig(t)
	for i := range 200 {
		r.register(&registry.Service{Name: fmt.Sprintf("service-%03d", i), Version: "1", Endpoints: []*registry.Endpoint{{Name: fmt.Sprintf("Thing%d.Do", i)}}})
	}
	b := r.open("")
	b.sees("200 services")
	b.write(".filter input", "service-12")
	b.until(`document.querySelectorAll(".list li").length === 10`)
	b.sees("10 of 200")
	r.register(&registry.Service{Name: "service-12x"})
	b.sees("11 of 201")
	require.Equal(t, "INPUT", value[string](b, "document.activeElement.tagName"))
	value[any](b, `document.querySelector(".filter input").select()`)
	b.press("thing7.do") // an endpoint
	b.sees("1 of 201")
	b.press(kb.Enter)
	b.until(`document.querySelector("h1").textContent === "service-007"`)
	value[any](b, `((e) => { e.value = ""; e.dispatchEvent(new Event("input")); })(document.querySelector(".filter input"))`)
	b.show("#/plugins")
	b.sees("Secrets are masked")
	b.show("#/s/service-150")
	b.until(`((a, l) => a && a.bottom <= l.bottom && a.top >= l.top)(document.querySelector(".list [aria-current]")?.getBoundingClientRect(), document.querySelector(".list").getBoundingClientRect())`)
	b.clean()
}

func TestPlugins(t *testing.T) {
	type config struct {
		Password plugin.Secret `help:"the password"`
		Address  string        `default:"127.0.0.1"`
		Patience time.Duration `default:"5s" help:"how long it waits"`
		Colour   string        `help:"of the paint"`
	}
	type thing interface{ Thing() }
	catalog := plugin.NewCatalog()
	plugin.NewKindIn[thing](catalog, "thing", plugin.KindDoc("what there is"))
	plugin.RegisterIn(catalog, "one", func(*plugin.Env, config) (thing, error) { return nil, nil }, plugin.Doc("the first"))
	plugin.RegisterIn(catalog, "two", func(*plugin.Env, config) (thing, error) { return nil, nil })
	loader := plugin.NewLoader(catalog)
	require.NoError(t, loader.Parse([]string{"--thing=one", "--thing-password=hunter2"}))
	settings, err := loader.Load([]string{"MICRO_THING_ADDRESS=10.0.0.1"})
	require.NoError(t, err)
	r := newRig(t, func(o *page.Options) { o.Settings, o.Kinds = settings.All(), catalog.Kinds() })
	b := r.open("#/plugins")
	b.sees("what there is")
	b.sees("the first")
	b.sees("10.0.0.1")
	b.sees("environment MICRO_THING_ADDRESS")
	b.sees("***")
	b.sees("flag --thing-password")
	b.sees("Also linked: two")
	require.NotContains(t, value[string](b, "document.documentElement.outerHTML"), "hunter2")

	shown := `[...document.querySelectorAll(".kind th[scope=row] code")].filter((e) => e.checkVisibility()).map((e) => e.textContent)`
	require.Equal(t, []string{"thing-password", "thing-address"}, value[[]string](b, shown), "what was set, by the names that one sets it by")
	b.sees("2 of 5 settings set")
	b.click(".defaults > summary")
	b.sees("thing-patience")
	require.Equal(t, []string{"thing-password", "thing-address", "thing-patience", "thing-colour"}, value[[]string](b, shown))
	b.click(".defaults > summary")
	b.write(".filter input", "waits")
	b.sees("1 of 5 settings")
	require.Equal(t, []string{"thing-patience"}, value[[]string](b, shown), "what is looked for is found among the defaults too")
	value[any](b, `document.querySelector(".filter input").select()`)
	b.press("password")
	b.sees("1 of 5 settings")
	require.Equal(t, []string{"thing-password"}, value[[]string](b, shown))
	require.False(t, value[bool](b, `document.body.innerText.includes("at the default")`), "there is none among them")
	b.press(" nowhere")
	b.sees("0 of 5 settings")
	require.Empty(t, value[[]string](b, shown))
	value[any](b, `((e) => { e.value = ""; e.dispatchEvent(new Event("input")); })(document.querySelector(".filter input"))`)
	require.Equal(t, []string{"thing-password", "thing-address"}, value[[]string](b, shown))
	b.clean()
}

// hostile are texts that become something else where they are not taken for text.
var hostile = []string{
	`<img src=x onerror="window.pwned=1">`, `"><script>window.pwned=1</script>`, `javascript:window.pwned=1`, `';window.pwned=1;'`, `{{constructor.constructor('window.pwned=1')()}}`,
	`<svg/onload=window.pwned=1>`, `__proto__`, `constructor`, `hasOwnProperty`, `../../x`, `a/b?c#d`, `%00%3Cscript%3E`, "\u202egnp.exe", strings.Repeat("w", 250),
}

// TestHostileText holds that nothing which a service registers, answers or publishes is more than text.
func TestHostileText(t *testing.T) {
	r := newRig(t)
	for _, text := range hostile {
		var endpoints []*registry.Endpoint
		for _, name := range hostile {
			v := &registry.Value{Type: name, Values: []*registry.Value{{Name: name, Type: "string"}, {Name: name, Type: name, Values: []*registry.Value{{Name: name, Type: "[]map[string]" + name}}}}}
			endpoints = append(endpoints, &registry.Endpoint{Name: name, Request: v, Response: v, Metadata: map[string]string{registry.MetadataStream: name}})
		}
		r.register(&registry.Service{Name: text, Version: text, Endpoints: endpoints, Metadata: map[string]string{text: text},
			Nodes: []*registry.Node{{ID: text, Address: text, Metadata: map[string]string{text: text}}}})
	}
	r.start("greeter", "1", 1, Greeter{})
	b := r.open("")
	b.sees(fmt.Sprintf("%d services", len(hostile))) // without the internal one, with the greeter
	for _, text := range hostile {
		if strings.HasPrefix(text, "_") {
			continue
		}
		value[any](b, `(location.hash = "#/s/" + encodeURIComponent(`+quote(text)+`), 0)`)
		b.until(`document.querySelector(".detail h1")?.textContent === ` + quote(text))
		b.until(`document.querySelectorAll("details.endpoint").length === ` + fmt.Sprint(len(hostile)))
		value[any](b, `document.querySelectorAll("details").forEach((d) => { d.open = true; })`)
		b.until(`document.querySelectorAll("form.call").length === ` + fmt.Sprint(len(hostile)))
		value[any](b, `document.querySelectorAll("details").forEach((d) => { d.open = true; })`)
		value[any](b, `document.querySelector("form.call button[type=submit]").click()`)
		b.until(`document.querySelector(".problem")`)
		require.LessOrEqual(t, value[int](b, "document.documentElement.scrollWidth"), 1280, "%s: %q", text, value[[]string](b, wide))
	}
	b.show("#/s/greeter/Greeter.Hello")
	for _, text := range hostile {
		b.until(`document.querySelector("h1").textContent === "greeter" && document.querySelector("form.call input")`)
		value[any](b, `(document.querySelector("form.call input[type=text]").value = `+quote(text)+`, document.querySelector("form.call").requestSubmit(), 0)`)
		b.until(`document.querySelector(".answer").textContent.includes(JSON.stringify("Hello, " + ` + quote(text) + `))`)
	}
	b.show("#/events")
	b.write(".topic input", "a"+kb.Enter)
	b.sees("Listening to a")
	for _, text := range hostile {
		r.publish("a", &broker.Message{ID: text[:min(len(text), 200)], Key: text[:min(len(text), 200)], Header: map[string]string{"x" + text[:min(len(text), 100)]: text}, Body: []byte(text)})
		b.until(`document.querySelector(".events pre")?.textContent === ` + quote(text))
	}
	require.LessOrEqual(t, value[int](b, "document.documentElement.scrollWidth"), 1280)
	require.False(t, value[bool](b, `"pwned" in window || document.querySelectorAll("main script, main img, main svg, main iframe").length > 0`))
	b.clean("404 (Not Found)", "400 (Bad Request)", "501 (Not Implemented)", "503 (Service Unavailable)")
}

// TestPolicyHolds holds that the browser would not run what came in by a way that was overlooked.
func TestPolicyHolds(t *testing.T) {
	r := newRig(t)
	b := r.open("")
	b.sees("Live")
	for _, attack := range []string{
		`document.body.innerHTML = "<img src=x onerror=window.pwned=1>"`,
		`document.body.append(Object.assign(document.createElement("script"), {text: "window.pwned=1"}))`,
		`setTimeout("window.pwned=1")`,
		`document.body.append(Object.assign(document.createElement("img"), {src: "http://127.0.0.1:1/x"}))`,
		`fetch("http://127.0.0.1:1/x").catch(() => {})`,
	} {
		value[any](b, `(() => { try { `+attack+` } catch (e) { return String(e) } return 0 })()`)
	}
	value[any](b, `(setTimeout(() => { window.later = true; }, 50), 0)`)
	b.until("window.later")
	require.False(t, value[bool](b, `"pwned" in window`))
	b.mu.Lock()
	defer b.mu.Unlock()
	refused := 0
	for _, p := range b.problems {
		if strings.Contains(p, "Content Security Policy") || strings.Contains(p, "TrustedHTML") || strings.Contains(p, "TrustedScript") {
			refused++
		}
	}
	require.GreaterOrEqual(t, refused, 4, "%q", b.problems)
}

// TestNarrowScreens holds that nothing is cut off where there is little room, and that it can be touched.
func TestNarrowScreens(t *testing.T) {
	r := newRig(t)
	r.start("greeter", "1.0.0", 2, Greeter{})
	r.start("orders", "1", 1, Orders{})
	r.register(&registry.Service{Name: strings.Repeat("long-name-", 20), Version: "1"})
	b := r.open("")
	b.size(360, 740)
	fits := func(what string) {
		t.Helper()
		require.LessOrEqual(t, value[int](b, "document.documentElement.scrollWidth"), 360, what)
	}
	b.sees("3 services")
	fits("the list")
	b.show("#/s/orders/Orders.Place")
	b.sees("reachable in")
	value[any](b, `document.querySelectorAll("form.call details, .fieldlist").forEach((d) => { d.open = true; })`)
	value[any](b, `document.querySelectorAll("form.call button.small").forEach((x) => x.click())`)
	b.until(`document.querySelectorAll("form.call .row").length >= 2`)
	b.click(open + "button[type=submit]")
	b.sees("200 OK")
	fits("a service")
	require.GreaterOrEqual(t, value[float64](b, `document.querySelector("form.call button[type=submit]").offsetHeight`), 36.0)
	b.click(".back")
	b.sees("3 services")
	b.show("#/s/" + strings.Repeat("long-name-", 20))
	b.sees("It registered no endpoints")
	fits("a long name")
	b.show("#/events")
	b.write(".topic input", "a"+kb.Enter)
	b.sees("Listening to a")
	r.publish("a", &broker.Message{Body: []byte(strings.Repeat("x", 1000)), Key: strings.Repeat("k", 200)})
	b.sees("1 event")
	fits("events")
	b.show("#/plugins")
	b.sees("Secrets are masked")
	fits("plugins")
	b.clean()
}

// contrast is the texts that are harder to read than WCAG 2.2 AA allows.
const contrast = `(() => {
	const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
	const rgb = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
	const light = (c) => { const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return rgb("Canvas"); };
	const bad = [];
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walker.nextNode()) {
		const e = walker.currentNode.parentElement;
		if (!walker.currentNode.textContent.trim() || !e.checkVisibility() || e.closest(":disabled, noscript")) continue;
		const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (ratio < 4.5) bad.push(ratio.toFixed(2) + " " + e.className + " " + walker.currentNode.textContent.slice(0, 40));
	}
	return bad;
})()`

// nameless is what can be operated and has no name that is read out.
const nameless = `[...document.querySelectorAll("input, textarea, button, a[href], summary, [tabindex='0']")].filter((e) => e.checkVisibility() &&
	!(e.getAttribute("aria-label") || e.labels?.length && e.labels[0].textContent.trim() || e.textContent.trim())).map((e) => e.outerHTML)`

func TestEverybodyCanReadIt(t *testing.T) {
	r := newRig(t, func(o *page.Options) { o.Kinds = plugin.Linked.Kinds() })
	r.start("orders", "1", 2, Orders{}, Numbers{})
	r.register(&registry.Service{Name: "away"})
	b := r.open("")
	b.sees("2 services")
	for _, theme := range []string{"light", "dark"} {
		command(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}})
		check := func(what string) {
			t.Helper()
			require.Empty(t, value[[]string](b, contrast), "%s, %s", what, theme)
			require.Empty(t, value[[]string](b, nameless), "%s, %s", what, theme)
			require.Equal(t, 1, value[int](b, `[...document.querySelectorAll("h1")].filter((e) => e.checkVisibility()).length`), what)
		}
		b.show("#/")
		b.sees("Choose one")
		check("the list")
		b.show("#/s/orders/Orders.Place")
		b.sees("reachable in")
		value[any](b, `document.querySelectorAll("form.call details, .fieldlist").forEach((d) => { d.open = true; })`)
		value[any](b, `document.querySelectorAll("form.call button.small").forEach((x) => x.click())`)
		b.click(open + "button[type=submit]")
		b.sees("200 OK")
		check("a service")
		b.show("#/s/away")
		b.sees("not reachable")
		check("a service that is away")
		b.show("#/events")
		b.sees("Topic")
		check("events")
		b.show("#/plugins")
		b.sees("Secrets are masked")
		check("plugins")
	}
	b.clean()
}

// wide is what reaches out of the window.
const wide = `[...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > innerWidth && !e.closest(".scroll, pre, .items")).map((e) => e.outerHTML.slice(0, 200))`
