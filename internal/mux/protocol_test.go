package mux_test

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/internal/wire"
	"github.com/plugmicro/micro/status"
)

// TestCallersThatBreakTheProtocol: they are told why, and lose their connection.
func TestCallersThatBreakTheProtocol(t *testing.T) {
	open := wire.AppendCall(nil, &wire.Call{ID: 1, Stream: true, Endpoint: []byte("wait"), ContentType: []byte("application/octet-stream")})
	huge := append(wire.AppendData(nil, 1), make([]byte, 200)...)
	for name, c := range map[string]struct {
		frames  [][]byte
		message string
	}{
		"empty frame":       {[][]byte{{}}, "malformed frame: it is empty"},
		"unknown type":      {[][]byte{{200}}, "malformed frame: type 200 does not come from a caller"},
		"hello again":       {[][]byte{wire.AppendHello(nil, wire.Settings{})}, "type Hello does not come from a caller"},
		"a reply":           {[][]byte{wire.AppendReply(nil, 1)}, "type Reply does not come from a caller"},
		"call cut off":      {[][]byte{open[:5]}, "malformed frame of type Call: it is cut off, or a length in it is wrong"},
		"id open already":   {[][]byte{open, open}, "call 1 is open already"},
		"more than credit":  {[][]byte{open, huge, huge, huge}, "more data than the credit of its stream"},
		"data without id":   {[][]byte{{byte(wire.Data)}}, "malformed frame of type Data"},
		"credit without n":  {[][]byte{{byte(wire.Credit), 1}}, "malformed frame of type Credit"},
		"end without id":    {[][]byte{{byte(wire.End)}}, "malformed frame of type End"},
		"cancel without id": {[][]byte{{byte(wire.Cancel)}}, "malformed frame of type Cancel"},
	} {
		t.Run(name, func(t *testing.T) {
			r, _, ended := rawClient(t, handler{"wait": func(c *mux.Call) { <-c.Done() }}, mux.Options{Window: 300})
			for _, frame := range c.frames {
				r.send(frame)
			}
			err := <-ended
			require.ErrorIs(t, err, mux.ErrProtocol)
			require.ErrorContains(t, err, c.message)
			require.ErrorContains(t, err, "by memory-dialer:", "says who")
			for {
				if msg := r.recv(); wire.Type(msg[0]) == wire.GoAway {
					require.Contains(t, wire.ParseGoAway(msg), c.message)
					return
				}
			}
		})
	}
}

// TestServersThatBreakTheProtocol: the calls that wait fail, with the reason.
func TestServersThatBreakTheProtocol(t *testing.T) {
	for name, c := range map[string]struct {
		frame   []byte
		message string
	}{
		"empty frame":     {[]byte{}, "malformed frame: it is empty"},
		"unknown type":    {[]byte{200}, "type 200 does not come from a server"},
		"a call":          {wire.AppendCall(nil, &wire.Call{ID: 1}), "type Call does not come from a server"},
		"reply cut off":   {[]byte{byte(wire.Reply), 0x80}, "malformed frame of type Reply"},
		"error cut off":   {[]byte{byte(wire.Error), 1}, "malformed frame of type Error"},
		"data without id": {[]byte{byte(wire.Data)}, "malformed frame of type Data"},
		"credit cut off":  {[]byte{byte(wire.Credit), 1}, "malformed frame of type Credit"},
	} {
		t.Run(name, func(t *testing.T) {
			r, client := rawServer(t, mux.Options{})
			go func() {
				if _, err := r.Recv(context.Background()); err == nil {
					r.Send(context.Background(), c.frame)
				}
			}()
			_, err := client.Call(t.Context(), request("echo", ""))
			e := failure(t, err)
			require.True(t, e.Lost)
			require.False(t, e.NotRun, "it may have run")
			require.ErrorContains(t, err, "connection lost: protocol broken by memory:")
			require.ErrorContains(t, err, c.message)
			require.Zero(t, client.Waiting())
		})
	}
}

// TestHarmlessFrames: what may cross with the end of a call is passed over.
func TestHarmlessFrames(t *testing.T) {
	r, _, _ := rawClient(t, handler{"echo": echo}, mux.Options{})
	for _, frame := range [][]byte{
		append(wire.AppendData(nil, 7), "late"...), wire.AppendEnd(nil, 7), wire.AppendCancel(nil, 7), wire.AppendCredit(nil, 7, 1), {byte(wire.Pong)},
	} {
		r.send(frame)
	}
	r.sendCall(wire.Call{ID: 1, Endpoint: []byte("echo")}, "x")
	r.send(wire.AppendCredit(nil, 1, 1)) // of a call that is no stream
	require.Equal(t, append(wire.AppendReply(nil, 1), "x"...), r.recv())

	s, client := rawServer(t, mux.Options{})
	go func() {
		s.Recv(context.Background())
		for _, frame := range [][]byte{
			wire.AppendReply(nil, 9), wire.AppendData(nil, 9), wire.AppendCredit(nil, 9, 1), wire.AppendError(nil, &wire.Failure{ID: 9}),
			wire.AppendReply(nil, 1),
		} {
			s.Send(context.Background(), frame)
		}
	}()
	_, err := client.Call(t.Context(), request("echo", ""))
	require.NoError(t, err)
}

