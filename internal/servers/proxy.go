package servers

import (
	"io"
	"net"
	"sync"
	"time"
)

// Proxy passes TCP connections on to a server, and can cut, blackhole and delay them. All methods are safe for
// concurrent use.
type Proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	free  chan struct{} // closed while bytes may pass
	cut   bool          // new connections are closed at once
	delay time.Duration
	conns map[net.Conn]struct{}
	done  sync.WaitGroup
}

// NewProxy listens on a free port of 127.0.0.1. The caller closes it.
func NewProxy(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, target: target, free: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(p.free)
	p.done.Go(p.accept)
	return p, nil
}

// Addr is what clients connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Cut closes all connections, and new ones at once, until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	p.dropAll()
}

// Drop closes the connections that there are; new ones work.
func (p *Proxy) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropAll()
}

func (p *Proxy) dropAll() {
	for c := range p.conns {
		_ = c.(*net.TCPConn).SetLinger(0) // a reset, as from a host that went away
		c.Close()
	}
}

// Blackhole keeps all connections, and accepts new ones, but passes nothing on until Heal.
func (p *Proxy) Blackhole() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open() {
		p.free = make(chan struct{})
	}
}

// Delay holds back each piece of data for d, both ways; 0 ends it.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Heal ends what Cut and Blackhole did. What was held back passes.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
	if !p.open() {
		close(p.free)
	}
}

// Connections is how many there are.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) / 2
}

// Close ends everything and waits for it.
func (p *Proxy) Close() {
	p.listener.Close()
	p.Cut()
	p.mu.Lock()
	if !p.open() {
		close(p.free)
	}
	p.mu.Unlock()
	p.done.Wait()
}

func (p *Proxy) open() bool {
	select {
	case <-p.free:
		return true
	default:
		return false
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.done.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.add(client, server) {
		return
	}
	defer p.remove(client, server)
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client) })
	both.Go(func() { p.copy(client, server) })
	both.Wait()
}

func (p *Proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return false
	}
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	return true
}

func (p *Proxy) remove(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// copy ends both connections when one fails, and passes a half-close on.
func (p *Proxy) copy(dst, src net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		p.mu.Lock()
		free, delay := p.free, p.delay
		p.mu.Unlock()
		<-free
		time.Sleep(delay)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				src.Close()
				dst.Close()
				return
			}
		}
		if err == io.EOF {
			_ = dst.(*net.TCPConn).CloseWrite()
			return
		}
		if err != nil {
			dst.Close()
			return
		}
	}
}
