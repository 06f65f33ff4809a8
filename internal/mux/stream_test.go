package mux_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/internal/wire"
	"github.com/plugmicro/micro/status"
)

var octets = codec.For([]byte{})

// echoStream sends back what it gets.
func echoStream(c *mux.Call) {
	for {
		var b []byte
		switch err := recvInto(c, c.Stream, octets, &b); {
		case err == io.EOF:
			c.Reply(nil)
			return
		case err != nil:
			c.Fail(err)
			return
		}
		if err := c.Stream.Send(c, octets, b); err != nil {
			c.Fail(err)
			return
		}
	}
}

func open(t testing.TB, c *mux.Client, endpoint string) *mux.Stream {
	t.Helper()
	st, err := c.Open(t.Context(), request(endpoint, ""))
	require.NoError(t, err)
	t.Cleanup(func() { c.CloseStream(st) })
	return st
}

func recvInto(ctx context.Context, st *mux.Stream, c codec.Codec, v any) error {
	b, err := st.Recv(ctx)
	if err != nil {
		return err
	}
	defer b.Release()
	return c.Decode(b.B, v)
}

func recvText(t testing.TB, st *mux.Stream) (string, error) {
	b, err := st.Recv(t.Context())
	if err != nil {
		return "", err
	}
	defer b.Release()
	return string(b.B), nil
}

func TestStream(t *testing.T) {
	for name, opts := range map[string]mux.Options{"wide": {}, "narrow": {Window: 1}} {
		t.Run(name, func(t *testing.T) {
			r := connect(t, handler{"echo": echoStream}, opts, opts)
			st := open(t, r.Client, "echo")
			for i, size := range []int{0, 1, 100, 100_000, 0} {
				body := strings.Repeat("x", size)
				require.NoError(t, st.Send(t.Context(), octets, []byte(body)), "message %d", i)
				got, err := recvText(t, st)
				require.NoError(t, err)
				require.Equal(t, body, got)
			}
			require.NoError(t, st.CloseSend())
			_, err := recvText(t, st)
			require.Equal(t, io.EOF, err)
			require.Equal(t, status.FailedPrecondition, status.CodeOf(st.Send(t.Context(), octets, nil)))
			require.NoError(t, st.CloseSend(), "again")
			require.Zero(t, r.Waiting())
			require.Zero(t, r.Queued())
			require.Zero(t, r.server.Queued())
		})
	}
}

func TestStreamCarriesManyMessages(t *testing.T) {
	const n = 20_000
	r := connect(t, handler{"echo": echoStream}, mux.Options{Window: 10_000}, mux.Options{Window: 10_000})
	st := open(t, r.Client, "echo")
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			if err := st.Send(context.Background(), octets, fmt.Appendf(nil, "%d", i)); err != nil {
				sent <- err
				return
			}
		}
		sent <- st.CloseSend()
	}()
	for i := range n {
		got, err := recvText(t, st)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), got, "in order")
	}
	_, err := recvText(t, st)
	require.Equal(t, io.EOF, err)
	require.NoError(t, <-sent)
}

func TestStreamFails(t *testing.T) {
	r := connect(t, handler{
		"after one": func(c *mux.Call) {
			c.Stream.Send(c, octets, []byte("one"))
			c.Fail(status.Errorf(status.DataLoss, "gone"))
		},
		"at once": func(c *mux.Call) { c.Fail(status.Errorf(status.PermissionDenied, "not you")) },
	}, mux.Options{}, mux.Options{})

	st := open(t, r.Client, "after one")
	got, err := recvText(t, st)
	require.NoError(t, err)
	require.Equal(t, "one", got, "what came before is read")
	_, err = recvText(t, st)
	require.Equal(t, &mux.Error{Remote: true, Status: status.Error{Code: status.DataLoss, Message: "gone"}}, failure(t, err))
	require.Equal(t, err, st.Send(t.Context(), octets, nil), "sending tells the same")

	st = open(t, r.Client, "at once") // it was taken before it failed
	_, err = recvText(t, st)
	require.Equal(t, status.PermissionDenied, status.CodeOf(err))

	_, err = r.Open(t.Context(), request("none", ""))
	require.True(t, failure(t, err).NotRun)
	require.Zero(t, r.Waiting())
}

