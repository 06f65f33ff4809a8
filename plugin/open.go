package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// Env is what a factory gets beside its settings. The zero Env serves a test that needs no siblings.
type Env struct {
	host *Host
	self *instance // nil: the program itself
}

// Context ends when the plugin is to stop: after its Close, or when the program gives up on it.
func (e *Env) Context() context.Context {
	switch {
	case e.self != nil:
		return e.self.ctx
	case e.host != nil:
		return e.host.ctx
	}
	return context.Background()
}

// Logger carries the kind and the name of the plugin.
func (e *Env) Logger() *slog.Logger {
	switch {
	case e.self != nil:
		return e.self.logger
	case e.host != nil:
		return e.host.logger
	}
	return slog.Default()
}

// Name is the name under which the plugin is registered.
func (e *Env) Name() string {
	if e.self == nil {
		return ""
	}
	return e.self.choice.entry.name
}

// Program is what the plugins belong to, for those that tell others of it.
type Program struct {
	Name    string // of the service
	Version string // "" if it has none
	ID      string // of this instance
}

// Program is what the host was opened for; its fields are empty where nobody said.
func (e *Env) Program() Program {
	if e.host == nil {
		return Program{}
	}
	return e.host.program
}

// Host opens the plugins that Settings chose, each when it is first asked for, and closes them. Safe for concurrent use.
type Host struct {
	settings *Settings
	ctx      context.Context
	logger   *slog.Logger
	program  Program

	mu        sync.Mutex
	instances map[*choice]*instance
	order     []*instance // as they became ready: what one needs comes before it
	closed    bool
	closeOnce sync.Once
	closeErr  error
}

// instance is a plugin that is being opened or was.
type instance struct {
	choice *choice
	ctx    context.Context
	cancel context.CancelFunc
	logger *slog.Logger
	done   chan struct{} // closed once value or err is there
	value  any
	err    error
	waits  []*instance // what its factory asked for; guarded by Host.mu
}

// HostOption says more about a Host.
type HostOption func(*Host)

// OpenedBy tells the plugins whose they are.
func OpenedBy(p Program) HostOption { return func(h *Host) { h.program = p } }

// Open makes a Host. It opens nothing yet. ctx is the ground that all plugins stand on: to stop them in order, Close
// the Host instead of cancelling it.
func (s *Settings) Open(ctx context.Context, logger *slog.Logger, opts ...HostOption) *Host {
	h := &Host{settings: s, ctx: ctx, logger: cmp.Or(logger, slog.Default()), instances: map[*choice]*instance{}}
	for _, opt := range opts {
		opt(h)
	}
	return h
}

// Settings are what the host was made of, to be shown.
func (h *Host) Settings() *Settings { return h.settings }

// Env is for code that is no plugin but needs them: a test that calls a factory itself, for example.
func (h *Host) Env() *Env { return &Env{host: h} }

// Open opens the chosen plugin of kind T, once: later callers get the same instance, or the same error. It belongs to
// the Host; do not close it.
func Open[T any](h *Host) (T, error) { return Use[T](h.Env()) }

// OpenOptional is Open for a kind that is Optional; without a choice it opens nothing, and ok is false.
func OpenOptional[T any](h *Host) (v T, ok bool, err error) {
	k, err := h.kind(reflect.TypeFor[T]())
	if err != nil || h.settings.provided[k] == nil && h.settings.chosen[k] == nil {
		return v, false, err
	}
	v, err = Open[T](h)
	return v, err == nil, err
}

// OpenAll opens the chosen plugins of a kind with Many, in the order in which they were named.
func OpenAll[T any](h *Host) ([]T, error) {
	k, err := h.kind(reflect.TypeFor[T]())
	if err != nil {
		return nil, err
	}
	var all []T
	for _, v := range h.settings.provided[k] {
		all = append(all, v.(T))
	}
	for _, c := range h.settings.chosen[k] {
		v, err := h.open(nil, c)
		if err != nil {
			return nil, err
		}
		all = append(all, v.(T))
	}
	return all, nil
}

// Use opens, once, the chosen plugin of kind T for the one whose factory got env. It stays open until after that one
// was closed. Plugins that need each other get an error that names the way round.
func Use[T any](env *Env) (T, error) {
	var none T
	if env.host == nil {
		return none, errors.New("plugin: this Env has no siblings: it was not made by a Host")
	}
	v, err := env.host.use(env.self, reflect.TypeFor[T]())
	if err != nil {
		return none, err
	}
	return v.(T), nil
}

