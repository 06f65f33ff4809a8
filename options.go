package micro

import (
	"context"
	"log/slog"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/tracer"
	"github.com/plugmicro/micro/transport"
)

// Option says in code how a service is made. What the file, the environment and the flags say goes before it.
type Option func(*Service)

type options struct {
	args             []string
	environ          []string
	logger           *slog.Logger
	serverMiddleware []server.Middleware
	clientMiddleware []client.Middleware
	balancer         client.Balancer

	beforeStart, afterStart, beforeStop, afterStop []func(context.Context) error
}

// WithVersion sets the version.
func WithVersion(v string) Option { return func(s *Service) { s.settings.Version = v } }

// WithAddress sets the address to listen on.
func WithAddress(addr string) Option { return func(s *Service) { s.settings.Address = addr } }

// WithMetadata adds a pair that is registered with the instance.
func WithMetadata(key, value string) Option {
	return func(s *Service) {
		if s.settings.Metadata == nil {
			s.settings.Metadata = make(map[string]string)
		}
		s.settings.Metadata[key] = value
	}
}

// WithRegistry passes in a registry. It is used unless --registry or MICRO_REGISTRY names another, and is the caller's
// to close; the same goes for brokers, transports and tracers.
func WithRegistry(r registry.Registry) Option {
	return func(s *Service) { plugin.Provide(s.loader, r) }
}

// WithBroker passes in a broker.
func WithBroker(b broker.Broker) Option { return func(s *Service) { plugin.Provide(s.loader, b) } }

// WithTransport passes in a transport.
func WithTransport(t transport.Transport) Option {
	return func(s *Service) { plugin.Provide(s.loader, t) }
}

// WithTracer passes in a tracer.
func WithTracer(t tracer.Tracer) Option { return func(s *Service) { plugin.Provide(s.loader, t) } }

// WithSetting sets what a flag of that name would: WithSetting("registry", "mdns").
func WithSetting(key, value string) Option { return func(s *Service) { s.loader.Set(key, value) } }

// WithSection adds the program's own settings: a field Language of the struct that settings points to is
// --PREFIX-language, MICRO_PREFIX_LANGUAGE and so on, as package plugin says. They are filled when Start returns.
func WithSection(prefix string, settings any) Option {
	return func(s *Service) { s.loader.Section(prefix, settings) }
}

// WithArgs replaces the flags of the process, os.Args[1:].
func WithArgs(args ...string) Option { return func(s *Service) { s.options.args = args } }

// WithEnviron replaces the environment of the process, as os.Environ gives it.
func WithEnviron(environ ...string) Option { return func(s *Service) { s.options.environ = environ } }

// WithLogger replaces slog.Default.
func WithLogger(l *slog.Logger) Option { return func(s *Service) { s.options.logger = l } }

// WithServerMiddleware wraps all endpoints; the first one is the outermost.
func WithServerMiddleware(m ...server.Middleware) Option {
	return func(s *Service) { s.options.serverMiddleware = append(s.options.serverMiddleware, m...) }
}

// WithClientMiddleware wraps all calls of Client; the first one is the outermost.
func WithClientMiddleware(m ...client.Middleware) Option {
	return func(s *Service) { s.options.clientMiddleware = append(s.options.clientMiddleware, m...) }
}

// WithBalancer says how Client picks nodes.
func WithBalancer(b client.Balancer) Option { return func(s *Service) { s.options.balancer = b } }

// BeforeStart adds a hook that runs before anything is opened. An error of a hook ends the start; hooks of one sort run
// in the order in which they were added.
func BeforeStart(f func(context.Context) error) Option {
	return func(s *Service) { s.options.beforeStart = append(s.options.beforeStart, f) }
}

// AfterStart adds a hook that runs when the service can be called.
func AfterStart(f func(context.Context) error) Option {
	return func(s *Service) { s.options.afterStart = append(s.options.afterStart, f) }
}

// BeforeStop adds a hook that runs while the service can still be called.
func BeforeStop(f func(context.Context) error) Option {
	return func(s *Service) { s.options.beforeStop = append(s.options.beforeStop, f) }
}

// AfterStop adds a hook that runs when everything is closed.
func AfterStop(f func(context.Context) error) Option {
	return func(s *Service) { s.options.afterStop = append(s.options.afterStop, f) }
}
