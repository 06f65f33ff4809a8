//go:build unix

package consul

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/plugmicro/micro/internal/servers"
	"github.com/plugmicro/micro/internal/testcert"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	"github.com/stretchr/testify/require"
)

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }

func noise(size int) string {
	raw := make([]byte, size)
	_, _ = rand.Read(raw)
	return base64.StdEncoding.EncodeToString(raw)[:size]
}

// everyCall makes each call once.
func everyCall(r *Registry) map[string]error {
	_, get := r.GetService("greeter")
	_, list := r.ListServices()
	_, watch := r.Watch()
	return map[string]error{
		"register": r.Register(greeter("greeter", "a")), "deregister": r.Deregister(greeter("greeter", "a")),
		"get": get, "list": list, "watch": watch,
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed := l.Addr().String()
	require.NoError(t, l.Close())
	silent, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
	require.NoError(t, err)
	defer silent.Close()
	for reason, address := range map[string]string{
		"connection refused":       closed,
		"no answer within 500ms":   silent.Addr().String(),
		"no such host":             "host.invalid:8500",
		"connect: no such file":    "unix:///nowhere/consul.sock",
		"connection refused\u200b": "http://" + closed,
	} {
		c := settings(address)
		c.Timeout = 500 * time.Millisecond
		c.Token = plugin.NewSecret("a-secret")
		r := open(t, c)
		for _, err := range everyCall(r) {
			begun := time.Now()
			require.Regexp(t, "^consul "+regexp.QuoteMeta(address)+": ", err.Error())
			require.ErrorContains(t, err, "check --registry-address")
			require.Equal(t, 1, strings.Count(err.Error(), address), "said once")
			require.Less(t, time.Since(begun), 3*time.Second)
			if !strings.Contains(reason, "host") { // resolvers differ
				require.ErrorContains(t, err, strings.TrimSuffix(reason, "\u200b"))
			}
			require.NotContains(t, err.Error(), "a-secret")
			require.NotContains(t, err.Error(), "\n")
			require.NotErrorIs(t, err, registry.ErrNotFound)
		}
	}
}

func TestACL(t *testing.T) {
	const root = "11111111-2222-3333-4444-555555555555"
	server := servers.Consul(t, `acl { enabled = true, default_policy = "deny", tokens { initial_management = "`+root+`", agent = "`+root+`" } }`)
	with := func(token string) *Registry {
		c := settings(server.Addr)
		if token != "" {
			c.Token = plugin.NewSecret(token)
		}
		return open(t, c)
	}
	admin := with(root)
	eventually(t, func() bool { return admin.Register(greeter("greeter", "root")) == nil })
	require.Equal(t, []string{"root"}, ids(t, admin, "greeter"))

	f := newForeign(t, server.Addr)
	write := &api.WriteOptions{Token: root}
	token := func(rules string) string {
		policy, _, err := f.ACL().PolicyCreate(&api.ACLPolicy{Name: fmt.Sprint("p", time.Now().UnixNano()), Rules: rules}, write)
		require.NoError(t, err)
		token, _, err := f.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, write)
		require.NoError(t, err)
		return token.SecretID
	}

	t.Run("unknown token", func(t *testing.T) {
		const wrong = "99999999-2222-3333-4444-555555555555"
		for _, err := range everyCall(with(wrong)) {
			require.ErrorContains(t, err, "consul "+server.Addr+" refused: 403 ACL not found")
			require.ErrorContains(t, err, "--registry-token")
			require.NotContains(t, err.Error(), wrong)
		}
	})
	t.Run("no rights", func(t *testing.T) {
		secret := token(`key "nothing" { policy = "read" }`)
		r := with(secret)
		for call, err := range everyCall(r) {
			switch call {
			case "register":
				require.ErrorContains(t, err, "consul "+server.Addr+" refused: 403")
				require.ErrorContains(t, err, "service:write")
				require.NotContains(t, err.Error(), secret)
			case "get":
				require.ErrorContains(t, err, "hides greeter")
				require.ErrorContains(t, err, "service:read")
				require.NotErrorIs(t, err, registry.ErrNotFound)
			default: // what is hidden from a list is said in the log; what is not there needs no rights to go
				require.NoError(t, err)
			}
		}
	})
	t.Run("no token", func(t *testing.T) {
		_, err := with("").GetService("greeter")
		require.ErrorIs(t, err, registry.ErrNotFound)
		require.ErrorContains(t, err, "--registry-token is not set")
		require.ErrorContains(t, with("").Register(greeter("greeter", "a")), "403")
	})
	t.Run("a list without a token", func(t *testing.T) {
		var logs bytes.Buffer
		r, err := Open(settings(server.Addr), slog.New(slog.NewTextHandler(&logs, nil)))
		require.NoError(t, err)
		defer r.Close()
		for range 3 {
			_, err = r.ListServices()
			require.ErrorContains(t, err, "consul "+server.Addr+" shows nothing without an ACL token: set --registry-token")
		}
		require.Equal(t, 1, strings.Count(logs.String(), "level=WARN"), logs.String())
		require.Contains(t, logs.String(), "--registry-token is not set")
	})
	t.Run("everybody sees hosts", func(t *testing.T) {
		anonymous := func(rules string) {
			policy, _, err := f.ACL().PolicyCreate(&api.ACLPolicy{Name: fmt.Sprint("p", time.Now().UnixNano()), Rules: rules}, write)
			require.NoError(t, err)
			_, _, err = f.ACL().TokenUpdate(&api.ACLToken{AccessorID: "00000000-0000-0000-0000-000000000002", Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, write)
			require.NoError(t, err)
		}
		t.Cleanup(func() {
			anonymous(`key "nothing" { policy = "read" }`)
			eventually(t, func() bool { _, err := with("").ListServices(); return err != nil })
		})
		anonymous(`node_prefix "" { policy = "read" }`)
		var logs bytes.Buffer
		r, err := Open(settings(server.Addr), slog.New(slog.NewTextHandler(&logs, nil)))
		require.NoError(t, err)
		defer r.Close()
		eventually(t, func() bool { list, err := r.ListServices(); return err == nil && len(list) == 0 })
		require.Equal(t, 1, strings.Count(logs.String(), "--registry-token is not set"), logs.String())
		anonymous(`node_prefix "" { policy = "read" } service_prefix "" { policy = "read" }`)
		eventually(t, func() bool { list, err := r.ListServices(); return err == nil && len(list) == 1 })
	})
	t.Run("token of the environment", func(t *testing.T) {
		t.Setenv("CONSUL_HTTP_TOKEN", root)
		require.ErrorContains(t, with("").Register(greeter("greeter", "a")), "403")
	})
	t.Run("just enough", func(t *testing.T) {
		r := with(token(`service "greeter" { policy = "write" } service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`))
		w, err := r.Watch()
		require.NoError(t, err)
		s := greeter("greeter", "user")
		require.NoError(t, r.Register(s, registry.TTL(time.Minute)))
		require.NoError(t, r.Register(s, registry.TTL(time.Minute)))
		require.Equal(t, []string{"root", "user"}, ids(t, r, "greeter"))
		require.True(t, s.Equal(next(t, w, s.Name, registry.Create)))
		require.ErrorContains(t, r.Register(greeter("other", "x")), "403")
		require.NoError(t, r.Deregister(s))
		hasIDs(t, r, "greeter", "root")
	})
	t.Run("only writing", func(t *testing.T) {
		r := with(token(`service "greeter" { policy = "write" }`))
		begun := time.Now()
		require.NoError(t, r.Register(greeter("greeter", "writer")))
		require.Less(t, time.Since(begun), r.config.Timeout, "it waits for what is hidden")
		hasIDs(t, admin, "greeter", "root", "writer")
		require.NoError(t, r.Deregister(greeter("greeter", "writer")))
	})
	t.Run("revoked", func(t *testing.T) {
		secret := token(`service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`)
		r := with(secret)
		w, err := r.Watch()
		require.NoError(t, err)
		defer w.Stop()
		self, _, err := f.ACL().TokenReadSelf(&api.QueryOptions{Token: secret})
		require.NoError(t, err)
		_, err = f.ACL().TokenDelete(self.AccessorID, write)
		require.NoError(t, err)
		eventually(t, func() bool { _, err := r.GetService("greeter"); return err != nil })
		require.NoError(t, admin.Register(greeter("greeter", "more")))
		_, _, err = r.step(0, longPoll)
		require.ErrorContains(t, err, "403")
		require.Contains(t, r.seen, serviceID("greeter", "root"), "an empty answer may be a bad token: what is known stays")
	})
}

func TestTLS(t *testing.T) {
	good, bad := testcert.New(t), testcert.New(t)
	server := good.TLS(func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"consul.example"} })
	client := good.TLS()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	secure := l.Addr().String()
	_, port, err := net.SplitHostPort(secure)
	require.NoError(t, err)
	require.NoError(t, l.Close())
	socket := filepath.Join(t.TempDir(), "consul.sock")
	s := servers.Consul(t, `ports { https = `+port+` }`, `addresses { http = "127.0.0.1 unix://`+socket+`", https = "127.0.0.1" }`,
		`tls { https { ca_file = "`+server.CA+`", cert_file = "`+server.Cert+`", key_file = "`+server.Key+`", verify_incoming = true } }`)

	mutual := plugin.TLS{CA: good.File, Cert: client.Cert, Key: client.Key, ServerName: "consul.example"}
	for name, test := range map[string]struct {
		address string
		tls     plugin.TLS
		says    string // empty: it works
	}{
		"mutual":            {secure, mutual, ""},
		"URL":               {"https://" + secure, mutual, ""},
		"plain":             {s.Addr, plugin.TLS{}, ""},
		"plain URL":         {"http://" + s.Addr, plugin.TLS{}, ""},
		"socket":            {"unix://" + socket, plugin.TLS{}, ""},
		"not verified":      {secure, plugin.TLS{Insecure: true, Cert: client.Cert, Key: client.Key}, ""},
		"unknown authority": {secure, plugin.TLS{CA: bad.File, Cert: client.Cert, Key: client.Key, ServerName: "consul.example"}, "set --registry-tls-ca to the certificates"},
		"of the system":     {secure, plugin.TLS{Enable: true, Cert: client.Cert, Key: client.Key, ServerName: "consul.example"}, "set --registry-tls-ca to the certificates"},
		"wrong name":        {secure, plugin.TLS{CA: good.File, Cert: client.Cert, Key: client.Key, ServerName: "other.example"}, "certificate is valid for consul.example, not other.example: set --registry-tls-server-name"},
		"no name":           {secure, plugin.TLS{CA: good.File, Cert: client.Cert, Key: client.Key}, "cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs: set --registry-tls-server-name"},
		"no certificate":    {secure, plugin.TLS{CA: good.File, ServerName: "consul.example"}, "certificate required: check --registry-tls-cert and --registry-tls-key"},
		"plain to TLS":      {"http://" + secure, plugin.TLS{}, "HTTP request to an HTTPS server. (set --registry-tls-enable"},
		"TLS to plain":      {s.Addr, plugin.TLS{CA: good.File}, "it answered without TLS: leave the options --registry-tls-"},
	} {
		t.Run(name, func(t *testing.T) {
			c := settings(test.address)
			c.TLS = test.tls
			r := open(t, c)
			begun := time.Now()
			_, err := r.ListServices()
			require.Less(t, time.Since(begun), c.Timeout+time.Second)
			if test.says == "" {
				require.NoError(t, err)
				w, err := r.Watch()
				require.NoError(t, err)
				s := greeter("over "+name, "a")
				require.NoError(t, r.Register(s))
				require.True(t, s.Equal(next(t, w, s.Name, registry.Create)))
				return
			}
			require.ErrorContains(t, err, "consul "+test.address)
			require.ErrorContains(t, err, test.says)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

// TestNotConsul: whatever answers there, it is said, and nothing is taken for an answer.
func TestNotConsul(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "<html>hello") })}
	done := make(chan error)
	go func() { done <- web.Serve(l) }()
	r := open(t, settings(l.Addr().String()))
	for call, err := range everyCall(r) {
		if call != "deregister" { // which has no answer but yes
			require.ErrorContains(t, err, "consul "+l.Addr().String()+": ", call)
			require.ErrorContains(t, err, "is it Consul's HTTP port", call)
		}
	}
	require.NoError(t, web.Close())
	require.ErrorIs(t, <-done, http.ErrServerClosed)
}

