package transporttest

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/transport"
)

var addressTests = []test{
	{"an address where nobody listens is an error at once", unreachable, ""},
	{"the end of a context ends Dial and Listen", dialContext, ""},
	{"an address is given once", addressInUse, ""},
	{"an address is free again after Close", addressFree, ""},
	{"limits are those of the options", limits, ""},
	{"both ends have a name", names, ""},
	{"who has not the right credentials is refused, and holds up nobody", refused, "Refused"},
}

func unreachable(r *rig) {
	addr := r.harness.Unknown
	if addr == "" {
		l := r.listen()
		addr = l.Addr()
		r.closes(l)
	}
	tr := r.open()
	for range 3 {
		start := time.Now()
		_, err := tr.Dial(r.ctx(), addr)
		require.ErrorIs(r, err, transport.ErrUnreachable)
		require.ErrorContains(r, err, addr)
		require.Less(r, time.Since(start), r.harness.Timeout/3, "it fails fast")
	}
}

func dialContext(r *rig) {
	l, tr := r.listen(), r.open()
	_, err := tr.Dial(ended(), l.Addr())
	require.ErrorIs(r, err, context.Canceled)
	_, err = tr.Listen(ended(), r.harness.Address)
	require.ErrorIs(r, err, context.Canceled)
	r.works(r.connect(tr, l))
}

func addressInUse(r *rig) {
	l, other := r.listen(), r.open()
	_, err := other.Listen(r.ctx(), l.Addr())
	require.ErrorIs(r, err, transport.ErrAddrInUse)
	require.ErrorContains(r, err, l.Addr())
	require.NotEqual(r, l.Addr(), r.listenOn(other).Addr())
	r.works(r.connect(other, l))
}

func addressFree(r *rig) {
	first := r.listen()
	r.closes(first)
	tr := r.open()
	l, err := tr.Listen(r.ctx(), first.Addr())
	require.NoError(r, err)
	defer r.closes(l)
	require.Equal(r, first.Addr(), l.Addr())
	r.works(r.connect(tr, l))
}

func limits(r *rig) {
	const limit = 1000
	tr := r.open()
	l, err := tr.Listen(r.ctx(), r.harness.Address, transport.ListenMaxMessage(limit))
	require.NoError(r, err)
	defer r.closes(l)
	a, err := tr.Dial(r.ctx(), l.Addr(), transport.DialMaxMessage(limit))
	require.NoError(r, err)
	defer r.closes(a)
	b, err := l.Accept(r.ctx())
	require.NoError(r, err)
	defer r.closes(b)
	for _, c := range []transport.Conn{a, b} {
		require.Equal(r, limit, c.MaxMessage())
		require.ErrorIs(r, c.Send(r.ctx(), make([]byte, limit+1)), transport.ErrTooLarge)
	}
	r.passes(a, b, numbered(0, limit))
	r.works(a, b)
}

func names(r *rig) {
	l, tr := r.listen(), r.open()
	require.NotEmpty(r, tr.String())
	a, b := r.connect(tr, l)
	require.Equal(r, l.Addr(), a.RemoteAddr())
	require.NotEmpty(r, a.LocalAddr())
	require.NotEmpty(r, b.LocalAddr())
	require.NotEmpty(r, b.RemoteAddr())
}

// refused allows for a dialer that learns of it only when it uses the connection. The first connection that the listener
// gives out is that of one with the right credentials.
func refused(r *rig) {
	for wrong, open := range r.harness.Refused {
		l := r.listen()
		accepted := make(chan transport.Conn, 1)
		go func() {
			for {
				c, err := l.Accept(context.Background())
				if err == nil {
					accepted <- c
				}
				if err == nil || errors.Is(err, transport.ErrClosed) {
					return // else the error is about one connection
				}
			}
		}()
		err := r.tryRefused(open, l.Addr())
		require.Error(r, err, wrong)
		require.NotErrorIs(r, err, context.DeadlineExceeded, wrong)
		a, err := r.open().Dial(r.ctx(), l.Addr())
		require.NoError(r, err)
		defer r.closes(a)
		b := receive(r, "Accept", accepted)
		defer r.closes(b)
		r.works(a, b)
	}
}

func (r *rig) tryRefused(open func(testing.TB) (transport.Transport, error), addr string) error {
	tr, err := open(r)
	if err != nil {
		return err
	}
	if c, ok := tr.(io.Closer); ok {
		defer r.closes(c)
	}
	c, err := tr.Dial(r.ctx(), addr)
	if err != nil {
		return err
	}
	defer func() { _ = r.inTime("Close", c.Close) }()
	if err := c.Send(r.ctx(), make([]byte, 100)); err != nil {
		return err
	}
	_, err = c.Recv(r.ctx())
	return err
}
