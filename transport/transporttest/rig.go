package transporttest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/suite"
	"github.com/plugmicro/micro/transport"
)

// short is how long a call is given that is expected to wait for ever.
const short = 100 * time.Millisecond

// rig is what a test works with.
type rig struct {
	*testing.T
	harness Harness
	suite   *suite.Suite
}

// open returns an instance that is closed in the end.
func (r *rig) open() transport.Transport {
	tr := r.harness.Open(r)
	r.suite.Plugin(tr.String(), r.harness.Backend)
	if c, ok := tr.(io.Closer); ok {
		r.Cleanup(func() { assert.NoError(r, r.inTime("Close of the transport", c.Close)) })
	}
	return tr
}

func (r *rig) listen() transport.Listener {
	r.Helper()
	return r.listenOn(r.open())
}

func (r *rig) listenOn(tr transport.Transport) transport.Listener {
	r.Helper()
	l, err := tr.Listen(r.ctx(), r.harness.Address)
	require.NoError(r, err)
	r.Cleanup(func() { r.closes(l) })
	return l
}

// pair returns the two ends of a connection, which are closed in the end.
func (r *rig) pair() (dialed, accepted transport.Conn) {
	r.Helper()
	return r.connect(r.open(), r.listen())
}

func (r *rig) connect(tr transport.Transport, l transport.Listener) (dialed, accepted transport.Conn) {
	r.Helper()
	dialed, accepted, err := r.tryConnect(r.ctx(), tr, l)
	require.NoError(r, err)
	r.Cleanup(func() {
		r.closes(dialed)
		r.closes(accepted)
	})
	return dialed, accepted
}

// tryConnect leaves closing to the caller.
func (r *rig) tryConnect(ctx context.Context, tr transport.Transport, l transport.Listener) (dialed, accepted transport.Conn, err error) {
	type result struct {
		conn transport.Conn
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	accepting := make(chan result, 1)
	go func() {
		conn, err := l.Accept(ctx)
		accepting <- result{conn, err}
	}()
	dialed, err = tr.Dial(ctx, l.Addr())
	if err != nil {
		cancel()
	}
	got := <-accepting
	if err = errors.Join(err, got.err); err == nil {
		return dialed, got.conn, nil
	}
	for _, c := range []transport.Conn{dialed, got.conn} {
		if c != nil {
			c.Close()
		}
	}
	return nil, nil, err
}

// ctx lasts as long as the harness allows for what must happen.
func (r *rig) ctx() context.Context { return r.ctxFor(r.harness.Timeout) }

func (r *rig) ctxFor(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	r.Cleanup(cancel)
	return ctx
}

// closes closes c, in time and without an error.
func (r *rig) closes(c io.Closer) {
	r.Helper()
	assert.NoError(r, r.inTime("Close", c.Close))
}

// inTime returns what f returns, and fails if that takes longer than the harness allows.
func (r *rig) inTime(what string, f func() error) error {
	r.Helper()
	result := make(chan error, 1)
	go func() { result <- f() }()
	return receive(r, what, result)
}

// receive waits for a value.
func receive[T any](r *rig, what string, c <-chan T) T {
	r.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(r.harness.Timeout):
		require.FailNow(r, "timeout", "waiting for %s", what)
		panic("unreachable")
	}
}

// eventually waits for a condition.
func (r *rig) eventually(what string, cond func() bool) {
	r.Helper()
	require.Eventually(r, cond, r.harness.Timeout, 10*time.Millisecond, what)
}

// together runs all of fs at once, none of which may fail.
func (r *rig) together(fs ...func() error) {
	r.Helper()
	results := make(chan error, len(fs))
	for _, f := range fs {
		go func() { results <- f() }()
	}
	for range fs {
		require.NoError(r, r.inTime("all to end", func() error { return <-results }))
	}
}

// works checks that messages go both ways.
func (r *rig) works(a, b transport.Conn) {
	r.Helper()
	r.passes(a, b, []byte("there"))
	r.passes(b, a, []byte("and back"))
}

// passes checks that msg goes from one end to the other.
func (r *rig) passes(from, to transport.Conn, msg []byte) {
	r.Helper()
	r.together(
		func() error { return from.Send(r.ctx(), msg) },
		func() error { return r.receives(to, msg) },
	)
}

// receives checks that msg is the next message.
func (r *rig) receives(c transport.Conn, msg []byte) error {
	got, err := c.Recv(r.ctx())
	if err != nil {
		return err
	}
	if string(got) != string(msg) {
		return fmt.Errorf("received %d bytes %.40q…, want %d bytes %.40q…", len(got), got, len(msg), msg)
	}
	return nil
}

// ends checks that nothing follows.
func (r *rig) ends(c transport.Conn) error {
	msg, err := c.Recv(r.ctx())
	if err != io.EOF {
		return fmt.Errorf("want io.EOF, received %.40q and error %v", msg, err)
	}
	return nil
}

// numbered is a message of size bytes, at least 8, that begins with its number; the rest follows from that.
func numbered(n, size int) []byte {
	msg := binary.BigEndian.AppendUint64(make([]byte, 0, size), uint64(n))
	random := rand.New(rand.NewPCG(uint64(n), uint64(size)))
	for len(msg) < size {
		msg = binary.LittleEndian.AppendUint64(msg, random.Uint64())
	}
	return msg[:size]
}

// sizeOf varies the sizes of messages: mostly small ones, some larger than usual buffers.
func sizeOf(n, limit int) int {
	size := 8 + n%300
	if n%97 == 0 {
		size = 8 + n*31%100_000
	}
	return max(8, min(size, limit))
}

// sendNumbered sends n messages that receiveNumbered expects.
func (r *rig) sendNumbered(c transport.Conn, n int) error {
	ctx := r.ctx()
	for i := range n {
		if err := c.Send(ctx, numbered(i, sizeOf(i, c.MaxMessage()))); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
	}
	return nil
}

func (r *rig) receiveNumbered(c transport.Conn, n int) error {
	ctx := r.ctx()
	for i := range n {
		got, err := c.Recv(ctx)
		if err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
		if want := numbered(i, sizeOf(i, c.MaxMessage())); string(got) != string(want) {
			return fmt.Errorf("message %d: received %d bytes %.16x…, want %d bytes %.16x…", i, len(got), got, len(want), want)
		}
	}
	return nil
}

// fill sends numbered messages until the peer's not receiving makes Send wait, and returns how many were taken.
func (r *rig) fill(c transport.Conn, size int) (taken int) {
	r.Helper()
	for waits := 0; waits < 3; { // a machine that is busy makes one wait too
		err := c.Send(r.ctxFor(short), numbered(taken, size))
		if err != nil {
			require.ErrorIs(r, err, context.DeadlineExceeded)
			waits++
			continue
		}
		waits = 0
		taken++
		require.LessOrEqual(r, taken*size, r.harness.Buffered, "bytes that were taken though nobody receives")
	}
	return taken
}
