package kafka

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
)

const clientID = "micro"

// bootstrap is the address of any server of the settings, for kafka-go: by itself it would take the first that accepts a
// connection, and go on failing with it if it is one that hangs.
const bootstrap = "bootstrap:0"

// askNext is how long a server may take to answer before the next one is asked too.
const askNext = 500 * time.Millisecond

// conns dials the connections of one owner and can end all of them, which ends every wait of kafka-go that knows no
// context: joining a group, leaving it, a request under way.
type conns struct {
	dialer func(ctx context.Context, network, addr string) (net.Conn, error)
	tls    *tls.Config // nil: none
	seeds  *seeds
	limit  time.Duration // of a read or write for which kafka-go sets none: it sets none while it authenticates

	dialing context.Context // ends with close
	end     context.CancelFunc
	reached atomic.Bool // somebody has accepted a connection

	mu   sync.Mutex
	open map[*conn]struct{}
}

// seeds are the servers of the settings.
type seeds struct {
	addrs []string
	first atomic.Int64 // index of the one to ask first: at the beginning any, so that not all clients have the same
}

func newConns(limit time.Duration, secure *tls.Config, addrs []string) *conns {
	c := &conns{tls: secure, seeds: &seeds{addrs: addrs}, limit: limit}
	c.dialer = (&net.Dialer{Timeout: limit / 2}).DialContext // so that there is time for another try
	c.seeds.first.Store(rand.Int64N(int64(len(addrs))))
	return c.another()
}

// another has the same settings, and connections of its own.
func (c *conns) another() *conns {
	own := &conns{dialer: c.dialer, tls: c.tls, seeds: c.seeds, limit: c.limit, open: map[*conn]struct{}{}}
	own.dialing, own.end = context.WithCancel(context.Background())
	return own
}

// dial connects with TLS, if that is set.
func (c *conns) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.dialing, cancel)()
	if addr == bootstrap {
		var err error
		if addr, err = c.pick(ctx); err != nil {
			return nil, err
		}
	}
	return c.connect(ctx, network, addr)
}

// pick is the address of a server that answers. One that hangs accepts connections, so that each is asked something.
func (c *conns) pick(ctx context.Context) (string, error) {
	n := len(c.seeds.addrs)
	if n == 1 {
		return c.seeds.addrs[0], nil
	}
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	type answer struct {
		from int
		err  error
	}
	answers := make(chan answer, n)
	first, asked, failed := int(c.seeds.first.Load()), 0, 0
	var failure error
	next := time.NewTimer(0)
	defer next.Stop()
	for failed < n {
		select {
		case <-next.C:
			if asked == n {
				continue
			}
			i := (first + asked) % n
			asked++
			asking.Go(func() { answers <- answer{i, c.ask(ctx, c.seeds.addrs[i])} })
			next.Reset(askNext)
		case a := <-answers:
			if a.err == nil {
				c.seeds.first.Store(int64(a.from))
				return c.seeds.addrs[a.from], nil
			}
			if failed++; !final(failure) { // which says what is to be mended
				failure = a.err
			}
			next.Reset(0)
		}
	}
	return "", failure
}

// ask fails unless a server of Kafka answers, whoever asks.
func (c *conns) ask(ctx context.Context, addr string) error {
	conn, err := c.connect(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	_, err = protocol.NewConn(conn, clientID).RoundTrip(new(apiversions.Request))
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (c *conns) connect(ctx context.Context, network, addr string) (net.Conn, error) {
	raw, err := c.dialer(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c.reached.Store(true)
	n, err := c.own(raw)
	if err != nil || c.tls == nil {
		return n, err
	}
	config := c.tls.Clone()
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(addr)
	}
	secure := tls.Client(n, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		n.Close()
		return nil, err
	}
	return secure, nil
}

func (c *conns) own(raw net.Conn) (net.Conn, error) {
	n := &conn{Conn: raw, owner: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dialing.Err() != nil {
		raw.Close()
		return nil, net.ErrClosed
	}
	c.open[n] = struct{}{}
	return n, nil
}

// close ends all connections, and every further one at once.
func (c *conns) close() {
	c.end()
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range c.open {
		n.Conn.Close()
	}
}

// conn never waits longer than its owner's limit, unless it was told to.
type conn struct {
	net.Conn
	owner *conns

	mu          sync.Mutex
	read, write bool // a deadline is set
}

func (c *conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	if !c.read {
		_ = c.Conn.SetReadDeadline(time.Now().Add(c.owner.limit))
	}
	c.mu.Unlock()
	return c.Conn.Read(p)
}

func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if !c.write {
		_ = c.Conn.SetWriteDeadline(time.Now().Add(c.owner.limit))
	}
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read, c.write = !t.IsZero(), !t.IsZero()
	return c.Conn.SetDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = !t.IsZero()
	return c.Conn.SetReadDeadline(t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write = !t.IsZero()
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.open, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}
