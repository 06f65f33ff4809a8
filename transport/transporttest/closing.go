package transporttest

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/transport"
)

var closeTests = []test{
	{"each direction ends by itself", halfClose},
	{"what was sent before Close arrives", closeFlushes},
	{"the peer of a closed connection is told", peerCloses},
	{"Close ends a Recv that waits", closeEndsRecv},
	{"Close ends a Send that waits", closeEndsSend},
	{"the peer's Close ends a Send that waits", peerEndsSend},
	{"Close ends an Accept that waits", closeEndsAccept},
	{"calls after Close are refused", afterClose},
	{"the end of a context ends Accept and leaves the listener usable", acceptContext},
	{"connections outlive their listener", listenerCloses},
	{"connections that nobody accepted end with their listener", notAccepted},
	{"many connections leave nothing behind", churn},
}

func halfClose(r *rig) {
	a, b := r.pair()
	for range 2 {
		const n = 100
		require.NoError(r, r.sendNumbered(a, n))
		require.NoError(r, a.CloseSend())
		require.ErrorIs(r, a.Send(r.ctx(), []byte("late")), transport.ErrClosed)
		require.NoError(r, a.CloseSend(), "once more")
		require.NoError(r, r.receiveNumbered(b, n))
		require.NoError(r, r.ends(b))
		require.NoError(r, r.ends(b), "once more")
		a, b = b, a // now the other direction, which the first has left alone
	}
}

func closeFlushes(r *rig) {
	const n = 100
	l, tr := r.listen(), r.open()
	for range 20 {
		a, b := r.connect(tr, l)
		require.NoError(r, r.sendNumbered(a, n))
		r.closes(a)
		require.NoError(r, r.receiveNumbered(b, n))
		require.NoError(r, r.ends(b))
	}
}

func peerCloses(r *rig) {
	a, b := r.pair()
	r.works(a, b)
	r.closes(b)
	require.NoError(r, r.ends(a))
	require.Eventually(r, func() bool { return a.Send(r.ctx(), []byte("anybody?")) != nil }, r.harness.Timeout, time.Millisecond)
}

func closeEndsRecv(r *rig) {
	a, b := r.pair()
	r.works(a, b)
	result := make(chan error, 1)
	go func() {
		_, err := a.Recv(context.Background())
		result <- err
	}()
	r.closes(a)
	require.ErrorIs(r, r.inTime("Recv to end", func() error { return <-result }), transport.ErrClosed)
}

func closeEndsSend(r *rig) {
	a, _ := r.pair()
	result := r.blockedSend(a)
	r.closes(a)
	require.ErrorIs(r, r.inTime("Send to end", func() error { return <-result }), transport.ErrClosed)
}

func peerEndsSend(r *rig) {
	a, b := r.pair()
	result := r.blockedSend(a)
	r.closes(b)
	require.Error(r, r.inTime("Send to end", func() error { return <-result }))
}

func closeEndsAccept(r *rig) {
	l := r.listen()
	result := make(chan error, 1)
	go func() {
		_, err := l.Accept(context.Background())
		result <- err
	}()
	r.closes(l)
	require.ErrorIs(r, r.inTime("Accept to end", func() error { return <-result }), transport.ErrClosed)
}

func afterClose(r *rig) {
	l, tr := r.listen(), r.open()
	a, b := r.connect(tr, l)
	require.NoError(r, b.Send(r.ctx(), []byte("unread")))
	for range 2 {
		r.closes(a)
		require.ErrorIs(r, a.Send(r.ctx(), nil), transport.ErrClosed)
		_, err := a.Recv(r.ctx())
		require.ErrorIs(r, err, transport.ErrClosed)
		require.ErrorIs(r, a.CloseSend(), transport.ErrClosed)
		r.closes(l)
		_, err = l.Accept(r.ctx())
		require.ErrorIs(r, err, transport.ErrClosed)
	}
}

func acceptContext(r *rig) {
	l, tr := r.listen(), r.open()
	_, err := l.Accept(r.ctxFor(short))
	require.ErrorIs(r, err, context.DeadlineExceeded)
	r.works(r.connect(tr, l))
}

func listenerCloses(r *rig) {
	l, tr := r.listen(), r.open()
	a, b := r.connect(tr, l)
	r.closes(l)
	r.works(a, b)
	_, err := tr.Dial(r.ctx(), l.Addr())
	require.ErrorIs(r, err, transport.ErrUnreachable)
}

func notAccepted(r *rig) {
	l, tr := r.listen(), r.open()
	a, err := tr.Dial(r.ctx(), l.Addr())
	require.NoError(r, err)
	r.closes(l)
	_, err = a.Recv(r.ctx())
	require.Error(r, err)
	require.NotErrorIs(r, err, context.DeadlineExceeded)
	r.closes(a)
}

// churn has Run look for goroutines, and itself for descriptors.
func churn(r *rig) {
	l, tr := r.listen(), r.open()
	r.works(r.connect(tr, l)) // what is opened once and kept is open now
	before, known := descriptors(r)
	go echoAll(l)
	const together = 10
	for range r.harness.Connections / together {
		var fs []func() error
		for range together {
			fs = append(fs, func() error { return r.visit(tr, l.Addr()) })
		}
		r.together(fs...)
	}
	if known {
		require.Eventually(r, func() bool { now, _ := descriptors(r); return now <= before }, r.harness.Timeout, 10*time.Millisecond,
			"descriptors are left open")
	}
}

// echoAll sends back what it receives, on every connection that l takes, until l is closed.
func echoAll(l transport.Listener) {
	for {
		c, err := l.Accept(context.Background())
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			for {
				msg, err := c.Recv(context.Background())
				if err != nil || c.Send(context.Background(), msg) != nil {
					return
				}
			}
		}()
	}
}

// visit connects to an echo, and closes.
func (r *rig) visit(tr transport.Transport, addr string) error {
	c, err := tr.Dial(r.ctx(), addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Send(r.ctx(), []byte("hello")); err != nil {
		return err
	}
	return r.receives(c, []byte("hello"))
}

// descriptors counts those that the process has open, where it can.
func descriptors(t testing.TB) (n int, known bool) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	return len(entries), err == nil
}
