// Package registry is the contract of service discovery: who runs which service, where, and what changed.
//
// For services and their clients the core does the work; a plugin implements Registry and registers itself:
//
//	func init() { plugin.Register("consul", New, plugin.Doc("HashiCorp Consul")) }
//	func New(env *plugin.Env, c Config) (registry.Registry, error) { … }
//
// Fanout, Diff, Merge and Validate are what an implementation is made of; registrytest checks that it keeps the contract.
// A program that wants its own passes it in: micro.New("greeter", micro.WithRegistry(mine)). Whoever registers
// something does it through Keep, which brings it back when the backend has lost it.
package registry

import (
	"errors"
	"time"

	"github.com/plugmicro/micro/plugin"
)

// Plugins is the kind: --registry, MICRO_REGISTRY.
var Plugins = plugin.NewKind[Registry]("registry",
	plugin.KindDoc("finds services: who runs what, where"), plugin.Known("consul", "local", "memory", "mdns"))

// Registry finds services. All methods are safe for concurrent use. They are off the request path: an implementation
// bounds each call by its own timeout setting. One that holds resources also implements io.Closer; after Close
// everything answers ErrClosed, and what was registered through it and not deregistered may be gone.
type Registry interface {
	// Register adds or replaces the nodes of s, found again by their ID, also those of another version or registered
	// by another process; nodes of the same service that s does not mention stay as they are. Registering again is how
	// a node is refreshed, which watchers are told of only if something changed. s is not kept: the caller may
	// change it afterwards. ErrInvalid if Validate says so, or if it is more than this registry takes.
	Register(s *Service, opts ...RegisterOption) error

	// Deregister removes the nodes of s, by their ID, whatever else s says. A node that is not there is no error.
	Deregister(s *Service) error

	// GetService returns one Service for each version that has nodes, sorted by version, nodes sorted by ID;
	// ErrNotFound if there is none. Nodes whose TTL has passed or whose process died are not in it. Where nodes of
	// one version were registered with different metadata or endpoints, those of the first node are returned.
	GetService(name string) ([]*Service, error)

	// ListServices returns one Service for each name, sorted; only Name is sure to be filled.
	ListServices() ([]*Service, error)

	// Watch tells of all changes from now on. It does not tell what is there already: watch first, then get.
	Watch() (Watcher, error)

	// String is the name under which the plugin is registered.
	String() string
}

// OneMachine reports whether only processes of this machine see what is in r. Services then listen where only they can
// reach them, unless an address is set. A registry says so by a method OneMachine() bool.
func OneMachine(r Registry) bool {
	o, ok := r.(interface{ OneMachine() bool })
	return ok && o.OneMachine()
}

// Service is one version of a named service and where it runs. What a Registry returns is the caller's own copy.
type Service struct {
	Name      string            `json:"name"`
	Version   string            `json:"version,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	Endpoints []*Endpoint       `json:"endpoints,omitempty"`
	Nodes     []*Node           `json:"nodes,omitempty"`
}

// Node is one running instance. Its ID is unique within the registry; Address is what the chosen transport dials.
type Node struct {
	ID       string            `json:"id"`
	Address  string            `json:"address"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Endpoint is one thing that a service can be asked, by name: "Greeter.Hello".
type Endpoint struct {
	Name     string            `json:"name"`
	Request  *Value            `json:"request,omitempty"`
	Response *Value            `json:"response,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Metadata of endpoints that servers set and clients go by.
const (
	MetadataStream     = "stream"     // "server", "client" or "both": who streams
	MetadataIdempotent = "idempotent" // "true": may run twice for one call
)

// Value describes a field or a message: Type is "string", "int64", "[]string", … and Values are the fields of a message.
// What there is beside these, and what it is in JSON, its methods say: nobody else takes Type apart.
type Value struct {
	Name   string   `json:"name,omitempty"`
	Type   string   `json:"type"`
	Values []*Value `json:"values,omitempty"`
}

// What happened to the nodes of a Result.
const (
	Create = "create"
	Update = "update"
	Delete = "delete"
)

// Result is one change. Service carries only the nodes that it is about. After Create and after Update the node is what
// Service says; a reader keeps nodes by service name, version and ID, and takes an Update of a node that it does not know
// for a Create, and a Delete of one for nothing.
type Result struct {
	Action  string   `json:"action"` // Create, Update or Delete
	Service *Service `json:"service"`
}

// Watcher hands out changes in order, until it is stopped. A slow reader loses no node's last state: changes to the
// same node that were not read yet are folded into one, at the place of the first, so that the memory of a watcher is
// bounded by the number of nodes.
type Watcher interface {
	// Next blocks for the next change; ErrWatcherStopped after Stop, ErrClosed after the registry was closed. Any
	// other error means that changes may have been missed: watch anew and get again.
	Next() (*Result, error)
	// Stop ends the watcher, and a Next that is waiting. It may be called more than once.
	Stop()
}

// Errors that every registry answers, to be matched with errors.Is.
var (
	ErrNotFound       = errors.New("service not found")
	ErrWatcherStopped = errors.New("watcher stopped")
	ErrClosed         = errors.New("registry closed")
	ErrInvalid        = errors.New("invalid service") // wrapped with what is wrong with it
)

// RegisterOptions is what the options of one Register call add up to.
type RegisterOptions struct {
	TTL time.Duration // how long a registration lives without being refreshed; 0 or less: until it is deregistered
}

// RegisterOption changes how a service is registered.
type RegisterOption func(*RegisterOptions)

// TTL lets a registration end by itself when it is not refreshed in time.
func TTL(d time.Duration) RegisterOption { return func(o *RegisterOptions) { o.TTL = d } }

// NewRegisterOptions is for implementations: it adds up opts.
func NewRegisterOptions(opts ...RegisterOption) RegisterOptions {
	var o RegisterOptions
	for _, opt := range opts {
		opt(&o)
	}
	return o
}
