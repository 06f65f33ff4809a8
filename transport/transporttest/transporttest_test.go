//go:build unix

package transporttest_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/suite"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/transport"
	"github.com/plugmicro/micro/transport/memory"
	"github.com/plugmicro/micro/transport/tcp"
	"github.com/plugmicro/micro/transport/transporttest"
)

// What the tests are called that mutants are noticed by.
const (
	inOrder       = "messages arrive in order both ways at once"
	sizes         = "empty, binary and largest messages arrive"
	tooLarge      = "a message that is too large is refused and the connection stays usable"
	concurrent    = "concurrent senders lose and mix nothing"
	notAliased    = "a message may be changed once Send returned"
	staysValid    = "a received message stays until the next Recv"
	sendContext   = "the end of a context ends Send and leaves the connection usable"
	slowReader    = "a peer that does not receive makes Send wait in bounded memory"
	halfClose     = "each direction ends by itself"
	flushes       = "what was sent before Close arrives"
	peerIsTold    = "the peer of a closed connection is told"
	afterClose    = "calls after Close are refused"
	churn         = "many connections leave nothing behind"
	leavesNothing = "a transport leaves nothing behind at its backend"
	unreachable   = "an address where nobody listens is an error at once"
	inUse         = "an address is given once"
	limits        = "limits are those of the options"
	refused       = "who has not the right credentials is refused, and holds up nobody"
	killed        = "the peer of a connection that dies is told that it is lost"
	processKilled = "the death of the peer's process is noticed"
	processFrozen = "a peer whose process is frozen takes no more than fits, and goes on or is lost"
	frozenClose   = "Close does not wait for a peer whose process is frozen"
	restarted     = "after a restart of the backend peers connect again"
	restartLoad   = "a restart of the backend under load loses and repeats nothing unnoticed"
	paused        = "contexts end calls while the backend is frozen"
	pausedClose   = "Close does not wait for a backend that is frozen"
	partitioned   = "after a partition peers connect again"
)

