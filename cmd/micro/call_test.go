package main

import (
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

const ada = `{"name":"Ada"}`

func TestCall(t *testing.T) {
	m := newMachine(t)
	address := m.greeter().address()
	idle, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := idle.Addr().String()
	idle.Close()

	for _, test := range []struct {
		name  string
		args  []string
		stdin string
		out   string
		err   string // in stderr; "" means nothing is there
		code  int
	}{
		{name: "call", args: []string{"greeter", "Greeter.Hello", ada}, out: `{"message":"Hello, Ada"}` + "\n"},
		{name: "json", args: []string{"greeter", "Greeter.Hello", ada, "-o", "json"}, out: `{"message":"Hello, Ada"}` + "\n"},
		{name: "stdin", args: []string{"greeter", "Greeter.Hello", "-"}, stdin: "\n" + ada + "\n", out: `{"message":"Hello, Ada"}` + "\n"},
		{name: "no request is {}", args: []string{"greeter", "Greeter.Tenant"}, out: `{"message":""}` + "\n"},
		{name: "metadata", args: []string{"greeter", "Greeter.Tenant", "-m", "Tenant=a=b,c", "--metadata", "x=y"}, out: `{"message":"a=b,c"}` + "\n"},
		{name: "by address", args: []string{"greeter", "Greeter.Hello", ada, "--address", address}, out: `{"message":"Hello, Ada"}` + "\n"},
		{name: "by address without a registry", args: []string{"greeter", "Greeter.Hello", ada, "--address", address, "--registry-dir", "/dev/null/x"}, out: `{"message":"Hello, Ada"}` + "\n"},
		{name: "unknown field", args: []string{"greeter", "Greeter.Hello", `{"name":"Ada","tgas":["x"]}`}, out: `{"message":"Hello, Ada"}` + "\n", err: "micro: Greeter.Hello has no field tgas: did you mean tags?\n"},
		{name: "unknown field by address", args: []string{"greeter", "Greeter.Hello", `{"name":"Ada","tgas":["x"]}`, "--address", address}, out: `{"message":"Hello, Ada"}` + "\n"},
		{name: "unknown field in a stream", args: []string{"greeter", "Numbers.Sum"}, stdin: `{"value":1,"x":1}{"value":2,"x":2}`, out: "{\"value\":3}\n", err: "micro: Numbers.Sum has no field x: it has value\n"},
		{name: "unicode", args: []string{"greeter", "Greeter.Hello", `{"name":"<Zoë> ☃"}`}, out: `{"message":"Hello, <Zoë> ☃"}` + "\n"},

		{name: "server stream", args: []string{"greeter", "Numbers.Count", `{"value":3}`}, out: "{\"value\":1}\n{\"value\":2}\n{\"value\":3}\n"},
		{name: "server stream, request from stdin", args: []string{"greeter", "Numbers.Count", "-"}, stdin: `{"value":1}`, out: "{\"value\":1}\n"},
		{name: "server stream of nothing", args: []string{"greeter", "Numbers.Count"}},
		{name: "client stream", args: []string{"greeter", "Numbers.Sum"}, stdin: "{\"value\":1}\n{\"value\":2}{\"value\":\n3}", out: "{\"value\":6}\n"},
		{name: "client stream, request in place", args: []string{"greeter", "Numbers.Sum", `{"value":1}{"value":2}`}, out: "{\"value\":3}\n"},
		{name: "both ways", args: []string{"greeter", "Numbers.Double", "-"}, stdin: `{"value":1} {"value":2}`, out: "{\"value\":2}\n{\"value\":4}\n"},
		{name: "stream by address", args: []string{"greeter", "Numbers.Count", `{"value":1}`, "--stream", "--address", address}, out: "{\"value\":1}\n"},

		{name: "no JSON", args: []string{"greeter", "Greeter.Hello", "{name:Ada}"}, err: "the argument is not JSON: value 1: invalid character 'n'", code: exitUsage},
		{name: "half of JSON", args: []string{"greeter", "Greeter.Hello", "-"}, stdin: `{"name":`, err: "stdin is not JSON: it ends in the middle of value 1\nhint: write JSON in single quotes", code: exitUsage},
		{name: "nothing on stdin", args: []string{"greeter", "Greeter.Hello", "-"}, err: "stdin holds no JSON", code: exitUsage},
		{name: "two requests", args: []string{"greeter", "Greeter.Hello", ada + ada}, err: "one request is wanted", code: exitUsage},
		{name: "no JSON in a stream", args: []string{"greeter", "Numbers.Double"}, stdin: `{"value":1}x`, out: "…", err: "stdin is not JSON: value 2", code: exitUsage},
		{name: "no pair", args: []string{"greeter", "Greeter.Hello", ada, "--metadata", "tenant"}, err: `--metadata "tenant" is no pair` + "\nhint: write --metadata key=value", code: exitUsage},
		{name: "no time", args: []string{"greeter", "Greeter.Hello", ada, "--timeout", "0s"}, err: "--timeout 0s: want more than 0", code: exitUsage},
		{name: "unparsable time", args: []string{"greeter", "Greeter.Hello", ada, "--timeout", "soon"}, err: `invalid argument "soon" for "--timeout" flag: it is not a duration: write it like 300ms, 5s or 1h30m`, code: exitUsage},
		{name: "too few arguments", args: []string{"greeter"}, err: "micro call takes 2 to 3 arguments, not 1\nhint: write micro call SERVICE ENDPOINT [JSON]", code: exitUsage},

		{name: "refused by the endpoint", args: []string{"greeter", "Greeter.Hello"}, err: "micro: greeter Greeter.Hello: InvalidArgument: name is empty\nhint: micro services greeter", code: exitAnswer},
		{name: "wrong type", args: []string{"greeter", "Greeter.Hello", `{"name":1}`}, err: "InvalidArgument: decode the request of Greeter.Hello", code: exitAnswer},
		{name: "an error that draws", args: []string{"greeter", "Greeter.Fail"}, err: `micro: greeter Greeter.Fail: NotFound: nobody \x1b[31mhere` + "\n", code: exitAnswer},
		{name: "error in a stream", args: []string{"greeter", "Numbers.Double", `{"value":1}{"value":-1}`}, out: "{\"value\":2}\n", err: "Unknown: below zero", code: exitAnswer},

		{name: "no such service", args: []string{"greter", "Greeter.Hello"}, err: `micro: no service "greter" in registry local` + "\nhint: did you mean greeter?\n", code: exitNoAnswer},
		{name: "nothing like it", args: []string{"accounts", "Accounts.Get"}, err: `no service "accounts" in registry local` + "\nhint: micro services lists", code: exitNoAnswer},
		{name: "no such endpoint", args: []string{"greeter", "hello"}, err: `service "greeter" has no endpoint "hello"` + "\nhint: did you mean Greeter.Hello? it has Greeter.Fail, Greeter.Hello, ", code: exitNoAnswer},
		{name: "no such endpoint by address", args: []string{"greeter", "Greeter.Bye", "--address", address}, err: `service "greeter" has no endpoint "Greeter.Bye"` + "\n", code: exitNoAnswer},
		{name: "stream as a call", args: []string{"greeter", "Numbers.Count", "--address", address}, err: "is a stream of answers\nhint: add --stream\n", code: exitNoAnswer},
		{name: "call as a stream", args: []string{"greeter", "Greeter.Hello", ada, "--stream", "--address", address}, err: "is a call, not a stream", code: exitNoAnswer},
		{name: "another service", args: []string{"accounts", "Accounts.Get", "--address", address}, err: `"greeter"`, code: exitNoAnswer},
		{name: "nobody there", args: []string{"greeter", "Greeter.Hello", "--address", nobody}, err: "micro: Unavailable: call greeter Greeter.Hello at " + nobody, code: exitNoAnswer},
		{name: "no answer in time", args: []string{"greeter", "Greeter.Wait", "--timeout", "100ms"}, err: "--timeout is 100ms", code: exitNoAnswer},
		{name: "stream without end", args: []string{"greeter", "Numbers.Count", `{"value":-1}`, "--timeout", "100ms"}, out: "…", err: "DeadlineExceeded", code: exitNoAnswer},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := *m
			m.t = t
			r := m.microIn(test.stdin, append([]string{"call"}, test.args...)...)
			require.Equal(t, test.code, r.code, r.err)
			if test.out != "…" {
				require.Equal(t, test.out, r.out)
			}
			if test.err == "" {
				require.Empty(t, r.err)
			}
			require.Contains(t, r.err, test.err)
		})
	}
}

