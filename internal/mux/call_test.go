package mux_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/internal/wire"
	"github.com/plugmicro/micro/metadata"
	"github.com/plugmicro/micro/status"
)

func TestCall(t *testing.T) {
	r := connect(t, handler{"echo": echo}, mux.Options{}, mux.Options{})
	for _, body := range []string{"", "hello", strings.Repeat("x", 1<<20)} {
		got, err := r.call(t, t.Context(), "echo", body)
		require.NoError(t, err)
		require.Equal(t, body, got)
	}
	require.Zero(t, r.Waiting())
}

func TestCallsAreAnsweredInAnyOrder(t *testing.T) {
	first := make(chan struct{})
	r := connect(t, handler{
		"slow": func(c *mux.Call) { <-first; c.Reply([]byte("slow")) },
		"fast": func(c *mux.Call) { c.Reply([]byte("fast")) },
	}, mux.Options{}, mux.Options{})
	slow := make(chan string, 1)
	go func() {
		got, _ := r.call(t, t.Context(), "slow", "")
		slow <- got
	}()
	require.Eventually(t, func() bool { n, _ := r.server.Open(); return n == 1 }, soon, time.Millisecond)
	got, err := r.call(t, t.Context(), "fast", "")
	require.NoError(t, err)
	require.Equal(t, "fast", got)
	close(first)
	require.Equal(t, "slow", <-slow)
}

func TestMetadataAndPeer(t *testing.T) {
	r := connect(t, handler{"who": func(c *mux.Call) {
		c.Reply([]byte(metadata.Get(c, "tenant") + " " + c.Peer()))
	}}, mux.Options{}, mux.Options{})
	req := request("who", "")
	req.Metadata = map[string]string{"tenant": "acme"}
	b, err := r.Call(t.Context(), req)
	require.NoError(t, err)
	require.Regexp(t, "^acme memory-dialer:", string(b.B))
}

func TestFailures(t *testing.T) {
	r := connect(t, handler{
		"typed":  func(c *mux.Call) { c.Fail(status.Errorf(status.NotFound, "no such thing")) },
		"plain":  func(c *mux.Call) { c.Fail(errors.New("disk full")) },
		"ok":     func(c *mux.Call) { c.Fail(&status.Error{Message: "fine?"}) },
		"goexit": func(c *mux.Call) { runtime.Goexit() },
		"silent": func(c *mux.Call) {},
		"long":   func(c *mux.Call) { c.Fail(errors.New(strings.Repeat("é", 1<<20))) },
		"large":  func(c *mux.Call) { c.Reply(make([]byte, 5<<20)) },
		"codec":  func(c *mux.Call) { c.Reply(7) },
	}, mux.Options{}, mux.Options{})
	for endpoint, want := range map[string]status.Error{
		"typed":  {Code: status.NotFound, Message: "no such thing"},
		"plain":  {Code: status.Unknown, Message: "disk full"},
		"ok":     {Code: status.Unknown, Message: "handler returned an error with code OK: fine?"},
		"goexit": {Code: status.Internal, Message: "the handler ended without an answer"},
		"silent": {Code: status.Internal, Message: "the handler ended without an answer"},
		"long":   {Code: status.Unknown, Message: strings.Repeat("é", 8190) + "…"},
		"large":  {Code: status.ResourceExhausted, Message: "answer: message too large: 5242882 bytes, the peer takes 4194304"},
		"codec":  {Code: status.Internal, Message: "encode the answer: its type is not []byte: use application/json"},
	} {
		t.Run(endpoint, func(t *testing.T) {
			_, err := r.call(t, t.Context(), endpoint, "")
			require.Equal(t, &mux.Error{Remote: true, Status: want}, failure(t, err))
		})
	}
	require.Eventually(t, func() bool { n, bytes := r.server.Open(); return n == 0 && bytes == 0 }, soon, time.Millisecond)
}

func TestRefusals(t *testing.T) {
	r := connect(t, handler{"echo": echo}, mux.Options{}, mux.Options{MaxBytes: 1000})
	t.Run("endpoint", func(t *testing.T) {
		_, err := r.call(t, t.Context(), "none", "")
		require.Equal(t, &mux.Error{Remote: true, NotRun: true, Status: status.Error{Code: status.Unimplemented, Message: "no none"}}, failure(t, err))
	})
	t.Run("bytes", func(t *testing.T) {
		_, err := r.call(t, t.Context(), "echo", strings.Repeat("x", 1001))
		e := failure(t, err)
		require.True(t, e.NotRun)
		require.Equal(t, status.ResourceExhausted, e.Status.Code)
		require.ErrorContains(t, err, "with this one of 1001 they pass the limit of 1000")
	})
	t.Run("content type", func(t *testing.T) {
		req := request("echo", "")
		req.Codec = odd{req.Codec}
		_, err := r.Call(t.Context(), req)
		require.True(t, failure(t, err).NotRun)
		require.ErrorContains(t, err, `Unimplemented: unknown content type "text/xml"`)
	})
	_, err := r.call(t, t.Context(), "echo", "still works")
	require.NoError(t, err)
}

