//go:build unix

package rabbitmq

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/amqp"
	"github.com/plugmicro/micro/internal/logtest"
	"github.com/plugmicro/micro/plugin"
)

func logged(tr *Transport) *logtest.Buffer {
	log := &logtest.Buffer{}
	tr.log = slog.New(slog.NewTextHandler(log, nil))
	return log
}

func (t *Transport) lastAttempt() *attempt {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.attempt
}

// An outage is logged when it begins and when it is over, however often it is tried to connect in between.
func TestOutage(t *testing.T) {
	r := newRig(t)
	tr := r.open(t)
	log := logged(tr)
	l := listen(t, tr, "")
	require.Empty(t, log.String())
	r.proxy(tr).Cut()
	attempts := map[*attempt]bool{} // the listener's
	require.Eventually(t, func() bool {
		attempts[tr.lastAttempt()] = true
		return len(attempts) == 5
	}, 30*time.Second, time.Millisecond)
	r.proxy(tr).Heal()
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "listening again") }, 30*time.Second, time.Millisecond)
	for _, want := range []string{
		`level=WARN msg="RabbitMQ is lost, and the connections over it are"`,
		`level=WARN msg="nobody reaches this listener, will try again" address=` + l.Addr(),
		`level=INFO msg="connected to RabbitMQ again" address=` + r.proxy(tr).Addr(),
		`level=INFO msg="listening again" address=` + l.Addr(),
	} {
		require.Equal(t, 1, strings.Count(log.String(), want), "%s in\n%s", want, log)
	}
	require.Equal(t, 4, strings.Count(log.String(), "\n"), log)
}

// Who cannot connect is told once, by the error, with the options to look at.
func TestNoConnection(t *testing.T) {
	const secret = "tell-nobody"
	r := newRig(t)
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"password": {func(c *Config) { c.Password = plugin.NewSecret(secret) }, "--transport-password"},
		"vhost":    {func(c *Config) { c.VHost = "missing" }, "--transport-vhost"},
		"TLS":      {func(c *Config) { c.TLS.Insecure = true }, "--transport-tls-enable"},
		"port":     {func(c *Config) { r.Proxy.Cut(); c.Address = []string{r.Proxy.Addr()} }, "--transport-address"},
	} {
		t.Run(name, func(t *testing.T) {
			c := config(r.Addr)
			test.change(&c)
			tr := open(t, c)
			log := logged(tr)
			_, err := tr.Dial(soon(t), "anybody")
			require.ErrorContains(t, err, test.want)
			require.Equal(t, 1, strings.Count(err.Error(), "transport rabbitmq"), err)
			require.NotContains(t, err.Error(), secret)
			_, err = tr.Listen(soon(t), "")
			require.ErrorContains(t, err, "transport rabbitmq: connect to "+c.Address[0])
			require.Empty(t, log.String())
		})
	}
}

func TestValidateTellsAll(t *testing.T) {
	t.Parallel()
	err := Config{Config: amqp.Config{Address: []string{""}, Heartbeat: 1}, MaxMessage: -1, MaxConns: -1, Window: -1, KeepAlive: -1}.Validate()
	for _, want := range []string{"address 1", "heartbeat", "max-message", "max-conns", "window", "keep-alive"} {
		require.ErrorContains(t, err, want)
	}
}
