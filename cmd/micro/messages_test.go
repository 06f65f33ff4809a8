package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
)

// subscribe starts a subscriber and waits until it is bound.
func (m *machine) subscribe(args ...string) *process {
	m.t.Helper()
	p := m.start("micro", append([]string{"subscribe", "-v"}, args...)...)
	p.err.until(m.t, "subscribed")
	return p
}

func TestPublishSubscribe(t *testing.T) {
	m := newMachine(t)
	text, full := m.subscribe("greetings"), m.subscribe("greetings", "-o", "json", "-n", "1")
	require.Equal(t, result{}, m.micro("publish", "greetings", "{ \"name\":\n\"Ada\" }", "--key", "ada", "--header", "tenant=a=b"))

	require.Equal(t, ada, text.out.next(t))
	var got message
	require.NoError(t, json.Unmarshal([]byte(full.out.next(t)), &got))
	require.NotEmpty(t, got.ID)
	require.Equal(t, message{ID: got.ID, Key: "ada", Header: map[string]string{"Content-Type": "application/json", "tenant": "a=b"},
		Body: map[string]any{"name": "Ada"}}, got)
	require.Zero(t, full.end(), "it ends after -n messages: %s", full.err.text())

	require.Equal(t, result{}, m.micro("publish", "greetings"))
	require.Equal(t, "{}", text.out.next(t))
	require.Equal(t, 130, text.interrupt())
	require.NotContains(t, text.err.text(), "micro: ")
}

// TestPublishStdin loses none of many messages, and keeps those of one key in order.
func TestPublishStdin(t *testing.T) {
	const count = 2000
	m := newMachine(t)
	sub := m.subscribe("numbers", "--count", fmt.Sprint(count))
	var in, want strings.Builder
	for i := range count {
		fmt.Fprintf(&in, "{\"value\":\n%d}", i)
		fmt.Fprintf(&want, "{\"value\":%d}\n", i)
	}
	r := m.microIn(in.String(), "publish", "numbers", "-", "-k", "all", "-o", "json")
	require.Equal(t, exitOK, r.code, r.err)
	require.Zero(t, sub.end(), sub.err.text())
	require.Equal(t, want.String(), sub.out.text()+"\n")

	ids := make(map[string]bool)
	for line := range strings.Lines(r.out) {
		var published struct {
			Topic, ID, Key string
			Body           struct{ Value int }
		}
		require.NoError(t, json.Unmarshal([]byte(line), &published))
		require.Equal(t, len(ids), published.Body.Value)
		require.Equal(t, "numbers all", published.Topic+" "+published.Key)
		ids[published.ID] = true
	}
	require.Len(t, ids, count)
}

// TestSubscribeStopsAtCount leaves what follows to others of its group, and says nothing of it.
func TestSubscribeStopsAtCount(t *testing.T) {
	m := newMachine(t)
	few := m.subscribe("numbers", "--group", "g", "-n", "2")
	publisher := m.start("micro", "publish", "numbers", "-")
	_, err := publisher.stdin.Write([]byte("1 2 3 4 5 6 7 8 9 10 "))
	require.NoError(t, err)
	require.Zero(t, few.end(), few.err.text())
	require.Len(t, few.out.seen, 2)
	require.NotContains(t, few.err.text(), " WARN ")

	rest := m.subscribe("numbers", "--group", "g")
	seen := map[string]bool{few.out.seen[0]: true, few.out.seen[1]: true}
	for len(seen) < 10 {
		seen[rest.out.next(t)] = true
	}
	publisher.stdin.Close()
	require.Zero(t, publisher.end(), publisher.err.text())
}

