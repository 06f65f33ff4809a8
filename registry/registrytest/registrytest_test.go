package registrytest_test

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plugmicro/micro/internal/suite"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/registry/registrytest"
	"github.com/stretchr/testify/require"
)

// remote is a memory registry behind a connection that can be cut, and with a mistake that the suite must find.
type remote struct {
	*memory.Registry
	mistake string

	mu    sync.Mutex
	cut   bool
	was   bool // cut
	once  []*registry.Service
	calls int
	mine  map[string]bool // IDs of nodes that were registered here
}

// first notes that the nodes of s are registered here, and reports whether the first one was not before.
func (r *remote) first(s *registry.Service) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mine == nil {
		r.mine = map[string]bool{}
	}
	before := r.mine[s.Nodes[0].ID]
	for _, n := range s.Nodes {
		r.mine[n.ID] = true
	}
	return !before
}

func (r *remote) call() int { r.mu.Lock(); defer r.mu.Unlock(); r.calls++; return r.calls }

func (r *remote) setCut(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
	r.was = r.was || cut
}

func (r *remote) wasCut() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.was }

var errTimeout = errors.New("no answer")

func (r *remote) reach() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		return errTimeout
	}
	return nil
}

func (r *remote) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	if err := r.reach(); err != nil {
		return err
	}
	switch r.mistake {
	case "TTL":
		return r.Registry.Register(s)
	case "Invalid":
		if err := r.Registry.Register(s, opts...); !errors.Is(err, registry.ErrInvalid) {
			return err
		}
		return nil
	case "Update", "Deregister": // what is there stays as it is
		if got, err := r.GetService(s.Name); err == nil && r.mistake == "Update" && len(got[0].Nodes) == len(s.Nodes) {
			return nil
		}
	case "Names": // differ not only by their case
		s = s.Clone()
		s.Name = strings.ToLower(s.Name)
	case "Large":
		s = s.Clone()
		for k, v := range s.Metadata {
			s.Metadata[k] = v[:min(len(v), 100_000)]
		}
	case "Versions":
		s = s.Clone()
		s.Version = "1"
	case "Takeover": // of what others have registered
		if got, err := r.Registry.GetService(s.Name); err == nil && r.first(s) && has(got, s.Nodes[0].ID) {
			return nil
		}
	case "Keep", "Wipe": // a refresh does not bring back
		if !r.first(s) {
			return nil
		}
	case "ManyNodes": // one is lost now and then
		if r.call()%20 == 19 {
			return nil
		}
	case "Restart", "Cut": // it does not come back
		if r.wasCut() {
			return errTimeout
		}
	case "TTLOfTwoNodes": // a refresh is of all
		if got, err := r.Registry.GetService(s.Name); err == nil {
			_ = r.Registry.Register(got[0], opts...)
		}
	case "Watch": // a refresh is told
		defer func() { _ = r.Registry.Deregister(s); _ = r.Registry.Register(s, opts...) }()
	case "Fields":
		s = s.Clone()
		s.Endpoints = nil
	case "Nodes": // they replace all that were there
		if got, err := r.Registry.GetService(s.Name); err == nil {
			_ = r.Registry.Deregister(got[0])
		}
	}
	return r.Registry.Register(s, opts...)
}

func (r *remote) Deregister(s *registry.Service) error {
	if err := r.reach(); err != nil {
		return err
	}
	if r.mistake == "Deregister" {
		if got, _ := r.Registry.GetService(s.Name); len(got) == 0 {
			return registry.ErrNotFound
		}
	}
	return r.Registry.Deregister(s)
}

func (r *remote) GetService(name string) ([]*registry.Service, error) {
	if err := r.reach(); err != nil {
		return nil, err
	}
	got, err := r.Registry.GetService(name)
	if r.mistake == "NotFound" {
		return got, nil
	}
	if r.mistake == "Copies" && len(got) > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.once == nil {
			r.once = got
		}
		return r.once, err
	}
	return got, err
}

func (r *remote) ListServices() ([]*registry.Service, error) {
	if err := r.reach(); err != nil {
		return nil, err
	}
	list, err := r.Registry.ListServices()
	if r.mistake == "List" && len(list) > 1 {
		list[0], list[1] = list[1], list[0]
	}
	return list, err
}

