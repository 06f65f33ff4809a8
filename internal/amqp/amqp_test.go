//go:build unix

package amqp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/internal/logtest"
	"github.com/plugmicro/micro/internal/servers"
	"github.com/plugmicro/micro/internal/testcert"
	"github.com/plugmicro/micro/plugin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const password = "tell-nobody"

func newDialer(t *testing.T, c Config) *Dialer {
	d, err := NewDialer("broker", c, slog.Default())
	require.NoError(t, err)
	return d
}

// dialError is what dialling says, which must come within limit.
func dialError(t *testing.T, c Config, limit time.Duration) error {
	began := time.Now()
	_, err := newDialer(t, c).Dial(t.Context(), "test")
	require.Error(t, err)
	require.Less(t, time.Since(began), limit)
	require.NotContains(t, err.Error(), password)
	return err
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	own := Config{User: "me", Password: plugin.NewSecret("mine"), VHost: "of-me"}
	for addr, want := range map[string]server{
		"rabbit":                            {"rabbit:5672", "rabbit", "me", own.Password, "of-me", false},
		"rabbit:1":                          {"rabbit:1", "rabbit", "me", own.Password, "of-me", false},
		"[::1]:1":                           {"[::1]:1", "::1", "me", own.Password, "of-me", false},
		"amqp://rabbit":                     {"rabbit:5672", "rabbit", "me", own.Password, "of-me", false},
		"amqps://rabbit/":                   {"rabbit:5671", "rabbit", "me", own.Password, "of-me", true},
		"amqps://you:y%40urs@rabbit:1/v%2F": {"rabbit:1", "rabbit", "you", plugin.NewSecret("y@urs"), "v/", true},
		"amqp://you:yours@[::1]/%2F":        {"[::1]:5672", "::1", "you", plugin.NewSecret("yours"), "/", false},
	} {
		got, err := own.server(addr)
		require.NoError(t, err, addr)
		require.Equal(t, want, got, addr)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	require.NoError(t, Config{}.Validate())
	for want, c := range map[string]Config{
		"HOST:PORT":                {Address: []string{"a:1", ""}},
		"address 2":                {Address: []string{"a:1", "amqp://u:" + password + "@"}},
		"address 1: it is no URL":  {Address: []string{"amqp://u:" + password + "%@h"}},
		"want amqp://":             {Address: []string{"http://u:" + password + "@h"}},
		"are not supported":        {Address: []string{"amqp://u:" + password + "@h?heartbeat=1"}},
		"want amqps://":            {Address: []string{"amqp://u:" + password + "@h"}, TLS: plugin.TLS{Insecure: true}},
		"or amqp://USER:PASSWORD@": {Address: []string{"u:" + password + "@h:1"}},
		"heartbeat 1ms":            {Heartbeat: time.Millisecond},
		"timeout -1s":              {Timeout: -time.Second},
	} {
		err := c.Validate()
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), password)
	}
	all := Config{Address: []string{"", "a:1", "http://b"}, Timeout: -1, Heartbeat: 1}.Validate()
	for _, want := range []string{"address 1", "address 3", "timeout", "heartbeat"} {
		require.ErrorContains(t, all, want)
	}
}

func TestLossReason(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]amqp091.Error{
		"connection reset by peer":         {Code: 501, Reason: "read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer"},
		"the server closed it":             {Code: 501, Reason: "EOF"},
		"the server gave no sign of life":  {Code: 501, Reason: "read tcp 127.0.0.1:1->127.0.0.1:2: i/o timeout"},
		"CONNECTION_FORCED: closing (320)": {Code: 320, Reason: "CONNECTION_FORCED: closing", Server: true},
	} {
		require.Equal(t, want, lossReason(&err))
	}
}

func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		l, o, err := slog.New(slog.NewTextHandler(&log, nil)), Outage{}, errors.New("one\ntwo")
		lines := func() (found []string) {
			for line := range strings.Lines(log.String()) {
				_, text, _ := strings.Cut(strings.TrimSpace(line), " ") // behind the time
				found = append(found, text)
			}
			log.Reset()
			return found
		}
		down := []string{`level=WARN msg=down error="one; two"`}
		fails := func(lasts time.Duration) {
			for range lasts / time.Second {
				o.Failed(l, "down", err)
				time.Sleep(time.Second)
			}
		}
		o.Over(l, "up")
		require.Empty(t, lines(), "never down")
		fails(49 * time.Second)
		require.Equal(t, down, lines())
		fails(72 * time.Second)
		require.Equal(t, append(down, down...), lines(), "after a minute, and two")
		o.Over(l, "up", "a", 1)
		o.Over(l, "up")
		require.Equal(t, []string{"level=INFO msg=up a=1 after=2m1s"}, lines())
		for range 10 {
			fails(time.Second)
			o.Over(l, "up")
		}
		require.Empty(t, lines(), "it comes and goes")
		time.Sleep(settled)
		fails(time.Second)
		o.Over(l, "up")
		require.Equal(t, append(down, "level=INFO msg=up after=1s"), lines())
	})
}

