package transporttest

import (
	"context"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/transport"
)

var closeTests = []test{
	{"each direction ends by itself", halfClose, ""},
	{"what was sent before Close arrives", closeFlushes, ""},
	{"the peer of a closed connection is told", peerCloses, ""},
	{"Close ends a Recv that waits", closeEndsRecv, ""},
	{"Close ends a Send that waits", closeEndsSend, ""},
	{"the peer's Close ends a Send that waits", peerEndsSend, ""},
	{"Close ends an Accept that waits", closeEndsAccept, ""},
	{"calls after Close are refused", afterClose, ""},
	{"the end of a context ends Accept and leaves the listener usable", acceptContext, ""},
	{"connections outlive their listener", listenerCloses, ""},
	{"connections that nobody accepted end with their listener", notAccepted, ""},
	{"many connections leave nothing behind", churn, ""},
	{"a transport leaves nothing behind at its backend", closeLeavesNothing, ""},
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

// closeLeavesNothing looks for queues and the like; without a backend there is nothing to see but that all closes in time.
func closeLeavesNothing(r *rig) {
	before := r.left()
	near, far := r.harness.Open(r), r.harness.Open(r)
	for range 2 {
		l, err := far.Listen(r.ctx(), r.harness.Address)
		require.NoError(r, err)
		a, b, err := r.tryConnect(r.ctx(), near, l)
		require.NoError(r, err)
		r.works(a, b)
		for _, c := range []io.Closer{a, b, l} {
			r.closes(c)
		}
	}
	for _, tr := range []transport.Transport{near, far} {
		if c, ok := tr.(io.Closer); ok {
			r.closes(c)
		}
	}
	r.eventually("nothing is left at the backend", func() bool { return r.left() <= before })
}

// churn has Run look for goroutines, and itself for descriptors and for what is left at a backend.
func churn(r *rig) {
	l, tr := r.listen(), r.open()
	r.works(r.connect(tr, l)) // what is opened once and kept is open now
	before, known := descriptors(r)
	kept := r.left()
	go Echo(l)
	const together = 10
	for range r.harness.Connections / together {
		var fs []func() error
		for range together {
			fs = append(fs, func() error { return r.visit(tr, l.Addr()) })
		}
		r.together(fs...)
	}
	if known {
		r.eventually("all descriptors are closed", func() bool { now, _ := descriptors(r); return now <= before })
	}
	r.eventually("nothing of the connections is left at the backend", func() bool { return r.left() <= kept })
}

// left is what the backend has of this Run.
func (r *rig) left() int {
	if r.harness.Left == nil {
		return 0
	}
	return r.harness.Left(r)
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