// A mutant is a transport that breaks one promise. The suite must notice in the tests that are named.
var mutants = map[string]struct {
	noticed []string
	mutate  func(*mutant)
}{
	"loses one in a hundred": {[]string{inOrder, concurrent}, func(m *mutant) {
		var n atomic.Int32
		m.send = func(ctx context.Context, c transport.Conn, msg []byte) error {
			if n.Add(1)%100 == 0 {
				return nil
			}
			return c.Send(ctx, msg)
		}
	}},
	"sends twice after a restart": {[]string{restartLoad}, func(m *mutant) {
		m.send = func(ctx context.Context, c transport.Conn, msg []byte) error {
			if m.faults.Load() > 0 {
				return nil
			}
			return c.Send(ctx, msg)
		}
		m.recv = func(ctx context.Context, c transport.Conn) ([]byte, error) {
			msg, err := c.Recv(ctx)
			if err != nil && m.faults.Load() > 0 { // as if the peer had said something, and then closed
				if m.lies.Add(1)%2 == 1 {
					return []byte("again"), nil
				}
				return nil, io.EOF
			}
			return msg, err
		}
	}},
	"cuts what is large": {[]string{sizes}, func(m *mutant) {
		m.send = func(ctx context.Context, c transport.Conn, msg []byte) error {
			return c.Send(ctx, msg[:min(len(msg), 100_000)])
		}
	}},
	"takes what is too large": {[]string{tooLarge, limits}, func(m *mutant) {
		m.send = func(ctx context.Context, c transport.Conn, msg []byte) error {
			if err := c.Send(ctx, msg); !errors.Is(err, transport.ErrTooLarge) {
				return err
			}
			return nil
		}
	}},
	"sends later": {[]string{notAliased, flushes}, func(m *mutant) {
		m.send = func(ctx context.Context, c transport.Conn, msg []byte) error {
			last := m.held.Swap(&msg)
			if last == nil {
				return nil
			}
			return c.Send(ctx, *last)
		}
	}},
	"has one buffer for all": {[]string{staysValid}, func(m *mutant) {
		m.recv = func(ctx context.Context, c transport.Conn) ([]byte, error) {
			msg, err := c.Recv(ctx)
			return m.buffer[:copy(m.buffer[:], msg)], err
		}
	}},
	"heeds no context": {[]string{sendContext}, func(m *mutant) {
		m.send = func(ctx context.Context, c transport.Conn, msg []byte) error {
			return c.Send(context.WithoutCancel(ctx), msg)
		}
	}},
	"never waits": {[]string{slowReader, paused, processFrozen}, func(m *mutant) {
		m.send = func(ctx context.Context, c transport.Conn, msg []byte) error {
			m.hoard = append(m.hoard, append([]byte(nil), msg...))
			return nil
		}
	}},
	"closes both directions": {[]string{halfClose}, func(m *mutant) { m.closeSend = transport.Conn.Close }},
	"does not close":         {[]string{peerIsTold, afterClose}, func(m *mutant) { m.close = func(transport.Conn) error { return nil } }},
	"waits for an answer":    {[]string{frozenClose, pausedClose}, func(m *mutant) { m.close = waitForEnd }},
	"takes its time":         {[]string{unreachable}, func(m *mutant) { m.dialError = func(ctx context.Context, err error) error { <-ctx.Done(); return err } }},
	"names no address":       {[]string{unreachable}, func(m *mutant) { m.dialError = func(context.Context, error) error { return transport.ErrUnreachable } }},
	"shares addresses":       {[]string{inUse}, func(m *mutant) { m.twice = true }},
	"leaves descriptors":     {[]string{churn}, func(m *mutant) { m.dialed = func() { f, _ := os.Open(os.DevNull); m.files.Store(f, nil) } }},
	"leaves queues":          {[]string{churn, leavesNothing}, func(m *mutant) { m.dialed = func() { m.queues.Add(1) } }},
	"leaves goroutines":      {[]string{inOrder}, func(m *mutant) { m.dialed = func() { go func() { select {} }() } }},
	"lets everybody in":      {[]string{refused}, func(m *mutant) { m.open = true }},
	"tells nobody of death":  {[]string{killed, processKilled}, func(m *mutant) { m.recv = eternal }},
	"takes death for the end": {[]string{killed, processKilled}, func(m *mutant) {
		m.recv = func(ctx context.Context, c transport.Conn) ([]byte, error) {
			msg, err := c.Recv(ctx)
			if err != nil && ctx.Err() == nil {
				err = io.EOF
			}
			return msg, err
		}
	}},
	"does not come back": {[]string{restarted, partitioned}, func(m *mutant) { m.gone = true }},
}

// eternal waits for ever where it should tell that the connection is lost.
func eternal(ctx context.Context, c transport.Conn) ([]byte, error) {
	msg, err := c.Recv(ctx)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, transport.ErrClosed) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return msg, err
}

// waitForEnd is a Close that wants the peer to have said its last.
func waitForEnd(c transport.Conn) error {
	_ = c.CloseSend()
	for {
		if _, err := c.Recv(context.Background()); err != nil {
			return c.Close()
		}
	}
}

// The names of environment variables that make this binary another program.
const (
	mutantEnv = "TRANSPORTTEST_MUTANT"
	echoEnv   = "TRANSPORTTEST_ECHO"
)

func TestMain(m *testing.M) {
	if os.Getenv(echoEnv) != "" {
		l, err := openTCP().Listen(context.Background(), "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		fmt.Println(l.Addr())
		transporttest.Echo(l)
	}
	os.Exit(m.Run())
}

// TestSuite has no mutant: all tests pass.
func TestSuite(t *testing.T) {
	t.Setenv(suite.Env, "") // it is no plugin
	run(t, &mutant{}, 30*time.Second)
}

// TestSuiteNotices runs the suite on each mutant, in a process of its own as it is to fail.
func TestSuiteNotices(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var quoted []string
			for _, test := range m.noticed {
				quoted = append(quoted, regexp.QuoteMeta(strings.ReplaceAll(test, " ", "_")))
			}
			only := "^TestMutant$/^(" + strings.Join(quoted, "|") + ")$"
			cmd := exec.CommandContext(t.Context(), self, "-test.run="+only, "-test.v", "-test.timeout=2m")
			cmd.Env = append(os.Environ(), mutantEnv+"="+name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "%s", out)
			require.False(t, strings.Contains(string(out), "DATA RACE"), "the mutant itself is wrong: it may die of that before anything is noticed")
			for _, test := range m.noticed {
				require.Contains(t, string(out), "--- FAIL: TestMutant/"+strings.ReplaceAll(test, " ", "_")+" ")
			}
		})
	}
}

