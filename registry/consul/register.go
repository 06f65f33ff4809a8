package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http/httptrace"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/plugmicro/micro/registry"
	"golang.org/x/sync/errgroup"
)

const (
	marker      = "micro"  // the tag of all that Micro registers, and the name of its checks
	checkPrefix = "micro:" // of the ID of the TTL check; what follows is the ID of the service

	// forever is the TTL of what has none. There is a check all the same: watchers look at nothing else.
	forever = 100 * 365 * 24 * time.Hour
)

// registration is one node as the agent is to have it.
type registration struct {
	*api.AgentServiceRegistration
	content string // digest of what watchers are told
}

func (r *Registry) registration(single *registry.Service, ttl time.Duration) (registration, error) {
	n := single.Nodes[0]
	meta, content, err := pack(single)
	if err != nil {
		return registration{}, err
	}
	id := serviceID(single.Name, n.ID)
	if ttl <= 0 {
		ttl = forever
	}
	heartbeat := &api.AgentServiceCheck{
		CheckID: checkPrefix + id, Name: marker, TTL: ttl.String(), Status: api.HealthPassing,
		Notes: notes(content, single.Version),
	}
	if r.config.DeregisterCritical > 0 {
		heartbeat.DeregisterCriticalServiceAfter = r.config.DeregisterCritical.String()
	}
	reg := &api.AgentServiceRegistration{
		ID: id, Name: serviceName(single.Name), Tags: append([]string{marker}, r.config.Tags...), Meta: meta,
		Checks: api.AgentServiceChecks{heartbeat},
	}
	reg.Address, reg.Port = hostPort(n.Address)
	probe, err := r.probe.check(single.Name, n)
	if err != nil {
		return registration{}, err
	}
	if probe != nil {
		probe.CheckID, probe.Name = "probe:"+id, marker+" "+r.probe.kind
		probe.Interval = r.config.CheckInterval.String()
		probe.Timeout = probe.Interval
		probe.DeregisterCriticalServiceAfter = heartbeat.DeregisterCriticalServiceAfter
		reg.Checks = append(reg.Checks, probe)
	}
	whole, err := json.Marshal(reg)
	if err != nil {
		return registration{}, err
	}
	meta[metaStamp] = digest(whole)
	return registration{reg, content}, nil
}

// hostPort is the address as Consul has it, empty where the address is something else.
func hostPort(address string) (host string, port int) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		host = "" // which Consul refuses; it shows the address of its own host then
	}
	return host, int(n)
}

func (r *Registry) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	if r.ctx.Err() != nil {
		return registry.ErrClosed
	}
	if err := registry.Validate(s); err != nil {
		return err
	}
	ttl := registry.NewRegisterOptions(opts...).TTL
	var regs []registration
	for _, n := range s.Nodes { // all or nothing
		one := *s
		one.Nodes = []*registry.Node{n}
		reg, err := r.registration(&one, ttl)
		if err != nil {
			return err
		}
		regs = append(regs, reg)
	}
	for _, reg := range regs {
		err := r.agents.do(r.ctx, func(ctx context.Context, a *agent) error { return r.register(ctx, a, reg) })
		if err != nil {
			return r.failed(err)
		}
	}
	return nil
}

// register refreshes what the agent has, if it has it and nobody changed it.
func (r *Registry) register(ctx context.Context, a *agent, reg registration) error {
	if r.noted(reg.ID, a) {
		done, err := r.refresh(ctx, a, reg)
		if done || err != nil {
			return err
		}
	}
	// An agent that was connected to may have it, whatever comes back.
	sent := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { r.note(reg.ID, a) }})
	err := a.client.Agent().ServiceRegisterOpts(reg.AgentServiceRegistration, api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(sent))
	if err != nil {
		return err
	}
	// A check that was there before keeps its status, which may be critical.
	if err := pass(ctx, a, reg); err != nil {
		return err
	}
	var status api.StatusError
	err = r.untilVisible(ctx, a, reg)
	if err != nil && ctx.Err() == nil && !errors.As(err, &status) {
		return err // this was no Consul, or is no more
	}
	if err != nil {
		r.log.Warn("registered with the agent, but not yet to be found: its servers may be in trouble, it goes on trying",
			"agent", a.name, "name", reg.Name, "error", explain(a, err, r.config.Timeout))
	}
	return nil
}

func pass(ctx context.Context, a *agent, reg registration) error {
	return a.client.Agent().UpdateTTLOpts(checkPrefix+reg.ID, "", api.HealthPassing, (&api.QueryOptions{}).WithContext(ctx))
}

