package transporttest

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/transport"
)

var messageTests = []test{
	{"messages arrive in order both ways at once", inOrder, ""},
	{"empty, binary and largest messages arrive", sizes, ""},
	{"a message that is too large is refused and the connection stays usable", tooLarge, ""},
	{"concurrent senders lose and mix nothing", concurrentSend, ""},
	{"many connections are independent", manyConnections, ""},
	{"a message may be changed once Send returned", notAliased, ""},
	{"a received message stays until the next Recv", staysValid, ""},
	{"the end of a context ends Send and leaves the connection usable", sendContext, ""},
	{"the end of a context ends Recv and leaves the connection usable", recvContext, ""},
	{"Recv that is interrupted again and again loses nothing", recvInterrupted, ""},
}

func inOrder(r *rig) {
	a, b := r.pair()
	n := r.harness.Messages
	r.together(
		func() error { return r.sendNumbered(a, n) },
		func() error { return r.sendNumbered(b, n) },
		func() error { return r.receiveNumbered(a, n) },
		func() error { return r.receiveNumbered(b, n) },
	)
}

func sizes(r *rig) {
	a, b := r.pair()
	everyByte := make([]byte, 256)
	for i := range everyByte {
		everyByte[i] = byte(i)
	}
	require.Positive(r, a.MaxMessage())
	for _, msg := range [][]byte{nil, {}, {0}, {255, 255, 255, 255}, everyByte, numbered(1, a.MaxMessage()-1), numbered(2, a.MaxMessage()), {}} {
		r.passes(a, b, msg)
		r.passes(b, a, msg)
	}
}

func tooLarge(r *rig) {
	a, b := r.pair()
	for _, c := range []transport.Conn{a, b} {
		err := c.Send(r.ctx(), make([]byte, c.MaxMessage()+1))
		require.ErrorIs(r, err, transport.ErrTooLarge)
		require.ErrorContains(r, err, fmt.Sprint(c.MaxMessage()+1), "the size")
		require.ErrorContains(r, err, fmt.Sprint(c.MaxMessage()), "the limit")
	}
	r.works(a, b)
}

func concurrentSend(r *rig) {
	const senders, each = 16, 500
	a, b := r.pair()
	var fs []func() error
	for s := range senders {
		fs = append(fs, func() error {
			ctx := r.ctx()
			for i := range each {
				msg := numbered(i, sizeOf(i, a.MaxMessage()))
				if err := a.Send(ctx, binary.BigEndian.AppendUint32(msg, uint32(s))); err != nil {
					return err
				}
			}
			return nil
		})
	}
	next := make([]int, senders)
	r.together(append(fs, func() error {
		ctx := r.ctx()
		for range senders * each {
			got, err := b.Recv(ctx)
			if err != nil {
				return err
			}
			body, s := got[:len(got)-4], binary.BigEndian.Uint32(got[len(got)-4:])
			if want := numbered(next[s], sizeOf(next[s], a.MaxMessage())); string(body) != string(want) {
				return fmt.Errorf("sender %d: message %d is lost, changed, or out of order", s, next[s])
			}
			next[s]++
		}
		return nil
	})...)
}

func manyConnections(r *rig) {
	const conns, each = 50, 100
	l, tr := r.listen(), r.open()
	var fs []func() error
	for i := range conns {
		a, b := r.connect(tr, l)
		fs = append(fs, func() error {
			for n := range each {
				if err := a.Send(r.ctx(), fmt.Append(nil, i, n)); err != nil {
					return err
				}
			}
			return nil
		}, func() error {
			for n := range each {
				if err := r.receives(b, fmt.Append(nil, i, n)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	r.together(fs...)
}

func notAliased(r *rig) {
	const n = 100
	a, b := r.pair()
	buf := make([]byte, 1000)
	for i := range n {
		copy(buf, numbered(i, len(buf)))
		require.NoError(r, a.Send(r.ctx(), buf))
		clear(buf)
	}
	for i := range n {
		require.NoError(r, r.receives(b, numbered(i, len(buf))))
	}
}

func staysValid(r *rig) {
	a, b := r.pair()
	for _, size := range []int{8, 1000, 100_000} {
		size = min(size, a.MaxMessage())
		want := numbered(0, size)
		require.NoError(r, a.Send(r.ctx(), want))
		got, err := b.Recv(r.ctx())
		require.NoError(r, err)
		for i := range 10 {
			require.NoError(r, a.Send(r.ctx(), numbered(i, 1000)))
		}
		r.passes(b, a, []byte("they have arrived"))
		require.Equal(r, want, got)
		for i := range 10 {
			require.NoError(r, r.receives(b, numbered(i, 1000)))
		}
	}
}

func sendContext(r *rig) {
	a, b := r.pair()
	require.ErrorIs(r, a.Send(ended(), []byte("never")), context.Canceled)
	r.works(a, b)
}

func recvContext(r *rig) {
	a, b := r.pair()
	_, err := b.Recv(ended())
	require.ErrorIs(r, err, context.Canceled)
	_, err = b.Recv(r.ctxFor(short))
	require.ErrorIs(r, err, context.DeadlineExceeded)
	ctx, cancel := context.WithCancel(r.ctx())
	waits := make(chan error, 1)
	go func() {
		_, err := b.Recv(ctx)
		waits <- err
	}()
	cancel()
	require.ErrorIs(r, r.inTime("Recv to end with its context", func() error { return <-waits }), context.Canceled)
	r.works(a, b)
}

// recvInterrupted has contexts end while messages, and parts of large ones, arrive.
func recvInterrupted(r *rig) {
	const n = 100
	a, b := r.pair()
	size := min(200_000, a.MaxMessage())
	want := numbered(0, size)
	whole := r.ctx()
	r.together(
		func() error {
			for i := range n {
				msg := binary.BigEndian.AppendUint64(nil, uint64(i))
				if err := a.Send(whole, append(msg, want[8:]...)); err != nil {
					return err
				}
			}
			return nil
		},
		func() error {
			for i := 0; i < n; {
				ctx, cancel := context.WithCancel(whole)
				go cancel()
				got, err := b.Recv(ctx)
				cancel()
				if err == nil {
					if len(got) != size || binary.BigEndian.Uint64(got) != uint64(i) || string(got[8:]) != string(want[8:]) {
						return fmt.Errorf("message %d is lost, changed, or out of order", i)
					}
					i++
				} else if ctx.Err() == nil {
					return err
				}
			}
			return nil
		},
	)
}

func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
