package consul

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/consul/api"
	"github.com/plugmicro/micro/registry"
	"golang.org/x/sync/errgroup"
)

// A watch is one long poll for all services, however many there are and however many ask: an agent takes 200 connections
// from one address, for all processes there. What is polled is the index of all checks, with a filter that nothing
// passes. When it moves, the checks are read. They tell who lives, and, in the notes of the TTL check, a digest of what
// the node says: only nodes that are new or say something new are read in full.

const (
	longPoll    = 30 * time.Second      // an agent that hangs is noticed a little later at the latest
	noCheck     = `CheckID == ""`       // the filter that nothing passes
	minPace     = 10 * time.Millisecond // between two readings
	maxPace     = 5 * time.Second
	paceOfEach  = time.Millisecond       // for each instance there is, so that a process reads at most half a MB a second
	maxPause    = 10 * time.Second       // between attempts
	answerPause = 200 * time.Millisecond // before an attempt because of an answer
	maxFetches  = 8                      // at once
	maxFiltered = 32                     // nodes of a service are asked for by ID, if no more changed
	maxFilter   = 8 << 10                // bytes that it takes to name them
)

// seen is what watchers know of an instance.
type seen struct {
	content string
	service *registry.Service // only minimal if it was there when the watch began; nil if nobody was told of it
}

// Watch begins the loop that follows Consul, the first time.
func (r *Registry) Watch() (registry.Watcher, error) {
	r.watching.Lock()
	defer r.watching.Unlock()
	if r.ctx.Err() != nil {
		return nil, registry.ErrClosed
	}
	first := r.seen == nil
	index, _, err := r.look() // so that the new watcher is not told what was there before
	if err != nil {
		return nil, r.failed(err)
	}
	if first {
		r.loop.Go(func() { r.follow(index) })
	}
	return r.changes.Watch()
}

// look reads what there is and tells the watchers what is new. It is incomplete if what was read of the nodes is not what
// the checks say: then it is to be called again. The index is that of what was read, at least 1.
func (r *Registry) look() (index uint64, complete bool, err error) {
	checks, meta, err := r.checks(r.ctx)
	if err != nil {
		return 0, false, err
	}
	now := alive(checks)
	index = max(1, meta.LastIndex) // 0 would not wait
	if r.seen == nil {
		first := make(map[string]*seen)
		for id, c := range now {
			first[id] = &seen{c.content(), c.minimal()}
		}
		r.mu.Lock()
		r.seen = first
		r.mu.Unlock()
		return index, true, nil
	}
	for _, id := range slices.Sorted(maps.Keys(r.seen)) {
		if _, there := now[id]; !there {
			r.tell(id, nil)
		}
	}
	changed := make(map[string][]string) // IDs, by name in Consul
	for id, c := range now {
		if s := r.seen[id]; s == nil || s.content != c.content() {
			changed[c.ServiceName] = append(changed[c.ServiceName], id)
		}
	}
	found, err := r.fetch(changed)
	if err != nil {
		return 0, false, err
	}
	complete = true
	for _, ids := range changed {
		slices.Sort(ids)
		for _, id := range ids {
			i, ok := found[id]
			// A server that lags behind may have answered, or one that is ahead; or the node and its check are on their way.
			if !ok || i.check.ModifyIndex < now[id].ModifyIndex || i.service != nil && i.content != i.check.content() {
				complete = false
				continue
			}
			r.tell(id, &i)
		}
	}
	return index, complete, nil
}

// tell makes i, nil if it is gone, what watchers know.
func (r *Registry) tell(id string, i *instance) {
	var before, after []*registry.Service
	if s := r.seen[id]; s != nil && s.service != nil {
		before = []*registry.Service{s.service}
	}
	r.mu.Lock()
	delete(r.seen, id)
	if i != nil {
		r.seen[id] = &seen{i.check.content(), i.service}
		if i.service != nil {
			after = []*registry.Service{i.service}
		}
	}
	r.mu.Unlock()
	r.changes.Publish(registry.Diff(before, after)...)
}