// refresh is not done if reg is to be registered in full.
func (r *Registry) refresh(ctx context.Context, a *agent, reg registration) (done bool, err error) {
	has, _, err := a.client.Agent().Service(reg.ID, (&api.QueryOptions{}).WithContext(ctx))
	if err == nil && has.Meta[metaStamp] != reg.Meta[metaStamp] {
		return false, nil
	}
	if err == nil {
		err = pass(ctx, a, reg)
	}
	switch {
	case isUnknown(err):
		return false, nil
	case err != nil || !r.isMissing(reg):
		return err == nil, err
	}
	// The servers may have lost what the agent believes them to have, which it would go on believing for minutes.
	deadline, _ := ctx.Deadline()
	soon, cancel := context.WithTimeout(ctx, time.Until(deadline)/4)
	defer cancel()
	if _ = r.untilVisible(soon, a, reg); soon.Err() == nil {
		return true, nil // it is there, or nobody can say
	}
	return false, forget(ctx, a, reg.ID)
}

// isMissing tells that a watch is under way and does not see reg.
func (r *Registry) isMissing(reg registration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.seen[reg.ID]
	return r.seen != nil && (s == nil || s.content != reg.content)
}

// untilVisible waits until the agent has told the servers, so that who registers can be found at once.
func (r *Registry) untilVisible(ctx context.Context, a *agent, reg registration) error {
	opts := &api.QueryOptions{Filter: fmt.Sprintf("CheckID == %q", checkPrefix+reg.ID)}
	for {
		var checks []check
		if deadline, ok := ctx.Deadline(); ok {
			opts.WaitTime = max(time.Until(deadline), time.Millisecond)
		}
		meta, err := a.client.Raw().Query("/v1/health/checks/"+reg.Name, &checks, opts.WithContext(ctx))
		if err != nil {
			return err
		}
		for _, c := range checks {
			if c.content() == reg.content && c.Status == api.HealthPassing {
				return nil
			}
		}
		if meta.ResultsFilteredByACLs || r.isAnonymous(meta) {
			r.sayHidden()
			return nil
		}
		opts.WaitIndex = max(1, meta.LastIndex)
	}
}

// note keeps in mind who may have to forget the instance.
func (r *Registry) note(id string, a *agent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.own[id] == nil {
		r.own[id] = make(map[*agent]bool)
	}
	r.own[id][a] = true
}

func (r *Registry) noted(id string, a *agent) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.own[id][a]
}

// unnote is for an agent that has forgotten it.
func (r *Registry) unnote(id string, a *agent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.own[id], a)
	if len(r.own[id]) == 0 {
		delete(r.own, id)
	}
}

// told are the nodes of s that agents may have because of this process; others has those that none has.
func (r *Registry) told(s *registry.Service) (told map[*agent][]string, others []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	told = make(map[*agent][]string)
	for _, n := range s.Nodes {
		id := serviceID(s.Name, n.ID)
		for a := range r.own[id] {
			told[a] = append(told[a], id)
		}
		if len(r.own[id]) == 0 {
			others = append(others, id)
		}
	}
	return told, others
}

// Deregister has every agent that this process registered the nodes with forget them, all agents at once; one that does
// not answer is left after the timeout, however many nodes there are. Deregister fails if an agent does not forget, as the
// node can be found again when that agent is back: until its TTL passes, and for ever without one. Nothing goes on in the
// background: to call it again asks those agents that are left. Nodes that this process did not register are forgotten by
// the first agent that answers.
func (r *Registry) Deregister(s *registry.Service) error {
	if r.ctx.Err() != nil {
		return registry.ErrClosed
	}
	told, others := r.told(s)
	errs := make([]error, len(r.agents.list)+1)
	var work sync.WaitGroup
	for i, a := range r.agents.list {
		work.Go(func() { errs[i] = r.forgetOwn(a, told[a]) })
	}
	work.Go(func() {
		errs[len(errs)-1] = r.each(others, func(ctx context.Context, id string) error {
			return r.agents.do(ctx, func(ctx context.Context, a *agent) error { return forget(ctx, a, id) })
		})
	})
	work.Wait()
	return r.failed(errors.Join(errs...))
}

func (r *Registry) forgetOwn(a *agent, ids []string) error {
	err := r.each(ids, func(ctx context.Context, id string) error {
		ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
		defer cancel()
		if err := forget(ctx, a, id); err != nil {
			return err
		}
		r.unnote(id, a)
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w; it may still have the node: deregister it again when it answers", explain(a, err, r.config.Timeout))
	}
	return nil
}

// each calls f for a few IDs at a time, until one fails.
func (r *Registry) each(ids []string, f func(context.Context, string) error) error {
	work, ctx := errgroup.WithContext(r.ctx)
	work.SetLimit(maxFetches)
	for _, id := range ids {
		work.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return f(ctx, id)
		})
	}
	return work.Wait()
}

func forget(ctx context.Context, a *agent, id string) error {
	err := a.client.Agent().ServiceDeregisterOpts(id, (&api.QueryOptions{}).WithContext(ctx))
	if isUnknown(err) {
		return nil
	}
	return err
}