func TestCallOnEmptyRegistry(t *testing.T) {
	r := newMachine(t).micro("call", "greeter", "Greeter.Hello")
	require.Equal(t, exitNoAnswer, r.code)
	require.Contains(t, r.err, "hint: no service is registered there: start one")
}

// TestCallConversation answers each request before the next one is typed.
func TestCallConversation(t *testing.T) {
	m := newMachine(t)
	m.greeter()
	p := m.start("micro", "call", "greeter", "Numbers.Double")
	for _, test := range []struct{ say, hear string }{{`{"value":1}`, `{"value":2}`}, {`{"value":5}`, `{"value":10}`}} {
		_, err := p.stdin.Write([]byte(test.say + "\n"))
		require.NoError(t, err)
		require.Equal(t, test.hear, p.out.next(t))
	}
	p.stdin.Close()
	require.Zero(t, p.end(), p.err.text())
}

// TestCallEndsBeforeStdin leaves when the service has ended the stream, though there could be more to send.
func TestCallEndsBeforeStdin(t *testing.T) {
	m := newMachine(t)
	m.greeter()
	p := m.start("micro", "call", "greeter", "Numbers.Double")
	_, err := p.stdin.Write([]byte(`{"value":-1}`))
	require.NoError(t, err)
	require.Equal(t, exitAnswer, p.end())
	require.Contains(t, p.err.text(), "below zero")
}