func TestStreamEndsWithItsCaller(t *testing.T) {
	ended := make(chan error, 1)
	h := handler{"wait": func(c *mux.Call) {
		_, err := c.Stream.Recv(c)
		<-c.Done()
		ended <- err
	}}
	for name, end := range map[string]func(r *rig, st *mux.Stream){
		"closed": func(r *rig, st *mux.Stream) { r.CloseStream(st) },
		"lost":   func(r *rig, st *mux.Stream) { r.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			r := connect(t, h, mux.Options{}, mux.Options{})
			st := open(t, r.Client, "wait")
			end(r, st)
			require.Equal(t, status.Canceled, status.CodeOf(<-ended))
			_, err := recvText(t, st)
			require.Error(t, err)
			require.Error(t, st.Send(t.Context(), octets, nil))
			require.Zero(t, r.Waiting())
		})
	}
	t.Run("late", func(t *testing.T) {
		r := connect(t, h, mux.Options{}, mux.Options{})
		req := request("wait", "")
		req.Timeout = 20 * time.Millisecond
		_, err := r.Open(t.Context(), req)
		require.NoError(t, err)
		require.Equal(t, status.DeadlineExceeded, status.CodeOf(<-ended))
	})
}

func TestOpenIsBounded(t *testing.T) {
	_, c := rawServer(t, mux.Options{}) // which never takes the stream
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := c.Open(ctx, request("echo", ""))
	require.Equal(t, status.DeadlineExceeded, failure(t, err).Status.Code)
	require.Zero(t, c.Waiting())
}

// TestShortAnswerOvertakesTheFirstCredit: they are sent by different goroutines of the server.
func TestShortAnswerOvertakesTheFirstCredit(t *testing.T) {
	for name, end := range map[string][]byte{
		"end":   wire.AppendReply(nil, 1),
		"error": wire.AppendError(nil, &wire.Failure{ID: 1, Code: 5}),
		"data":  nil,
	} {
		t.Run(name, func(t *testing.T) {
			r, c := rawServer(t, mux.Options{})
			go func() {
				r.Recv(context.Background())
				r.Send(context.Background(), append(wire.AppendData(nil, 1), "short"...))
				if end != nil {
					r.Send(context.Background(), end)
				}
			}()
			st := open(t, c, "x")
			got, err := recvText(t, st)
			require.NoError(t, err)
			require.Equal(t, "short", got)
			if name == "error" {
				_, err = recvText(t, st)
				require.Equal(t, status.NotFound, status.CodeOf(err))
			}
		})
	}
}

// TestCredit counts: a message costs its bytes and 64, and whoever has a credit of 1 or more may send one message.
func TestCredit(t *testing.T) {
	r, c := rawServer(t, mux.Options{Window: 300})
	go func() {
		r.Recv(context.Background())
		r.Send(context.Background(), wire.AppendCredit(nil, 1, 200))
	}()
	st := open(t, c, "x")

	send := func(size int) { require.NoError(t, st.Send(t.Context(), octets, make([]byte, size))) }
	send(0)   // 200 - 64
	send(71)  // 136 - 135
	send(500) // 1 - 564: overdrawn
	requireFull(t, st)
	r.send(wire.AppendCredit(nil, 1, 563)) // 0
	requireFull(t, st)
	r.send(wire.AppendCredit(nil, 1, 1)) // 1
	send(0)
	for _, size := range []int{0, 71, 500, 0} {
		id, body, err := wire.ParseBody(r.recv())
		require.NoError(t, err)
		require.EqualValues(t, 1, id)
		require.Len(t, body, size)
	}

	// What is read here is credited back once it is half of the window.
	r.send(wire.AppendData(nil, 1))
	r.send(append(wire.AppendData(nil, 1), make([]byte, 22)...))
	for range 2 {
		_, err := recvText(t, st)
		require.NoError(t, err)
	}
	require.Equal(t, wire.AppendCredit(nil, 1, 150), r.recv())
}

// requireFull checks that nothing more can be sent on st.
func requireFull(t *testing.T, st *mux.Stream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.Equal(t, status.DeadlineExceeded, status.CodeOf(st.Send(ctx, octets, nil)))
}