// fetch reads instances in full. Those of a service that Consul refuses to tell of are missing; an error is that it did
// not answer.
func (r *Registry) fetch(changed map[string][]string) (map[string]instance, error) {
	var mu sync.Mutex
	found := make(map[string]instance)
	work, ctx := errgroup.WithContext(r.ctx)
	work.SetLimit(maxFetches)
	for name, ids := range changed {
		work.Go(func() error {
			entries, _, err := r.entries(ctx, name, byID(ids), false)
			var refusal api.StatusError
			if errors.As(err, &refusal) {
				r.log.Debug("a service in Consul cannot be read, trying again", "name", name, "error", err)
				return nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(found, r.instances(entries))
			return nil
		})
	}
	return found, work.Wait()
}

// byID is a filter, empty if it would be too large. What check.node takes for an ID needs no quoting.
func byID(ids []string) string {
	if len(ids) > maxFiltered {
		return ""
	}
	filter := `Service.ID == "` + strings.Join(ids, `" or Service.ID == "`) + `"`
	if len(filter) > maxFilter {
		return ""
	}
	return filter
}

// follow tells the watchers until Close, whatever happens to Consul.
func (r *Registry) follow(index uint64) {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval = 100 * time.Millisecond
	pauses.MaxInterval = maxPause
	wait, blind := longPoll, false
	for r.ctx.Err() == nil {
		next, complete, err := r.step(index, wait)
		switch {
		case r.ctx.Err() != nil:
			return
		case err != nil:
			index = 0 // Consul may have lost its data, and count anew
			if !blind {
				blind = true
				r.log.Warn("consul cannot be watched, what is known of it stays in use", "error", err)
			}
			r.pause(pauses.NextBackOff())
			continue
		case !complete:
			wait = pauses.NextBackOff()
		default:
			wait = longPoll
			pauses.Reset()
		}
		index = next
		if blind {
			blind = false
			r.log.Info("consul is watched again")
		}
	}
}

// step waits for news, and tells it. It does not wait if index is 0, and tells also without news if wait is short. When
// much changes all the time, it leaves most of the time, of this process and of Consul, to others.
func (r *Registry) step(index uint64, wait time.Duration) (next uint64, complete bool, err error) {
	if index > 0 {
		next, err = r.poll(index, wait)
		if err != nil || next == index && wait == longPoll {
			return next, true, err
		}
	}
	begun := time.Now()
	r.watching.Lock()
	next, complete, err = r.look()
	many := len(r.seen)
	r.watching.Unlock()
	if err == nil {
		r.sleep(min(max(minPace, 4*time.Since(begun), time.Duration(many)*paceOfEach), maxPace))
	}
	return next, complete, err
}

// poll returns the index of the checks when it is another one, or after wait.
func (r *Registry) poll(index uint64, wait time.Duration) (uint64, error) {
	a := r.agents.pick()
	// Consul adds up to a sixteenth to the time.
	ctx, cancel := context.WithTimeout(a.session(), wait*17/16+r.config.Timeout)
	defer cancel()
	opts := r.read(ctx)
	opts.Filter, opts.WaitIndex, opts.WaitTime = noCheck, index, wait
	meta, err := a.client.Raw().Query(everyCheck, &[]check{}, opts)
	if err != nil && context.Cause(ctx) == errSilent {
		err = errSilent
	}
	if err != nil {
		return 0, explain(a, err, wait)
	}
	return max(1, meta.LastIndex), nil
}

// pause waits after a failure, but not much longer than until Consul has answered something else.
func (r *Registry) pause(d time.Duration) {
	select {
	case <-r.agents.answered: // before the failure, perhaps
	default:
	}
	select {
	case <-time.After(d):
	case <-r.agents.answered:
		r.sleep(min(d, answerPause))
	case <-r.ctx.Done():
	}
}

func (r *Registry) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.ctx.Done():
	}
}
