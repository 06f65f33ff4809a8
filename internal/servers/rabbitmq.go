//go:build unix

package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plugmicro/micro/plugin"
)

// RabbitServer is a RabbitMQ. The user guest, with the password guest, may do everything in the virtual host "/".
type RabbitServer struct {
	*Server
	TLSAddr string // where it listens for TLS, with RabbitTLS

	home string // of Erlang and RabbitMQ
	dist int    // the port for commands
}

// Everything listens on 127.0.0.1, with an epmd of the server's own that ends with it. Two schedulers that do not spin
// leave something of the machine to the others.
const rabbitScript = `
setpriv --pdeathsig KILL epmd -port $ERL_EPMD_PORT &
until epmd -names >/dev/null 2>&1; do sleep 0.02; done
exec "$BINDIR/erlexec" -noinput -s rabbit boot -boot start_sasl -setcookie test +W w +B i \
	+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface '{127,0,0,1}' \
	-kernel prevent_overlapping_partitions false -syslog logger '[]' -syslog syslog_error_logger false
`

// RabbitTLS are lines for the configuration of a RabbitMQ that has the certificate of own, and takes clients that have one of
// the same authority.
func RabbitTLS(own plugin.TLS) (config []string) {
	return []string{
		"ssl_options.cacertfile = " + own.CA, "ssl_options.certfile = " + own.Cert, "ssl_options.keyfile = " + own.Key,
		"ssl_options.verify = verify_peer", "ssl_options.fail_if_no_peer_cert = true",
	}
}

// RabbitMQ starts a RabbitMQ of its own, one node without plugins. config is added to its rabbitmq.conf; with that of
// RabbitTLS it also listens for TLS.
func RabbitMQ(t testing.TB, config ...string) *RabbitServer {
	t.Helper()
	need(t, "RabbitMQ", filepath.Join(Dir(), "rabbitmq", "installed"))
	s := &RabbitServer{Server: newServer(t), home: filepath.Join(Dir(), "rabbitmq"), dist: freePort(t)}
	s.listen(t, fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	config = append(config, "listeners.tcp.1 = "+s.Addr)
	if strings.Contains(strings.Join(config, "\n"), "ssl_options.") {
		s.TLSAddr = fmt.Sprintf("127.0.0.1:%d", freePort(t))
		config = append(config, "listeners.ssl.1 = "+s.TLSAddr)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"rabbitmq.conf": strings.Join(config, "\n") + "\n", "plugins": "[]."} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := s.environment(dir, freePort(t))
	s.command = func() *exec.Cmd {
		cmd := exec.Command("sh", "-c", rabbitScript)
		cmd.Env = env
		return cmd
	}
	s.ready = func() error { return greets(s.Addr) }
	s.begin(t)
	return s
}

func (s *RabbitServer) environment(config string, epmd int) []string {
	erlang, rabbit := filepath.Join(s.home, "erlang"), filepath.Join(s.home, "rabbitmq")
	bin := filepath.Join(erlang, "erts", "bin")
	env := []string{
		"HOME=" + s.Dir, "PATH=" + bin + ":" + os.Getenv("PATH"), "LANG=C.UTF-8",
		"ROOTDIR=" + erlang, "BINDIR=" + bin, "EMU=beam", "PROGNAME=erl", "ERL_CRASH_DUMP_SECONDS=0",
		"ERL_EPMD_ADDRESS=127.0.0.1", fmt.Sprint("ERL_EPMD_PORT=", epmd), "ERL_LIBS=" + filepath.Join(rabbit, "plugins"),
		"RABBITMQ_NODENAME=rabbit@localhost", fmt.Sprint("RABBITMQ_DIST_PORT=", s.dist), "RABBITMQ_LOGS=-",
		"RABBITMQ_HOME=" + rabbit, "RABBITMQ_PLUGINS_DIR=" + filepath.Join(rabbit, "plugins"),
		"RABBITMQ_CONFIG_FILE=" + filepath.Join(config, "rabbitmq.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(config, "plugins"),
		"RABBITMQ_CONF_ENV_FILE=" + filepath.Join(config, "none"), "RABBITMQ_CONFIG_FILES=" + filepath.Join(config, "none", "*.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE=" + filepath.Join(config, "none"),
	}
	for _, of := range []string{"MNESIA_BASE", "LOG_BASE", "GENERATED_CONFIG_DIR", "SCHEMA_DIR", "FEATURE_FLAGS_FILE"} {
		env = append(env, "RABBITMQ_"+of+"="+filepath.Join(s.Dir, strings.ToLower(of)))
	}
	return env
}

// greets is nil if an AMQP server answers.
func greets(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("AMQP\x00\x00\x09\x01")); err != nil {
		return err
	}
	var frame [1]byte
	if _, err := io.ReadFull(c, frame[:]); err != nil {
		return err
	}
	if frame[0] != 1 {
		return errors.New("it does not speak AMQP 0-9-1 yet")
	}
	return nil
}

// Kill is kill -9. RabbitMQ 3.10 writes down which quorum queues there are only half a second or so after they were
// declared; killed before that, alone, without other nodes, it has an empty queue that never works again. That is
// nothing that a client could mend, so it is asked to do it now.
func (s *RabbitServer) Kill(t testing.TB) {
	t.Helper()
	_, _ = s.eval(2*time.Second, filepath.Join(t.TempDir(), "result"), `[dets:sync(Table) || Table <- dets:all()], ""`) // it may be frozen
	s.Server.Kill(t)
}

// Restart is Kill and Start.
func (s *RabbitServer) Restart(t testing.TB) {
	t.Helper()
	s.Kill(t)
	s.Start(t)
}

// Eval has the server run Erlang expressions, and returns the text that the last one must be.
func (s *RabbitServer) Eval(t testing.TB, expressions string) string {
	t.Helper()
	text, err := s.eval(time.Minute, filepath.Join(t.TempDir(), "result"), expressions)
	if err != nil {
		t.Fatalf("RabbitMQ does not do %s: %v", expressions, err)
	}
	return text
}

func (s *RabbitServer) eval(limit time.Duration, result, expressions string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.home, "erlang", "erts", "bin", "erl_call"),
		"-address", fmt.Sprint("localhost:", s.dist), "-c", "test", "-h", fmt.Sprint("call-", time.Now().UnixNano()), "-e") // the server refuses a name that has just gone
	cmd.Stdin = strings.NewReader(fmt.Sprintf("ok = file:write_file(%q, begin %s end).\n", result, expressions))
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.HasPrefix(out, []byte("{ok, ok}")) {
		return "", fmt.Errorf("%v: %s", err, out)
	}
	text, err := os.ReadFile(result)
	return string(text), err
}

