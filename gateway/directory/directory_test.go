package directory_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/gateway/directory"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/registry/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const soon = 10 * time.Second

// outage is a registry that can be away.
type outage struct {
	registry.Registry
	away atomic.Bool
}

var errAway = errors.New("nobody answers")

func (o *outage) GetService(name string) ([]*registry.Service, error) {
	if o.away.Load() {
		return nil, errAway
	}
	return o.Registry.GetService(name)
}

func (o *outage) ListServices() ([]*registry.Service, error) {
	if o.away.Load() {
		return nil, errAway
	}
	return o.Registry.ListServices()
}

func (o *outage) Watch() (registry.Watcher, error) {
	if o.away.Load() {
		return nil, errAway
	}
	return o.Registry.Watch()
}

func service(name, version, id string, endpoints ...string) *registry.Service {
	s := &registry.Service{Name: name, Version: version, Nodes: []*registry.Node{{ID: id, Address: "a"}}}
	for _, e := range endpoints {
		s.Endpoints = append(s.Endpoints, &registry.Endpoint{Name: e, Metadata: map[string]string{"of": version}})
	}
	return s
}

func follow(t *testing.T, reg registry.Registry) *directory.Directory {
	d := directory.Follow(reg, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// eventually waits for the directory to show what it must.
func eventually(t *testing.T, f func() bool) {
	t.Helper()
	require.Eventually(t, f, soon, time.Millisecond)
}

func names(d *directory.Directory) []string {
	list := []string{}
	for _, s := range d.Services() {
		list = append(list, fmt.Sprint(s.Name, " ", s.Version, " ", len(s.Nodes)))
	}
	return list
}

func TestWhatIsThereAndWhatComes(t *testing.T) {
	reg := memory.NewStore().Open()
	require.NoError(t, reg.Register(service("greeter", "9.0.0", "a", "Greeter.Hello", "Greeter.Old")))
	require.NoError(t, reg.Register(service("_internal", "1", "x", "X.Y")))
	d := follow(t, reg)
	eventually(t, d.Ready)
	require.Equal(t, []string{"greeter 9.0.0 1"}, names(d))
	require.NotNil(t, d.Endpoint("greeter", "Greeter.Hello"))
	require.Nil(t, d.Endpoint("greeter", "Greeter.Nope"))
	require.Nil(t, d.Endpoint("nobody", "Greeter.Hello"))
	require.Nil(t, d.Service("nobody"))

	require.NoError(t, reg.Register(service("_internal", "1", "y", "X.Y")))
	require.NoError(t, reg.Register(service("greeter", "10.0.0", "b", "Greeter.Hello")))
	require.NoError(t, reg.Register(service("greeter", "10.0.0", "c", "Greeter.Hello")))
	require.NoError(t, reg.Register(service("cart", "", "d")))
	eventually(t, func() bool { return len(d.Service("greeter")) == 2 && len(d.Service("cart")) == 1 })
	require.Equal(t, []string{"cart  1", "greeter 9.0.0 1", "greeter 10.0.0 2"}, names(d))
	require.Nil(t, d.Service("_internal"))
	require.Equal(t, "10.0.0", d.Endpoint("greeter", "Greeter.Hello").Metadata["of"], "of the newest that has it")
	require.Equal(t, "9.0.0", d.Endpoint("greeter", "Greeter.Old").Metadata["of"])

	require.NoError(t, reg.Deregister(service("greeter", "", "a")))
	eventually(t, func() bool { return len(d.Service("greeter")) == 1 })
	require.Nil(t, d.Endpoint("greeter", "Greeter.Old"))
}

func TestGenerationIsOfTheContent(t *testing.T) {
	reg := memory.NewStore().Open()
	require.NoError(t, reg.Register(service("greeter", "1", "a", "Greeter.Hello")))
	d := follow(t, reg)
	eventually(t, d.Ready)
	before := d.Generation()
	require.NoError(t, reg.Register(service("greeter", "1", "a", "Greeter.Hello")), "a refresh")
	require.NoError(t, reg.Register(service("_internal", "1", "x")))
	require.Equal(t, before, d.Generation())
	require.NoError(t, reg.Register(service("greeter", "1", "a", "Greeter.Hello", "Greeter.Bye")))
	eventually(t, func() bool { return d.Endpoint("greeter", "Greeter.Bye") != nil })
	require.Equal(t, before+1, d.Generation())
}

func TestNodeThatChangesItsVersion(t *testing.T) {
	reg := memory.NewStore().Open()
	d := follow(t, reg)
	for i := range 50 {
		require.NoError(t, reg.Register(service("greeter", fmt.Sprint(i%2), "a")))
	}
	eventually(t, func() bool { return fmt.Sprint(names(d)) == "[greeter 1 1]" })
}

func TestOutageKeepsWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore()
		reg := &outage{Registry: store.Open()}
		require.NoError(t, store.Open().Register(service("greeter", "1", "a", "Greeter.Hello")))
		reg.away.Store(true)
		d := follow(t, reg)
		time.Sleep(time.Minute)
		require.False(t, d.Ready())
		reg.away.Store(false)
		time.Sleep(20 * time.Second) // longer than the longest pause
		require.True(t, d.Ready())
		require.Len(t, d.Services(), 1)

		reg.away.Store(true)
		before := d.Generation()
		time.Sleep(time.Hour)
		require.Equal(t, before, d.Generation())
		require.NotNil(t, d.Endpoint("greeter", "Greeter.Hello"))
		require.True(t, d.Ready())
	})
}

func TestEndpointsOfWhatHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := memory.NewStore().Open()
		require.NoError(t, reg.Register(service("greeter", "1", "a", "Greeter.Hello")))
		d := follow(t, reg)
		synctest.Wait()
		require.NoError(t, reg.Deregister(service("greeter", "1", "a")))
		synctest.Wait()
		require.Empty(t, d.Services())
		require.Nil(t, d.Service("greeter"))
		require.NotNil(t, d.Endpoint("greeter", "Greeter.Hello"), "it may be in the middle of a restart")
		require.NoError(t, reg.Register(service("greeter", "1", "a", "Greeter.Hello")))
		time.Sleep(10 * time.Minute)
		require.NotNil(t, d.Endpoint("greeter", "Greeter.Hello"), "it is back")

		require.NoError(t, reg.Deregister(service("greeter", "1", "a")))
		time.Sleep(10 * time.Minute)
		require.Nil(t, d.Endpoint("greeter", "Greeter.Hello"))
	})
}

func TestWhatHasLeftIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := memory.NewStore().Open()
		d := follow(t, reg)
		const n = 2000
		for i := range n {
			s := service(fmt.Sprint("service-", i), "1", "a", "A.B")
			require.NoError(t, reg.Register(s))
			synctest.Wait()
			require.NoError(t, reg.Deregister(s))
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		left := 0
		for i := range n {
			if d.Endpoint(fmt.Sprint("service-", i), "A.B") != nil {
				left++
			}
		}
		require.Equal(t, 1000, left)
	})
}

func TestReadingCostsNothing(t *testing.T) {
	reg := memory.NewStore().Open()
	require.NoError(t, reg.Register(service("greeter", "1", "a", "Greeter.Hello")))
	d := follow(t, reg)
	eventually(t, d.Ready)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		d.Endpoint("greeter", "Greeter.Hello")
		d.Service("greeter")
		d.Services()
		d.Generation()
	}))
}

func TestRegistryThatCloses(t *testing.T) {
	reg := memory.NewStore().Open()
	require.NoError(t, reg.Close())
	d := follow(t, reg)
	require.False(t, d.Ready())
	require.Empty(t, d.Services())
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := &outage{Registry: memory.NewStore().Open()}
		reg.away.Store(true)
		d := directory.Follow(reg, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun := time.Now()
		require.ErrorIs(t, d.Await(ctx), context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(begun))
		require.False(t, d.Ready())

		came := make(chan error)
		go func() { came <- d.Await(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-came:
			t.Fatalf("the registry is away: %v", err)
		default:
		}
		reg.away.Store(false)
		require.NoError(t, <-came)
		require.True(t, d.Ready())
		require.NoError(t, d.Close())
		require.NoError(t, d.Await(t.Context()), "what was read stays read")
	})
}

func TestAwaitOfWhatIsClosed(t *testing.T) {
	reg := &outage{Registry: memory.NewStore().Open()}
	reg.away.Store(true)
	d := directory.Follow(reg, slog.New(slog.DiscardHandler))
	require.NoError(t, d.Close())
	require.ErrorIs(t, d.Await(t.Context()), registry.ErrClosed)
}