type odd struct{ codec.Codec }

func (odd) ContentType() string { return "text/xml" }

func TestRefusedHere(t *testing.T) {
	r := connect(t, handler{"echo": echo}, mux.Options{}, mux.Options{})
	many := make(map[string]string)
	for i := range wire.MaxMetadata + 1 {
		many[fmt.Sprint(i)] = ""
	}
	for name, c := range map[string]struct {
		change  func(*mux.Request)
		code    status.Code
		notRun  bool
		message string
	}{
		"pairs":   {func(r *mux.Request) { r.Metadata = many }, status.InvalidArgument, true, "metadata of 257 pairs"},
		"header":  {func(r *mux.Request) { r.Metadata = map[string]string{"k": strings.Repeat("v", 64<<10)} }, status.InvalidArgument, true, "the limits are 256 and 65536"},
		"body":    {func(r *mux.Request) { r.Body = 7 }, status.InvalidArgument, true, "encode int"},
		"message": {func(r *mux.Request) { r.Body = make([]byte, 4<<20) }, status.ResourceExhausted, false, "message too large"},
	} {
		t.Run(name, func(t *testing.T) {
			req := request("echo", "")
			c.change(req)
			_, err := r.Call(t.Context(), req)
			e := failure(t, err)
			require.Equal(t, c.code, e.Status.Code)
			require.Equal(t, c.notRun, e.NotRun, "whether another node may be tried")
			require.ErrorContains(t, err, c.message)
		})
	}
	require.Zero(t, r.Waiting())
	_, err := r.call(t, t.Context(), "echo", "still works")
	require.NoError(t, err)
}

func TestMaxCalls(t *testing.T) {
	release := make(chan struct{})
	r := connect(t, handler{"wait": func(c *mux.Call) { <-release; c.Reply(nil) }, "echo": echo}, mux.Options{}, mux.Options{MaxCalls: 3})
	var calls sync.WaitGroup
	for range 3 {
		calls.Go(func() {
			_, err := r.call(t, t.Context(), "wait", "")
			require.NoError(t, err)
		})
	}
	require.Eventually(t, func() bool { n, _ := r.server.Open(); return n == 3 }, soon, time.Millisecond)
	_, err := r.call(t, t.Context(), "echo", "")
	e := failure(t, err)
	require.True(t, e.NotRun)
	require.Equal(t, status.ResourceExhausted, e.Status.Code)
	require.ErrorContains(t, err, "3 calls are open on the connection, the peer takes no more")
	close(release)
	calls.Wait()
}

// TestMaxCallsOfAServer: a caller that does not keep to the limit is refused.
func TestMaxCallsOfAServer(t *testing.T) {
	release := make(chan struct{})
	r, _, _ := rawClient(t, handler{"wait": func(c *mux.Call) { <-release; c.Reply(nil) }}, mux.Options{MaxCalls: 1})
	r.sendCall(wire.Call{ID: 1, Endpoint: []byte("wait")}, "")
	r.sendCall(wire.Call{ID: 2, Endpoint: []byte("wait")}, "")
	f := r.recvError()
	require.EqualValues(t, 2, f.ID)
	require.True(t, f.NotRun)
	require.Equal(t, "1 calls are open on the connection, which is the limit", string(f.Message))
	close(release)
	require.Equal(t, wire.AppendReply(nil, 1), r.recv())
}

func TestDeadlineIsCarriedAsTimeLeft(t *testing.T) {
	left := make(chan time.Duration, 1)
	r := connect(t, handler{"left": func(c *mux.Call) {
		deadline, ok := c.Deadline()
		if !ok {
			deadline = time.Now().Add(-1)
		}
		left <- time.Until(deadline)
		c.Reply(nil)
	}}, mux.Options{}, mux.Options{})

	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	_, err := r.call(t, ctx, "left", "")
	require.NoError(t, err)
	require.InDelta(t, time.Hour, <-left, float64(time.Minute))

	_, err = r.call(t, t.Context(), "left", "") // the request's own
	require.NoError(t, err)
	require.InDelta(t, soon, <-left, float64(soon))

	req := request("left", "")
	req.Timeout = 0
	_, err = r.Call(t.Context(), req)
	require.NoError(t, err)
	require.Negative(t, <-left, "no deadline")
}

