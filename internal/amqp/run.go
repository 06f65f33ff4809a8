package amqp

import (
	"context"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Run connects, calls f with the connection, closes it when f returns, and begins again, with growing random pauses, until
// ctx ends. f declares what it needs, says that it is ready, consumes and publishes until c.Lost() or ctx.Done(). failed,
// if it is not nil, is told why f or connecting failed, before each pause. Run returns the error of ctx.
//
// Outages are logged, but not before f was ready for the first time: who waits for that is told by failed.
func (d *Dialer) Run(ctx context.Context, purpose string, f func(ctx context.Context, c *Conn, ready func()) error, failed func(error)) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval = 100 * time.Millisecond
	pauses.MaxInterval = 5 * time.Second
	var outage Outage
	wasReady, log := false, d.log.With("purpose", purpose)
	for {
		worked, err := d.session(ctx, purpose, func(ctx context.Context, c *Conn) error {
			return f(ctx, c, func() {
				wasReady = true
				outage.Over(log, "connected to RabbitMQ again", "address", c.Addr)
			})
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if wasReady {
			outage.Failed(log, "no connection to RabbitMQ, will try until there is one", err)
		}
		if failed != nil {
			failed(err)
		}
		if worked >= settled {
			pauses.Reset()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

func (d *Dialer) session(ctx context.Context, purpose string, f func(context.Context, *Conn) error) (worked time.Duration, err error) {
	c, err := d.Dial(ctx, purpose)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	began := time.Now()
	err = f(ctx, c)
	if lost := c.Err(); lost != nil {
		return time.Since(began), lost
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", c.Addr, err)
	}
	return time.Since(began), err
}
