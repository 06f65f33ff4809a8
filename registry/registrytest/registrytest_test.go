package registrytest_test

import (
	"errors"
	"os"
	"os/exec"
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

	mu   sync.Mutex
	cut  bool
	was  bool // cut
	once []*registry.Service
}

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