// TestMutant is what TestSuiteNotices runs.
func TestMutant(t *testing.T) {
	chosen, ok := mutants[os.Getenv(mutantEnv)]
	if !ok {
		return
	}
	t.Setenv(suite.Env, "")
	m := &mutant{}
	chosen.mutate(m)
	run(t, m, 2*time.Second)
}

// mutant is what all transports of one run have in common: parts of them can be replaced.
type mutant struct {
	send      func(context.Context, transport.Conn, []byte) error
	recv      func(context.Context, transport.Conn) ([]byte, error)
	closeSend func(transport.Conn) error
	close     func(transport.Conn) error
	dialed    func()
	dialError func(context.Context, error) error
	twice     bool // addresses can be listened on twice
	open      bool // to those without a certificate
	gone      bool // after a fault

	faults, lies, queues atomic.Int32
	held                 atomic.Pointer[[]byte]
	buffer               [1 << 20]byte
	hoard                [][]byte
	files                sync.Map // that nobody closes, and the collector must not
}

func run(t *testing.T, m *mutant, timeout time.Duration) {
	mem, err := memory.NewPrivate(memory.Config{})
	require.NoError(t, err)
	n := &network{mem: mem, tcp: openTCP(), mutant: m, links: map[string]*link{}, thawed: make(chan struct{})}
	close(n.thawed)
	open := func(testing.TB) transport.Transport { return n }
	transporttest.Run(t, transporttest.Harness{
		Open:        open,
		Connections: 50,
		Messages:    1000,
		Timeout:     timeout,
		Left:        func(testing.TB) int { return int(m.queues.Load()) },
		Refused: map[string]func(testing.TB) (transport.Transport, error){"no certificate": func(t testing.TB) (transport.Transport, error) {
			if m.open {
				return open(t), nil
			}
			return nil, errors.New("it has no certificate")
		}},
		Kill:      func(_ testing.TB, c transport.Conn) { c.(*conn).link.lose() },
		Spawn:     spawn,
		Restart:   func(testing.TB) { n.cut()() },
		Pause:     func(testing.TB) func() { return n.freeze() },
		Partition: func(testing.TB, transport.Transport) func() { return n.cut() },
	})
}

func openTCP() transport.Transport {
	tr, err := tcp.New(new(plugin.Env), tcp.Config{})
	if err != nil {
		panic(err)
	}
	return tr
}

func spawn(t testing.TB) transporttest.Process {
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), echoEnv+"=yes")
	return transporttest.Start(t, cmd)
}

// network is the memory transport, with faults, and TCP to other processes.
type network struct {
	mem, tcp transport.Transport
	mutant   *mutant

	mu     sync.Mutex
	links  map[string]*link
	broken bool
	thawed chan struct{} // closed while messages may pass
}

// link is what the ends of a connection have in common.
type link struct {
	lost chan struct{}
	lose func()
}

func newLink() *link {
	l := &link{lost: make(chan struct{})}
	l.lose = sync.OnceFunc(func() { close(l.lost) })
	return l
}

var errLost = errors.New("connection lost")

func (n *network) cut() (heal func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mutant.faults.Add(1)
	n.broken = true
	for id, l := range n.links {
		l.lose()
		delete(n.links, id)
	}
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.broken = n.mutant.gone
	}
}

