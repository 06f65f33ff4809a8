package consul

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"
	"github.com/plugmicro/micro/registry"
)

// check is what Micro reads of a check.
type check struct {
	Node, CheckID, Status, Notes, ServiceID, ServiceName string
	ModifyIndex                                          uint64
}

// notes are those of the TTL check. With them the checks alone tell what changed.
func notes(content, version string) string { return content + " " + version }

func (c check) content() string {
	content, _, _ := strings.Cut(c.Notes, " ")
	return content
}

func (c check) version() string {
	_, version, _ := strings.Cut(c.Notes, " ")
	return version
}

// isHeartbeat tells the TTL check of a node that Micro registered.
func (c check) isHeartbeat() bool { return c.ServiceID != "" && c.CheckID == checkPrefix+c.ServiceID }

// node is what the instance is called by Micro. If it is ok, the name and the ID in Consul have only characters that
// paths and filters take as they are; what other programs registered may have any.
func (c check) node() (name, id string, ok bool) {
	name, ok = unescape(c.ServiceName, false)
	of, node, _ := strings.Cut(c.ServiceID, ":")
	id, idOK := unescape(node, true)
	return name, id, ok && idOK && of == escape(name, true) && name != "" && id != ""
}

// minimal is the service as far as checks tell: enough to say that it is gone. It is nil if Micro did not register it.
func (c check) minimal() *registry.Service {
	name, id, ok := c.node()
	if !ok {
		return nil
	}
	return &registry.Service{Name: name, Version: c.version(), Nodes: []*registry.Node{{ID: id}}}
}

// alive returns the TTL checks of the instances that have no critical check, neither of their own nor of their host, by
// service ID. Those that Micro cannot have registered are left out, lest they are asked for. Where several agents have the instance, the one that changed last counts.
func alive(checks []check) map[string]check {
	type instance struct{ node, service string } // service is empty for the host itself
	critical := make(map[instance]bool)
	for _, c := range checks {
		if c.Status == api.HealthCritical {
			critical[instance{c.Node, c.ServiceID}] = true
		}
	}
	found := make(map[string]check)
	for _, c := range checks {
		if !c.isHeartbeat() || critical[instance{c.Node, c.ServiceID}] || critical[instance{c.Node, ""}] {
			continue
		}
		if _, _, ok := c.node(); !ok {
			continue
		}
		if other, ok := found[c.ServiceID]; !ok || other.ModifyIndex < c.ModifyIndex {
			found[c.ServiceID] = c
		}
	}
	return found
}

// read are the options of all that is read, for a context.
func (r *Registry) read(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{
		Datacenter:        r.config.Datacenter,
		AllowStale:        r.config.Consistency == "stale",
		RequireConsistent: r.config.Consistency == "consistent",
	}).WithContext(ctx)
}

const (
	everyCheck = "/v1/health/state/any"
	ourChecks  = `"` + marker + `" in ServiceTags or ServiceID == ""`
)

// checks reads those of all that Micro registered, and those of all hosts.
func (r *Registry) checks(ctx context.Context) (checks []check, meta *api.QueryMeta, err error) {
	err = r.agents.do(ctx, func(ctx context.Context, a *agent) error {
		opts := r.read(ctx)
		opts.Filter = ourChecks
		checks = nil
		meta, err = a.client.Raw().Query(everyCheck, &checks, opts)
		return err
	})
	if err == nil && (meta.ResultsFilteredByACLs || r.isAnonymous(meta) && !slices.ContainsFunc(checks, check.isHeartbeat)) {
		r.sayHidden()
	}
	return checks, meta, err
}

// isAnonymous tells that Consul may hide things without saying so, because there is no token.
func (r *Registry) isAnonymous(meta *api.QueryMeta) bool {
	return meta.DefaultACLPolicy == "deny" && r.config.Token.Reveal() == ""
}