func TestAMillionHeaders(t *testing.T) {
	r, _, _ := rawClient(t, handler{"echo": echo}, mux.Options{})
	md := binary.AppendUvarint(nil, 1_000_000)
	r.sendCall(wire.Call{ID: 1, Endpoint: []byte("echo"), Metadata: append(md, make([]byte, 2_000_000)...)}, "")
	f := r.recvError()
	require.EqualValues(t, 1, f.ID)
	require.EqualValues(t, status.InvalidArgument, f.Code)
	require.True(t, f.NotRun)
	require.Contains(t, string(f.Message), "header too large: ")
	require.Contains(t, string(f.Message), "1000000 pairs of metadata; the limits are 65536 and 256")
	r.sendCall(wire.Call{ID: 2, Endpoint: []byte("echo")}, "still works")
	require.Equal(t, append(wire.AppendReply(nil, 2), "still works"...), r.recv())
}

// TestOKIsNoError: a server that ends a call badly with code OK is not believed.
func TestOKIsNoError(t *testing.T) {
	r, client := rawServer(t, mux.Options{})
	go func() {
		r.Recv(context.Background())
		r.Send(context.Background(), wire.AppendError(nil, &wire.Failure{ID: 1, Code: 0, Message: []byte("odd")}))
	}()
	_, err := client.Call(t.Context(), request("echo", ""))
	require.Equal(t, status.Unknown, status.CodeOf(err))
}

// TestGoAwayOfACaller is what a server gets that broke the protocol.
func TestGoAwayOfACaller(t *testing.T) {
	r, _, ended := rawClient(t, handler{}, mux.Options{})
	r.send(wire.AppendGoAway(nil, "type 200 does not come from a server"))
	err := <-ended
	require.ErrorIs(t, err, mux.ErrProtocol)
	require.ErrorContains(t, err, "protocol broken here, says memory-dialer:")
	require.ErrorContains(t, err, ": type 200 does not come from a server")
}

func TestReasonOfGoAwayIsTold(t *testing.T) {
	r, client := rawServer(t, mux.Options{})
	go func() {
		r.Recv(context.Background())
		r.Send(context.Background(), wire.AppendGoAway(nil, "out for lunch"))
		r.Close()
	}()
	_, err := client.Call(t.Context(), request("echo", ""))
	require.ErrorContains(t, err, "connection lost: the peer closed it: out for lunch")
}

func TestHelloOfStrangers(t *testing.T) {
	for name, c := range map[string]struct {
		say     []byte
		message string
	}{
		"silence": {nil, "the peer said nothing within 50ms"},
		"HTTP":    {[]byte("HTTP/1.1 400 Bad Request\r\n"), `does not speak this version of micro's protocol: it began with "HTTP/1.1 400 Bad"`},
		"future":  {append([]byte("\x01MICRO\x09"), 1, 1), "it speaks version 9, this side 1"},
	} {
		t.Run(name, func(t *testing.T) {
			tr, l := listen(t)
			accepted := make(chan error, 1)
			go func() {
				conn, err := l.Accept(context.Background())
				if err == nil {
					_, err = mux.Accept(context.Background(), conn, handler{}, nil, mux.Options{HelloTimeout: 50 * time.Millisecond})
				}
				accepted <- err
			}()
			conn, err := tr.Dial(t.Context(), l.Addr())
			require.NoError(t, err)
			defer conn.Close()
			if c.say != nil {
				require.NoError(t, conn.Send(t.Context(), c.say))
			}
			err = <-accepted
			require.ErrorContains(t, err, "hello from memory-dialer:")
			require.ErrorContains(t, err, c.message)

			other, l2 := listen(t)
			go func() {
				if conn, err := l2.Accept(context.Background()); err == nil {
					if c.say != nil {
						conn.Send(context.Background(), c.say)
					}
					conn.Recv(context.Background())
					conn.Recv(context.Background())
					conn.Close()
				}
			}()
			_, err = mux.Dial(t.Context(), other, l2.Addr(), mux.Options{HelloTimeout: 50 * time.Millisecond})
			require.ErrorContains(t, err, "hello from "+l2.Addr())
			require.ErrorContains(t, err, c.message)
		})
	}
}

func TestKeepAlive(t *testing.T) {
	t.Run("a silent server is given up", func(t *testing.T) {
		_, client := rawServer(t, mux.Options{KeepAlive: 20 * time.Millisecond})
		_, err := client.Call(t.Context(), request("echo", ""))
		require.True(t, failure(t, err).Lost)
		require.ErrorContains(t, err, "connection lost: the peer gave no sign of life")
	})
	t.Run("a silent caller is given up", func(t *testing.T) {
		r, s, _ := rawClient(t, handler{}, mux.Options{KeepAlive: 20 * time.Millisecond})
		require.Equal(t, []byte{byte(wire.Ping)}, r.recv())
		<-s.Closed()
	})
	t.Run("an idle connection is kept", func(t *testing.T) {
		r := connect(t, handler{"echo": echo}, mux.Options{KeepAlive: 10 * time.Millisecond}, mux.Options{KeepAlive: 10 * time.Millisecond})
		select {
		case <-r.Closed():
			t.Fatal("closed")
		case <-time.After(200 * time.Millisecond):
		}
		_, err := r.call(t, t.Context(), "echo", "")
		require.NoError(t, err)
	})
	t.Run("a ping is answered", func(t *testing.T) {
		r, _, _ := rawClient(t, handler{}, mux.Options{})
		r.send([]byte{byte(wire.Ping)})
		require.Equal(t, []byte{byte(wire.Pong)}, r.recv())
	})
}

// TestPeerThatOnlySends: what must be said to it is not gathered without end.
func TestPeerThatOnlySends(t *testing.T) {
	r, s, _ := rawClient(t, handler{}, mux.Options{MaxCalls: 10, Logger: quiet()})
	for id := uint64(1); ; id++ {
		frame := wire.AppendCall(nil, &wire.Call{ID: id, Endpoint: []byte("none")})
		if err := r.Send(t.Context(), frame); err != nil {
			break
		}
		require.Less(t, id, uint64(100_000))
	}
	<-s.Closed()
}
