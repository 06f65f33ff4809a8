// Package static is a registry plugin of its own, as anybody could write one: services at addresses that are known, such
// as DNS names that a platform gives them.
//
//	--registry=static --registry-nodes greeter=greeter.internal:4100
package static

import (
	"fmt"
	"slices"
	"strings"

	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
)

// Config is what --registry-* and MICRO_REGISTRY_* set once static is the chosen registry.
type Config struct {
	Nodes map[string]string `help:"services and where they are: greeter=greeter.internal:4100"`
}

// Validate is called when the settings are read, so that a mistake is told with all others.
func (c Config) Validate() error {
	if len(c.Nodes) == 0 {
		return fmt.Errorf("nodes: without any, no service is found")
	}
	return nil
}

func init() { plugin.Register("static", New, plugin.Doc("services at addresses that are known")) }

// New opens the registry.
func New(_ *plugin.Env, c Config) (registry.Registry, error) { return &Registry{nodes: c.Nodes}, nil }

// Registry finds what its settings name.
type Registry struct {
	nodes   map[string]string
	changes registry.Fanout // there are none, but watchers wait for them
}

var _ registry.Registry = (*Registry)(nil)

// Register does nothing: where services are is said by the settings.
func (r *Registry) Register(s *registry.Service, _ ...registry.RegisterOption) error {
	return registry.Validate(s)
}

// Deregister does nothing either.
func (r *Registry) Deregister(*registry.Service) error { return nil }

// GetService finds the one node that the settings name.
func (r *Registry) GetService(name string) ([]*registry.Service, error) {
	address, ok := r.nodes[name]
	if !ok {
		return nil, fmt.Errorf("%w: %s is not among --registry-nodes", registry.ErrNotFound, name)
	}
	node := &registry.Node{ID: name, Address: address}
	return []*registry.Service{{Name: name, Nodes: []*registry.Node{node}}}, nil
}

// ListServices lists what the settings name.
func (r *Registry) ListServices() ([]*registry.Service, error) {
	var list []*registry.Service
	for name := range r.nodes {
		list = append(list, &registry.Service{Name: name})
	}
	slices.SortFunc(list, func(a, b *registry.Service) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Watch waits for changes.
func (r *Registry) Watch() (registry.Watcher, error) { return r.changes.Watch() }

// Close ends what waits for changes.
func (r *Registry) Close() error {
	r.changes.Close()
	return nil
}

func (r *Registry) String() string { return "static" }
