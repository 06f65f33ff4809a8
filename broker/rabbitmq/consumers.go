package rabbitmq

import (
	"context"
	"sync"

	"github.com/plugmicro/micro/internal/amqp"
)

// consumers is the connection that all subscriptions share, from the first on, made again when it is lost.
type consumers struct {
	dialer *amqp.Dialer
	conns  *slot[amqp.Conn]
	once   sync.Once
	ctx    context.Context
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

func newConsumers(d *amqp.Dialer) *consumers {
	c := &consumers{dialer: d, conns: newSlot[amqp.Conn]()}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

func (c *consumers) start() {
	c.once.Do(func() {
		c.ended.Go(func() {
			_ = c.dialer.Run(c.ctx, "consume", c.session, func(err error) { c.conns.set(nil, err) })
		})
	})
}

func (c *consumers) session(ctx context.Context, conn *amqp.Conn, ready func()) error {
	ready()
	c.conns.set(conn, nil)
	select {
	case <-conn.Lost():
	case <-ctx.Done():
	}
	c.conns.set(nil, conn.Err())
	return nil
}

func (c *consumers) stop() {
	c.cancel()
	c.ended.Wait()
}
