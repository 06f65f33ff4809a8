package transporttest

import (
	"context"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/transport"
)

var addressTests = []test{
	{"an address where nobody listens is an error at once", unreachable},
	{"the end of a context ends Dial and Listen", dialContext},
	{"an address is given once", addressInUse},
	{"an address is free again after Close", addressFree},
	{"limits are those of the options", limits},
	{"both ends have a name", names},
}

func unreachable(r *rig) {
	addr := r.harness.Unknown
	if addr == "" {
		l := r.listen()
		addr = l.Addr()
		r.closes(l)
	}
	_, err := r.open().Dial(r.ctx(), addr)
	require.ErrorIs(r, err, transport.ErrUnreachable)
	require.ErrorContains(r, err, addr)
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
