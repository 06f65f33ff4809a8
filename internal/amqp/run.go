package amqp

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// settled is how long a connection must have worked for the next to be made without a pause.
const settled = 5 * time.Second

// Run connects, calls f with the connection, closes it when f returns, and begins again, with growing random pauses, until
// ctx ends. f declares, consumes and publishes until c.Lost() or ctx.Done(). failed, if it is not nil, is told why f or
// connecting failed, before each pause. Run returns the error of ctx.
func (d *Dialer) Run(ctx context.Context, purpose string, f func(ctx context.Context, c *Conn) error, failed func(error)) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval = 100 * time.Millisecond
	pauses.MaxInterval = 5 * time.Second
	for {
		worked, err := d.session(ctx, purpose, f)
		if ctx.Err() != nil {
			return ctx.Err()
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
		err = lost
	}
	return time.Since(began), err
}
