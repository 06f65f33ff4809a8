package transporttest

import (
	"context"
	"fmt"
	"runtime"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/transport"
)

var pressureTests = []test{
	{"a peer that does not receive makes Send wait in bounded memory", slowReader, ""},
	{"a sender that waits goes on when the peer receives", slowReaderGoesOn, ""},
	{"one that waits does not hold up the other direction", otherDirection, ""},
	{"one that waits does not hold up other connections", otherConnections, ""},
}

// slowReader also shows that the Sends whose contexts ended sent nothing.
func slowReader(r *rig) {
	const size = 10_000
	a, b := r.pair()
	before := heap()
	taken := r.fill(a, size)
	require.Less(r, int(heap()-before), r.harness.Buffered, "bytes of memory in use")
	for i := range taken {
		require.NoError(r, r.receives(b, numbered(i, size)))
	}
	r.works(a, b)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func slowReaderGoesOn(r *rig) {
	const size, senders, each = 10_000, 8, 20
	a, b := r.pair()
	taken := r.fill(a, size)
	var fs []func() error
	for range senders {
		fs = append(fs, func() error {
			for range each {
				if err := a.Send(r.ctx(), numbered(-1, size)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	r.together(append(fs, func() error {
		for i := range taken + senders*each {
			want := numbered(-1, size)
			if i < taken {
				want = numbered(i, size)
			}
			if err := r.receives(b, want); err != nil {
				return fmt.Errorf("message %d: %w", i, err)
			}
		}
		return nil
	})...)
}

func otherDirection(r *rig) {
	a, b := r.pair()
	r.fill(a, 10_000)
	r.together(
		func() error { return r.sendNumbered(b, 1000) },
		func() error { return r.receiveNumbered(a, 1000) },
	)
}

func otherConnections(r *rig) {
	l, tr := r.listen(), r.open()
	a, _ := r.connect(tr, l)
	r.fill(a, 10_000)
	c, d := r.connect(tr, l)
	r.works(c, d)
}

// blockedSend fills c and returns what ends the sending of more.
func (r *rig) blockedSend(c transport.Conn) <-chan error {
	r.fill(c, 10_000)
	result := make(chan error, 1)
	go func() {
		for {
			if err := c.Send(context.Background(), make([]byte, 10_000)); err != nil {
				result <- err
				return
			}
		}
	}()
	return result
}
