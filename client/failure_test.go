package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/registry"
	memreg "github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
	"github.com/plugmicro/micro/transport/tcp"
)

func TestFailure(t *testing.T) {
	w := newWorld(t, 1)
	hold := make(chan struct{})
	defer close(hold)
	for name, c := range map[string]struct {
		call       func() error
		failure    bool
		mayHaveRun bool
		code       status.Code
	}{
		"no such service": {func() error {
			_, err := client.Call[Greeting](t.Context(), w.client, "nobody", "X.Y", &Hello{})
			return err
		}, true, false, status.Unavailable},
		"nobody listens": {func() error {
			_, err := w.hello(client.Address("127.0.0.1:0"))
			return err
		}, true, false, status.Unavailable},
		"no such endpoint": {func() error {
			_, err := w.call(t.Context(), "Greeter.Nope")
			return err
		}, true, false, status.Unimplemented},
		"no such stream": {func() error {
			_, err := client.Open[Hello, Greeting](t.Context(), w.client, "greeter", "Greeter.Nope")
			return err
		}, true, false, status.Unimplemented},
		"no such codec": {func() error {
			_, err := w.hello(client.ContentType("text/xml"))
			return err
		}, true, false, status.InvalidArgument},
		"the endpoint's answer": {func() error {
			w.nodes[0].fail.Store(&status.Error{Code: status.Unavailable, Message: "closed on Sundays"})
			defer w.nodes[0].fail.Store(nil)
			_, err := w.hello()
			return err
		}, false, false, status.Unavailable},
		"the endpoint's answer on a stream": {func() error {
			st, err := client.Open[Hello, Greeting](t.Context(), w.client, "greeter", "Greeter.Chat")
			require.NoError(t, err)
			require.NoError(t, st.Send(&Hello{"fail"}))
			_, err = st.Recv()
			return err
		}, false, false, status.DataLoss},
		"an answer that cannot be decoded": {func() error {
			_, err := client.Call[[]string](t.Context(), w.client, "greeter", "Greeter.Hello", &Hello{})
			return err
		}, true, true, status.Internal},
		"the connection is lost": {func() error {
			w.nodes[0].hold.Store(&hold)
			defer w.nodes[0].hold.Store(nil)
			lost := make(chan error, 1)
			go func() {
				_, err := w.hello()
				lost <- err
			}()
			require.Eventually(t, func() bool { return w.nodes[0].held.Load() == 1 }, soon, time.Millisecond)
			w.net.cut(w.nodes[0].addr)
			return <-lost
		}, true, true, status.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.call()
			require.Error(t, err)
			require.Equal(t, c.code, status.CodeOf(err), err)
			var f *client.Failure
			require.Equal(t, c.failure, errors.As(err, &f), err)
			if f != nil {
				require.Equal(t, c.mayHaveRun, f.MayHaveRun, err)
			}
		})
	}
}

// TestFailureHasItsCause, for who decides by it; and the code of the failure goes before what the cause would be.
func TestFailureHasItsCause(t *testing.T) {
	w := newWorld(t, 1, overTCP(tcp.Config{}))
	large := codec.Raw(make([]byte, 5<<20))
	var answer codec.Raw
	err := client.CallInto(t.Context(), w.client, "greeter", "Fast.Echo", &large, &answer, client.ContentType(codec.JSON))
	require.ErrorIs(t, err, transport.ErrTooLarge)
	require.Equal(t, status.ResourceExhausted, status.CodeOf(err))
	require.NotErrorIs(t, err, transport.ErrClosed)

	reg := memreg.NewStore().Open()
	c := client.New(reg, w.net, client.Options{})
	require.NoError(t, reg.Close())
	_, err = client.Call[Greeting](t.Context(), c, "greeter", "Greeter.Hello", &Hello{})
	require.ErrorIs(t, err, registry.ErrClosed)
	require.Equal(t, status.Unavailable, status.CodeOf(err))
	require.NoError(t, c.Close())

	_, err = w.call(t.Context(), "Greeter.Nope")
	require.NotErrorIs(t, err, transport.ErrTooLarge)
}

// TestTimeoutOfOneCall: it is in place of the client's, and the endpoint is told of it.
func TestTimeoutOfOneCall(t *testing.T) {
	w := newWorld(t, 1, with(func(o *client.Options) { o.Timeout = time.Nanosecond }))
	_, err := w.call(context.Background(), "Greeter.Hello")
	require.Equal(t, status.DeadlineExceeded, status.CodeOf(err))
	_, err = w.call(context.Background(), "Greeter.Hello", client.Timeout(soon))
	require.NoError(t, err)
}

// TestCallInto: who passes bodies on needs no new memory for each.
func TestCallInto(t *testing.T) {
	w := newWorld(t, 1, overTCP(tcp.Config{}))
	body := codec.Raw(`"aGVsbG8="`)
	answer := make(codec.Raw, 0, 100)
	first := &answer[:1][0]
	require.NoError(t, client.CallInto(t.Context(), w.client, "greeter", "Fast.Echo", &body, &answer, client.ContentType(codec.JSON)))
	require.Equal(t, body, answer)
	require.Same(t, first, &answer[0])
}
