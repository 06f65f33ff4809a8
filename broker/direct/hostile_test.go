package direct

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/status"
)

// TestManyLargeMessagesWait has more bytes wait on one connection than other users of such a connection may have.
func TestManyLargeMessagesWait(t *testing.T) {
	const topics, each = 70, 2
	w := newWorld(t)
	subscriber, one, two := w.open(Config{Buffer: each}), w.open(Config{Buffer: each}), w.open(Config{Buffer: each})
	goOn := make(chan struct{})
	var handled atomic.Int64
	for i := range topics {
		_, err := subscriber.Subscribe(t.Context(), fmt.Sprint("t", i), func(context.Context, *broker.Message) error {
			<-goOn
			handled.Add(1)
			return nil
		})
		require.NoError(t, err)
	}
	body := make([]byte, 1<<20)
	for _, publisher := range []*Broker{one, two} {
		for i := range topics * each {
			require.NoError(t, publisher.Publish(t.Context(), fmt.Sprint("t", i%topics), &broker.Message{Body: body}))
		}
	}
	close(goOn)
	require.Eventually(t, func() bool { return handled.Load() == 2*topics*each }, 20*time.Second, time.Millisecond,
		"messages are lost while everybody lives")
}

// TestStreamThatBreaks has streams end in the subscriber's process, again and again, while the subscription lives.
func TestStreamThatBreaks(t *testing.T) {
	w := newWorld(t)
	subscriber, publisher := w.open(Config{Buffer: 2}), w.open(Config{Buffer: 300})
	subscriber.waiting = 20 << 10 // bytes on a connection, a frame and a bit: what is more breaks a stream
	goOn := make(chan struct{})
	var handled atomic.Int64
	w.subscribe(subscriber, func(context.Context, *broker.Message) error {
		<-goOn
		handled.Add(1)
		return nil
	})
	for range 60 { // three frames
		require.NoError(t, publisher.Publish(t.Context(), "t", &broker.Message{Body: make([]byte, 600)}))
	}
	box := publisher.table.all()[0]
	close(goOn)
	require.Eventually(t, func() bool { return box.waiting() == 0 }, 20*time.Second, time.Millisecond)
	require.GreaterOrEqual(t, handled.Load(), int64(60), "messages are lost while everybody lives")
}

// TestPublisherThatReadsNoAcks repeats a delivery that is acked, and does not read the acks.
func TestPublisherThatReadsNoAcks(t *testing.T) {
	w := newWorld(t)
	b := w.open(Config{Buffer: 10})
	s := w.subscribe(b, func(context.Context, *broker.Message) error { return nil }).(*subscription)
	c, err := mux.Dial(t.Context(), w.transport, b.listener.addr(), mux.Options{Window: 1})
	require.NoError(t, err)
	defer c.Close()
	st, err := c.Open(t.Context(), &mux.Request{
		Service: serviceName, Endpoint: s.id, Codec: bytesCodec, Metadata: map[string]string{sourceKey: "x"}})
	require.NoError(t, err)
	message := appendMessage(nil, &broker.Message{}, "id")
	var frame []byte
	for len(frame) < 60<<10 {
		frame = appendDelivery(frame, 1, message)
	}
	for range 1000 {
		if err = st.Send(t.Context(), bytesCodec, frame); err != nil {
			break
		}
	}
	require.Equal(t, status.InvalidArgument, status.CodeOf(err), "it may go on for ever: %v", err)
}