func TestConnectionRefused(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	l.Close()
	err = dialError(t, Config{Address: []string{addr}}, 5*time.Second)
	require.EqualError(t, err, "connect to "+addr+": connection refused: is RabbitMQ up, and is --broker-address right?")
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// listenTo accepts connections and does as told.
func listenTo(t *testing.T, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

func TestSilentServer(t *testing.T) {
	t.Parallel()
	silent := listenTo(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	for _, c := range []Config{{}, {TLS: plugin.TLS{Insecure: true}}} {
		c.Address, c.Timeout = []string{silent}, 200*time.Millisecond
		err := dialError(t, c, 5*time.Second)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, silent)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := newDialer(t, Config{Address: []string{silent}}).Dial(ctx, "test")
	require.ErrorIs(t, err, context.Canceled)
}

func TestNotRabbit(t *testing.T) {
	t.Parallel()
	web := listenTo(t, func(c net.Conn) { c.Read(make([]byte, 8)); io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	require.ErrorContains(t, dialError(t, Config{Address: []string{web}}, 5*time.Second), "is it RabbitMQ")
	require.ErrorContains(t, dialError(t, Config{Address: []string{web}, TLS: plugin.TLS{Insecure: true}}, 5*time.Second), "does the server take TLS")
}

func TestServer(t *testing.T) {
	s := servers.RabbitMQ(t)
	s.AddUser(t, "other", password, "", "", "")
	config := Config{Address: []string{s.Proxy.Addr()}, Heartbeat: time.Second, Timeout: 20 * time.Second}
	t.Run("who may not log in", func(t *testing.T) {
		c := config
		c.User, c.Password = "other", plugin.NewSecret(password+"!")
		err := dialError(t, c, 3*time.Second) // not after the three seconds that RabbitMQ keeps silent for others
		for _, want := range []string{"connect to " + s.Proxy.Addr(), `user "other"`, "--broker-password", "ACCESS_REFUSED"} {
			require.ErrorContains(t, err, want)
		}
		c.Address = []string{"amqp://other:" + password + "@" + s.Addr + "/missing"}
		err = dialError(t, c, 10*time.Second)
		for _, want := range []string{s.Addr, `"missing"`, `"other"`, "--broker-vhost", "NOT_ALLOWED"} {
			require.ErrorContains(t, err, want)
		}
	})
	t.Run("the next server is tried", func(t *testing.T) {
		c := config
		silent := listenTo(t, func(c net.Conn) { io.Copy(io.Discard, c) })
		c.Address, c.Timeout = []string{silent, s.Addr}, 2*time.Second
		d := newDialer(t, c)
		conn, err := d.Dial(t.Context(), "test")
		require.NoError(t, err)
		require.Equal(t, s.Addr, conn.Addr)
		require.NoError(t, conn.Close())
		began := time.Now()
		conn, err = d.Dial(t.Context(), "test")
		require.NoError(t, err)
		require.Less(t, time.Since(began), time.Second, "the one that worked comes first")
		require.NoError(t, conn.Close())
	})
	t.Run("a connection has a name", func(t *testing.T) {
		conn, err := newDialer(t, config).Dial(t.Context(), "test")
		require.NoError(t, err)
		defer conn.Close()
		require.Contains(t, s.Eval(t, `io_lib:format("~p", [rabbit_networking:connection_info_all([client_properties])])`), "micro broker test: amqp.test[")
	})
	t.Run("an alarm is told and Close does not hang", func(t *testing.T) { alarm(t, s, config) })
	t.Run("a frozen server is noticed", func(t *testing.T) {
		conn, err := newDialer(t, config).Dial(t.Context(), "test")
		require.NoError(t, err)
		ch, err := conn.Channel(t.Context())
		require.NoError(t, err)
		resume := s.Pause(t)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, conn.Within(ctx, func() error {
			_, err := ch.QueueDeclare("", false, false, true, false, nil)
			return err
		}), context.DeadlineExceeded)
		<-conn.Lost()
		require.ErrorContains(t, conn.Err(), s.Proxy.Addr())
		resume()
		require.NoError(t, conn.Close())
	})
	t.Run("Run connects again", func(t *testing.T) { runs(t, s, config) })
}

func alarm(t *testing.T, s *servers.RabbitServer, config Config) {
	conn, err := newDialer(t, config).Dial(t.Context(), "test")
	require.NoError(t, err)
	ch, err := conn.Channel(t.Context())
	require.NoError(t, err)
	require.Nil(t, conn.Blocked())
	clear := s.Alarm(t)
	require.NoError(t, ch.PublishWithContext(t.Context(), "", "nobody", false, false, amqp091.Publishing{Body: []byte("x")}))
	require.Eventually(t, func() bool { return conn.Blocked() != nil }, 10*time.Second, time.Millisecond)
	blocked := conn.Blocked()
	require.NotEmpty(t, blocked.Reason)
	clear()
	<-blocked.Ended
	require.Nil(t, conn.Blocked())

	defer s.Alarm(t)()
	require.NoError(t, ch.PublishWithContext(t.Context(), "", "nobody", false, false, amqp091.Publishing{Body: []byte("x")}))
	require.Eventually(t, func() bool { return conn.Blocked() != nil }, 10*time.Second, time.Millisecond)
	began := time.Now()
	conn.Close() // the server says nothing: an error is right, and none is
	require.Less(t, time.Since(began), 5*closeTimeout)
	<-conn.Lost()
	require.NoError(t, conn.Close(), "once more")
}

func runs(t *testing.T, s *servers.RabbitServer, config Config) {
	ctx, cancel := context.WithCancel(t.Context())
	conns, failures, ended := make(chan *Conn), make(chan error, 1000), make(chan error, 1)
	var log logtest.Buffer
	d, err := NewDialer("broker", config, slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	s.Proxy.Cut()
	go func() {
		ended <- d.Run(ctx, "test", func(ctx context.Context, c *Conn, ready func()) error {
			ready()
			conns <- c
			select {
			case <-c.Lost():
				return errors.New("lost")
			case <-ctx.Done():
				return nil
			}
		}, func(err error) { failures <- err })
	}()
	require.ErrorContains(t, <-failures, "connect to "+s.Proxy.Addr())
	s.Proxy.Heal()
	first := <-conns
	require.Empty(t, log.String(), "whoever waits for the first connection is told")
	for len(failures) > 0 {
		<-failures
	}
	s.Kill(t)
	<-first.Lost()
	require.ErrorContains(t, <-failures, "lost")
	for range 3 {
		require.ErrorContains(t, <-failures, "connect to "+s.Proxy.Addr())
	}
	require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	require.Contains(t, log.String(), "level=WARN")
	require.Contains(t, log.String(), "purpose=test")
	require.Contains(t, log.String(), s.Proxy.Addr())
	s.Start(t)
	second := <-conns
	require.NotSame(t, first, second)
	require.Equal(t, 2, strings.Count(log.String(), "\n"), log.String())
	require.Contains(t, log.String(), `level=INFO msg="connected to RabbitMQ again" purpose=test address=`+s.Proxy.Addr()+" after=")
	s.Proxy.Drop()
	third := <-conns
	require.NotSame(t, second, third)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.ErrorContains(t, third.Err(), "was closed")
}

func TestTLS(t *testing.T) {
	client := testcert.New(t).TLS()
	s := servers.RabbitMQ(t, servers.RabbitTLS(client)...)
	conn, err := newDialer(t, Config{Address: []string{s.TLSAddr}, TLS: client}).Dial(t.Context(), "test")
	require.NoError(t, err)
	require.NoError(t, conn.Close())

	conn, err = newDialer(t, Config{Address: []string{"amqps://guest:guest@" + s.TLSAddr + "/"}, TLS: client}).Dial(t.Context(), "test")
	require.NoError(t, err)
	require.NoError(t, conn.Close())

	err = dialError(t, Config{Address: []string{"amqps://" + s.TLSAddr}}, 10*time.Second)
	require.ErrorContains(t, err, "--broker-tls-ca")
	require.ErrorContains(t, dialError(t, Config{Address: []string{s.TLSAddr}, TLS: plugin.TLS{CA: client.CA}}, 20*time.Second), s.TLSAddr) // no certificate
	require.ErrorContains(t, dialError(t, Config{Address: []string{s.Addr}, TLS: client}, 20*time.Second), "does the server take TLS")
	require.ErrorContains(t, dialError(t, Config{Address: []string{s.TLSAddr}}, 20*time.Second), s.TLSAddr)
	named := client
	named.ServerName = "elsewhere"
	require.ErrorContains(t, dialError(t, Config{Address: []string{s.TLSAddr}, TLS: named}, 10*time.Second), "elsewhere")
}
