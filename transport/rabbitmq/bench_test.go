//go:build unix

package rabbitmq

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/internal/servers"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/transport"
)

// BenchmarkCall compares calls of 64 bytes by one caller with the least that a program can do: bare is a message to an
// exclusive queue and the answer to another one, by amqp091 alone, over connections like those of the transport; conn is
// the same over a connection of the transport, and micro a call to an endpoint. They take turns, so that what else the
// machine does hits all of them. The metrics are medians, in microseconds; an op is twenty calls of each.
func BenchmarkCall(b *testing.B) {
	s := servers.RabbitMQ(b)
	contenders := []struct {
		name string
		call func([]byte)
		took []time.Duration
	}{{name: "bare", call: bare(b, s.Addr)}, {name: "conn", call: echoed(b, s.Addr)}, {name: "micro", call: service(b, s.Addr)}}
	body := make([]byte, 64)
	for b.Loop() {
		for i := range contenders {
			c := &contenders[i]
			for range 20 {
				began := time.Now()
				c.call(body)
				c.took = append(c.took, time.Since(began))
			}
		}
	}
	var medians []float64
	for _, c := range contenders {
		slices.Sort(c.took)
		medians = append(medians, float64(c.took[len(c.took)/2].Nanoseconds())/1000)
		b.ReportMetric(medians[len(medians)-1], c.name+"-us")
	}
	b.ReportMetric(medians[1]/medians[0], "conn/bare")
	b.ReportMetric(medians[2]/medians[0], "micro/bare")
}

// BenchmarkCallers is 64 of them on one connection.
func BenchmarkCallers(b *testing.B) {
	s := servers.RabbitMQ(b)
	call, body := service(b, s.Addr), make([]byte, 64)
	b.SetParallelism(64 / runtime.GOMAXPROCS(0))
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			call(body)
		}
	})
}

func bare(b *testing.B, addr string) (call func([]byte)) {
	channel := func() *amqp091.Channel {
		c, err := amqp091.Dial("amqp://guest:guest@" + addr + "/")
		require.NoError(b, err)
		b.Cleanup(func() { c.Close() })
		ch, err := c.Channel()
		require.NoError(b, err)
		return ch
	}
	consume := func(queue string) <-chan amqp091.Delivery {
		ch := channel()
		_, err := ch.QueueDeclare(queue, false, false, true, false, nil)
		require.NoError(b, err)
		deliveries, err := ch.Consume(queue, "", true, true, false, false, nil)
		require.NoError(b, err)
		return deliveries
	}
	answers, calls := consume("answers"), consume("calls")
	caller, answerer := channel(), channel()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for {
			select {
			case d := <-calls:
				answer := amqp091.Publishing{CorrelationId: d.CorrelationId, Body: d.Body}
				if answerer.PublishWithContext(ctx, "", d.ReplyTo, true, false, answer) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	b.Cleanup(func() {
		cancel()
		done.Wait()
	})
	id := randomName("")
	return func(body []byte) {
		require.NoError(b, caller.PublishWithContext(ctx, "", "calls", true, false, amqp091.Publishing{CorrelationId: id, ReplyTo: "answers", Body: body}))
		<-answers
	}
}

// connected is a connection between two transports.
func connected(b *testing.B, addr string) (near, far transport.Conn) {
	c := config(addr)
	l, err := open(b, c).Listen(b.Context(), "")
	require.NoError(b, err)
	near, err = open(b, c).Dial(b.Context(), l.Addr())
	require.NoError(b, err)
	far, err = l.Accept(b.Context())
	require.NoError(b, err)
	return near, far
}

func echoed(b *testing.B, addr string) (call func([]byte)) {
	near, far := connected(b, addr)
	var done sync.WaitGroup
	done.Go(func() {
		for {
			msg, err := far.Recv(context.Background())
			if err != nil || far.Send(context.Background(), msg) != nil {
				return
			}
		}
	})
	b.Cleanup(func() {
		near.Close()
		done.Wait()
		far.Close()
	})
	return func(body []byte) {
		require.NoError(b, near.Send(context.Background(), body))
		_, err := near.Recv(context.Background())
		require.NoError(b, err)
	}
}

type echo struct{ Body []byte }

// service returns a call to one over the transport.
func service(b *testing.B, addr string) func(body []byte) {
	l, err := open(b, config(addr)).Listen(b.Context(), "")
	require.NoError(b, err)
	s := server.New("echo", server.Options{})
	require.NoError(b, server.Func(s, "Echo", func(_ context.Context, m *echo) (*echo, error) { return m, nil }))
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	reg := memory.NewStore().Open()
	require.NoError(b, reg.Register(&registry.Service{Name: "echo", Nodes: []*registry.Node{{ID: "1", Address: l.Addr()}}}))
	c := client.New(reg, open(b, config(addr)), client.Options{})
	b.Cleanup(func() {
		c.Close()
		s.Shutdown(context.Background())
		<-served
	})
	return func(body []byte) {
		if _, err := client.Call[echo](context.Background(), c, "echo", "Echo", &echo{body}); err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkOneWay sends without waiting for answers.
func BenchmarkOneWay(b *testing.B) {
	s := servers.RabbitMQ(b)
	for name, size := range map[string]int{"64B": 64, "1KiB": 1 << 10, "1MiB": 1 << 20} {
		b.Run(name, func(b *testing.B) {
			near, far := connected(b, s.Addr)
			go func() {
				msg := make([]byte, size)
				for near.Send(context.Background(), msg) == nil {
				}
			}()
			b.SetBytes(int64(size))
			for b.Loop() {
				_, err := far.Recv(context.Background())
				require.NoError(b, err)
			}
			near.Close()
			far.Close()
		})
	}
}