// TestOtherPorts: there are many ports at which something listens, but not Consul.
func TestOtherPorts(t *testing.T) {
	for name, test := range map[string]struct{ greets, says string }{
		"RabbitMQ": {"AMQP\x00\x00\x09\x01", "what it answered is not HTTP: is it Consul's HTTP port, and does it speak TLS? check --registry-address and --registry-tls-enable"},
		"Kafka":    {"", "it closed the connection without an answer: is it Consul's HTTP port"},
		"web":      {"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\nlost\r\n", "refused: 404 lost (is it Consul's HTTP port? check --registry-address)"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			var work sync.WaitGroup
			work.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = http.ReadRequest(bufio.NewReader(c))
					_, _ = io.WriteString(c, test.greets)
					_ = c.Close()
				}
			})
			defer work.Wait()
			defer l.Close()
			r := open(t, settings(l.Addr().String()))
			_, err = r.ListServices()
			require.ErrorContains(t, err, test.says)
			require.Equal(t, 1, strings.Count(err.Error(), l.Addr().String()), "said once")
			_, err = registry.Keep(r, greeter("orders", "a"), 0, 0, slog.New(slog.DiscardHandler))
			require.Regexp(t, "^register orders: consul ", err.Error())
		})
	}
}

func TestValidate(t *testing.T) {
	require.NoError(t, settings("127.0.0.1:8500", "[::1]:8500", "consul.example:8500", "https://consul.example/prefix/", "unix:///run/consul.sock").Validate())
	for says, change := range map[string]func(*Config){
		"address is empty":                        func(c *Config) { c.Address = nil },
		`address "consul" is not host:port`:       func(c *Config) { c.Address = []string{"consul"} },
		`address "consul:" is not host:port`:      func(c *Config) { c.Address = []string{"consul:"} },
		`address "::1" is not host:port`:          func(c *Config) { c.Address = []string{"::1"} },
		`address "ftp://consul:1" is neither`:     func(c *Config) { c.Address = []string{"ftp://consul:1"} },
		`address "http://" is neither`:            func(c *Config) { c.Address = []string{"http://"} },
		"the path of the socket must be absolute": func(c *Config) { c.Address = []string{"unix://consul.sock"} },
		"use token":                                func(c *Config) { c.Address = []string{"http://user:secret@consul:1"} },
		`address "***@consul:1": a user and`:       func(c *Config) { c.Address = []string{"user:secret@consul:1"} },
		`address "***@consul:2": a user and`:       func(c *Config) { c.Address = []string{"secret@consul:2"} },
		`address "***@consul" is neither`:          func(c *Config) { c.Address = []string{"user:secret://@consul"} },
		`address "http://***@consul:%zz" is`:       func(c *Config) { c.Address = []string{"http://user:secret@consul:%zz"} },
		`address "***@consul.sock": the path`:      func(c *Config) { c.Address = []string{"unix://user:secret@consul.sock"} },
		`address "http://consul:1/?***": nothing`:  func(c *Config) { c.Address = []string{"http://consul:1/?token=secret"} },
		`check "http://***@:1/?***" is unknown`:    func(c *Config) { c.Check = "http://user:secret@:1/?x=secret" },
		"nothing can follow the path":              func(c *Config) { c.Address = []string{"http://consul:1/?dc=x"} },
		"contradicts the tls options: write https": func(c *Config) { c.Address = []string{"http://consul:1"}; c.TLS.Enable = true },
		"timeout 0s must be more than 0":           func(c *Config) { c.Timeout = 0 },
		`consistency "eventual" is unknown`:        func(c *Config) { c.Consistency = "eventual" },
		`check "script" is unknown`:                func(c *Config) { c.Check = "script" },
		`check "ttl://x" is unknown`:               func(c *Config) { c.Check = "ttl://x" },
		`check "tcp://:1/x" is unknown`:            func(c *Config) { c.Check = "tcp://:1/x" },
		"check-interval 1ms is too short":          func(c *Config) { c.CheckInterval = time.Millisecond },
		"deregister-critical 59s is too short":     func(c *Config) { c.DeregisterCritical = 59 * time.Second },
	} {
		t.Run(says, func(t *testing.T) {
			c := settings("127.0.0.1:8500")
			change(&c)
			err := c.Validate()
			require.ErrorContains(t, err, says)
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

func TestSettingsInCode(t *testing.T) {
	r, err := Open(Config{}, nil)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	_, err = Open(Config{Check: "script"}, nil)
	require.ErrorContains(t, err, `check "script" is unknown`)
}

// TestSettings goes the way of a user: the defaults are valid, mistakes say where they come from.
func TestSettings(t *testing.T) {
	load := func(env ...string) error {
		_, err := plugin.NewLoader(plugin.Linked).Load(append(env, "MICRO_REGISTRY=consul"))
		return err
	}
	require.NoError(t, load())
	require.ErrorContains(t, load("MICRO_REGISTRY_CONSISTENCY=some"), "consistency")
	require.ErrorContains(t, load("MICRO_REGISTRY_DEREGISTER_CRITICAL=1s"), "MICRO_REGISTRY_DEREGISTER_CRITICAL")
	require.ErrorContains(t, load("MICRO_REGISTRY_ADDRESS=http://u:hidden@h:1"), "address")
	require.NotContains(t, load("MICRO_REGISTRY_ADDRESS=http://u:hidden@h:1").Error(), "hidden")
}
