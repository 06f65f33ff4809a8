// Package local is the registry of one user on one machine: several processes find each other with nothing installed.
// It is the default.
//
//	MICRO_REGISTRY=local MICRO_REGISTRY_DIR=/run/user/1000/mine ./program
//
// Each node is a JSON file in a directory that only this user can enter. The process that registered it holds an advisory
// lock on the file as long as it lives, so a crash, of whatever kind, is seen at once: on Linux the kernel tells when the
// dead process's files are closed, elsewhere the locks are tried five times a second. The directory can be deleted at any
// time: it is made anew, and whatever is kept by registry.Keep comes back at once.
//
// Unix only. The directory must be on a local file system.
package local

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
)

// Config is what --registry-* and MICRO_REGISTRY_* set.
type Config struct {
	Dir string `help:"directory that the processes share, open to nobody else; empty: micro/registry in $XDG_RUNTIME_DIR, else micro-UID/registry in the temporary directory"`
}

func init() {
	plugin.Register("local", New, plugin.Doc("processes of one user on one machine, through a directory"))
}

// New opens the registry for a service.
func New(env *plugin.Env, c Config) (registry.Registry, error) {
	return Open(c.Dir, env.Logger())
}

// Registry is one process's view of the directory.
type Registry struct {
	dir      *dir
	changes  registry.Fanout
	log      *slog.Logger
	notifier notifier

	mu     sync.Mutex
	closed bool
	own    map[nodeKey]*lockedFile
	stale  map[string]*lockedFile // replaced, not yet removed, by file; nil: not held by this process

	watching sync.Mutex // never taken with mu held
	seen     *snapshot  // what watchers know; nil until there is one
	blind    bool       // the last look failed
	quit     chan struct{}
	loop     sync.WaitGroup
}

var _ registry.Registry = (*Registry)(nil)

// Open uses dir, or the default directory if that is empty; nil for log means slog.Default. It fails if the directory
// cannot be trusted.
func Open(path string, log *slog.Logger) (*Registry, error) {
	if log == nil {
		log = slog.Default()
	}
	d, err := newDir(path, log)
	if err != nil {
		return nil, err
	}
	return &Registry{
		dir: d, log: log, notifier: platform,
		own: make(map[nodeKey]*lockedFile), stale: make(map[string]*lockedFile), quit: make(chan struct{}),
	}, nil
}

// Dir is the directory that is used.
func (r *Registry) Dir() string { return r.dir.path }

func (r *Registry) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	if err := registry.Validate(s); err != nil {
		return err
	}
	ttl := max(0, registry.NewRegisterOptions(opts...).TTL)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return registry.ErrClosed
	}
	names, _, err := r.dir.list()
	if err != nil {
		return fmt.Errorf("register %s: %w", s.Name, err)
	}
	for _, n := range s.Nodes {
		one := *s
		one.Nodes = []*registry.Node{n}
		if err := r.register(&record{Service: &one, TTL: ttl}, names); err != nil {
			return fmt.Errorf("register %s in %s: %w", n.ID, r.dir.path, err)
		}
	}
	return nil
}

// register refreshes the node's file if it counts and says the same. Else it writes a new one, which watchers notice.
func (r *Registry) register(rec *record, names []string) error {
	key := keyOf(rec.Service)
	files := r.dir.filesOf(key, names)
	own := r.own[key]
	var last *record
	if len(files) > 0 {
		last = files[len(files)-1]
	}
	if own != nil && last != nil && last.file == own.file && own.says(rec) && !passed(r.dir.expiry(own.record), time.Now()) {
		return r.dir.touch(own.file)
	}
	rec.Registered = time.Now().UnixNano()
	if last != nil {
		rec.Registered = max(rec.Registered, last.Registered+1)
	}
	written, err := r.dir.write(rec)
	if err != nil {
		return err
	}
	r.own[key] = written
	for _, old := range files {
		r.retire(old.file, nil)
	}
	if own != nil {
		r.retire(own.file, own)
	}
	return nil
}

// grace is how long a replaced file stays: whoever was reading the directory has found the old one or the new one then.
const grace = time.Second

func (r *Registry) retire(file string, held *lockedFile) {
	_, again := r.stale[file]
	if held != nil || !again {
		r.stale[file] = held
	}
	if again {
		return
	}
	time.AfterFunc(grace, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.drop(file, r.stale[file])
	})
}

// drop removes a file, and its lock if this process holds that.
func (r *Registry) drop(file string, held *lockedFile) {
	r.dir.remove(file)
	if held != nil {
		held.unlock()
	}
	delete(r.stale, file)
}

func (r *Registry) Deregister(s *registry.Service) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return registry.ErrClosed
	}
	names, _, err := r.dir.list()
	if err != nil {
		return fmt.Errorf("deregister %s: %w", s.Name, err)
	}
	for _, n := range s.Nodes {
		key := newKey(s.Name, n.ID)
		for _, f := range r.dir.filesOf(key, names) {
			r.dir.remove(f.file)
		}
		if own := r.own[key]; own != nil {
			r.drop(own.file, own)
			delete(r.own, key)
		}
	}
	return nil
}

func (r *Registry) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

func (r *Registry) GetService(name string) ([]*registry.Service, error) {
	if r.isClosed() {
		return nil, registry.ErrClosed
	}
	found, err := r.dir.scan(newKey(name, "").service)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	if len(found.services) == 0 {
		return nil, fmt.Errorf("%w: %s", registry.ErrNotFound, name)
	}
	return registry.Merge(found.services), nil
}

func (r *Registry) ListServices() ([]*registry.Service, error) {
	if r.isClosed() {
		return nil, registry.ErrClosed
	}
	found, err := r.dir.scan("")
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	names := make(map[string]bool)
	for _, s := range found.services {
		names[s.Name] = true
	}
	var list []*registry.Service
	for _, name := range slices.Sorted(maps.Keys(names)) {
		list = append(list, &registry.Service{Name: name})
	}
	return list, nil
}

func (r *Registry) String() string { return "local" }

// OneMachine is what registry.OneMachine asks.
func (r *Registry) OneMachine() bool { return true }

// Close removes what was registered through r. It may be called more than once.
func (r *Registry) Close() error {
	r.mu.Lock()
	first := !r.closed
	r.closed = true
	r.mu.Unlock()
	if !first {
		return nil
	}
	r.changes.Close()
	r.watching.Lock() // a Watch under way has started the loop then
	close(r.quit)
	r.watching.Unlock()
	r.loop.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for file, held := range r.stale { // older ones first
		r.drop(file, held)
	}
	for _, f := range r.own {
		r.drop(f.file, f)
	}
	clear(r.own)
	return nil
}
