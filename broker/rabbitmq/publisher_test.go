//go:build unix

package rabbitmq

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/servers"
)

// Of messages that come back when nobody waits for them any more nothing is kept.
func TestReturnedTooLate(t *testing.T) {
	s := servers.RabbitMQ(t)
	c := testConfig(s.Addr)
	c.Mandatory = true
	b, err := open(context.Background(), c, quiet)
	require.NoError(t, err)
	defer b.Close()
	require.ErrorIs(t, b.Publish(t.Context(), "late", &broker.Message{ID: "1"}), ErrNoSubscriber)

	resume := s.Pause(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, b.Publish(ctx, "late", &broker.Message{ID: "2"}), context.DeadlineExceeded)
	resume()
	require.ErrorIs(t, b.Publish(t.Context(), "late", &broker.Message{ID: "3"}, &broker.Message{ID: "3"}), ErrNoSubscriber, "and 2 came back before")
	o, _, _ := b.publish.outlets.now()
	o.returned.mu.Lock()
	defer o.returned.mu.Unlock()
	require.Empty(t, o.returned.ids)
}
