//go:build unix

package servers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func rabbitChannel(t *testing.T, addr string) *amqp091.Channel {
	c, err := amqp091.Dial("amqp://guest:guest@" + addr)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	ch, err := c.Channel()
	require.NoError(t, err)
	return ch
}

// processesOf are those whose command line or environment mentions a folder.
func processesOf(t *testing.T, dir string) (found []string) {
	all, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	for _, p := range all {
		env, _ := os.ReadFile(p + "/environ")
		if strings.Contains(string(env), dir) {
			cmd, _ := os.ReadFile(p + "/cmdline")
			found = append(found, strings.ReplaceAll(string(cmd), "\x00", " "))
		}
	}
	return found
}

func TestRabbitMQ(t *testing.T) {
	var dirs []string
	t.Run("two at once", func(t *testing.T) {
		one, two := RabbitMQ(t), RabbitMQ(t)
		dirs = []string{one.Dir, two.Dir}
		require.NotEmpty(t, processesOf(t, one.Dir))
		ch := rabbitChannel(t, one.Proxy.Addr())
		_, err := ch.QueueDeclare("kept", true, false, false, false, amqp091.Table{"x-queue-type": "quorum"})
		require.NoError(t, err)
		_, err = ch.QueueDeclare("gone", false, false, true, false, nil)
		require.NoError(t, err)
		require.NoError(t, ch.Confirm(false))
		confirm, err := ch.PublishWithDeferredConfirm("", "kept", false, false, amqp091.Publishing{Body: []byte("x")})
		require.NoError(t, err)
		require.True(t, confirm.Wait())
		kept := RabbitQueue{Name: "kept", Kind: "rabbit_quorum_queue", Durable: true, Messages: 1}
		gone := RabbitQueue{Name: "gone", Kind: "rabbit_classic_queue", Exclusive: true}
		has := func(want ...RabbitQueue) func(*assert.CollectT) {
			return func(c *assert.CollectT) { assert.ElementsMatch(c, want, one.Queues(t)) }
		}
		require.EventuallyWithT(t, has(kept, gone), 10*time.Second, 50*time.Millisecond)
		require.Empty(t, two.Queues(t))
		require.Equal(t, 1, one.Connections(t))

		one.Restart(t)
		require.EventuallyWithT(t, has(kept), 10*time.Second, 50*time.Millisecond)
		one.Wipe(t)
		require.Empty(t, one.Queues(t))

		one.AddUser(t, "reader", "secret", "", "", ".*")
		c, err := amqp091.Dial("amqp://reader:secret@" + one.Addr)
		require.NoError(t, err)
		defer c.Close()
		ch, err = c.Channel()
		require.NoError(t, err)
		_, err = ch.QueueDeclare("q", true, false, false, false, nil)
		require.ErrorContains(t, err, "ACCESS_REFUSED")

		c, err = amqp091.Dial("amqp://guest:guest@" + two.Addr)
		require.NoError(t, err)
		defer c.Close()
		blocked := c.NotifyBlocked(make(chan amqp091.Blocking, 10))
		ch, err = c.Channel()
		require.NoError(t, err)
		clear := two.Alarm(t)
		require.NoError(t, ch.PublishWithContext(t.Context(), "", "q", false, false, amqp091.Publishing{}))
		require.True(t, (<-blocked).Active)
		clear()
		require.False(t, (<-blocked).Active)
	})
	for _, dir := range dirs {
		require.Eventually(t, func() bool { return len(processesOf(t, dir)) == 0 }, 10*time.Second, 50*time.Millisecond, "%v", processesOf(t, dir))
	}
}
