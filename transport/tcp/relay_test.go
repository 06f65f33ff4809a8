package tcp

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/transport"
)

// relayed is a transport whose listeners are reached through relays.
type relayed struct {
	*Transport
	network *relays
}

func (t *relayed) Listen(ctx context.Context, addr string, opts ...transport.ListenOption) (transport.Listener, error) {
	l, err := t.Transport.Listen(ctx, "127.0.0.1:0", opts...)
	if err != nil {
		return nil, err
	}
	front, err := net.Listen("tcp", addr)
	if err != nil {
		l.Close()
		return nil, listenError(addr, err)
	}
	r := &relay{network: t.network, addr: front.Addr().String(), to: l.Addr(), front: front}
	t.network.add(r)
	return &relayedListener{l, r}, nil
}

type relayedListener struct {
	transport.Listener
	relay *relay
}

func (l *relayedListener) Addr() string { return l.relay.addr }

func (l *relayedListener) Close() error {
	l.relay.network.remove(l.relay)
	return l.Listener.Close()
}

// relays can be frozen and cut all together.
type relays struct {
	mu     sync.Mutex
	thawed *sync.Cond
	frozen bool
	all    map[*relay]bool
	conns  map[net.Conn]bool
}

// relay passes bytes on from addr.
type relay struct {
	network  *relays
	addr, to string
	front    net.Listener
}

func (n *relays) add(r *relay) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all == nil {
		n.all, n.conns = map[*relay]bool{}, map[net.Conn]bool{}
		n.thawed = sync.NewCond(&n.mu)
	}
	n.all[r] = true
	go r.serve(r.front)
}

func (n *relays) remove(r *relay) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.all, r)
	r.front.Close()
}

// pause has everything wait until resume is called.
func (n *relays) pause() (resume func()) {
	n.freeze(true)
	return func() { n.freeze(false) }
}

func (n *relays) freeze(frozen bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.frozen = frozen
	n.thawed.Broadcast()
}

// cut ends all connections, and refuses new ones until heal is called.
func (n *relays) cut(t testing.TB) (heal func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for r := range n.all {
		r.front.Close()
	}
	for c := range n.conns {
		c.Close()
	}
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for r := range n.all {
			var err error
			r.front, err = net.Listen("tcp", r.addr)
			require.NoError(t, err)
			go r.serve(r.front)
		}
	}
}

func (r *relay) serve(front net.Listener) {
	for {
		from, err := front.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", r.to)
		if err != nil {
			from.Close()
			continue
		}
		go r.network.pass(from, to)
	}
}

// pass passes bytes on, each direction until it ends.
func (n *relays) pass(a, b net.Conn) {
	n.mu.Lock()
	n.conns[a], n.conns[b] = true, true
	n.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { n.copy(a, b) })
	both.Go(func() { n.copy(b, a) })
	both.Wait()
	n.mu.Lock()
	delete(n.conns, a)
	delete(n.conns, b)
	n.mu.Unlock()
	a.Close()
	b.Close()
}

func (n *relays) copy(from, to net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		got, err := from.Read(buf)
		n.mu.Lock()
		for n.frozen {
			n.thawed.Wait()
		}
		n.mu.Unlock()
		if _, werr := to.Write(buf[:got]); werr != nil {
			from.Close() // so that its peer is told
			return
		}
		if err != nil {
			to.(*net.TCPConn).CloseWrite()
			return
		}
	}
}
