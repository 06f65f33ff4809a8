package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// gateway starts one on free ports, and returns where it is.
func (m *machine) gateway(args ...string) (p *process, public, admin string) {
	m.t.Helper()
	p = m.start("micro", append([]string{"gateway", "--gateway-address=127.0.0.1:0", "--gateway-admin-address=127.0.0.1:0"}, args...)...)
	line := p.err.until(m.t, "the gateway serves")
	found := regexp.MustCompile(`address=(\S+) admin=(\S+)`).FindStringSubmatch(line)
	require.NotNil(m.t, found, line)
	return p, "http://" + found[1], "http://" + found[2]
}

func (m *machine) http(method, url, body string) (status int, text string) {
	m.t.Helper()
	req, err := http.NewRequestWithContext(m.t.Context(), method, url, strings.NewReader(body))
	require.NoError(m.t, err)
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	require.NoError(m.t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(m.t, err)
	return resp.StatusCode, string(data)
}

func TestGateway(t *testing.T) {
	m := newMachine(t)
	m.greeter()
	p, public, admin := m.gateway()
	status, body := m.http("POST", public+"/greeter/hello", `{"name":"Ada"}`)
	require.Equal(t, http.StatusOK, status, body)
	require.JSONEq(t, `{"message":"Hello, Ada"}`, body)
	status, body = m.http("GET", public+"/greeter/hello?name=Ada", "")
	require.Equal(t, http.StatusOK, status, body)
	require.JSONEq(t, `{"message":"Hello, Ada"}`, body)
	status, _ = m.http("POST", public+"/nobody/hello", "{}")
	require.Equal(t, http.StatusNotFound, status)
	_, body = m.http("GET", public+"/openapi.json", "")
	require.Contains(t, body, "/greeter/hello")
	_, body = m.http("GET", admin+"/metrics", "")
	require.Contains(t, body, `micro_gateway_requests_total{code="200",method="POST",route="greeter Greeter.Hello"} 1`)
	status, _ = m.http("GET", admin+"/", "")
	require.Equal(t, http.StatusOK, status)

	r := m.micro("api", "--gateway-address="+strings.TrimPrefix(public, "http://"), "--gateway-admin-address=off")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "is taken, perhaps by another gateway: stop that one, or listen elsewhere with --gateway-address")

	p.cmd.Process.Signal(syscall.SIGTERM)
	p.err.until(t, "stopped")
	require.Equal(t, exitOK, p.end(), "it was stopped in order")
}

func TestGatewayWithMiddlewares(t *testing.T) {
	m := newMachine(t)
	m.greeter()
	_, public, admin := m.gateway("--gateway-middleware=ipallow,headers", "--middleware-headers-security", "--middleware-ipallow-allow=10.0.0.0/8")
	status, body := m.http("POST", public+"/greeter/hello", `{"name":"Ada"}`)
	require.Equal(t, http.StatusForbidden, status, body)
	status, _ = m.http("GET", public+"/openapi.json", "")
	require.Equal(t, http.StatusForbidden, status)
	for _, path := range []string{"/healthz", "/readyz"} {
		status, body = m.http("GET", public+path, "")
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "ok\n", body)
	}
	status, _ = m.http("GET", admin+"/openapi.json", "")
	require.Equal(t, http.StatusOK, status)
}

// TestGatewayRefusesAnOrder that has requests get past a middleware.
func TestGatewayRefusesAnOrder(t *testing.T) {
	m := newMachine(t)
	file := filepath.Join(t.TempDir(), "routes.yaml")
	require.NoError(t, os.WriteFile(file, []byte(routes), 0o600))
	m.env = append(m.env, "MICRO_GATEWAY_MIDDLEWARE=headers,router,ipallow,cors", "MICRO_MIDDLEWARE_ROUTER_FILE="+file,
		"MICRO_MIDDLEWARE_IPALLOW_ALLOW=10.0.0.0/8", "MICRO_MIDDLEWARE_CORS_ORIGINS=https://a.example", "MICRO_MIDDLEWARE_HEADERS_SECURITY=true")
	r := m.micro("gateway", "--gateway-address=127.0.0.1:0", "--gateway-admin-address=off")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "gateway-middleware: router answers requests itself, which then get past ipallow, because that comes after it "+
		"(environment MICRO_GATEWAY_MIDDLEWARE): write --gateway-middleware=headers,ipallow,cors,router\n")
}

