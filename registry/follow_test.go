package registry_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/registry"
)

// shaky is a registry that can be watched when it likes to.
type shaky struct {
	registry.Registry
	changes registry.Fanout

	mu      sync.Mutex
	fails   bool
	watcher registry.Watcher
}

func (s *shaky) String() string { return "shaky" }

func (s *shaky) Watch() (registry.Watcher, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails {
		return nil, errors.New("out of order")
	}
	w, err := s.changes.Watch()
	s.watcher = w
	return w, err
}

// lose ends the watch that there is, and lets no other begin until it is mended.
func (s *shaky) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails = true
	s.watcher.Stop()
}

func (s *shaky) mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails = false
}

func create(name string) *registry.Result {
	return &registry.Result{Action: registry.Create, Service: &registry.Service{
		Name: name, Nodes: []*registry.Node{{ID: name + "-1", Address: "a"}}}}
}

func TestFollowOutlivesFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := &shaky{}
		applied, read := make(chan string, 10), make(chan struct{}, 100)
		f := registry.Follow(reg, slog.New(slog.DiscardHandler),
			func(r *registry.Result) { applied <- r.Service.Name },
			func(context.Context) { read <- struct{}{} })
		<-f.Begun()
		reg.changes.Publish(create("one"))
		require.Equal(t, "one", <-applied)
		require.Empty(t, read, "nothing can have been missed yet")

		reg.lose()
		time.Sleep(20 * time.Second)
		require.NotEmpty(t, read, "without a watch it is read from time to time")
		reg.mend()
		time.Sleep(20 * time.Second) // longer than the longest pause
		reg.changes.Publish(create("two"))
		require.Equal(t, "two", <-applied)

		for len(read) > 0 {
			<-read
		}
		time.Sleep(time.Minute)
		require.NotEmpty(t, read, "it is read now and then in spite of the watch")
		f.Stop()
		f.Stop()
	})
}

func TestFollowEndsWithTheRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := &shaky{}
		f := registry.Follow(reg, slog.New(slog.DiscardHandler), func(*registry.Result) {}, nil)
		<-f.Begun()
		reg.changes.Close()
		synctest.Wait() // its goroutine has ended, or the test would not
		f.Stop()
	})
}

func TestFollowBeginsEvenIfItFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := &shaky{fails: true}
		f := registry.Follow(reg, slog.New(slog.DiscardHandler), func(*registry.Result) {}, nil)
		<-f.Begun()
		f.Stop()
	})
}
