package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/plugmicro/micro/registry"
)

// watchServices prints what is there and what changes, of one service or, if name is empty, of all.
func (a *app) watchServices(ctx context.Context, reg registry.Registry, name string) error {
	w := &watch{app: a, registry: reg, name: name, known: make(map[node]*registry.Service)}
	pause := backoff.NewExponentialBackOff()
	for first := true; ; first = false {
		err := w.follow(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case first && !w.began, errors.Is(err, registry.ErrClosed), errors.Is(err, errOutput):
			return err
		}
		if w.began {
			pause.Reset()
		}
		a.warn("trying again: %v", err)
		select {
		case <-time.After(pause.NextBackOff()):
		case <-ctx.Done():
		}
	}
}

var errOutput = errors.New("print")

// watch keeps what was printed, so that nothing is printed twice, whatever a watcher tells twice or misses.
type watch struct {
	*app
	registry registry.Registry
	name     string
	began    bool // the last follow got as far as telling what is there
	known    map[node]*registry.Service
}

// node is how the nodes of results are told apart.
type node struct{ service, version, id string }

// follow prints the difference to what is known, then changes, until the watcher fails.
func (w *watch) follow(ctx context.Context) error {
	w.began = false
	watcher, err := w.registry.Watch() // before reading, so that nothing is missed in between
	if err != nil {
		return fmt.Errorf("watch registry %s: %w", w.registry, err)
	}
	defer watcher.Stop()
	defer context.AfterFunc(ctx, watcher.Stop)()
	if err := w.catchUp(); err != nil {
		return err
	}
	w.began = true
	for {
		r, err := watcher.Next()
		if err != nil {
			return fmt.Errorf("watch registry %s: %w", w.registry, err)
		}
		if err := w.apply(r); err != nil {
			return err
		}
	}
}

// catchUp reads what is there.
func (w *watch) catchUp() error {
	var old []*registry.Service
	for _, s := range w.known {
		old = append(old, s)
	}
	now, err := w.read()
	if err != nil {
		return err
	}
	for _, r := range registry.Diff(registry.Merge(old), now) {
		if err := w.apply(r); err != nil {
			return err
		}
	}
	return nil
}

func (w *watch) read() ([]*registry.Service, error) {
	names := []string{w.name}
	if w.name == "" {
		var err error
		if names, err = serviceNames(w.registry); err != nil {
			return nil, err
		}
	}
	var all []*registry.Service
	for _, name := range names {
		versions, err := w.registry.GetService(name)
		if err != nil && !errors.Is(err, registry.ErrNotFound) {
			return nil, fmt.Errorf("find service %q in registry %s: %w", name, w.registry, err)
		}
		all = append(all, versions...)
	}
	return all, nil
}

// wanted says whether a service is to be printed.
func (w *watch) wanted(name string) bool {
	if w.name != "" {
		return name == w.name
	}
	return !strings.HasPrefix(name, internalPrefix)
}

// apply prints what r changes in what is known.
func (w *watch) apply(r *registry.Result) error {
	if !w.wanted(r.Service.Name) {
		return nil
	}
	for _, n := range r.Service.Nodes {
		one := *r.Service
		one.Nodes = []*registry.Node{n}
		key := node{one.Name, one.Version, n.ID}
		old := w.known[key]
		action := registry.Update
		switch {
		case r.Action == registry.Delete && old == nil, r.Action != registry.Delete && old != nil && old.Equal(&one):
			continue
		case r.Action == registry.Delete:
			action, one = registry.Delete, *old
			delete(w.known, key)
		case old == nil:
			action = registry.Create
			w.known[key] = &one
		default:
			w.known[key] = &one
		}
		if err := w.print(action, &one); err != nil {
			return fmt.Errorf("%w: %w", errOutput, err)
		}
	}
	return nil
}

func (w *watch) print(action string, s *registry.Service) error {
	if w.output == asJSON {
		return w.printJSON(&registry.Result{Action: action, Service: s})
	}
	n := s.Nodes[0]
	cells := []string{action, s.Name}
	for _, cell := range []string{s.Version, n.ID, n.Address, pairs(n.Metadata)} {
		if cell != "" {
			cells = append(cells, cell)
		}
	}
	return w.printLine(strings.Join(cells, "  "))
}