func TestMessagesRefused(t *testing.T) {
	m := newMachine(t)
	for _, test := range []struct {
		args  []string
		stdin string
		err   string
		code  int
	}{
		{[]string{"publish"}, "", "micro: micro publish takes 1 to 2 arguments, not 0\nhint: write micro publish TOPIC [JSON]\n", exitUsage},
		{[]string{"publish", "t", "no"}, "", "the argument is not JSON", exitUsage},
		{[]string{"publish", "t", "-"}, "", "stdin holds no JSON", exitUsage},
		{[]string{"publish", "t", "-"}, "1 2 x", "stdin is not JSON: value 3", exitUsage},
		{[]string{"publish", "t", "1", "--header", "novalue"}, "", `--header "novalue" is no pair`, exitUsage},
		{[]string{"publish", "a topic", "1"}, "", `micro: publish to "a topic": topic`, exitUsage},
		{[]string{"publish", "t", "1", "--header", "Micro-Secret=1"}, "", "Micro-", exitUsage},
		{[]string{"publish", "t", `"` + strings.Repeat("x", 100) + `"`, "--broker-max-message", "64"}, "", "message too large", exitFailed},
		{[]string{"subscribe"}, "", "takes 1 arguments, not 0\nhint: write micro subscribe TOPIC\n", exitUsage},
		{[]string{"subscribe", "a topic"}, "", `subscribe to "a topic": `, exitUsage},
		{[]string{"subscribe", "t", "--group", "a group"}, "", "a group", exitUsage},
		{[]string{"subscribe", "t", "-n", "-1"}, "", "--count -1: want 1 or more", exitUsage},
	} {
		r := m.microIn(test.stdin, test.args...)
		require.Equal(t, test.code, r.code, "%q: %s", test.args, r.err)
		require.Contains(t, r.err, test.err, "%q", test.args)
		require.True(t, strings.HasPrefix(r.err, "micro: "), r.err)
		require.Empty(t, r.out)
	}
}

func TestPrintMessage(t *testing.T) {
	header := func(t string) map[string]string { return map[string]string{"Content-Type": t} }
	for _, test := range []struct {
		name    string
		message broker.Message
		text    string
		json    string
	}{
		{"JSON", broker.Message{ID: "1", Header: header("application/json"), Body: []byte("{\n \"a\": 1 }\n")},
			`{"a":1}`, `{"id":"1","header":{"Content-Type":"application/json"},"body":{"a":1}}`},
		{"JSON without saying so", broker.Message{ID: "1", Key: "k", Body: []byte("[]")}, `[]`, `{"id":"1","key":"k","body":[]}`},
		{"false JSON", broker.Message{ID: "1", Header: header("application/json"), Body: []byte("{")},
			`{`, `{"id":"1","header":{"Content-Type":"application/json"},"body":"{"}`},
		{"text that looks like JSON", broker.Message{ID: "1", Header: header("text/plain; charset=utf-8"), Body: []byte("17")},
			`17`, `{"id":"1","header":{"Content-Type":"text/plain; charset=utf-8"},"body":"17"}`},
		{"lines", broker.Message{ID: "1", Body: []byte("a\nb\x1b[31m<")}, `a\nb\x1b[31m<`, `{"id":"1","body":"a\nb\u001b[31m<"}`},
		{"bytes", broker.Message{ID: "1", Body: []byte{0xff, 0}}, `\xff\x00`, `{"id":"1","bodyBase64":"/wA="}`},
		{"nothing", broker.Message{ID: "1"}, ``, `{"id":"1","body":""}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			s := &subscriber{app: &app{out: &out, output: asText}}
			require.NoError(t, s.print(&test.message))
			require.Equal(t, test.text+"\n", out.String())
			out.Reset()
			s.output = asJSON
			require.NoError(t, s.print(&test.message))
			require.Equal(t, test.json+"\n", out.String())
		})
	}
}

// TestServerAway has what plugins log look like what the toolkit says itself.
func TestServerAway(t *testing.T) {
	m := &machine{t: t} // without the directory of the local registry
	r := m.micro("publish", "t", "1", "--registry=consul", "--registry-address=127.0.0.1:1")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "micro: WARN ")
	for line := range strings.Lines(r.err) {
		require.True(t, strings.HasPrefix(line, "micro: "), line)
	}
	require.Equal(t, 1, strings.Count(r.err, "publish to"), r.err)
}
