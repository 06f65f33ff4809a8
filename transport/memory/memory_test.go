package memory

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/transport"
	"github.com/plugmicro/micro/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{Open: func(t testing.TB) transport.Transport {
		tr, err := New(new(plugin.Env), Config{})
		require.NoError(t, err)
		return tr
	}})
}

func TestPrivateTransportsDoNotMeet(t *testing.T) {
	one, err := NewPrivate(Config{})
	require.NoError(t, err)
	other, err := NewPrivate(Config{})
	require.NoError(t, err)
	for _, tr := range []transport.Transport{one, other} {
		l, err := tr.Listen(t.Context(), "here")
		require.NoError(t, err)
		defer l.Close()
	}
	l, err := one.Listen(t.Context(), "there")
	require.NoError(t, err)
	defer l.Close()
	_, err = other.Dial(t.Context(), "there")
	require.ErrorIs(t, err, transport.ErrUnreachable)
}

func TestListenChoosesAnAddress(t *testing.T) {
	tr, err := NewPrivate(Config{})
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, addr := range []string{"", "", "127.0.0.1:0", "127.0.0.1:0", ":0"} {
		l, err := tr.Listen(t.Context(), addr)
		require.NoError(t, err)
		defer l.Close()
		require.False(t, seen[l.Addr()], l.Addr())
		seen[l.Addr()] = true
	}
}

func TestSettingsThatMakeNoSenseAreRefused(t *testing.T) {
	_, err := New(new(plugin.Env), Config{MaxMessage: -1})
	require.ErrorContains(t, err, "max-message")
}

func TestSendAndRecvDoNotAllocate(t *testing.T) {
	tr, err := NewPrivate(Config{})
	require.NoError(t, err)
	l, err := tr.Listen(t.Context(), "")
	require.NoError(t, err)
	defer l.Close()
	a, err := tr.Dial(t.Context(), l.Addr())
	require.NoError(t, err)
	defer a.Close()
	b, err := l.Accept(t.Context())
	require.NoError(t, err)
	defer b.Close()
	msg := make([]byte, 64)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		require.NoError(t, a.Send(t.Context(), msg))
		_, err := b.Recv(t.Context())
		require.NoError(t, err)
	}))
}

func TestReady(t *testing.T) {
	near, far := newPair("dialer", "addr", 1000, 1000)
	ready := func() bool {
		ready, known := far.Ready()
		require.True(t, known)
		return ready
	}
	require.False(t, ready())
	for range 2 {
		require.NoError(t, near.Send(t.Context(), nil))
	}
	for range 2 {
		require.True(t, ready())
		_, err := far.Recv(t.Context())
		require.NoError(t, err)
	}
	require.False(t, ready())
	require.NoError(t, near.CloseSend())
	require.True(t, ready(), "the end")
	near.Close()
	far.Close()
	require.True(t, ready(), "closed here")
}
