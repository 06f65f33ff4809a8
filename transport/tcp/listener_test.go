package tcp

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/logtest"
	"github.com/plugmicro/micro/internal/testcert"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/transport"
)

func listen(t testing.TB, tr transport.Transport, addr string) transport.Listener {
	l, err := tr.Listen(context.Background(), addr)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func accept(t testing.TB, l transport.Listener) transport.Conn {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := l.Accept(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func dial(t testing.TB, tr transport.Transport, addr string) transport.Conn {
	c, err := tr.Dial(context.Background(), addr)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestAddrIsOneThatOthersReach(t *testing.T) {
	tr := open(t, Config{})
	for _, addr := range []string{"", ":0", "0.0.0.0:0", "[::]:0"} {
		l := listen(t, tr, addr)
		host, port, err := net.SplitHostPort(l.Addr())
		require.NoError(t, err)
		require.NotEqual(t, "0", port)
		require.False(t, net.ParseIP(host).IsUnspecified(), l.Addr())
		dial(t, tr, l.Addr())
		accept(t, l)
		dial(t, tr, net.JoinHostPort("127.0.0.1", port))
		accept(t, l)
	}
	l := listen(t, tr, "127.0.0.1:0")
	require.True(t, strings.HasPrefix(l.Addr(), "127.0.0.1:"), l.Addr())
}

func TestLocalListenerKeepsToTheMachine(t *testing.T) {
	tr := open(t, Config{})
	l, err := tr.Listen(t.Context(), "", transport.ListenLocal())
	require.NoError(t, err)
	defer l.Close()
	require.Equal(t, l.Addr(), l.(*listener).nl.Addr().String(), "the socket itself")
	require.True(t, strings.HasPrefix(l.Addr(), "127.0.0.1:"), l.Addr())
}

func TestAddressErrorsSayWhatToDo(t *testing.T) {
	tr := open(t, Config{})
	l := listen(t, tr, "127.0.0.1:0")
	_, err := tr.Listen(t.Context(), l.Addr())
	require.ErrorIs(t, err, transport.ErrAddrInUse)
	require.ErrorContains(t, err, "listen at "+l.Addr()+": address in use: another process has it")
	_, err = tr.Listen(t.Context(), "127.0.0.1")
	require.ErrorContains(t, err, "127.0.0.1: missing port")
	_, err = tr.Dial(t.Context(), "no-port")
	require.ErrorContains(t, err, `dial "no-port": want HOST:PORT`)
	_, err = tr.Dial(t.Context(), "127.0.0.1:70000")
	require.ErrorContains(t, err, "dial 127.0.0.1:70000: ")
}

func TestMaxConns(t *testing.T) {
	var logged logtest.Buffer
	l, err := listenLogging(t, Config{MaxConns: 2}, &logged)
	require.NoError(t, err)
	defer l.Close()
	tr := open(t, Config{})
	first, second := dial(t, tr, l.Addr()), dial(t, tr, l.Addr())
	accepted := accept(t, l)
	accept(t, l)
	for range 20 {
		_, err = dial(t, tr, l.Addr()).Recv(t.Context())
		require.Error(t, err)
		require.NotEqual(t, io.EOF, err)
	}
	require.Equal(t, 1, strings.Count(logged.String(), "too many connections"), logged.String())
	require.Contains(t, logged.String(), "max-conns=2")
	for _, c := range []transport.Conn{first, second} {
		go echo(c)
	}
	require.NoError(t, accepted.Send(t.Context(), []byte("still open")))
	_, err = accepted.Recv(t.Context())
	require.NoError(t, err)

	accepted.Close()
	dial(t, tr, l.Addr())
	accept(t, l)
}

func listenLogging(t *testing.T, c Config, w io.Writer) (transport.Listener, error) {
	tr := open(t, c).(*Transport)
	tr.log = slog.New(slog.NewTextHandler(w, nil))
	return tr.Listen(t.Context(), "127.0.0.1:0")
}

func TestSettingsThatMakeNoSenseAreRefused(t *testing.T) {
	for told, c := range map[string]Config{
		"tls-mutual needs tls-ca":         {TLSMutual: true},
		"max-message -1B":                 {MaxMessage: -1},
		"max-message 4GiB":                {MaxMessage: 4 << 30},
		"max-conns -1":                    {MaxConns: -1},
		"timeout -1s":                     {Timeout: -time.Second},
		"tls-ca: ":                        {TLS: plugin.TLS{CA: "/does/not/exist.pem"}},
		"its key is missing: set tls-key": {TLS: plugin.TLS{Cert: "cert.pem"}},
	} {
		_, err := New(new(plugin.Env), c)
		require.ErrorContains(t, err, told)
	}
}

func TestKeepAliveCanBeOff(t *testing.T) {
	tr := open(t, Config{KeepAlive: -1})
	l := listen(t, tr, "127.0.0.1:0")
	go echo(dial(t, tr, l.Addr()))
	c := accept(t, l)
	require.NoError(t, c.Send(t.Context(), nil))
	_, err := c.Recv(t.Context())
	require.NoError(t, err)
}

// The kernel of the program reads the settings from flags and the environment.
func TestSettingsComeFromOutside(t *testing.T) {
	settings := testcert.New(t).TLS()
	loader := plugin.NewLoader(plugin.Linked)
	require.NoError(t, loader.Parse([]string{"--transport", "tcp", "--transport-max-message", "1KiB", "--transport-tls-mutual",
		"--transport-tls-ca", settings.CA, "--transport-tls-cert", settings.Cert}))
	loaded, err := loader.Load([]string{"MICRO_TRANSPORT_TLS_KEY=" + settings.Key, "MICRO_TRANSPORT_MAX_CONNS=7"})
	require.NoError(t, err)
	host := loaded.Open(t.Context(), slog.Default())
	defer host.Close()
	tr, err := plugin.Open[transport.Transport](host)
	require.NoError(t, err)
	config := tr.(*Transport).config
	require.Equal(t, Config{TLS: settings, TLSMutual: true, MaxMessage: 1024, MaxConns: 7, Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}, config)
	l := listen(t, tr, "127.0.0.1:0")
	require.Equal(t, 1024, dial(t, tr, l.Addr()).MaxMessage())
	require.Equal(t, 1024, accept(t, l).MaxMessage())
}
