package mdns

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	port         = 5353
	networkEvery = 15 * time.Second // how often it is looked for interfaces that came or went
	burst        = 8                // packets that are sent without a pause
)

var (
	group4 = &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: port}
	group6 = &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: port}
)

// network sends to and receives from all chosen interfaces, over IPv4 and IPv6.
type network struct {
	chosen  []string
	log     *slog.Logger
	receive func(packet []byte)
	readers sync.WaitGroup

	mu      sync.Mutex
	conns   map[connKey]conn
	looked  time.Time
	sent    int
	silent  bool // it was said that there is no interface left
	pausing time.Time
}

type connKey struct {
	index int
	name  string
	v6    bool
}

// conn is a socket that has joined the group on one interface.
type conn struct {
	net.PacketConn
	read func([]byte) (n int, onLink bool, from net.Addr, err error)
	to   *net.UDPAddr
}

func openNetwork(chosen []string, log *slog.Logger, receive func([]byte)) (*network, error) {
	n := &network{chosen: chosen, log: log, receive: receive, conns: make(map[connKey]conn)}
	if _, err := n.look(); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// update follows the interfaces of the host as they come and go. It says whether there are new ones.
func (n *network) update() bool {
	n.mu.Lock()
	due := time.Since(n.looked) >= networkEvery
	n.mu.Unlock()
	if !due {
		return false
	}
	more, err := n.look()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil && !n.silent {
		n.log.Warn("the network is gone, or a part of it, waiting for it to come back", "error", err)
	}
	n.silent = err != nil
	return more
}

// look joins the groups on new interfaces and leaves those that are gone.
func (n *network) look() (more bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looked = time.Now()
	all, err := net.Interfaces()
	if err != nil {
		return false, fmt.Errorf("registry mdns: %w", err)
	}
	usable, err := choose(all, n.chosen)
	var failed []error
	there := make(map[connKey]bool)
	for _, ifi := range usable {
		for _, v6 := range []bool{false, true} {
			key := connKey{ifi.Index, ifi.Name, v6}
			there[key] = true
			if _, ok := n.conns[key]; ok {
				continue
			}
			c, joinErr := listen(&ifi, v6)
			if joinErr != nil {
				failed = append(failed, fmt.Errorf("%s: %w", ifi.Name, joinErr))
				continue
			}
			n.conns[key] = c
			n.readers.Go(func() { n.readAll(c) })
			more = true
		}
	}
	for key, c := range n.conns {
		if !there[key] {
			_ = c.Close()
			delete(n.conns, key)
		}
	}
	if err == nil && len(n.conns) == 0 {
		err = noMulticast(errors.Join(failed...))
	}
	return more, err
}

func noMulticast(why error) error {
	return fmt.Errorf("registry mdns: this host has no multicast: %w; name an interface with --registry-interface, or use --registry=local, which needs no network", why)
}

// choose returns the interfaces to use: those that were named, or all that may work.
func choose(all []net.Interface, named []string) ([]net.Interface, error) {
	var usable []net.Interface
	var seen []string
	for _, ifi := range all {
		seen = append(seen, ifi.Name+" "+describe(ifi))
		switch {
		case len(named) > 0 && slices.Contains(named, ifi.Name) && ifi.Flags&net.FlagUp != 0:
			usable = append(usable, ifi) // the loopback interface works, though it does not say so
		case len(named) == 0 && describe(ifi) == "can":
			usable = append(usable, ifi)
		}
	}
	if len(named) == 0 && len(usable) == 0 {
		return nil, noMulticast(errors.New("no interface can (" + strings.Join(seen, ", ") + ")"))
	}
	for _, name := range named {
		i := slices.IndexFunc(all, func(ifi net.Interface) bool { return ifi.Name == name })
		if i < 0 || all[i].Flags&net.FlagUp == 0 {
			return usable, fmt.Errorf("registry mdns: interface %s is not there or not up (%s): change --registry-interface, or use --registry=local, which needs no network",
				name, strings.Join(seen, ", "))
		}
	}
	return usable, nil
}

func describe(ifi net.Interface) string {
	switch {
	case ifi.Flags&net.FlagUp == 0:
		return "is down"
	case ifi.Flags&net.FlagLoopback != 0:
		return "is loopback"
	case ifi.Flags&net.FlagMulticast == 0:
		return "has no multicast"
	}
	return "can"
}

// listen shares the port with the other responders of the host. Packets of its own come back, for the other processes; all
// go out with 255 hops, so that those who hear them know that they were not routed.
func listen(ifi *net.Interface, v6 bool) (conn, error) {
	if v6 {
		c, err := net.ListenMulticastUDP("udp6", ifi, group6)
		if err != nil {
			return conn{}, err
		}
		p := ipv6.NewPacketConn(c)
		err = errors.Join(p.SetMulticastInterface(ifi), p.SetMulticastLoopback(true), p.SetMulticastHopLimit(255))
		_ = p.SetControlMessage(ipv6.FlagInterface|ipv6.FlagHopLimit, true) // not on all systems
		read := func(b []byte) (int, bool, net.Addr, error) {
			n, cm, from, err := p.ReadFrom(b)
			return n, cm == nil || cm.HopLimit == 255 && cm.IfIndex == ifi.Index, from, err
		}
		to := *group6
		to.Zone = ifi.Name
		return checked(conn{c, read, &to}, c, err)
	}
	c, err := net.ListenMulticastUDP("udp4", ifi, group4)
	if err != nil {
		return conn{}, err
	}
	p := ipv4.NewPacketConn(c)
	err = errors.Join(p.SetMulticastInterface(ifi), p.SetMulticastLoopback(true), p.SetMulticastTTL(255))
	_ = p.SetControlMessage(ipv4.FlagInterface|ipv4.FlagTTL, true)
	read := func(b []byte) (int, bool, net.Addr, error) {
		n, cm, from, err := p.ReadFrom(b)
		return n, cm == nil || cm.TTL == 255 && cm.IfIndex == ifi.Index, from, err
	}
	return checked(conn{c, read, group4}, c, err)
}

func checked(c conn, udp *net.UDPConn, err error) (conn, error) {
	if err != nil {
		_ = udp.Close()
		return conn{}, err
	}
	_ = udp.SetReadBuffer(1 << 20) // as much of it as the system allows
	return c, nil
}

// readAll takes only what comes from a responder on this link: from port 5353, over this interface, not routed.
func (n *network) readAll(c conn) {
	buf := make([]byte, maxPacket+1)
	for {
		size, onLink, from, err := c.read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // the interface went down, for example
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if addr, ok := from.(*net.UDPAddr); ok && addr.Port == port && onLink {
			n.receive(buf[:size])
		}
	}
}

// send sends to all interfaces; an error means that none took it. Many packets are sent slowly enough for others to keep up.
func (n *network) send(packet []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Since(n.pausing) > 10*time.Millisecond {
		n.sent = 0
	}
	if n.sent++; n.sent > burst {
		time.Sleep(time.Millisecond)
	}
	n.pausing = time.Now()
	var errs []error
	for _, c := range n.conns {
		if _, err := c.WriteTo(packet, c.to); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == len(n.conns) {
		return errors.Join(errs...)
	}
	return nil
}

func (n *network) close() {
	n.mu.Lock()
	for _, c := range n.conns {
		_ = c.Close()
	}
	clear(n.conns)
	n.mu.Unlock()
	n.readers.Wait()
}
