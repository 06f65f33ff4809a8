package transporttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/transport"
)

var faultTests = []test{
	{"the peer of a connection that dies is told that it is lost", killed, "fault Kill"},
	{"the death of the peer ends a Send that waits", killedEndsSend, "fault Kill"},
	{"the death of the peer's process is noticed", processKilled, "fault Spawn"},
	{"a peer whose process is frozen takes no more than fits, and goes on or is lost", processFrozen, "fault Spawn"},
	{"Close does not wait for a peer whose process is frozen", processFrozenClose, "fault Spawn"},
	{"after a restart of the backend peers connect again", restarted, "fault Restart"},
	{"a restart of the backend under load loses and repeats nothing unnoticed", restartedUnderLoad, "fault Restart"},
	{"contexts end calls while the backend is frozen", paused, "fault Pause"},
	{"Close does not wait for a backend that is frozen", pausedClose, "fault Pause"},
	{"after a partition peers connect again", partitioned, "fault Partition"},
	{"Close does not wait for a partition to heal", partitionedClose, "fault Partition"},
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

// process is a peer in a process of its own, with a connection to it.
func (r *rig) process() (transport.Transport, transport.Conn, Process) {
	r.Helper()
	p := r.harness.Spawn(r)
	tr := r.open()
	c, err := tr.Dial(r.ctx(), p.Addr)
	require.NoError(r, err)
	r.Cleanup(func() { _ = r.inTime("Close", c.Close) })
	r.echoes(c)
	return tr, c, p
}

func (r *rig) echoes(c transport.Conn) {
	r.Helper()
	require.NoError(r, c.Send(r.ctx(), []byte("hello")))
	require.NoError(r, r.receives(c, []byte("hello")))
}

func processKilled(r *rig) {
	tr, c, p := r.process()
	lost := make(chan error, 1)
	go func() {
		_, err := c.Recv(context.Background())
		lost <- err
	}()
	start := time.Now()
	p.Kill()
	err := receive(r, "Recv to notice", lost)
	require.Error(r, err)
	require.NotEqual(r, io.EOF, err, "it did not close")
	r.suite.Measure(r.T, "death of the peer's process noticed after", time.Since(start).String())
	require.Error(r, c.Send(r.ctx(), []byte("anybody?")))
	r.eventually("its address is free", func() bool {
		_, err := tr.Dial(r.ctx(), p.Addr)
		return errors.Is(err, transport.ErrUnreachable)
	})
}

func processFrozen(r *rig) {
	const size = 10_000
	tr, c, p := r.process()
	p.Stop()
	thaw := sync.OnceFunc(p.Continue)
	defer thaw()
	before := heap()
	taken := r.fill(c, size)
	require.Less(r, int(heap()-before), r.harness.Buffered, "bytes of memory in use")
	thaw()
	for i := range taken {
		err := r.receives(c, numbered(i, size))
		if err != nil { // it was taken for dead
			require.NotErrorIs(r, err, context.DeadlineExceeded)
			require.NotErrorIs(r, err, io.EOF)
			require.Error(r, c.Send(r.ctx(), nil))
			c, err = tr.Dial(r.ctx(), p.Addr)
			require.NoError(r, err)
			defer r.closes(c)
			break
		}
	}
	r.echoes(c)
}

func processFrozenClose(r *rig) {
	_, c, p := r.process()
	p.Stop()
	defer p.Continue()
	r.fill(c, 10_000)
	_ = r.inTime("Close", c.Close)
}

func restarted(r *rig) {
	l, tr := r.listen(), r.open()
	a, b := r.connect(tr, l)
	r.works(a, b)
	r.harness.Restart(r)
	r.settles(a, b)
	r.connectsAgain(tr, l)
}

// restartedUnderLoad allows a connection to be lost, but then both ends must hear of it, and not before what they heard
// last was as it should be.
func restartedUnderLoad(r *rig) {
	const size = 1000
	l, tr := r.listen(), r.open()
	for range 3 {
		var a, b transport.Conn
		r.eventually("a connection", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			var err error
			a, b, err = r.tryConnect(ctx, tr, l)
			return err == nil
		})
		defer r.closes(a)
		defer r.closes(b)
		halfway, over := make(chan struct{}), make(chan struct{})
		reached := sync.OnceFunc(func() { close(halfway) })
		r.together(
			func() error { return unlessLost(r.sendUntil(a, size, over)) },
			func() error {
				defer reached() // a connection may still feel the last restart
				return r.receiveAll(b, size, reached)
			},
			func() error {
				<-halfway
				r.harness.Restart(r)
				close(over)
				return nil
			},
		)
	}
	r.connectsAgain(tr, l)
}

// sendUntil sends numbered messages until over, and some more, then ends its direction.
func (r *rig) sendUntil(c transport.Conn, size int, over <-chan struct{}) error {
	ctx := r.ctx()
	for i, more := 0, 100; more > 0; i++ {
		if err := c.Send(ctx, numbered(i, size)); err != nil {
			return err
		}
		select {
		case <-over:
			more--
		default:
		}
	}
	return c.CloseSend()
}

// receiveAll receives numbered messages until the end, or until the connection is lost.
func (r *rig) receiveAll(c transport.Conn, size int, halfway func()) error {
	ctx := r.ctx()
	for i := 0; ; i++ {
		got, err := c.Recv(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return unlessLost(err)
		}
		if string(got) != string(numbered(i, size)) {
			return fmt.Errorf("message %d is lost, repeated, changed, or out of order: %d bytes %.16x…", i, len(got), got)
		}
		if i == 100 {
			halfway()
		}
	}
}

// unlessLost returns an error that is not that of a lost connection.
func unlessLost(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, transport.ErrTooLarge) {
		return err
	}
	return nil
}

// pausedClose closes everything there is.
func pausedClose(r *rig) {
	closeAll(r, func(transport.Transport) func() { return r.harness.Pause(r) })
}

func partitionedClose(r *rig) {
	closeAll(r, func(tr transport.Transport) func() { return r.harness.Partition(r, tr) })
}

func closeAll(r *rig, fault func(transport.Transport) (over func())) {
	tr := r.harness.Open(r)
	l, err := tr.Listen(r.ctx(), r.harness.Address)
	require.NoError(r, err)
	a, b, err := r.tryConnect(r.ctx(), tr, l)
	require.NoError(r, err)
	r.works(a, b)
	over := sync.OnceFunc(fault(tr))
	defer over()
	_ = r.inTime("Send", func() error { return a.Send(r.ctxFor(short), []byte("on its way")) })
	for _, c := range []io.Closer{a, b, l} {
		_ = r.inTime("Close", c.Close)
	}
	if c, ok := tr.(io.Closer); ok {
		_ = r.inTime("Close of the transport", c.Close)
	}
	over()
}

func partitioned(r *rig) {
	l, tr := r.listen(), r.open()
	a, b := r.connect(tr, l)
	r.works(a, b)
	heal := sync.OnceFunc(r.harness.Partition(r, tr))
	defer heal()
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
	resume := sync.OnceFunc(r.harness.Pause(r))
	defer resume()
	_, err := b.Recv(r.ctxFor(short))
	require.ErrorIs(r, err, context.DeadlineExceeded)
	taken := r.fill(a, 10_000)
	resume()
	for i := range taken {
		require.NoError(r, r.receives(b, numbered(i, 10_000)))
	}
	r.works(a, b)
}
