package memory_test

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/registry/registrytest"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registrytest.Harness {
		store := memory.NewStore()
		return registrytest.Harness{
			Open: func(*testing.T) registry.Registry { return store.Open() },
			Wipe: func(*testing.T) { store.Wipe() },
			TTL:  500 * time.Millisecond,
		}
	})
}

func greeter() *registry.Service {
	return &registry.Service{Name: "greeter", Nodes: []*registry.Node{{ID: "a", Address: "192.0.2.1:80"}}}
}

func open(t *testing.T) registry.Registry {
	r, err := memory.New(nil, memory.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.(io.Closer).Close()) })
	return r
}

func TestThePluginIsSharedInTheProcess(t *testing.T) {
	one, two := open(t), open(t)
	require.NoError(t, one.Register(greeter()))
	_, err := two.GetService("greeter")
	require.NoError(t, err)

	private := memory.NewStore().Open()
	_, err = private.GetService("greeter")
	require.ErrorIs(t, err, registry.ErrNotFound)

	require.NoError(t, one.(io.Closer).Close())
	_, err = two.GetService("greeter")
	require.ErrorIs(t, err, registry.ErrNotFound, "closing removes what was registered through it")
}

func TestTTLIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := memory.NewStore().Open()
		defer r.Close()
		require.NoError(t, r.Register(greeter(), registry.TTL(time.Minute)))
		time.Sleep(time.Minute - 1)
		_, err := r.GetService("greeter")
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		_, err = r.GetService("greeter")
		require.ErrorIs(t, err, registry.ErrNotFound)
		list, err := r.ListServices()
		require.NoError(t, err)
		require.Empty(t, list)
	})
}
