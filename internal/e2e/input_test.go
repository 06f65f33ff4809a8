package e2e

import (
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/testcert"
)

// TestBadInput starts the greeter with what cannot work: it says so in one line for each mistake and leaves nothing behind.
func TestBadInput(t *testing.T) {
	files := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(files, name)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return file
	}
	unknownKeys := write("unknown.yaml", "name: greeter\nregistry:\n  plugin: local\n  dri: /x\ncolour: red\n")
	noYAML := write("broken.yaml", "name: [greeter\n")
	garbage := write("garbage.pem", "no certificate")
	expired := testcert.New(t).TLS(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()

	for _, test := range []struct {
		name string
		args []string
		env  string
		says []string // each in one line
	}{
		{"unknown plugin", []string{"--registry=locale"}, "", []string{`registry called "locale"`, "--registry", "local"}},
		{"not linked", []string{"--registry=mdns"}, "", []string{`mdns is not linked`, `_ "github.com/plugmicro/micro/registry/mdns"`, "plugins.go", "go build"}},
		{"unknown by environment", nil, "MICRO_BROKER=kafkaesque", []string{"kafkaesque", "MICRO_BROKER"}},
		{"misspelled flag", []string{"--registry-dri=/x"}, "", []string{"--registry-dri", "--registry-dir"}},
		{"option of another plugin", []string{"--registry=memory", "--registry-dir=/x"}, "", []string{"dir", "memory", "local"}},
		{"unparsable duration", []string{"--register-ttl=soon"}, "", []string{`"soon"`, "--register-ttl"}},
		{"unparsable in the environment", nil, "MICRO_DRAIN_TIMEOUT=never", []string{`"never"`, "MICRO_DRAIN_TIMEOUT"}},
		{"unparsable size", []string{"--transport-max-message=big"}, "", []string{`"big"`, "--transport-max-message"}},
		{"interval longer than ttl", []string{"--register-interval=1h"}, "", []string{"register-interval", "register-ttl"}},
		{"argument", []string{"serve"}, "", []string{`"serve"`}},
		{"no such file", []string{"--config=/nowhere.yaml"}, "", []string{"/nowhere.yaml", "no such file"}},
		{"unknown keys", []string{"--config=" + unknownKeys}, "", []string{unknownKeys + ":4", "registry-dri", "did you mean"}},
		{"unknown keys, the other one", []string{"--config=" + unknownKeys}, "", []string{unknownKeys + ":5", "colour"}},
		{"no yaml", []string{"--config=" + noYAML}, "", []string{noYAML}},
		{"address in use", []string{"--address=" + taken.Addr().String()}, "", []string{taken.Addr().String(), "in use"}},
		{"no address", []string{"--address=nowhere:http-ish"}, "", []string{"nowhere:http-ish"}},
		{"unreadable certificate", []string{"--transport-tls-cert=/no.pem", "--transport-tls-key=/no.key"}, "", []string{"/no.pem", "no such file"}},
		{"no certificate", []string{"--transport-tls-cert=" + garbage, "--transport-tls-key=" + garbage}, "", []string{garbage}},
		{"expired certificate", []string{"--transport-tls-cert=" + expired.Cert, "--transport-tls-key=" + expired.Key}, "", []string{expired.Cert, "expired"}},
		{"registry directory open to others", []string{"--registry-dir=" + open(t)}, "", []string{"chmod 700"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			p := m.start([]string{test.env}, "greeter", test.args...)
			select {
			case <-p.done:
			case <-time.After(10 * time.Second):
				require.Fail(t, "it runs", p.out.String())
			}
			require.NotZero(t, p.cmd.ProcessState.ExitCode())
			require.NotContains(t, p.out.String(), "panic")
			require.True(t, anyLine(p.out.String(), test.says), "no line says %q:\n%s", test.says, p.out)
			require.Zero(t, m.nodes("greeter"), "it is registered")
		})
	}
}

func anyLine(text string, parts []string) bool {
	for line := range strings.Lines(text) {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			return true
		}
	}
	return false
}

// open makes a directory that others can write to.
func open(t *testing.T) string {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777))
	return dir
}

// TestMutualTLS serves only those who have a certificate of the right authority.
func TestMutualTLS(t *testing.T) {
	m := newMachine(t)
	own := testcert.New(t).TLS()
	tls := []string{"--transport-tls-ca=" + own.CA, "--transport-tls-cert=" + own.Cert, "--transport-tls-key=" + own.Key, "--transport-tls-mutual"}
	m.start(nil, "greeter", tls...).prints("INFO serving")
	hello := []string{"call", "greeter", "Greeter.Hello", `{"name":"Ada"}`}

	out, errs, code := m.run("micro", append(hello, tls...)...)
	require.Zero(t, code, errs)
	require.Equal(t, `{"message":"Hello, Ada"}`+"\n", out)

	for _, args := range [][]string{nil, {"--transport-tls-ca=" + own.CA}} {
		_, errs, code = m.run("micro", append(append(hello, "--timeout=3s"), args...)...)
		require.NotZero(t, code)
		require.Contains(t, errs, "TLS")
	}
}

// TestForeignPeers lets others than Micro speak to the greeter: it answers its own callers all the same.
func TestForeignPeers(t *testing.T) {
	m := newMachine(t)
	p := m.start(nil, "greeter")
	address := p.address()
	for _, words := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"\xff\xff\xff\xff",
		"\x00\x00\x00\x05hello",
		"\x00\x00\x10\x00cut off",
	} {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		_, err = conn.Write([]byte(words))
		require.NoError(t, err)
		require.NoError(t, conn.(*net.TCPConn).CloseWrite())
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, err = io.Copy(io.Discard, conn) // until the greeter hangs up
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "%q is not hung up on", words)
		conn.Close()
	}
	for range 100 { // connections that say nothing hold up nobody
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		defer conn.Close()
	}
	out, errs, code := m.run("micro", "call", "greeter", "Greeter.Hello", `{"name":"Ada"}`)
	require.Zero(t, code, errs)
	require.Equal(t, `{"message":"Hello, Ada"}`+"\n", out)
}

// TestSignalsWhileStarting has the start hang: a settings file that never comes to its end.
func TestSignalsWhileStarting(t *testing.T) {
	m := newMachine(t)
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	p := m.start(nil, "greeter", "--config="+pipe)
	require.Eventually(t, func() bool { // it waits for somebody to write
		f, err := os.OpenFile(pipe, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err == nil {
			t.Cleanup(func() { f.Close() })
		}
		return err == nil
	}, 10*time.Second, time.Millisecond)
	require.Eventually(t, func() bool {
		p.signal(syscall.SIGTERM)
		select {
		case <-p.done:
			return true
		default:
			return false
		}
	}, 10*time.Second, 50*time.Millisecond, "a second signal does not end it")
}
