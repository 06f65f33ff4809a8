package memory

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/broker/brokertest"
)

func TestConformance(t *testing.T) {
	h := newHub()
	config := Config{Buffer: 100, BufferSize: 4 << 20, Drain: 500 * time.Millisecond}
	brokertest.Run(t, brokertest.Harness{
		Open: func(t testing.TB) broker.Broker {
			b, err := newBroker(context.Background(), h, config, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			return b
		},
		Kill: kill,
	})
}

// kill gives back all that b's handlers hold, and lets them end unheard.
func kill(_ testing.TB, b broker.Broker) {
	dead := b.(*Broker)
	now, cancel := context.WithCancel(context.Background())
	cancel()
	for _, s := range dead.subs.Seal() {
		_ = s.close(now)
	}
	dead.release()
}
