//go:build unix

package tcp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/transport"
)

// echoProcess in the environment makes the test binary a service that sends back what it receives.
const echoProcess = "MICRO_TCP_TEST_ECHO"

func init() {
	if os.Getenv(echoProcess) == "" {
		return
	}
	tr, err := New(new(plugin.Env), Config{})
	if err != nil {
		panic(err)
	}
	l, err := tr.Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	for {
		c, err := l.Accept(context.Background())
		if err != nil {
			os.Exit(1)
		}
		go echo(c)
	}
}

// startEcho returns a connection to another process.
func startEcho(t *testing.T) (transport.Conn, *os.Process) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), echoProcess+"=yes")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	c := dial(t, open(t, Config{}), strings.TrimSpace(addr))
	require.NoError(t, c.Send(t.Context(), []byte("hello")))
	msg, err := c.Recv(t.Context())
	require.NoError(t, err)
	require.Equal(t, "hello", string(msg))
	return c, cmd.Process
}

func TestPeerProcessIsKilled(t *testing.T) {
	c, process := startEcho(t)
	received := make(chan error, 1)
	go func() {
		_, err := c.Recv(context.Background())
		received <- err
	}()
	require.NoError(t, process.Kill())
	err := <-received
	require.ErrorContains(t, err, "connection lost")
	require.NotEqual(t, io.EOF, err)
	require.ErrorContains(t, c.Send(t.Context(), nil), "connection lost")
	process.Wait()
	_, err = open(t, Config{}).Dial(t.Context(), c.RemoteAddr())
	require.ErrorIs(t, err, transport.ErrUnreachable)
}

func TestPeerProcessIsFrozen(t *testing.T) {
	c, process := startEcho(t)
	require.NoError(t, process.Signal(syscall.SIGSTOP))
	msg := make([]byte, 100_000)
	sent := 0
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err := c.Send(ctx, msg)
		cancel()
		if err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded)
			break
		}
		sent++
		require.Less(t, sent, 1000, "a frozen peer takes ever more")
	}
	require.NoError(t, process.Signal(syscall.SIGCONT))
	for range sent {
		got, err := c.Recv(t.Context())
		require.NoError(t, err)
		require.Len(t, got, len(msg))
	}
	require.NoError(t, c.Send(t.Context(), []byte("awake")))
	got, err := c.Recv(t.Context())
	require.NoError(t, err)
	require.Equal(t, "awake", string(got))
}

func TestCloseDoesNotWaitForAFrozenPeer(t *testing.T) {
	c, process := startEcho(t)
	require.NoError(t, process.Signal(syscall.SIGSTOP))
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err := c.Send(ctx, make([]byte, 100_000))
		cancel()
		if err != nil {
			break
		}
	}
	closed := make(chan error, 1)
	go func() { closed <- c.Close() }()
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(30 * time.Second):
		require.FailNow(t, "Close waits for a peer that takes nothing")
	}
}
