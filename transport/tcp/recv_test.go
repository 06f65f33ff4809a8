package tcp

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/testcert"
	"github.com/plugmicro/micro/transport"
)

// rawPeer returns a connection of the transport, and the socket of a peer that may send what it likes.
func rawPeer(t testing.TB, c Config) (*conn, net.Conn) {
	l, err := open(t, c).Listen(context.Background(), "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	peer, err := net.Dial("tcp", l.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { peer.Close() })
	got, err := l.Accept(context.Background())
	require.NoError(t, err)
	t.Cleanup(func() { got.Close() })
	return got.(*conn), peer
}

func frame(msg string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(msg)))) + msg
}

func TestPeersThatSpeakSomethingElseAreRefused(t *testing.T) {
	for name, tc := range map[string]struct{ sent, told string }{
		"HTTP":   {"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n", `looks like HTTP: "GET /metrics HTTP/1.1"`},
		"HTTP/2": {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", `looks like HTTP: "PRI * HTTP/2.0"`},
		"TLS":    {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "looks like TLS: set --transport-tls-cert"},
		"SSH":    {"SSH-2.0-OpenSSH_9.9\r\n", `sent "SSH-2.0-OpenSSH_9.9"`},
		"binary": {"\xde\xad\xbe\xef\x00\x01", "sent de ad be ef 00 01"},
		"larger": {"\x00\x40\x00\x01", "4194305 bytes, the limit is 4194304"},
	} {
		t.Run(name, func(t *testing.T) {
			c, peer := rawPeer(t, Config{})
			_, err := io.WriteString(peer, tc.sent)
			require.NoError(t, err)
			_, err = c.Recv(t.Context())
			require.ErrorIs(t, err, transport.ErrProtocol)
			require.ErrorContains(t, err, tc.told)
			require.ErrorContains(t, err, peer.LocalAddr().String())
			requireGone(t, peer)
			require.ErrorIs(t, c.Send(t.Context(), nil), transport.ErrProtocol)
			_, again := c.Recv(t.Context())
			require.Equal(t, err, again)
		})
	}
}

// requireGone checks that the peer's connection has ended.
func requireGone(t *testing.T, peer net.Conn) {
	t.Helper()
	require.NoError(t, peer.SetReadDeadline(time.Now().Add(30*time.Second)))
	_, err := io.Copy(io.Discard, peer)
	var timeout net.Error
	if err != nil {
		require.ErrorAs(t, err, &timeout)
		require.False(t, timeout.Timeout(), "the connection is still open")
	}
}

func TestOversizedFrameEndsTheConnection(t *testing.T) {
	c, peer := rawPeer(t, Config{MaxMessage: 1000})
	_, err := io.WriteString(peer, frame("fine")+"\x00\x00\x03\xe9")
	require.NoError(t, err)
	_, err = c.Recv(t.Context())
	require.NoError(t, err)
	_, err = c.Recv(t.Context())
	require.ErrorIs(t, err, transport.ErrTooLarge)
	require.NotErrorIs(t, err, transport.ErrProtocol)
	require.ErrorContains(t, err, "1001 bytes, the limit is 1000")
	requireGone(t, peer)
}

func TestTruncatedMessagesAreNoEnd(t *testing.T) {
	for name, sent := range map[string]string{
		"nothing":                                      "",
		"a part of a length":                           "\x00\x00",
		"a length":                                     frame("hello")[:4],
		"a part of a message":                          frame("hello")[:6],
		"a message but no end of messages":             frame("hello"),
		"a part of the end of messages":                frame("hello") + "\xff\xff\xff",
		"a part of a message with a buffer of its own": frame(strings.Repeat("x", 1<<20))[:1<<19],
	} {
		t.Run(name, func(t *testing.T) {
			c, peer := rawPeer(t, Config{})
			go func() {
				io.WriteString(peer, sent)
				peer.Close()
			}()
			_, err := c.Recv(t.Context())
			if err == nil {
				_, err = c.Recv(t.Context())
			}
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			require.NotEqual(t, io.EOF, err)
			require.ErrorContains(t, err, "connection lost")
			require.Error(t, c.Send(t.Context(), nil))
		})
	}
}

func TestMessageThatStallsEndsTheConnection(t *testing.T) {
	for name, sent := range map[string]string{
		"in its length":                  "\x00",
		"after its length":               frame("hello")[:4],
		"in its bytes":                   frame("hello")[:6],
		"in a message of its own buffer": frame(strings.Repeat("x", 1<<20))[:1<<18],
	} {
		t.Run(name, func(t *testing.T) {
			c, peer := rawPeer(t, Config{Timeout: 50 * time.Millisecond})
			_, err := io.WriteString(peer, sent)
			require.NoError(t, err)
			_, err = c.Recv(t.Context())
			require.ErrorContains(t, err, "did not end within 50ms")
			require.NotErrorIs(t, err, context.DeadlineExceeded, "that would be about the context")
			requireGone(t, peer)
		})
	}
}

// A peer that sends a byte now and then gets no more time than one that stops.
func TestMessageThatTricklesEndsTheConnection(t *testing.T) {
	c, peer := rawPeer(t, Config{Timeout: 100 * time.Millisecond})
	go func() {
		for {
			if _, err := peer.Write([]byte{0}); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, err := io.WriteString(peer, "\x00\x10\x00\x00")
	require.NoError(t, err)
	for err == nil {
		_, err = c.Recv(t.Context())
	}
	require.ErrorContains(t, err, "did not end within 100ms")
}

func TestSilenceBetweenMessagesIsFine(t *testing.T) {
	c, peer := rawPeer(t, Config{Timeout: 10 * time.Millisecond})
	for range 3 {
		_, err := io.WriteString(peer, frame("hello"))
		require.NoError(t, err)
		msg, err := c.Recv(t.Context())
		require.NoError(t, err)
		require.Equal(t, "hello", string(msg))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err = c.Recv(ctx)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
}

func TestInterruptedMessageGoesOnWithAnotherContext(t *testing.T) {
	large := strings.Repeat("large", 100_000)
	for _, msg := range []string{"small", large} {
		c, peer := rawPeer(t, Config{})
		wire := frame(msg)
		for _, part := range []string{wire[:2], wire[2:5], wire[5 : len(wire)-1]} {
			_, err := io.WriteString(peer, part)
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			_, err = c.Recv(ctx)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		_, err := io.WriteString(peer, wire[len(wire)-1:])
		require.NoError(t, err)
		got, err := c.Recv(context.Background())
		require.NoError(t, err)
		require.Equal(t, msg, string(got))
	}
}

func TestAnnouncedSizeCostsNoMemory(t *testing.T) {
	c, peer := rawPeer(t, Config{MaxMessage: 1 << 30, Timeout: 50 * time.Millisecond})
	_, err := io.WriteString(peer, "\x3f\xff\xff\xff"+strings.Repeat("x", 1000))
	require.NoError(t, err)
	_, err = c.Recv(t.Context())
	require.ErrorContains(t, err, "did not end")
	require.LessOrEqual(t, cap(c.large.buf.data), firstLarge)
	require.LessOrEqual(t, len(c.buf), maxReadBuffer)
}

func TestIdleConnectionHoldsNoLargeBuffers(t *testing.T) {
	a, b := connect(t, Config{})
	for _, c := range []transport.Conn{a, b} {
		c := c.(*conn)
		msg := make([]byte, c.MaxMessage())
		go c.Send(context.Background(), msg)
		_, err := other(c, a, b).Recv(t.Context())
		require.NoError(t, err)
	}
	for _, tc := range []transport.Conn{a, b} {
		c := tc.(*conn)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err := c.Recv(ctx)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Nil(t, c.large.buf)
		require.LessOrEqual(t, len(c.buf), maxReadBuffer)
		require.Eventually(t, func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return !c.writing
		}, 30*time.Second, time.Millisecond)
		require.LessOrEqual(t, cap(c.pending.data), keepPending)
		require.LessOrEqual(t, cap(c.writes.data), keepPending)
	}
}

func other(c, a, b transport.Conn) transport.Conn {
	if c == a {
		return b
	}
	return a
}

func TestSendAndRecvDoNotAllocate(t *testing.T) {
	a, b := connect(t, Config{})
	for _, size := range []int{0, 64, 1000, 20_000} {
		msg := make([]byte, size)
		for name, ctx := range map[string]context.Context{"background": context.Background(), "the same context": t.Context()} {
			call := func() {
				if err := a.Send(ctx, msg); err != nil {
					t.Fatal(err)
				}
				if _, err := b.Recv(ctx); err != nil {
					t.Fatal(err)
				}
			}
			for range 20 {
				call() // buffers grow
			}
			require.Zero(t, testing.AllocsPerRun(1000, call), "%d bytes, %s", size, name)
		}
	}
}

// streamConn is the receiving half of a connection over bytes that come in pieces of a given size.
type streamConn struct {
	net.Conn
	stream *bytes.Reader
	piece  int
}

func (s *streamConn) Read(p []byte) (int, error)       { return s.stream.Read(p[:min(len(p), s.piece)]) }
func (s *streamConn) SetReadDeadline(time.Time) error  { return nil }
func (s *streamConn) SetWriteDeadline(time.Time) error { return nil }
func (s *streamConn) Write(p []byte) (int, error)      { return len(p), nil }
func (s *streamConn) Close() error                     { return nil }
func (s *streamConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// FuzzRecv compares with a reader of frames that is as simple as can be.
func FuzzRecv(f *testing.F) {
	f.Add([]byte(frame("hello")+frame("")+"\xff\xff\xff\xff"), uint16(3))
	f.Add([]byte(frame(strings.Repeat("x", 40_000))+frame("y")), uint16(5000))
	f.Add([]byte(frame("hello")[:7]), uint16(1))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint16(100))
	f.Add([]byte("\x00\x01\xff\xff"), uint16(4))
	const limit = 100_000
	f.Fuzz(func(t *testing.T, sent []byte, piece uint16) {
		c := newConn(&streamConn{stream: bytes.NewReader(sent), piece: int(piece) + 1}, limit, time.Minute, nil)
		defer c.Close()
		for rest := sent; ; {
			msg, err := c.Recv(context.Background())
			switch {
			case len(rest) < headerSize:
				require.ErrorIs(t, err, io.ErrUnexpectedEOF)
				return
			case strings.HasPrefix(string(rest), "\xff\xff\xff\xff"):
				require.Equal(t, io.EOF, err)
				return
			}
			size := int(binary.BigEndian.Uint32(rest))
			rest = rest[headerSize:]
			if size > limit {
				require.ErrorIs(t, err, transport.ErrTooLarge)
				return
			}
			if size > len(rest) {
				require.ErrorIs(t, err, io.ErrUnexpectedEOF)
				return
			}
			require.NoError(t, err)
			require.Equal(t, rest[:size], append([]byte{}, msg...))
			rest = rest[size:]
		}
	})
}

func TestReady(t *testing.T) {
	ready := func(c *conn) bool {
		ready, known := c.Ready()
		require.Equal(t, c.try != nil, known)
		return ready
	}
	for name, tc := range map[string]struct {
		does  func(c *conn, peer net.Conn)
		ready bool
	}{
		"nothing came":   {func(*conn, net.Conn) {}, false},
		"a frame":        {func(_ *conn, peer net.Conn) { io.WriteString(peer, frame("hello")) }, true},
		"the peer ended": {func(_ *conn, peer net.Conn) { peer.Close() }, true},
		"closed here":    {func(c *conn, _ net.Conn) { c.Close() }, true},
		"another frame behind the first": {func(c *conn, peer net.Conn) {
			io.WriteString(peer, frame("one")+frame("two"))
			c.Recv(t.Context())
		}, true},
		"part of a frame, which Recv has seen": {func(c *conn, peer net.Conn) {
			io.WriteString(peer, frame("one")+frame("two")[:5])
			c.Recv(t.Context())
		}, false},
		"a Recv was interrupted": {func(c *conn, _ net.Conn) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			c.Recv(ctx)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, peer := rawPeer(t, Config{})
			tc.does(c, peer)
			if c.try == nil {
				t.Skip("this system does not tell")
			}
			if !tc.ready {
				require.False(t, ready(c))
				return
			}
			require.Eventually(t, func() bool { return ready(c) }, 30*time.Second, time.Millisecond)
		})
	}
	t.Run("TLS does not tell", func(t *testing.T) {
		a, _ := connect(t, Config{TLS: testcert.New(t).TLS()})
		_, known := a.(*conn).Ready()
		require.False(t, known)
	})
}

// TestTakeLast: a message that was taken stays as it is, and the next ones come into other memory.
func TestTakeLast(t *testing.T) {
	a, b := connect(t, Config{})
	c := b.(*conn)
	require.Nil(t, c.TakeLast(), "nothing came")
	recv := func(fill byte, size int) []byte {
		go a.Send(context.Background(), bytes.Repeat([]byte{fill}, size))
		msg, err := b.Recv(t.Context())
		require.NoError(t, err)
		return msg
	}
	recv('s', 1000)
	require.Nil(t, c.TakeLast(), "a small one shares its memory")
	first := recv('a', 100<<10)
	owner := c.TakeLast()
	require.NotNil(t, owner)
	require.Nil(t, c.TakeLast(), "taken already")
	for fill := range byte(10) {
		require.Equal(t, bytes.Repeat([]byte{fill}, 100<<10), recv(fill, 100<<10))
	}
	require.Equal(t, bytes.Repeat([]byte{'a'}, 100<<10), first)
	owner.Release()
}
