package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/plugmicro/micro/gateway/httpd"
	_ "github.com/plugmicro/micro/gateway/router"
	"github.com/plugmicro/micro/internal/upstream"
)

// proxy is a contender that takes requests on one side and passes them on at the other.
type proxy struct {
	name string
	path string // of the request; "/" if it is ""
	// command makes what starts it. It listens at addr and passes on to backend, both of the loopback interface; its files
	// are in dir, which is its own. What it cannot find says how to install it.
	command func(dir, addr, backend string) (*exec.Cmd, error)
}

const (
	nginxPass      = "nginx, proxy_pass"
	microService   = "micro gateway, JSON to a service"
	microRouter    = "micro gateway, router to a URL"
	microRoutes    = "micro gateway, router, 1,000 routes"
	reverseProxy   = "ReverseProxy as it comes"
	reverseTuned   = "ReverseProxy, tuned"
	reverseOverOur = "ReverseProxy, tuned, over internal/upstream"
	caddyProxy     = "Caddy, reverse_proxy"
	traefikProxy   = "Traefik"
	traefikFast    = "Traefik, fastProxy"
)

// many is how many routes the large file has.
const manyRoutes = 1000

var proxies = []proxy{
	{nginxPass, "", nginx},
	{microService, "/greeter/hello", gatewayTo(0)},
	{microRouter, "/api/v1/resource-0/things/7", gatewayTo(1)},
	{microRoutes, fmt.Sprintf("/api/v1/resource-%d/things/7", manyRoutes-1), gatewayTo(manyRoutes)},
	{reverseProxy, "", self("reverseproxy", "plain")},
	{reverseTuned, "", self("reverseproxy", "tuned")},
	{reverseOverOur, "", self("reverseproxy", "upstream")},
	{caddyProxy, "", caddy},
	{traefikProxy, "", traefik("")},
	{traefikFast, "", traefik("experimental:\n  fastProxy: {}\n")},
}

// self is a proxy that is this program in a role.
func self(role ...string) func(dir, addr, backend string) (*exec.Cmd, error) {
	return func(_, addr, backend string) (*exec.Cmd, error) {
		program, err := os.Executable()
		return exec.Command(program, append(role, addr, backend)...), err
	}
}

// reverseProxyRole is net/http/httputil.ReverseProxy: as its documentation begins, or with what there is to be had for it.
func reverseProxyRole(how, addr, backend string) error {
	target := &url.URL{Scheme: "http", Host: backend}
	var h *httputil.ReverseProxy
	rewrite := func(r *httputil.ProxyRequest) { r.SetURL(target) }
	switch how {
	case "plain":
		h = httputil.NewSingleHostReverseProxy(target)
	case "tuned":
		h = &httputil.ReverseProxy{Rewrite: rewrite, BufferPool: buffers{}, Transport: &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true}}
	case "upstream":
		h = &httputil.ReverseProxy{Rewrite: rewrite, BufferPool: buffers{}, Transport: upstream.New(upstream.Options{})}
	default:
		return fmt.Errorf("there is no %q", how)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server := http.Server{Addr: addr, Handler: h}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.ListenAndServe(); ctx.Err() == nil {
		return err
	}
	return nil
}

// buffers is a httputil.BufferPool.
type buffers struct{}

var freeBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func (buffers) Get() []byte  { return freeBuffers.Get().(*[32 << 10]byte)[:] }
func (buffers) Put(b []byte) { freeBuffers.Put((*[32 << 10]byte)(b)) }

// gatewayTo is `micro gateway` with so many routes to the backend; without any it calls the service that the path says.
func gatewayTo(routes int) func(dir, addr, backend string) (*exec.Cmd, error) {
	return func(dir, addr, backend string) (*exec.Cmd, error) {
		args := []string{"gateway", "--gateway-address=" + addr, "--gateway-admin-address=off", "--gateway-access-log=false"}
		if routes > 0 {
			file := filepath.Join(dir, "routes.yaml")
			args = append(args, "--gateway-middleware=router", "--middleware-router-file="+file)
			if err := writeRoutes(file, routes, backend); err != nil {
				return nil, err
			}
		}
		program, err := os.Executable()
		return exec.Command(program, args...), err
	}
}

func writeRoutes(file string, n int, backend string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "upstreams:\n  backend: {url: [\"http://%s\"]}\nroutes:\n", backend)
	for i := range n {
		fmt.Fprintf(&b, "- {name: r%d, match: {prefix: /api/v1/resource-%d}, to: {upstream: backend}}\n", i, i)
	}
	return os.WriteFile(file, []byte(b.String()), 0o600)
}

// gatewayRole is what `micro gateway` runs.
func gatewayRole(args []string) error {
	return httpd.Run(httpd.WithArgs(args...), httpd.WithLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))))
}

// profileVar names the file for a CPU profile of a proxy that is this program, or is not set.
const profileVar = "MICRO_BENCH_PROFILE"

func profiled(f func() error) error {
	stop, err := startProfile(os.Getenv(profileVar))
	if err != nil {
		return err
	}
	defer stop()
	return f()
}

// missing is that a contender is not here.
type missing struct{ what, how string }

func (m *missing) Error() string { return m.what + " is not installed: " + m.how }