func TestCallInterrupted(t *testing.T) {
	m := newMachine(t)
	greeter := m.greeter()
	p := m.start("micro", "call", "greeter", "Greeter.Wait")
	require.Equal(t, "waiting", greeter.out.next(t))
	require.Equal(t, 130, p.interrupt())
	require.Empty(t, p.err.text())
	require.Equal(t, "given up", greeter.out.next(t))
}

func TestTerminated(t *testing.T) {
	m := newMachine(t)
	p := m.subscribe("greetings")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.Equal(t, 143, p.end())
}

func TestOutputCannotBeWritten(t *testing.T) {
	m := newMachine(t)
	m.greeter()
	for _, args := range [][]string{
		{"call", "greeter", "Greeter.Hello", ada}, {"services"}, {"services", "greeter"}, {"services", "-w"}, {"config"}, {"plugins"}, {"version"},
	} {
		cmd := m.command("micro", args...)
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Skip("this system has no /dev/full")
		}
		cmd.Stdout = full
		err = cmd.Run()
		full.Close()
		require.Error(t, err, "%q", args)
		require.Equal(t, exitFailed, cmd.ProcessState.ExitCode(), "%q", args)
	}
}

// TestReaderLeaves ends a stream without end when nobody reads it any more, as in: micro call … | head -1
func TestReaderLeaves(t *testing.T) {
	m := newMachine(t)
	m.greeter()
	cmd := m.command("micro", "call", "greeter", "Numbers.Count", `{"value":-1}`)
	read, write, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stdout = write
	require.NoError(t, cmd.Start())
	write.Close()
	_, err = read.Read(make([]byte, 10))
	require.NoError(t, err)
	read.Close()
	require.Error(t, cmd.Wait(), "it is ended by SIGPIPE, as programs in a pipe are")
}
