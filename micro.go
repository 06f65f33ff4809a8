// Package micro is a service: endpoints that others call, topics that it listens to, and a client to call others, on
// whatever infrastructure is chosen by name when the process starts.
//
//	svc := micro.New("greeter", micro.WithVersion("1.0.0"))
//	svc.Handle(Greeter{}) // endpoints Greeter.Hello, …
//	svc.Subscribe("greetings", onGreeting, broker.Group("greeter"))
//	if err := svc.Run(); err != nil {
//		log.Fatal(err)
//	}
//
// Nothing needs to be installed for it. To have it found on the local network, add a file plugins.go that imports the
// plugin mdns (see plugins.go.example) and start it with --registry=mdns, or with MICRO_REGISTRY=mdns in its environment.
//
// A program that only calls others has no handlers: it uses Do instead of Run.
package micro

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/client"
	_ "github.com/plugmicro/micro/defaults"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/tracer"
	"github.com/plugmicro/micro/tracing"
	"github.com/plugmicro/micro/transport"
)

// Settings are what --name, MICRO_NAME and name in the file set, and so on.
type Settings struct {
	Name             string            `help:"name under which others find the service"`
	Version          string            `help:"version of the service"`
	ID               string            `help:"name of this instance; default: the service's name and something random"`
	Address          string            `help:"address to listen on, as the transport has it; default: one that the transport chooses, on this machine only if the registry is"`
	Advertise        string            `help:"address that is registered; default: the one that is listened on"`
	Metadata         map[string]string `help:"pairs that are registered with this instance"`
	RegisterTTL      time.Duration     `default:"30s" help:"how long the registration lives without being refreshed"`
	RegisterInterval time.Duration     `default:"10s" help:"how often it is refreshed"`
	DrainTimeout     time.Duration     `default:"30s" help:"limit for stopping: calls and handlers that run longer are cut off"`
}

// Validate is for package plugin.
func (s *Settings) Validate() error {
	switch {
	case s.Name == "":
		return errors.New("name: a service needs one")
	case s.RegisterInterval <= 0 || s.RegisterTTL <= s.RegisterInterval:
		return fmt.Errorf("register-ttl %s must be longer than register-interval %s, and that more than 0", s.RegisterTTL, s.RegisterInterval)
	case s.DrainTimeout <= 0:
		return fmt.Errorf("drain-timeout %s: want more than 0", s.DrainTimeout)
	}
	return nil
}

// ErrHelp is what Start returns after --help: what it says was printed, and nothing was started.
var ErrHelp = pflag.ErrHelp

// Service is a service. Handle and Subscribe come first, then Run, or Start and Stop; Client, Publish and Ready may be
// used from anywhere at any time.
type Service struct {
	settings Settings
	options  options
	loader   *plugin.Loader
	server   *server.Server
	client   *client.Client
	mistakes []error // of Handle and Subscribe, for Start to return

	subscriptions []subscription
	handles       []func(*server.Server) error

	mu      sync.Mutex
	state   state
	running *running
	host    atomic.Pointer[plugin.Host] // while it runs
	traced  atomic.Pointer[traced]      // nil: no tracer was chosen
	found   atomic.Pointer[found]       // once it is registered
	ready   atomic.Bool
}

// found is how others find the service. Like all that Ready and Address look at it is not under mu, which Start and Stop
// hold while they run hooks.
type found struct {
	address string
	keeper  *registry.Keeper
}

// traced is what a service has when a tracer was chosen.
type traced struct {
	tracer tracer.Tracer
	broker func() (broker.Broker, error) // opens it, once
}

type state int

const (
	isNew state = iota
	isStarted
	isStopped
)

// running is what Start made, for Stop to take down.
type running struct {
	log           *slog.Logger
	served        chan error
	subscriptions []broker.Subscription
}

// New makes a service. It does nothing yet: settings are read, and mistakes told, by Run or Start.
func New(name string, opts ...Option) *Service {
	s := &Service{settings: Settings{Name: name}}
	s.options = options{args: os.Args[1:], environ: os.Environ(), logger: slog.Default()}
	s.loader = plugin.NewLoader(plugin.Linked)
	s.loader.PassOver("gateway", "middleware") // one file serves the gateway, too
	for _, opt := range opts {
		opt(s)
	}
	s.loader.Section("", &s.settings)
	s.client = client.Lazy(s.network, client.Options{Balancer: s.options.balancer, Logger: s.options.logger}, s.options.clientMiddleware...)
	return s
}

// Handle makes endpoints of the methods of v, as server.Handle says. A mistake in it is an error of Run.
func (s *Service) Handle(v any, opts ...server.HandleOption) {
	s.handles = append(s.handles, func(srv *server.Server) error { return srv.Handle(v, opts...) })
}

