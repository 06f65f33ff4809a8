package servers

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// echo listens and answers each connection with what it sends.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func TestProxy(t *testing.T) {
	p, err := NewProxy(echo(t))
	require.NoError(t, err)
	defer p.Close()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", p.Addr())
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	answers := func(c net.Conn) error {
		require.NoError(t, c.SetDeadline(time.Now().Add(time.Second)))
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 5))
		return err
	}

	c := dial()
	require.NoError(t, answers(c))
	require.Equal(t, 1, p.Connections())

	p.Blackhole()
	require.ErrorContains(t, answers(c), "timeout")
	p.Heal()
	_, err = io.ReadFull(dial(), nil)
	require.NoError(t, err)
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Second)))
	_, err = io.ReadFull(c, make([]byte, 5))
	require.NoError(t, err, "what was held back arrives")

	p.Cut()
	require.Error(t, answers(c))
	require.Error(t, answers(dial()))
	p.Heal()
	c = dial()
	require.NoError(t, answers(c))

	p.Delay(100 * time.Millisecond)
	begun := time.Now()
	require.NoError(t, answers(c))
	require.GreaterOrEqual(t, time.Since(begun), 200*time.Millisecond, "both ways")

	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "a half-close goes through and comes back")
}
