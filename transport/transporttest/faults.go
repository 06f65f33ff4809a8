package transporttest

import (
	"context"
	"io"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/transport"
)

// faultTests are those that the harness can bring about.
func faultTests(h Harness) (tests []test) {
	if h.Kill != nil {
		tests = append(tests,
			test{"the peer of a process that dies is told that the connection is lost", killed},
			test{"the death of the peer ends a Send that waits", killedEndsSend})
	}
	if h.Restart != nil {
		tests = append(tests, test{"after a restart of the backend peers connect again", restarted})
	}
	if h.Pause != nil {
		tests = append(tests, test{"contexts end calls while the backend is frozen", paused})
	}
	if h.Partition != nil {
		tests = append(tests, test{"after a partition peers connect again", partitioned})
	}
	return tests
}

func killed(r *rig) {
	for _, dialerDies := range []bool{true, false} {
		a, b := r.pair()
		if !dialerDies {
			a, b = b, a
		}
		r.passes(a, b, []byte("still alive"))
		r.harness.Kill(r, a)
		r.lost(b)
	}
}

// lost checks that c neither ends as if the peer had closed nor waits for ever.
func (r *rig) lost(c transport.Conn) {
	r.Helper()
	_, err := c.Recv(r.ctx())
	require.Error(r, err)
	require.NotErrorIs(r, err, context.DeadlineExceeded)
	require.NotErrorIs(r, err, transport.ErrClosed)
	require.NotEqual(r, io.EOF, err)
	require.Error(r, c.Send(r.ctx(), []byte("anybody?")))
}

func killedEndsSend(r *rig) {
	a, b := r.pair()
	result := r.blockedSend(b)
	r.harness.Kill(r, a)
	require.Error(r, r.inTime("Send to end", func() error { return <-result }))
}

func restarted(r *rig) {
	l, tr := r.listen(), r.open()
	a, b := r.connect(tr, l)
	r.works(a, b)
	r.harness.Restart(r)
	r.settles(a, b)
	r.connectsAgain(tr, l)
}

func partitioned(r *rig) {
	l, tr := r.listen(), r.open()
	a, b := r.connect(tr, l)
	r.works(a, b)
	heal := r.harness.Partition(r, tr)
	_, err := tr.Dial(r.ctxFor(short), l.Addr())
	require.Error(r, err)
	heal()
	r.settles(a, b)
	r.connectsAgain(tr, l)
}

// settles checks that a connection that had a fault either works or says that it does not.
func (r *rig) settles(a, b transport.Conn) {
	r.Helper()
	if err := a.Send(r.ctx(), []byte("still there?")); err != nil {
		require.NotErrorIs(r, err, context.DeadlineExceeded)
		return
	}
	got, err := b.Recv(r.ctx())
	if err != nil {
		require.NotErrorIs(r, err, context.DeadlineExceeded)
		return
	}
	require.Equal(r, "still there?", string(got))
}

// connectsAgain allows for the time in which both sides find their backend again.
func (r *rig) connectsAgain(tr transport.Transport, l transport.Listener) {
	r.Helper()
	var a, b transport.Conn
	require.Eventually(r, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var err error
		a, b, err = r.tryConnect(ctx, tr, l)
		return err == nil
	}, r.harness.Timeout, 10*time.Millisecond)
	defer r.closes(a)
	defer r.closes(b)
	r.works(a, b)
}

func paused(r *rig) {
	a, b := r.pair()
	r.works(a, b)
	resume := r.harness.Pause(r)
	_, err := b.Recv(r.ctxFor(short))
	require.ErrorIs(r, err, context.DeadlineExceeded)
	taken := r.fill(a, 10_000)
	resume()
	for i := range taken {
		require.NoError(r, r.receives(b, numbered(i, 10_000)))
	}
	r.works(a, b)
}