// RabbitQueue is a queue of a RabbitMQ.
type RabbitQueue struct {
	Name                string
	Kind                string // rabbit_classic_queue, rabbit_quorum_queue, …
	Durable, Exclusive  bool
	Messages, Consumers int
}

// Queues are those of the virtual host "/".
func (s *RabbitServer) Queues(t testing.TB) []RabbitQueue {
	t.Helper()
	text := s.Eval(t, `[case catch rabbit_amqqueue:stat(Q) of
			{ok, Messages, Consumers} -> io_lib:format("~ts ~ts ~ts ~ts ~b ~b~n", [element(4, amqqueue:get_name(Q)), amqqueue:get_type(Q),
				amqqueue:is_durable(Q), amqqueue:get_exclusive_owner(Q) =/= none, Messages, Consumers]);
			_ -> "" % it has gone in the meantime
		end || Q <- rabbit_amqqueue:list(<<"/">>)]`)
	var queues []RabbitQueue
	for line := range strings.Lines(text) {
		var q RabbitQueue
		if _, err := fmt.Sscan(line, &q.Name, &q.Kind, &q.Durable, &q.Exclusive, &q.Messages, &q.Consumers); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		queues = append(queues, q)
	}
	return queues
}

// AddUser adds a user, with the patterns of what it may configure, write and read in the virtual host "/".
func (s *RabbitServer) AddUser(t testing.TB, name, password, configure, write, read string) {
	t.Helper()
	s.Eval(t, fmt.Sprintf(`ok = rabbit_auth_backend_internal:add_user(<<%q>>, <<%q>>, <<"test">>),
		ok = rabbit_auth_backend_internal:set_permissions(<<%q>>, <<"/">>, <<%q>>, <<%q>>, <<%q>>, <<"test">>), ""`,
		name, password, name, configure, write, read))
}

// Alarm makes the server block those who publish, as it does when its memory is used up, until clear.
func (s *RabbitServer) Alarm(t testing.TB) (clear func()) {
	t.Helper()
	// The second part is answered when the first has reached all connections: the next message is the last that is taken.
	s.Eval(t, `rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}), gen_event:which_handlers(rabbit_alarm), ""`)
	return func() {
		t.Helper()
		s.Eval(t, `rabbit_alarm:clear_alarm({resource_limit, memory, node()}), ""`)
	}
}

// Connections is how many clients are connected.
func (s *RabbitServer) Connections(t testing.TB) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(s.Eval(t, `integer_to_list(length(rabbit_networking:connections()))`), &n); err != nil {
		t.Fatal(err)
	}
	return n
}
