package direct

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry/local"
	"github.com/plugmicro/micro/transport/tcp"
)

// The tests in this file run real processes: this test binary again, with a role.
const roleVar = "DIRECT_TEST_ROLE"

// role is what a process does.
type role struct {
	Dir    string // of the registry
	Config Config
	Topic  string

	// A subscriber appends a line "NAME KEY BODY" to Log for each message that it has handled, until its stdin ends.
	Name, Group, Log string
	Work             time.Duration // takes each message

	Publish, Keys int // a publisher: that many messages, with bodies 0, 1, 2, … for each key
}

func process(arg string) int {
	if err := play(arg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func play(arg string) error {
	var r role
	if err := json.Unmarshal([]byte(arg), &r); err != nil {
		return err
	}
	reg, err := local.Open(r.Dir, nil)
	if err != nil {
		return err
	}
	defer reg.Close()
	tr, err := tcp.New(new(plugin.Env), tcp.Config{})
	if err != nil {
		return err
	}
	b, err := Open(reg, tr, r.Config, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		return err
	}
	if r.Publish > 0 {
		err = r.publish(b)
	} else {
		err = r.subscribe(b)
	}
	if err != nil {
		return err
	}
	return b.Close()
}

func (r *role) publish(b *Broker) error {
	for i := range r.Publish {
		m := &broker.Message{Body: fmt.Append(nil, i)}
		if r.Keys > 0 {
			m.Key, m.Body = fmt.Sprint("key-", i%r.Keys), fmt.Append(nil, i/r.Keys)
		}
		if err := b.Publish(context.Background(), r.Topic, m); err != nil {
			return err
		}
	}
	return nil
}

func (r *role) subscribe(b *Broker) error {
	log, err := os.OpenFile(r.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	var opts []broker.SubscribeOption
	if r.Group != "" {
		opts = append(opts, broker.Group(r.Group))
	}
	_, err = b.Subscribe(context.Background(), r.Topic, func(_ context.Context, m *broker.Message) error {
		if r.Work > 0 {
			time.Sleep(r.Work)
		}
		_, err := fmt.Fprintf(log, "%s %s %s\n", r.Name, m.Key, m.Body)
		return err
	}, opts...)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return nil
}

// cluster is processes on one registry.
type cluster struct {
	*testing.T
	dir    string
	config Config
}

func newCluster(t *testing.T, c Config) *cluster {
	return &cluster{t, t.TempDir(), loopback(c)}
}

type running struct {
	*exec.Cmd
	t    *cluster
	stop func() error // ends stdin
	out  *bytes.Buffer
}

// start runs a process, and returns at once if it is a publisher, or when it has subscribed.
func (c *cluster) start(r role) *running {
	c.Helper()
	r.Dir, r.Config = c.dir+"/registry", c.config
	arg, err := json.Marshal(r)
	require.NoError(c, err)
	p := &running{Cmd: exec.Command(os.Args[0]), t: c, out: &bytes.Buffer{}}
	p.Env = append(os.Environ(), roleVar+"="+string(arg))
	p.Stderr = p.out
	in, err := p.StdinPipe()
	require.NoError(c, err)
	p.stop = in.Close
	out, err := p.StdoutPipe()
	require.NoError(c, err)
	require.NoError(c, p.Start())
	c.Cleanup(func() {
		if p.ProcessState == nil {
			_ = p.Process.Kill()
			_ = p.Wait()
		}
	})
	if r.Publish == 0 {
		_, err := out.Read(make([]byte, 16))
		require.NoError(c, err, "the subscriber says that it is ready")
	}
	return p
}

// end closes a subscriber in good order.
func (p *running) end() {
	p.t.Helper()
	require.NoError(p.t, p.stop())
	p.done()
}

// done waits for a process to succeed.
func (p *running) done() {
	p.t.Helper()
	require.NoError(p.t, p.Wait(), "%s", p.out)
}

// kill is kill -9.
func (p *running) kill() {
	require.NoError(p.t, p.Process.Kill())
	_ = p.Wait()
}

func (p *running) signal(s syscall.Signal) { require.NoError(p.t, p.Process.Signal(s)) }

// line is one message that was handled.
type line struct{ member, key, body string }

// handled returns what the subscribers that share a log have done, in order.
func (c *cluster) handled(log string) []line {
	data, err := os.ReadFile(log)
	require.NoError(c, err)
	var lines []line
	for text := range strings.Lines(string(data)) {
		var l line
		parts := strings.Split(strings.TrimSuffix(text, "\n"), " ")
		l.member, l.key, l.body = parts[0], parts[1], parts[2]
		lines = append(lines, l)
	}
	return lines
}

// by counts what a member has done; "" is all of them.
func (c *cluster) by(member, log string) int {
	data, err := os.ReadFile(log)
	require.NoError(c, err)
	if member == "" {
		return bytes.Count(data, []byte("\n"))
	}
	return bytes.Count(data, []byte("\n"+member+" "))
}

func (c *cluster) eventually(cond func() bool, what string) {
	c.Helper()
	require.Eventually(c, cond, time.Minute, 10*time.Millisecond, what)
}

// complete checks that all of n messages with so many keys were handled, each for the first time after its predecessor
// of the same key, and returns how many were handled again.
func (c *cluster) complete(log string, n, keys int) (again int) {
	c.Helper()
	seen := map[string]int{} // by key: the next body that is new
	distinct := 0
	for _, l := range c.handled(log) {
		var body int
		_, err := fmt.Sscan(l.body, &body)
		require.NoError(c, err)
		switch {
		case body == seen[l.key]:
			seen[l.key]++
			distinct++
		case body < seen[l.key]:
			again++
		default:
			require.FailNow(c, "out of order", "%s: %d came before %d", l.key, body, seen[l.key])
		}
	}
	require.Equal(c, n, distinct, "messages were lost")
	require.Len(c, seen, keys)
	return again
}

func TestKilledMembersWorkIsDone(t *testing.T) {
	const messages, keys = 20_000, 200
	c := newCluster(t, Config{})
	group, other, all := c.dir+"/group", c.dir+"/other", c.dir+"/all"
	members := []*running{}
	for _, name := range []string{"a", "b", "c"} {
		members = append(members, c.start(role{Name: name, Topic: "t", Group: "g", Log: group}))
	}
	second := c.start(role{Name: "d", Topic: "t", Group: "h", Log: other})
	alone := c.start(role{Name: "e", Topic: "t", Log: all})
	publisher := c.start(role{Topic: "t", Publish: messages, Keys: keys})
	c.eventually(func() bool { return c.by("", group) > messages/3 }, "a third of the work")
	members[0].kill()
	c.eventually(func() bool { return c.by("", group) > messages/2 }, "half of the work")
	late := c.start(role{Name: "late", Topic: "t", Group: "g", Log: group})
	publisher.done()

	again := c.complete(group, messages, keys)
	t.Logf("a, b, c, late did %d, %d, %d, %d, some of it twice: %d", c.by("a", group), c.by("b", group), c.by("c", group),
		c.by("late", group), again)
	require.LessOrEqual(t, again, 1024, "more was handled twice than a member can have without an ack")
	require.Zero(t, c.complete(other, messages, keys), "a group without trouble handles nothing twice")
	require.Zero(t, c.complete(all, messages, keys), "a subscriber without trouble handles nothing twice")
	for _, p := range append(members[1:], second, alone, late) {
		p.end()
	}
}

func TestMembersThatLeaveLoseNothing(t *testing.T) {
	const messages, keys = 10_000, 100
	c := newCluster(t, Config{})
	log := c.dir + "/log"
	old := c.start(role{Name: "0", Topic: "t", Group: "g", Log: log})
	publisher := c.start(role{Topic: "t", Publish: messages, Keys: keys})
	for i := range 5 { // a rolling restart
		progress := c.by("", log)
		c.eventually(func() bool { n := c.by("", log); return n > progress+500 || n >= messages }, "progress")
		next := c.start(role{Name: fmt.Sprint(i + 1), Topic: "t", Group: "g", Log: log})
		old.end()
		old = next
	}
	publisher.done()
	require.Zero(t, c.complete(log, messages, keys), "nothing is handled twice when members leave in good order")
	old.end()
}

func TestGroupThatComesBackFindsItsMessages(t *testing.T) {
	const messages, keys = 3000, 30
	c := newCluster(t, Config{Grace: time.Minute})
	log := c.dir + "/log"
	old := c.start(role{Name: "old", Topic: "t", Group: "g", Log: log})
	publisher := c.start(role{Topic: "t", Publish: messages, Keys: keys})
	c.eventually(func() bool { return c.by("", log) > messages/3 }, "a third of the work")
	old.kill()
	c.start(role{Name: "new", Topic: "t", Group: "g", Log: log})
	publisher.done()
	c.complete(log, messages, keys)
}

func TestFrozenMemberIsRelieved(t *testing.T) {
	const messages, keys = 3000, 30
	c := newCluster(t, Config{Timeout: 2 * time.Second})
	log := c.dir + "/log"
	frozen := c.start(role{Name: "frozen", Topic: "t", Group: "g", Log: log})
	c.start(role{Name: "other", Topic: "t", Group: "g", Log: log})
	publisher := c.start(role{Topic: "t", Publish: messages, Keys: keys})
	c.eventually(func() bool { return c.by("frozen", log) > 100 }, "some work")
	frozen.signal(syscall.SIGSTOP)
	publisher.done() // it waits for all acks
	seen := map[line]bool{}
	for _, l := range c.handled(log) {
		seen[line{key: l.key, body: l.body}] = true
	}
	require.Len(t, seen, messages)
	frozen.signal(syscall.SIGCONT)
	frozen.end()
}

func TestPublisherThatEndsAtOnceReachesEverybody(t *testing.T) {
	c := newCluster(t, Config{})
	logs := []string{c.dir + "/a", c.dir + "/b"}
	for _, log := range logs {
		c.start(role{Name: "x", Topic: "t", Log: log})
	}
	for range 3 {
		c.start(role{Topic: "t", Publish: 1, Keys: 1}).done()
	}
	for _, log := range logs {
		require.Len(t, c.handled(log), 3)
	}
}
