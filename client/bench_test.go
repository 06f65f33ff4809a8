package client_test

import (
	"context"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/transport/tcp"
)

// BenchmarkCall echoes 64 bytes, by one caller and by 64, with an endpoint made by server.Handle and one by server.Func.
func BenchmarkCall(b *testing.B) {
	w := newWorld(b, 1, overTCP(tcp.Config{}))
	body := make([]byte, 64)
	for _, endpoint := range []string{"Greeter.Echo", "Fast.Echo"} {
		b.Run(endpoint+"/1", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.Call[[]byte](b.Context(), w.client, "greeter", endpoint, &body); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(endpoint+"/64", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism((64 + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := client.Call[[]byte](context.Background(), w.client, "greeter", endpoint, &body); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// TestAllocations counts those of a whole call, on both sides.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	w := newWorld(t, 1, overTCP(tcp.Config{}))
	body := make([]byte, 64)
	for endpoint, limit := range map[string]float64{
		"Fast.Echo":    6, // 5 when this was written
		"Greeter.Echo": 8, // 7: a call by reflection returns a slice, and makes one more for the request
	} {
		call := func() {
			if _, err := client.Call[[]byte](context.Background(), w.client, "greeter", endpoint, &body); err != nil {
				panic(err)
			}
		}
		call()
		n := testing.AllocsPerRun(2000, call)
		t.Logf("%s: %v allocations", endpoint, n)
		require.LessOrEqual(t, n, limit, endpoint)
	}
}

// TestMemoryIsFlat: many calls leave nothing behind.
func TestMemoryIsFlat(t *testing.T) {
	rounds, calls := 3, 100_000
	if raceEnabled {
		calls = 5000
	}
	w := newWorld(t, 1, overTCP(tcp.Config{}))
	round := func() {
		var callers sync.WaitGroup
		for range 32 {
			callers.Go(func() {
				for range calls / 32 {
					if _, err := client.Call[Greeting](context.Background(), w.client, "greeter", "Greeter.Hello", &Hello{"Ada"}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		callers.Wait()
	}
	round()
	before := heap()
	for range rounds {
		round()
	}
	require.Less(t, heap(), before+1<<20, "bytes of heap after %d calls more", rounds*calls)
	require.Zero(t, w.client.InFlight())
	services, nodes, peers := w.client.Known()
	require.Equal(t, [3]int{1, 1, 1}, [3]int{services, nodes, peers})
	require.Equal(t, 1, w.net.live())
}

// heap is what is in use when all that can be freed was freed.
func heap() uint64 {
	var m runtime.MemStats
	for range 3 { // pools give up what they hold in two cycles
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