// TestGatewayTraces has a request and the call that is made of it in one trace, which the log names.
func TestGatewayTraces(t *testing.T) {
	m := newMachine(t)
	m.greeter()
	p, public, _ := m.gateway("--tracer=stdout")
	status, _ := m.http("POST", public+"/greeter/hello", `{"name":"Ada"}`)
	require.Equal(t, http.StatusOK, status)
	found := regexp.MustCompile(`trace_id=([0-9a-f]{32})`).FindStringSubmatch(p.err.until(t, "INFO request"))
	require.NotNil(t, found)
	p.cmd.Process.Signal(syscall.SIGTERM)
	require.Equal(t, exitOK, p.end())
	for _, name := range []string{"greeter/Greeter.Hello", "POST greeter Greeter.Hello"} {
		require.Regexp(t, `(?m)^{"Name":"`+name+`","SpanContext":{"TraceID":"`+found[1]+`"`, p.err.text())
	}
}

// TestGatewaySettings are of the gateway alone.
func TestGatewaySettings(t *testing.T) {
	m := newMachine(t)
	file := filepath.Join(t.TempDir(), "micro.yaml")
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	m.env = append(m.env, "MICRO_CONFIG="+file, "MICRO_GATEWAY_IDLE_TIMEOUT=7s")

	write("gateway: {address: \":9090\", tls: {cert: /nowhere.pem, key: /nowhere.key}}\n")
	require.Equal(t, result{"[]\n", "", exitOK}, m.micro("services", "-o", "json"), "what is set for the gateway is no mistake")
	r := m.micro("gateway")
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.err, "/nowhere.pem")
	require.Contains(t, r.err, "gateway-tls-cert from file "+file+":1")

	write("gateway: {address: \":9090\"}\n")
	r = m.micro("config", "--gateway-max-body=1MiB")
	require.Equal(t, exitOK, r.code, r.err)
	for _, line := range []string{`gateway-address +file ` + file + `:1 +:9090`, `gateway-max-body +flag --gateway-max-body +1MiB`,
		`gateway-idle-timeout +environment MICRO_GATEWAY_IDLE_TIMEOUT +7s`, `gateway-drain-timeout +default +30s`} {
		require.Regexp(t, "(?m)^"+line+"$", r.out)
	}
	write("gateway: {adress: \":9090\"}\n")
	require.Contains(t, m.micro("gateway").err, "did you mean gateway-address?")

	write("")
	require.Contains(t, m.micro("services", "--gateway-address=:1").err, "unknown flag --gateway-address")
	require.Contains(t, m.micro("services", "--middleware-ipallow-allow=10.0.0.0/8").err, "unknown flag")
	require.Contains(t, m.micro("gateway", "--gateway-middleware=ipalow").err, "did you mean ipallow?")
	r = m.micro("gateway", "--gateway-middleware=ipallow")
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.err, "middleware/ipallow")
	r = m.micro("gateway", "extra")
	require.Equal(t, exitUsage, r.code)

	help := m.micro("gateway", "--help").out
	require.Contains(t, help, "--gateway-address string")
	require.Contains(t, help, "--gateway-middleware list")
	require.NotContains(t, help, "--middleware-ipallow-deny", "too much for here")
	require.NotContains(t, m.micro("services", "--help").out, "gateway")
	require.NotContains(t, m.micro("gateway", "routes", "--help").out, "--gateway-address")

	require.Contains(t, m.micro("plugins", "--gateway-middleware=cors", "--middleware-cors-origins=https://a.example").out, "middleware/cors")
	for typed, want := range map[string]string{"--gateway-middleware=ip": "ipallow\t", "--gateway-addr": "--gateway-address", "ro": "routes\t"} {
		require.Contains(t, m.micro("__complete", "gateway", typed).out, want)
	}
	require.Contains(t, m.micro("__complete", "gateway", "routes", "test", "").out, "GET")
}