// HandleFunc makes one endpoint of a function, under any name. It is faster than Handle, which calls by reflection.
func HandleFunc[Req, Rsp any](s *Service, name string, f func(context.Context, *Req) (*Rsp, error), opts ...server.HandleOption) {
	s.handles = append(s.handles, func(srv *server.Server) error { return server.Func(srv, name, f, opts...) })
}

// ID is the name of this instance, once the service has started.
func (s *Service) ID() string { return s.settings.ID }

// Address is where others reach this instance, once the service has started; "" if it has no endpoints.
func (s *Service) Address() string {
	if f := s.found.Load(); f != nil {
		return f.address
	}
	return ""
}

// Client calls other services. It is the same one every time, and ready once the service runs.
func (s *Service) Client() *client.Client { return s.client }

// Tracer is the one that was chosen, once the service has started, for spans that belong to no call; nil if none was.
// Handlers find their span in their context.
func (s *Service) Tracer() tracer.Tracer {
	if traced := s.traced.Load(); traced != nil {
		return traced.tracer
	}
	return nil
}

// Ready says whether the service runs and others can find it.
func (s *Service) Ready() bool {
	f := s.found.Load()
	return s.ready.Load() && (f == nil || f.keeper.Registered())
}

// Do starts the service, calls f, and stops the service: what a program needs that only calls or publishes. SIGTERM and
// SIGINT end the context of f. After --help it returns nil.
func (s *Service) Do(f func(ctx context.Context) error) error {
	ctx, stop := untilSignal()
	defer stop()
	err := s.Start(ctx)
	if errors.Is(err, ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	err = f(ctx)
	return errors.Join(err, s.Stop(context.Background()))
}

// untilSignal ends with the first signal; the second one ends the process, whatever that is doing.
func untilSignal() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Run starts the service, waits for SIGTERM or SIGINT, and stops it. A second signal ends the process at once. After
// --help it returns nil.
func (s *Service) Run() error {
	return s.Do(func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.running.served:
			return err
		}
	})
}

// Start reads the settings, opens what was chosen, and serves. All that is wrong with the settings comes in one error,
// and after an error nothing is left running. ctx bounds the starting only.
func (s *Service) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != isNew {
		return errors.New("start: the service was started already")
	}
	settings, err := s.load()
	if err != nil {
		return err
	}
	s.state = isStarted
	log := s.logger()
	for _, w := range settings.Warnings() {
		log.Warn(w)
	}
	s.running = &running{log: log, served: make(chan error, 1)}
	host := settings.Open(context.Background(), log,
		plugin.OpenedBy(plugin.Program{Name: s.settings.Name, Version: s.settings.Version, ID: s.settings.ID}))
	s.host.Store(host)
	if err := s.start(ctx, host); err != nil {
		s.shutDown(context.Background())
		return err
	}
	s.ready.Store(true)
	return nil
}

// load gathers everything that can be wrong before anything is opened.
func (s *Service) load() (*plugin.Settings, error) {
	if err := s.loader.Parse(s.options.args); err != nil {
		return nil, err
	}
	settings, err := s.loader.Load(s.options.environ)
	mistakes := append(s.mistakes, err)
	if s.settings.ID == "" {
		s.settings.ID = s.settings.Name + "-" + strings.ToLower(rand.Text()[:10])
	}
	s.server = server.New(s.settings.Name, server.Options{Logger: s.logger()})
	for _, handle := range s.handles {
		mistakes = append(mistakes, handle(s.server))
	}
	return settings, errors.Join(mistakes...)
}

func (s *Service) logger() *slog.Logger {
	return s.options.logger.With("service", s.settings.Name, "id", s.settings.ID)
}

func (s *Service) start(ctx context.Context, host *plugin.Host) error {
	if err := runHooks(ctx, s.options.beforeStart); err != nil {
		return fmt.Errorf("before start: %w", err)
	}
	if err := s.trace(host); err != nil {
		return err
	}
	s.server.Use(s.options.serverMiddleware...)
	if len(s.handles) > 0 {
		if err := s.serve(ctx, host); err != nil {
			return err
		}
	}
	if err := s.subscribe(ctx, host); err != nil {
		return err
	}
	if err := runHooks(ctx, s.options.afterStart); err != nil {
		return fmt.Errorf("after start: %w", err)
	}
	return nil
}

// trace puts spans around everything, outside of all middleware, if a tracer was chosen. Otherwise nothing is changed.
func (s *Service) trace(host *plugin.Host) error {
	t, ok, err := plugin.OpenOptional[tracer.Tracer](host)
	if !ok {
		return err
	}
	s.client.Use(tracing.Client(t))
	s.server.Use(tracing.Server(t))
	s.traced.Store(&traced{t, sync.OnceValues(func() (broker.Broker, error) {
		b, err := plugin.Open[broker.Broker](host)
		if err != nil {
			return nil, err
		}
		return tracing.Broker(t, b), nil
	})})
	s.running.log.Info("tracing", "tracer", t.String())
	return nil
}

