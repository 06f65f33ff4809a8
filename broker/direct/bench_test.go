package direct

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	memreg "github.com/plugmicro/micro/registry/memory"
)

// BenchmarkPublish measures messages from Publish until they are handled, over TCP.
func BenchmarkPublish(b *testing.B) {
	for _, bc := range []struct {
		name       string
		size       int
		publishers int
	}{{"64B/1publisher", 64, 1}, {"64B/16publishers", 64, 16}, {"4KiB/1publisher", 4 << 10, 1}, {"64KiB/1publisher", 64 << 10, 1}} {
		b.Run(bc.name, func(b *testing.B) { benchmark(b, bc.size, bc.publishers) })
	}
}

func benchmark(b *testing.B, size, publishers int) {
	store, tr := memreg.NewStore(), tcpTransport(b)
	open := func() *Broker {
		br, err := Open(store.Open(), tr, loopback(Config{}), quiet)
		require.NoError(b, err)
		return br
	}
	publisher, subscriber := open(), open()
	defer subscriber.Close()
	defer publisher.Close()
	var left atomic.Int64
	left.Store(int64(b.N))
	done := make(chan struct{})
	_, err := subscriber.Subscribe(b.Context(), "t", func(context.Context, *broker.Message) error {
		if left.Add(-1) == 0 {
			close(done)
		}
		return nil
	}, broker.Group("g"), broker.Concurrency(4))
	require.NoError(b, err)
	body := make([]byte, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for p := range publishers {
		all.Go(func() {
			for i := p; i < b.N; i += publishers {
				if err := publisher.Publish(b.Context(), "t", &broker.Message{Body: body}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	<-done
}