func TestDeadlineEndsCallAndHandler(t *testing.T) {
	for name, ctx := range map[string]func() (context.Context, context.CancelFunc){
		"of the context": func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), 20*time.Millisecond)
		},
		"of the request":                        func() (context.Context, context.CancelFunc) { return context.Background(), func() {} },
		"of the request, context with a cancel": func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			r := connect(t, handler{"wait": func(c *mux.Call) {
				<-c.Done()
				ended <- c.Err()
				<-time.After(20 * time.Millisecond) // the caller's own clock comes first
				c.Fail(c.Err())
			}}, mux.Options{}, mux.Options{})
			ctx, cancel := ctx()
			defer cancel()
			req := request("wait", "")
			req.Timeout = 20 * time.Millisecond
			_, err := r.Call(ctx, req)
			e := failure(t, err)
			require.Equal(t, status.DeadlineExceeded, e.Status.Code)
			require.False(t, e.NotRun)
			require.Error(t, <-ended)
			require.Zero(t, r.Waiting())
		})
	}
}

func TestContextThatHasEnded(t *testing.T) {
	r := connect(t, handler{"echo": echo}, mux.Options{}, mux.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.call(t, ctx, "echo", "")
	require.Equal(t, status.Canceled, failure(t, err).Status.Code)
	require.True(t, failure(t, err).NotRun)
	_, err = r.Open(ctx, request("echo", ""))
	require.True(t, failure(t, err).NotRun)
}

func TestCancellationReachesTheHandler(t *testing.T) {
	running, ended := make(chan struct{}), make(chan error, 1)
	r := connect(t, handler{"wait": func(c *mux.Call) {
		close(running)
		<-c.Done()
		ended <- c.Err()
	}}, mux.Options{}, mux.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-running; cancel() }()
	_, err := r.call(t, ctx, "wait", "")
	require.Equal(t, status.Canceled, failure(t, err).Status.Code)
	require.Equal(t, context.Canceled, <-ended)
}

func TestLostConnectionReachesTheHandler(t *testing.T) {
	running, ended := make(chan struct{}), make(chan error, 1)
	r := connect(t, handler{"wait": func(c *mux.Call) {
		close(running)
		<-c.Done()
		ended <- c.Err()
	}}, mux.Options{}, mux.Options{})
	go func() { <-running; r.Close() }()
	_, err := r.call(t, t.Context(), "wait", "")
	e := failure(t, err)
	require.True(t, e.Lost)
	require.False(t, e.NotRun)
	require.Equal(t, status.Unavailable, e.Status.Code)
	require.Equal(t, context.Canceled, <-ended)

	_, err = r.call(t, t.Context(), "wait", "")
	require.True(t, failure(t, err).NotRun, "a call on a connection that is closed cannot have run")
	require.False(t, r.Usable())
}

// TestHandlersContext: contexts made from a call's end with it, however they are made.
func TestHandlersContext(t *testing.T) {
	type key struct{}
	running, result := make(chan struct{}), make(chan error, 1)
	check := func(c *mux.Call) error {
		child, cancel := context.WithCancelCause(c)
		defer cancel(nil)
		value := context.WithValue(child, key{}, 1)
		after := make(chan struct{})
		context.AfterFunc(value, func() { close(after) })
		stop := context.AfterFunc(c, func() { panic("was stopped") })
		if !stop() || stop() {
			return errors.New("stop must say that it stopped, once")
		}
		close(running)
		<-child.Done()
		<-after
		again := make(chan struct{})
		context.AfterFunc(c, func() { close(again) })
		<-again
		if context.Cause(c) != context.Canceled || child.Err() != context.Canceled || c.Value(key{}) != nil {
			return fmt.Errorf("cause %v, err %v", context.Cause(c), child.Err())
		}
		return nil
	}
	r := connect(t, handler{"check": func(c *mux.Call) { result <- check(c) }}, mux.Options{}, mux.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-running; cancel() }()
	r.call(t, ctx, "check", "")
	require.NoError(t, <-result)
}

func TestContextEndsWithTheHandler(t *testing.T) {
	kept := make(chan context.Context, 1)
	r := connect(t, handler{"keep": func(c *mux.Call) { kept <- c; c.Reply(nil) }}, mux.Options{}, mux.Options{})
	_, err := r.call(t, t.Context(), "keep", "")
	require.NoError(t, err)
	c := <-kept
	<-c.Done()
	require.Equal(t, context.Canceled, c.Err())
}

// TestManyCallsExpireAtOnce: the words that cancel them are no reason to give the connection up.
func TestManyCallsExpireAtOnce(t *testing.T) {
	release := make(chan struct{})
	r := connect(t, handler{"wait": func(c *mux.Call) { <-release; c.Reply(nil) }, "echo": echo}, mux.Options{}, mux.Options{})
	var calls sync.WaitGroup
	for range 4000 {
		calls.Go(func() {
			req := request("wait", "")
			req.Timeout = 300 * time.Millisecond
			_, err := r.Call(context.Background(), req)
			if status.CodeOf(err) != status.DeadlineExceeded {
				t.Errorf("got %v", err)
			}
		})
	}
	calls.Wait()
	close(release)
	_, err := r.call(t, t.Context(), "echo", "")
	require.NoError(t, err, "the connection lives")
	require.Zero(t, r.Waiting())
}

// TestSendIsBounded: a peer that takes nothing holds a caller no longer than its deadline, also one that its context
// does not know.
func TestSendIsBounded(t *testing.T) {
	_, c := rawServer(t, mux.Options{})
	req := request("echo", strings.Repeat("x", 200<<10))
	req.Timeout = 50 * time.Millisecond
	var notSent bool
	for range 5 {
		_, err := c.Call(context.Background(), req)
		e := failure(t, err)
		require.Equal(t, status.DeadlineExceeded, e.Status.Code)
		notSent = notSent || e.NotRun
	}
	require.True(t, notSent, "the later ones had to wait for room")
	require.Zero(t, c.Waiting())
}

func TestDrain(t *testing.T) {
	release := make(chan struct{})
	r := connect(t, handler{"wait": func(c *mux.Call) { <-release; c.Reply([]byte("done")) }, "echo": echo}, mux.Options{}, mux.Options{})
	answer := make(chan string, 1)
	go func() {
		got, _ := r.call(t, t.Context(), "wait", "")
		answer <- got
	}()
	require.Eventually(t, func() bool { n, _ := r.server.Open(); return n == 1 }, soon, time.Millisecond)
	r.server.Drain()
	r.server.Drain()
	require.Eventually(t, func() bool { return !r.Usable() }, soon, time.Millisecond)
	_, err := r.call(t, t.Context(), "echo", "")
	require.True(t, failure(t, err).NotRun)
	select {
	case <-r.server.Drained():
		t.Fatal("drained with an open call")
	default:
	}
	close(release)
	require.Equal(t, "done", <-answer, "what runs is answered")
	<-r.server.Drained()
	<-r.Closed()
	<-r.server.Closed()
	require.NoError(t, <-r.ended)
}

// TestDrainRefuses: calls that were on their way when the server said that it goes are refused as not run.
func TestDrainRefuses(t *testing.T) {
	r, s, _ := rawClient(t, handler{"echo": echo}, mux.Options{})
	s.Drain()
	<-s.Drained()
	require.Equal(t, wire.AppendGoAway(nil, "the service is stopping"), r.recv())
	r.sendCall(wire.Call{ID: 1, Endpoint: []byte("echo")}, "")
	f := r.recvError()
	require.True(t, f.NotRun)
	require.EqualValues(t, status.Unavailable, f.Code)
	require.Equal(t, "the service is stopping", string(f.Message))
}

// TestNothingIsKept: what a call leaves behind after calls of all sorts is nothing.
func TestNothingIsKept(t *testing.T) {
	r := connect(t, handler{"echo": echo, "wait": func(c *mux.Call) { <-c.Done() }}, mux.Options{}, mux.Options{})
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			for j := range 200 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(j%20)*100*time.Microsecond)
				endpoint := "echo"
				if (i+j)%4 == 0 {
					endpoint = "wait"
				}
				r.call(t, ctx, endpoint, "some bytes")
				cancel()
			}
		})
	}
	callers.Wait()
	require.Zero(t, r.Waiting())
	require.Eventually(t, func() bool { n, bytes := r.server.Open(); return n == 0 && bytes == 0 }, soon, time.Millisecond)
	got, err := r.call(t, t.Context(), "echo", "mine")
	require.NoError(t, err)
	require.Equal(t, "mine", got, "no answer of another call")
}