// TestGatewayRefusesTypos has none start that somebody meant to be guarded.
func TestGatewayRefusesTypos(t *testing.T) {
	m := newMachine(t)
	file := filepath.Join(t.TempDir(), "micro.yaml")
	args := []string{"gateway", "--config", file, "--gateway-address=256.0.0.1:1"} // it does not get that far
	for text, want := range map[string]string{
		"gatway: {middleware: [ipallow]}":            "unknown setting gatway (file " + file + ":1): did you mean gateway?",
		"gatway-middleware: [ipallow]":               "unknown setting gatway-middleware (file " + file + ":1): did you mean gateway?",
		"midleware: {ipallow: {allow: 10.0.0.0/8}}":  "unknown setting midleware (file " + file + ":1): did you mean middleware?",
		"MICRO_GATEWAY_MIDLEWARE=ipallow":            "did you mean MICRO_GATEWAY_MIDDLEWARE?",
		"MICRO_GATWAY_MIDDLEWARE=ipallow":            "did you mean MICRO_GATEWAY_MIDDLEWARE?",
		"MICRO_MIDDLEWARE=ipallow":                   "did you mean MICRO_GATEWAY_MIDDLEWARE?",
		"MICRO_MIDDLEWARE_IPALLOW_ALOW=10.0.0.0/8":   "did you mean MICRO_MIDDLEWARE_IPALLOW_ALLOW?",
		"MICRO_GATEWAY_WHO_KNOWS_WHAT_THIS_IS_FOR=a": "unknown environment variable MICRO_GATEWAY_WHO_KNOWS_WHAT_THIS_IS_FOR",
		"MICRO_MIDDLEWARE_TEAPOT_PATHS=/tea":         "unknown environment variable MICRO_MIDDLEWARE_TEAPOT_PATHS",
	} {
		env := m.env
		written := text
		if strings.HasPrefix(text, "MICRO_") {
			env, written = append(slices.Clip(env), text), ""
		}
		require.NoError(t, os.WriteFile(file, []byte(written+"\n"), 0o600))
		other := &machine{t: t, env: env}
		r := other.micro(args...)
		require.Equal(t, exitUsage, r.code, "%s: %s", text, r.err)
		require.Contains(t, r.err, want)
		require.Equal(t, exitOK, other.micro("services", "--config", file).code, "others warn only")
	}

	require.NoError(t, os.WriteFile(file, []byte("name: greeter\naddress: \":7000\"\nshop: {max: 3}\n"), 0o600))
	m.env = append(m.env, "MICRO_NAME=greeter", "MICRO_SHOP_MAX=3", "MICRO_GATEWAY_SERVICE_HOST=10.0.0.1", "MICRO_GATEWAY_PORT=tcp://10.0.0.1:80")
	m.gateway("--config", file)
}

const routes = `routes:
- name: cart
  match: {methods: [GET], host: [shop.example.com], template: "/cart/{id}", headers: {X-Beta: "1"}}
  to: {service: shop, endpoint: Cart.Get}
- name: old
  match: {prefix: /old}
  to: {redirect: {to: "https://{host}/new", status: 308}}
`

func TestGatewayRoutes(t *testing.T) {
	m := newMachine(t)
	file := filepath.Join(t.TempDir(), "routes.yaml")
	require.NoError(t, os.WriteFile(file, []byte(routes), 0o600))
	test := []string{"gateway", "routes", "test"}

	r := m.micro(append(test, "get", "http://shop.example.com/cart/7", "--file", file, "--header", "X-Beta: 1")...)
	require.Equal(t, exitOK, r.code, r.err)
	require.Contains(t, r.out, "route cart takes it")
	require.Contains(t, r.out, "endpoint Cart.Get of service shop")

	r = m.micro(append(test, "GET", "/cart/7", "-f", file, "-H", "Host: shop.example.com")...)
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.out, "not route cart")
	require.Equal(t, "micro: no route of "+file+" takes it\n", r.err)

	m.env = append(m.env, "MICRO_GATEWAY_MIDDLEWARE=router", "MICRO_MIDDLEWARE_ROUTER_FILE="+file)
	r = m.micro(append(test, "GET", "http://a.example/old/x", "-o", "json")...)
	require.Equal(t, exitOK, r.code, r.err)
	require.JSONEq(t, `{"file": "`+file+`", "method": "GET", "url": "http://a.example/old/x", "matched": true, "route": "old", "line": 5,
		"takes": "path /old or below", "to": [{"weight": 1, "redirect": "https://a.example/new", "status": 308}]}`, r.out)
	require.Equal(t, result{file + ": no mistakes\n", "", exitOK}, m.micro("gateway", "routes", "check"))

	require.NoError(t, os.WriteFile(file, []byte("routes:\n- name: x\n  mach: {}\n"), 0o600))
	r = m.micro("gateway", "routes", "check", "--file", file)
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.err, fmt.Sprintf("%s:3", file))
	require.Equal(t, exitUsage, m.micro(append(test, "GET", "/x")...).code)

	m.env = m.env[:len(m.env)-2]
	for _, wrong := range [][]string{
		append(test, "GET", "/x"), append(test, "GET"), append(test, "GET", "http://a/\x7f", "-f", file), append(test, "GET", "/", "-f", file, "-H", "x"),
		append(test, "GET", "/", "-f", "/nowhere.yaml"), {"gateway", "routes", "tset"},
	} {
		r = m.micro(wrong...)
		require.Equal(t, exitUsage, r.code, "%q: %s", wrong, r.err)
		require.NotEmpty(t, r.err)
	}
}