func (n *network) freeze() (thaw func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mutant.faults.Add(1)
	frozen := make(chan struct{})
	n.thawed = frozen
	return func() { close(frozen) }
}

func (n *network) free() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.thawed
}

func (n *network) String() string { return "network" }

func (n *network) Dial(ctx context.Context, addr string, opts ...transport.DialOption) (transport.Conn, error) {
	l, id := newLink(), rand.Text()
	n.mu.Lock()
	broken := n.broken
	n.links[id] = l
	n.mu.Unlock()
	if broken {
		return nil, errLost
	}
	tr := n.mem
	if strings.HasPrefix(addr, "127.0.0.1:") {
		tr = n.tcp
	}
	c, err := tr.Dial(ctx, addr, opts...)
	if err != nil {
		if n.mutant.dialError != nil && errors.Is(err, transport.ErrUnreachable) {
			err = n.mutant.dialError(ctx, err)
		}
		return nil, err
	}
	if n.mutant.dialed != nil {
		n.mutant.dialed()
	}
	if tr == n.mem {
		if err := c.Send(ctx, []byte(id)); err != nil {
			return nil, err
		}
	}
	return &conn{Conn: c, n: n, link: l}, nil
}

func (n *network) Listen(ctx context.Context, addr string, opts ...transport.ListenOption) (transport.Listener, error) {
	l, err := n.mem.Listen(ctx, addr, opts...)
	if n.mutant.twice && errors.Is(err, transport.ErrAddrInUse) {
		l, err = n.mem.Listen(ctx, "", opts...)
	}
	if err != nil {
		return nil, err
	}
	return &listener{l, n}, nil
}

type listener struct {
	transport.Listener
	n *network
}

func (l *listener) Accept(ctx context.Context) (transport.Conn, error) {
	c, err := l.Listener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	id, err := c.Recv(ctx)
	if err != nil {
		return nil, err
	}
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	link := l.n.links[string(id)]
	if link == nil {
		return nil, errLost
	}
	return &conn{Conn: c, n: l.n, link: link}, nil
}

type conn struct {
	transport.Conn
	n      *network
	link   *link
	closed atomic.Bool
	ending sync.Mutex // held by a mutant's Close, which may receive: one at a time may
}

// call gives a call up when the connection is lost.
func (c *conn) call(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-c.link.lost:
			cancel(errLost)
		case <-over:
		}
	}()
	err := f(ctx)
	if c.closed.Load() {
		return err
	}
	select {
	case <-c.link.lost:
		return errLost
	default:
		return err
	}
}

func (c *conn) Send(ctx context.Context, msg []byte) error {
	return c.call(ctx, func(ctx context.Context) error {
		if send := c.n.mutant.send; send != nil {
			return send(ctx, c.Conn, msg)
		}
		return c.Conn.Send(ctx, msg)
	})
}

func (c *conn) Recv(ctx context.Context) (msg []byte, err error) {
	recv := c.n.mutant.recv
	if recv == nil {
		recv = func(ctx context.Context, c transport.Conn) ([]byte, error) { return c.Recv(ctx) }
	}
	return recv(ctx, receiver{c.Conn, c})
}

// receiver receives what is not held up.
type receiver struct {
	transport.Conn
	c *conn
}

func (r receiver) Recv(ctx context.Context) (msg []byte, err error) {
	err = r.c.call(ctx, func(ctx context.Context) error {
		if !r.c.closed.Load() {
			select {
			case <-r.c.n.free():
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		msg, err = r.Conn.Recv(ctx)
		return err
	})
	return msg, err
}

func (c *conn) CloseSend() error {
	if c.n.mutant.closeSend != nil {
		return c.n.mutant.closeSend(c.Conn)
	}
	return c.Conn.CloseSend()
}

func (c *conn) Close() error {
	c.closed.Store(true)
	if c.n.mutant.close != nil {
		c.ending.Lock()
		defer c.ending.Unlock()
		return c.n.mutant.close(receiver{c.Conn, &conn{Conn: c.Conn, n: c.n, link: c.link}})
	}
	return c.Conn.Close()
}
