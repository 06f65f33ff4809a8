// Package consul is the registry on HashiCorp Consul, for services on many machines:
//
//	MICRO_REGISTRY=consul MICRO_REGISTRY_ADDRESS=127.0.0.1:8500 ./program
//
// Each node is a service instance of the agent that is talked to, with a TTL check that is passing as long as the node
// is refreshed: what Consul's own tools, its DNS and its proxies go by too. An instance of which some check is critical,
// whoever made that check, its host or maintenance mode among them, is not returned; it is again when the check passes.
// Instances that other programs registered are not shown: they do not speak what Micro speaks.
//
// What foreign users see: the name (characters other than A-Z a-z 0-9 . _ - are written as ~ and two hexadecimal
// digits), the address and port if the node's address has them, the tag "micro" and those of the settings, and in Meta
// the version and all metadata that Consul's limits allow. What Micro reads is in Meta too, compressed, in keys that
// begin with "micro". A node that needs more than the 31.5 KiB that Consul has room for is refused with
// registry.ErrInvalid.
//
// An ACL token needs service:write for the own services; service:read and node:read for whatever is to be found.
//
// A node can be replaced and deregistered by any process that talks to the same agent. Where two agents know nodes with
// the same ID, as after an agent was unreachable for a time, the one that changed last counts.
package consul

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
)

// Config is what --registry-* and MICRO_REGISTRY_* set.
type Config struct {
	Address []string      `default:"127.0.0.1:8500" help:"agents to talk to, tried in order: host:port, http://…, https://… or unix:///path"`
	Token   plugin.Secret `help:"ACL token"`
	TLS     plugin.TLS
	Timeout time.Duration `default:"5s" help:"limit for one request; several agents share it"`

	Datacenter string `help:"datacenter to find services in; empty: that of the agent"`
	Namespace  string `help:"namespace, of Consul Enterprise"`
	Partition  string `help:"admin partition, of Consul Enterprise"`

	Consistency string `default:"default" help:"of what is read: default, consistent (asks a majority), stale (any server answers), cached (the agent's cache answers look-ups)"`

	Tags               []string      `help:"tags of the registered services, beside micro"`
	Check              string        `default:"ttl" help:"what the agent checks of a node. ttl: that it is refreshed. tcp, http, grpc and their URLs, as http://:8080/health: that too, where the host and the port are the node's unless given"`
	CheckInterval      time.Duration `default:"10s" help:"how often the agent checks by tcp, http or grpc"`
	DeregisterCritical time.Duration `default:"5m" help:"after which time Consul forgets a node that is critical; at least 1m, or 0 for never"`
}

func init() {
	plugin.Register("consul", New, plugin.Doc("HashiCorp Consul: catalog, TTL checks, blocking watches"))
}

var consistencies = []string{"default", "consistent", "stale", "cached"}

// Validate is asked when the settings are loaded.
func (c Config) Validate() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Address) == 0 {
		fail("address is empty: name at least one agent")
	}
	for _, a := range c.Address {
		if _, err := parseEndpoint(a, c.TLS.Enabled()); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Timeout <= 0 {
		fail("timeout %v must be more than 0", c.Timeout)
	}
	if !slices.Contains(consistencies, c.Consistency) {
		fail("consistency %q is unknown: it is one of %q", c.Consistency, consistencies)
	}
	if _, err := parseProbe(c.Check); err != nil {
		errs = append(errs, err)
	}
	if c.CheckInterval < time.Second {
		fail("check-interval %v is too short: 1s is the least", c.CheckInterval)
	}
	if c.DeregisterCritical != 0 && c.DeregisterCritical < time.Minute {
		fail("deregister-critical %v is too short: Consul takes no less than 1m; 0 means never", c.DeregisterCritical)
	}
	return errors.Join(errs...)
}

// withDefaults is for settings made in code.
func (c Config) withDefaults() Config {
	if len(c.Address) == 0 {
		c.Address = []string{"127.0.0.1:8500"}
	}
	c.Timeout = cmp.Or(c.Timeout, 5*time.Second)
	c.Consistency = cmp.Or(c.Consistency, "default")
	c.Check = cmp.Or(c.Check, "ttl")
	c.CheckInterval = cmp.Or(c.CheckInterval, 10*time.Second)
	return c
}

// New opens the registry for a service.
func New(env *plugin.Env, c Config) (registry.Registry, error) { return Open(c, env.Logger()) }

// Registry is one process's view of Consul.
type Registry struct {
	config  Config
	probe   probe
	agents  *agents
	log     *slog.Logger // has service and id already, of the process
	changes registry.Fanout
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	loop    sync.WaitGroup
	hidden  sync.Once // that ACLs hide something was said

	mu  sync.Mutex
	own map[string]map[*agent]bool // which agents were told of which instance, by service ID

	watching sync.Mutex       // never taken with mu held
	seen     map[string]*seen // what watchers know, by service ID; nil until there is one. It is written with both locks held
}

var _ registry.Registry = (*Registry)(nil)

// Open connects to nothing yet: an agent that cannot be reached is the error of the first call. Zero fields of c get their
// defaults, but for DeregisterCritical, and a nil log means slog.Default.
func Open(c Config, log *slog.Logger) (*Registry, error) {
	if log == nil {
		log = slog.Default()
	}
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	r := &Registry{config: c, log: log, own: make(map[string]map[*agent]bool)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	var err error
	if r.probe, err = parseProbe(c.Check); err == nil {
		r.agents, err = newAgents(r.ctx, c)
	}
	if err != nil {
		r.cancel()
		return nil, err
	}
	return r, nil
}

func (r *Registry) String() string { return "consul" }

// Close ends the watchers and all requests. What was registered stays until its TTL has passed: deregister it first. It
// may be called more than once.
func (r *Registry) Close() error {
	r.changes.Close()
	r.cancel()
	r.watching.Lock() // a Watch under way has started the loop then
	followed := r.seen != nil
	r.watching.Unlock()
	if followed {
		r.loop.Wait()
	}
	r.agents.close()
	return nil
}

// failed is err, but whatever fails after Close fails because of it.
func (r *Registry) failed(err error) error {
	if err != nil && r.ctx.Err() != nil {
		return registry.ErrClosed
	}
	return err
}
