//go:build unix

package servers

import (
	"net"
	"strconv"
	"testing"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
)

func TestKafka(t *testing.T) {
	s := Kafka(t)
	client := &kafka.Client{Addr: kafka.TCP(s.Addr), Timeout: 10 * time.Second, Transport: new(kafka.Transport)}
	created, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: "kept", NumPartitions: 3, ReplicationFactor: 1}},
	})
	require.NoError(t, err)
	require.NoError(t, created.Errors["kept"])
	partitions := func() int {
		c, err := kafka.Dial("tcp", s.Addr)
		require.NoError(t, err)
		defer c.Close()
		found, err := c.ReadPartitions()
		require.NoError(t, err)
		return len(found)
	}
	require.Equal(t, 3, partitions())
	for _, addr := range []string{s.Addr, s.Proxy.Addr()} { // no connection goes round the proxy
		c, err := kafka.Dial("tcp", addr)
		require.NoError(t, err)
		defer c.Close()
		told, err := c.Controller()
		require.NoError(t, err)
		require.Equal(t, addr, net.JoinHostPort(told.Host, strconv.Itoa(told.Port)))
	}
	s.Restart(t)
	require.Equal(t, 3, partitions())
	s.Wipe(t)
	require.Zero(t, partitions())
}