func (h *Host) kind(t reflect.Type) (*kind, error) {
	if k := h.settings.catalog.kindOf(t); k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("plugin: %s is not a kind: declare it with NewKind, beside its contract", t)
}

func (h *Host) use(by *instance, t reflect.Type) (any, error) {
	k, err := h.kind(t)
	if err != nil {
		return nil, err
	}
	if k.many {
		return nil, fmt.Errorf("plugin: several can be chosen of kind %s: use OpenAll", k.name)
	}
	if provided := h.settings.provided[k]; provided != nil {
		return provided[0], nil
	}
	chosen := h.settings.chosen[k]
	if chosen == nil {
		return nil, fmt.Errorf("no %s is chosen: choose one with --%s or %s; linked are %s",
			k.name, k.chosenBy, envName(k.chosenBy), cmp.Or(strings.Join(k.names(), ", "), "none"))
	}
	return h.open(by, chosen[0])
}

// open returns what there is, waits for the one who is at it, or does it.
func (h *Host) open(by *instance, c *choice) (any, error) {
	i, mine, err := h.instance(by, c)
	if err != nil {
		return nil, err
	}
	if mine {
		h.run(i)
	}
	<-i.done
	return i.value, i.err
}

// instance finds or makes the instance of c; mine tells the caller to open it.
func (h *Host) instance(by *instance, c *choice) (i *instance, mine bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, false, ErrClosed
	}
	i = h.instances[c]
	if i == nil {
		i = &instance{choice: c, done: make(chan struct{}), logger: h.logger.With("plugin", c.kind.name+"/"+c.entry.name)}
		i.ctx, i.cancel = context.WithCancel(h.ctx)
		h.instances[c] = i
		mine = true
	}
	if by == nil || i.ready() {
		return i, mine, nil
	}
	if way := i.wayTo(by); way != nil {
		return nil, false, fmt.Errorf("plugins need each other: %s → %s: choose another for one of them", by.choice.label(), strings.Join(way, " → "))
	}
	by.waits = append(by.waits, i)
	return i, mine, nil
}

// wayTo follows, from i, who waits for whom; nil if that does not lead to the target. What is ready waits for nobody.
func (i *instance) wayTo(target *instance) []string {
	if i == target {
		return []string{i.choice.label()}
	}
	if i.ready() {
		return nil
	}
	for _, next := range i.waits {
		if way := next.wayTo(target); way != nil {
			return append([]string{i.choice.label()}, way...)
		}
	}
	return nil
}

func (i *instance) ready() bool {
	select {
	case <-i.done:
		return true
	default:
		return false
	}
}

// label names a plugin in a cycle, where the kind says it all unless several of it are in use.
func (c *choice) label() string {
	if c.kind.many {
		return c.kind.name + "/" + c.entry.name
	}
	return c.kind.name
}

// run calls the factory. Whatever that does, waiting callers go on.
func (h *Host) run(i *instance) {
	c := i.choice
	err := errors.New("the factory did not return")
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if err != nil {
			i.cancel()
			i.value = nil
			i.err = newProblem(fmt.Errorf("%s/%s: %w (%s)", c.kind.name, c.entry.name, err, c.origins), c.secrets)
		} else {
			h.order = append(h.order, i)
		}
		close(i.done)
	}()
	i.value, err = c.entry.open(&Env{host: h, self: i}, c.config.Interface())
	if err == nil && i.value == nil {
		err = errors.New("the factory returned nothing")
	}
}

// Close closes what was opened and is an io.Closer, in reverse order, waiting for what is just being opened. Instances
// that were passed in stay open. It joins the errors; called again, it answers the same.
func (h *Host) Close() error {
	h.closeOnce.Do(func() {
		for _, i := range h.stop() {
			<-i.done
		}
		var errs []error
		for _, i := range slices.Backward(h.order) {
			if err := i.close(); err != nil {
				errs = append(errs, newProblem(fmt.Errorf("close %s/%s: %w", i.choice.kind.name, i.choice.entry.name, err), i.choice.secrets))
			}
		}
		h.closeErr = errors.Join(errs...)
	})
	return h.closeErr
}

// stop lets nothing more be opened, and ends the contexts of those that are being opened.
func (h *Host) stop() (opening []*instance) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, i := range h.instances {
		if !i.ready() {
			i.cancel()
			opening = append(opening, i)
		}
	}
	return opening
}

func (i *instance) close() (err error) {
	defer i.cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	if c, ok := i.value.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