// TestSlowStreamBlocksNobodyElse: its sender waits, with no more than the window under way, while others go on.
func TestSlowStreamBlocksNobodyElse(t *testing.T) {
	const window = 10_000
	read := make(chan struct{})
	r := connect(t, handler{
		"slow": func(c *mux.Call) {
			<-read
			echoStream(c)
		},
		"stream": echoStream,
		"echo":   echo,
	}, mux.Options{Window: window}, mux.Options{Window: window})
	slow := open(t, r.Client, "slow")
	const sent = (window + 163) / 164 // as many as the credit allows
	for range sent {
		require.NoError(t, slow.Send(t.Context(), octets, make([]byte, 100)))
	}
	requireFull(t, slow)
	require.Eventually(t, func() bool { return r.server.Queued() == sent*164 }, soon, time.Millisecond)

	other := open(t, r.Client, "stream")
	for range 1000 {
		require.NoError(t, other.Send(t.Context(), octets, make([]byte, 100)))
		_, err := recvText(t, other)
		require.NoError(t, err)
	}
	_, err := r.call(t, t.Context(), "echo", strings.Repeat("x", 1<<20))
	require.NoError(t, err)

	close(read)
	for range sent {
		_, err := recvText(t, slow)
		require.NoError(t, err)
	}
	require.Zero(t, r.server.Queued())
}

// TestManySlowStreams: together they hold no more than MaxBytes of either side; the one that would pass it fails.
func TestManySlowStreams(t *testing.T) {
	r := connect(t, handler{"wait": func(c *mux.Call) {
		<-c.Done()
		for {
			if _, err := c.Stream.Recv(context.Background()); err != nil {
				c.Fail(err)
				return
			}
		}
	}}, mux.Options{}, mux.Options{MaxBytes: 10_000, Window: 4000})
	var failed error
	for i := 0; i < 10 && failed == nil; i++ {
		st := open(t, r.Client, "wait")
		for range 3 {
			if failed = st.Send(t.Context(), octets, make([]byte, 1000)); failed != nil {
				break
			}
		}
		require.LessOrEqual(t, r.server.Queued(), 10_000)
		if failed == nil && i >= 3 {
			_, failed = recvText(t, st)
		}
	}
	require.Equal(t, status.ResourceExhausted, status.CodeOf(failed))
	require.ErrorContains(t, failed, "the messages that wait to be read on all streams of the connection pass its limit")
	require.True(t, r.Usable(), "the connection lives on")
}

// TestManySlowStreamsOfAClient is the same on the side of the caller.
func TestManySlowStreamsOfAClient(t *testing.T) {
	gone := make(chan error, 1)
	r := connect(t, handler{"flood": func(c *mux.Call) {
		for {
			if err := c.Stream.Send(c, octets, make([]byte, 1000)); err != nil {
				gone <- err
				return
			}
		}
	}}, mux.Options{MaxBytes: 10_000, Window: 20_000}, mux.Options{})
	st := open(t, r.Client, "flood")
	require.Equal(t, status.Canceled, status.CodeOf(<-gone), "the server is told")
	var err error
	for err == nil {
		_, err = recvText(t, st)
	}
	require.Equal(t, status.ResourceExhausted, status.CodeOf(err))
	require.Zero(t, r.Queued())
	require.Zero(t, r.Waiting())
}

func TestStreamErrorsHere(t *testing.T) {
	r := connect(t, handler{"echo": echoStream}, mux.Options{}, mux.Options{})
	st := open(t, r.Client, "echo")
	require.EqualError(t, st.Send(t.Context(), octets, 7), "Internal: encode a message of the stream: its type is not []byte: use application/json")
	require.Equal(t, status.ResourceExhausted, status.CodeOf(st.Send(t.Context(), octets, make([]byte, 5<<20))))
	require.NoError(t, st.Send(t.Context(), octets, []byte("{")), "neither ends the stream")
	_, err := st.Recv(t.Context()) // one that is there may also be taken with a context that has ended
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = st.Recv(ctx)
	require.Equal(t, status.Canceled, status.CodeOf(err))
	require.False(t, errors.As(err, new(*mux.Error)))
}