func (r *remote) Watch() (registry.Watcher, error) {
	if err := r.reach(); err != nil {
		return nil, err
	}
	w, err := r.Registry.Watch()
	switch r.mistake {
	case "WatchStop":
		return endless{w}, err
	case "WatchSlowly":
		return &stutter{Watcher: w}, err
	case "WatchOverWipe":
		return &deaf{w, func(result *registry.Result) bool { return result.Action == registry.Delete }}, err
	case "WatchOverCut":
		return &deaf{w, func(*registry.Result) bool { return r.wasCut() }}, err
	}
	return w, err
}

func (r *remote) Close() error {
	switch r.mistake {
	case "Close":
		return nil
	case "Pause":
		for r.reach() != nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
	return r.Registry.Close()
}

func has(services []*registry.Service, id string) bool {
	return slices.ContainsFunc(services, func(s *registry.Service) bool {
		return slices.ContainsFunc(s.Nodes, func(n *registry.Node) bool { return n.ID == id })
	})
}

// deaf does not tell everything.
type deaf struct {
	registry.Watcher
	to func(*registry.Result) bool
}

func (d *deaf) Next() (*registry.Result, error) {
	for {
		if r, err := d.Watcher.Next(); err != nil || !d.to(r) {
			return r, err
		}
	}
}

// endless does not stop.
type endless struct{ registry.Watcher }

func (endless) Stop() {}

// stutter tells everything twice, as a queue does that does not fold what changed while nobody read.
type stutter struct {
	registry.Watcher
	again *registry.Result
}

func (s *stutter) Next() (*registry.Result, error) {
	if r := s.again; r != nil {
		s.again = nil
		return r, nil
	}
	r, err := s.Watcher.Next()
	s.again = r
	return r, err
}

func run(t *testing.T, mistake string) {
	registrytest.Run(t, func(t *testing.T) registrytest.Harness {
		store := memory.NewStore()
		var all []*remote
		cut := func(r *remote) func() { r.setCut(true); return func() { r.setCut(false) } }
		pause := func(*testing.T) func() {
			for _, r := range all {
				r.setCut(true)
			}
			return func() {
				for _, r := range all {
					r.setCut(false)
				}
			}
		}
		return registrytest.Harness{
			Open: func(*testing.T) registry.Registry {
				r := &remote{Registry: store.Open(), mistake: mistake}
				all = append(all, r)
				return r
			},
			TTL:     300 * time.Millisecond,
			Within:  time.Second,
			Nodes:   100,
			Wipe:    func(*testing.T) { store.Wipe() },
			Restart: func(t *testing.T) { pause(t)() },
			Pause:   pause,
			Cut:     func(_ *testing.T, r registry.Registry) func() { return cut(r.(*remote)) },
		}
	})
}

// mistakeEnv makes the suite run against an implementation with that mistake.
const mistakeEnv = "REGISTRYTEST_MISTAKE"

func TestSuite(t *testing.T) {
	t.Setenv(suite.Env, "") // it is no plugin
	run(t, os.Getenv(mistakeEnv))
}

// TestTheSuiteFindsMistakes: each mistake is named after the test that must fail because of it.
func TestTheSuiteFindsMistakes(t *testing.T) {
	if os.Getenv(mistakeEnv) != "" {
		t.Skip("this is the process that makes the mistake")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	for _, mistake := range []string{
		"Fields", "Nodes", "Update", "Deregister", "NotFound", "List", "Copies", "Invalid", "TTL", "TTLOfTwoNodes",
		"Watch", "WatchStop", "WatchSlowly", "Close", "WatchOverWipe", "WatchOverCut", "Pause",
		"Names", "Large", "Versions", "Takeover", "ManyNodes", "Keep", "Wipe", "Restart", "Cut",
	} {
		t.Run(mistake, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(self, "-test.run=^TestSuite$/^"+mistake+"$")
			cmd.Env = append(os.Environ(), mistakeEnv+"="+mistake)
			out, err := cmd.CombinedOutput()
			require.Error(t, err)
			require.Contains(t, string(out), "--- FAIL: TestSuite/"+mistake+" ")
		})
	}
}