// serve listens and registers.
func (s *Service) serve(ctx context.Context, host *plugin.Host) error {
	tr, err := plugin.Open[transport.Transport](host)
	if err != nil {
		return err
	}
	reg, err := plugin.Open[registry.Registry](host)
	if err != nil {
		return err
	}
	var where []transport.ListenOption
	if registry.OneMachine(reg) {
		where = append(where, transport.ListenLocal())
	}
	l, err := tr.Listen(ctx, s.settings.Address, where...)
	if err != nil {
		return err
	}
	go func() { s.running.served <- s.server.Serve(l) }()
	s.warnOfLoopback(l.Addr(), reg)
	node := &registry.Node{ID: s.settings.ID, Address: l.Addr(), Metadata: s.settings.Metadata}
	if s.settings.Advertise != "" {
		node.Address = s.settings.Advertise
	}
	described := &registry.Service{
		Name: s.settings.Name, Version: s.settings.Version, Endpoints: s.server.Endpoints(), Nodes: []*registry.Node{node},
	}
	keeper, err := registry.Keep(reg, described, s.settings.RegisterTTL, s.settings.RegisterInterval, s.running.log)
	if err != nil {
		return err
	}
	s.found.Store(&found{node.Address, keeper})
	s.running.log.Info("serving", "address", node.Address, "transport", tr.String(), "registry", reg.String())
	return nil
}

// warnOfLoopback tells of an address that others will find and cannot reach.
func (s *Service) warnOfLoopback(addr string, reg registry.Registry) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || s.settings.Advertise != "" || registry.OneMachine(reg) {
		return
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		s.running.log.Warn("only this machine reaches the address, though others find it: set --address, or --advertise",
			"address", addr, "registry", reg.String())
	}
}

// network is what the client is made of.
func (s *Service) network() (registry.Registry, transport.Transport, error) {
	host, err := s.open()
	if err != nil {
		return nil, nil, err
	}
	tr, err := plugin.Open[transport.Transport](host)
	if err != nil {
		return nil, nil, err
	}
	reg, err := plugin.Open[registry.Registry](host)
	return reg, tr, err
}

// open returns the plugins of a service that runs.
func (s *Service) open() (*plugin.Host, error) {
	if host := s.host.Load(); host != nil {
		return host, nil
	}
	return nil, fmt.Errorf("service %s is not running", s.settings.Name)
}

// Stop stops the service, in this order: it is not ready any more, is deregistered, waits for the news to spread, lets
// calls and handlers finish, flushes and closes. All of it takes no longer than --drain-timeout, and no longer than ctx.
func (s *Service) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != isStarted {
		return nil
	}
	err := runHooks(ctx, s.options.beforeStop)
	err = errors.Join(err, s.shutDown(ctx))
	return errors.Join(err, runHooks(ctx, s.options.afterStop))
}

// spread is how long clients have to hear that the service is leaving, before it refuses calls. Those that hear it later
// are refused in a way that makes them call another node.
const spread = 300 * time.Millisecond

func (s *Service) shutDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.settings.DrainTimeout,
		fmt.Errorf("%s passed, which is the drain-timeout", s.settings.DrainTimeout))
	defer cancel()
	s.state = isStopped
	s.ready.Store(false)
	r := s.running
	f := s.found.Load()
	visible := f != nil || len(r.subscriptions) > 0
	if visible {
		r.log.Info("stopping: calls and handlers that run may finish", "limit", s.settings.DrainTimeout)
	}
	var errs []error
	if f != nil {
		errs = append(errs, f.keeper.Stop(ctx))
		wait(ctx, spread)
	}
	errs = append(errs, s.drain(ctx))
	errs = append(errs, within(ctx, "close the client", s.client.Close))
	host := s.host.Load()
	errs = append(errs, within(ctx, "close", host.Close))
	s.host.Store(nil)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if visible {
		r.log.Info("stopped")
	}
	return nil
}

// drain lets calls and handlers finish, all at once.
func (s *Service) drain(ctx context.Context) error {
	errs := make([]error, len(s.running.subscriptions)+1)
	var all sync.WaitGroup
	all.Go(func() { errs[0] = s.server.Shutdown(ctx) })
	for i, sub := range s.running.subscriptions {
		all.Go(func() { errs[i+1] = within(ctx, "close the subscription of "+sub.Topic(), sub.Close) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// within bounds something that takes no context.
func within(ctx context.Context, what string, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func runHooks(ctx context.Context, hooks []func(context.Context) error) error {
	for _, h := range hooks {
		if err := h(ctx); err != nil {
			return err
		}
	}
	return nil
}