// TestGatewayRoutesFile is found without the router being chosen, which is meant.
func TestGatewayRoutesFile(t *testing.T) {
	m := newMachine(t)
	dir := t.TempDir()
	file, config := filepath.Join(dir, "routes.yaml"), filepath.Join(dir, "micro.yaml")
	require.NoError(t, os.WriteFile(file, []byte(routes), 0o600))
	require.NoError(t, os.WriteFile(config, []byte("middleware: {router: {file: "+file+"}}\n"), 0o600))
	check := []string{"gateway", "routes", "check"}
	env := m.env
	for name, c := range map[string]struct{ env, args []string }{
		"flag":                  {nil, []string{"--middleware-router-file", file}},
		"beside another choice": {[]string{"MICRO_GATEWAY_MIDDLEWARE=cors", "MICRO_MIDDLEWARE_CORS_ORIGINS=https://a.example"}, []string{"--middleware-router-file=" + file}},
		"variable":              {[]string{"MICRO_MIDDLEWARE_ROUTER_FILE=" + file}, nil},
		"settings file":         {nil, []string{"--config", config}},
	} {
		m.env = append(slices.Clip(env), c.env...)
		require.Equal(t, result{file + ": no mistakes\n", "", exitOK}, m.micro(append(check, c.args...)...), name)
		r := m.micro(append([]string{"gateway", "routes", "test", "GET", "http://a.example/old/x"}, c.args...)...)
		require.Equal(t, exitOK, r.code, "%s: %s", name, r.err)
	}
	m.env = env

	require.Equal(t, result{"", "micro: no file with routes is named\nhint: name it with --file\n", exitUsage}, m.micro(check...))
	for _, flag := range []string{"--file", "--middleware-router-file"} {
		require.Equal(t, result{"", "micro: " + flag + ": open nope.yaml: no such file or directory\n", exitUsage}, m.micro(append(check, flag, "nope.yaml")...))
	}
	m.env = append(slices.Clip(env), "MICRO_MIDDLEWARE_ROUTER_FILE=nope.yaml")
	require.Equal(t, "micro: middleware-router-file (environment MICRO_MIDDLEWARE_ROUTER_FILE): open nope.yaml: no such file or directory\n", m.micro(check...).err)
	m.env = append(slices.Clip(env), "MICRO_GATEWAY_MIDDLEWARE=ipalow")
	require.Contains(t, m.micro(check...).err, "hint: the file with the routes can be named with --file")
}

// TestRouteThatTakesNothing is no mistake, and told all the same.
func TestRouteThatTakesNothing(t *testing.T) {
	m := newMachine(t)
	file := filepath.Join(t.TempDir(), "routes.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`
routes:
- {name: all, match: {prefix: /}, to: {respond: {status: 200}}}
- {name: never, match: {path: /a}, to: {respond: {status: 200}}}
`), 0o600))
	got := m.micro("gateway", "routes", "check", "--file", file)
	require.Equal(t, exitOK, got.code, got.err)
	require.Contains(t, got.err, file+":4")
	require.Contains(t, got.err, "never")
	require.Equal(t, file+": no mistakes\n", got.out)
}