func (r *Registry) sayHidden() {
	r.hidden.Do(func() {
		if r.config.Token.Reveal() == "" {
			r.log.Warn("Consul shows only what is allowed to everybody, because --registry-token is not set: what is hidden is not found")
			return
		}
		r.log.Warn("the ACL token, --registry-token, does not show all hosts and services of Consul: what is hidden is not found; it takes service:read and node:read")
	})
}

// entry is what Micro reads of an instance.
type entry struct {
	Service struct {
		ID, Service string
		Meta        map[string]string
	}
	Checks []check // of the host, too
}

// instance is one of a service that is alive.
type instance struct {
	check   check
	service *registry.Service // with one node; nil if what Micro wrote was changed by somebody
	content string            // its digest
}

// instances are those in entries, by service ID.
func (r *Registry) instances(entries []entry) map[string]instance {
	found := make(map[string]instance)
	for _, e := range entries {
		c, ok := alive(e.Checks)[e.Service.ID]
		if other, again := found[e.Service.ID]; !ok || again && other.check.ModifyIndex > c.ModifyIndex {
			continue
		}
		single, content, err := unpack(e.Service.Meta)
		if err == nil {
			if name, id, _ := c.node(); single.Name != name || single.Nodes[0].ID != id {
				err = errors.New("it speaks of another node")
			}
		}
		if err != nil {
			r.log.Debug("a service in Consul is left out: what Micro wrote of it was changed", "name", e.Service.Service,
				"instance", e.Service.ID, "error", err)
			single = nil
		}
		found[e.Service.ID] = instance{c, single, content}
	}
	return found
}

// entries reads the instances of a service, by its name in Consul.
func (r *Registry) entries(ctx context.Context, name, filter string, cached bool) (found []entry, meta *api.QueryMeta, err error) {
	err = r.agents.do(ctx, func(ctx context.Context, a *agent) error {
		opts := r.read(ctx)
		opts.Filter = filter
		opts.UseCache = cached
		found = nil
		meta, err = a.client.Raw().Query("/v1/health/service/"+name, &found, opts)
		return err
	})
	return found, meta, err
}

func (r *Registry) GetService(name string) ([]*registry.Service, error) {
	if r.ctx.Err() != nil {
		return nil, registry.ErrClosed
	}
	notFound := fmt.Errorf("%w: %s", registry.ErrNotFound, name)
	if name == "" {
		return nil, notFound
	}
	entries, meta, err := r.entries(r.ctx, serviceName(name), "", r.config.Consistency == "cached")
	if err != nil {
		return nil, r.failed(err)
	}
	var found []*registry.Service
	for _, i := range r.instances(entries) {
		if i.service != nil && i.service.Name == name {
			found = append(found, i.service)
		}
	}
	if meta.ResultsFilteredByACLs {
		r.sayHidden()
	}
	switch {
	case len(found) > 0:
		return registry.Merge(found), nil
	case meta.ResultsFilteredByACLs:
		return nil, fmt.Errorf("consul %s hides %s: the ACL token, --registry-token, needs service:read and node:read", r.agents.pick().name, name)
	case r.isAnonymous(meta):
		return nil, fmt.Errorf("%w; or it is hidden: consul %s shows only what is allowed to everybody, because --registry-token is not set",
			notFound, r.agents.pick().name)
	}
	return nil, notFound
}

func (r *Registry) ListServices() ([]*registry.Service, error) {
	if r.ctx.Err() != nil {
		return nil, registry.ErrClosed
	}
	checks, meta, err := r.checks(r.ctx)
	if err != nil {
		return nil, r.failed(err)
	}
	if len(checks) == 0 && r.isAnonymous(meta) { // there is a host at least, and it has a check
		return nil, fmt.Errorf("consul %s shows nothing without an ACL token: set --registry-token to one with service:read and node:read", r.agents.pick().name)
	}
	names := make(map[string]bool)
	for _, c := range alive(checks) {
		name, _, _ := c.node()
		names[name] = true
	}
	var list []*registry.Service
	for _, name := range slices.Sorted(maps.Keys(names)) {
		list = append(list, &registry.Service{Name: name})
	}
	return list, nil
}