func nginx(dir, addr, backend string) (*exec.Cmd, error) {
	program, err := exec.LookPath("nginx")
	if err != nil {
		program = "/usr/sbin/nginx" // where Debian has it, which is in the PATH of root only
		if _, err := os.Stat(program); err != nil {
			return nil, &missing{"nginx", "apt-get install nginx"}
		}
	}
	conf := fmt.Sprintf(`daemon off;
master_process off;
worker_processes 1;
pid nginx.pid;
error_log stderr crit;
events { worker_connections 4096; }
http {
	access_log off;
	keepalive_requests 1000000000;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	upstream backend {
		server %s;
		keepalive 512;
		keepalive_requests 1000000000;
	}
	server {
		listen %s;
		location / {
			proxy_pass http://backend;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
		}
	}
}
`, backend, addr)
	file := filepath.Join(dir, "nginx.conf")
	return exec.Command(program, "-p", dir, "-c", file), os.WriteFile(file, []byte(conf), 0o600)
}

func caddy(dir, addr, backend string) (*exec.Cmd, error) {
	program, err := built("caddy")
	if err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(`{
	admin off
	auto_https off
	persist_config off
	log {
		level ERROR
	}
}
http://%s {
	reverse_proxy %s {
		transport http {
			keepalive_idle_conns_per_host 512
		}
	}
}
`, strings.Replace(addr, "127.0.0.1", "", 1), backend)
	file := filepath.Join(dir, "Caddyfile")
	cmd := exec.Command(program, "run", "--config", file, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	return cmd, os.WriteFile(file, []byte(conf), 0o600)
}

func traefik(more string) func(dir, addr, backend string) (*exec.Cmd, error) {
	return func(dir, addr, backend string) (*exec.Cmd, error) {
		program, err := built("traefik")
		if err != nil {
			return nil, err
		}
		routes := filepath.Join(dir, "routes.yaml")
		conf := fmt.Sprintf(`entryPoints:
  web: {address: %q}
providers:
  file: {filename: %q}
global: {checkNewVersion: false, sendAnonymousUsage: false}
log: {level: ERROR}
%s`, addr, routes, more)
		rules := fmt.Sprintf(`http:
  routers:
    all: {rule: "PathPrefix(`+"`/`"+`)", service: backend, entryPoints: [web]}
  services:
    backend: {loadBalancer: {servers: [{url: "http://%s"}]}}
`, backend)
		file := filepath.Join(dir, "traefik.yaml")
		if err := os.WriteFile(routes, []byte(rules), 0o600); err != nil {
			return nil, err
		}
		return exec.Command(program, "--configFile="+file), os.WriteFile(file, []byte(conf), 0o600)
	}
}

// built finds what proxies/install.sh builds.
func built(name string) (string, error) {
	for _, program := range []string{filepath.Join("..", ".servers", name, name), name} {
		if found, err := exec.LookPath(program); err == nil {
			return filepath.Abs(found)
		}
	}
	return "", &missing{name, "bench/proxies/install.sh builds it"}
}

// stopTimeout is how long a proxy may take to end by itself.
const stopTimeout = 5 * time.Second

// running is a proxy and what sends requests to it.
type running struct {
	*proxy
	cmd    *exec.Cmd
	client *process
}

// startProxy starts it on the first of the processors, and the client on the others.
func startProxy(p *proxy, dir, backend string, cpus []int, env []string) (_ *running, err error) {
	if dir, err = os.MkdirTemp(dir, "proxy-"); err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	cmd, err := p.command(dir, addr, backend)
	if err != nil {
		return nil, err
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(append(cmd.Env, "GOMAXPROCS=1"), env...)
	cmd.Stderr = os.Stderr
	if err := startOn(cpus[:1], cmd); err != nil {
		return nil, err
	}
	r := &running{proxy: p, cmd: cmd}
	path := cmp.Or(p.path, "/")
	if err := waitFor(addr, path); err != nil {
		r.stop()
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	if r.client, err = startAt(cpus[1:], nil, "http-client", addr, path); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

func waitFor(addr, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		c := newHTTPCallers(addr, path)
		err := c.caller(0)()
		if conn := c.all[0].conn; conn != nil {
			conn.Close()
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (r *running) stop() {
	if r.client != nil {
		r.client.stop()
	}
	r.cmd.Process.Signal(syscall.SIGTERM)
	defer time.AfterFunc(stopTimeout, func() { r.cmd.Process.Kill() }).Stop()
	r.cmd.Wait()
}

func (r *running) measure(l load) (sample, error) {
	before, err := cpuOf(r.cmd.Process.Pid)
	if err != nil {
		return sample{}, err
	}
	a, err := r.client.ask(question{Load: &l})
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w", r.name, err)
	}
	after, err := cpuOf(r.cmd.Process.Pid)
	if err != nil {
		return sample{}, err
	}
	o := a.Outcome
	if o.Calls == 0 {
		return sample{}, fmt.Errorf("%s: no request was answered", r.name)
	}
	n := float64(o.Calls)
	return sample{
		PerSecond: n / o.Elapsed.Seconds(), P50: o.P50, P99: o.P99,
		ClientCPU: time.Duration(float64(o.Client.CPU) / n), ServerCPU: time.Duration(float64(after-before) / n),
	}, nil
}
