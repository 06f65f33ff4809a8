// Package clientip finds out who the client of a request is, for the gateway and whatever decides by it:
//
//	who, err := clientip.New(settings.Settings)
//	listener = who.Listener(listener)
//	info.Client, info.Secure, err = who.Client(r)
//
// A connection says who its peer is. A peer that is not a trusted proxy is the client, whatever its headers say. A
// trusted one is asked, in the one header that was chosen: its entries are read from the right, where the nearest
// proxy wrote, and the first that is not a trusted proxy is the client. If all are trusted, the leftmost is.
//
// There is no falling back. If the header of a trusted proxy is missing, which a client may bring about with Connection:
// X-Forwarded-For, or if an entry on the way is no address, such as "unknown", or if there are more than 32, then it is not
// known who the client is, and whoever decides by it refuses the request.
package clientip

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/plugmicro/micro/internal/loglimit"
)

// Settings are part of the gateway's: --gateway-trusted-proxies and so on.
type Settings struct {
	TrustedProxies []string `help:"addresses and prefixes of proxies that are believed who the client is; unix for peers on a Unix socket"`
	ClientHeader   string   `default:"none" help:"the one header in which the trusted proxies say who the client is: x-forwarded-for, forwarded, x-real-ip, or none. They must set it themselves in all requests"`
	ProxyProtocol  bool     `help:"the trusted proxies begin each connection with a PROXY protocol header, version 1 or 2; one of anybody else is refused"`
}

const (
	none          = "none"
	xForwardedFor = "x-forwarded-for"
	forwarded     = "forwarded"
	xRealIP       = "x-real-ip"
)

var headers = []string{none, xForwardedFor, forwarded, xRealIP}

// unix stands in TrustedProxies for all peers on Unix sockets.
const unix = "unix"

// maxHops is how many entries a header can have: what has more was not written by proxies.
const maxHops = 32

// Validate is asked when the settings are loaded. A struct that embeds Settings and has its own Validate calls it.
func (s Settings) Validate() error {
	_, err := New(s)
	return err
}

// Resolver finds clients. It is safe for concurrent use.
type Resolver struct {
	// Log is told of connections whose PROXY header is refused; nil is slog.Default. It is set before the first Listener.
	Log *slog.Logger

	trusted       *Set
	unix          bool
	header        string
	proxyProtocol bool
	refused       loglimit.Limit
}

// New makes a Resolver. Its error joins everything that is wrong.
func New(s Settings) (*Resolver, error) {
	c := &Resolver{header: cmp.Or(s.ClientHeader, none), proxyProtocol: s.ProxyProtocol}
	c.unix = slices.Contains(s.TrustedProxies, unix)
	prefixes := slices.DeleteFunc(slices.Clone(s.TrustedProxies), func(p string) bool { return p == unix })
	var errs []error
	var err error
	if c.trusted, err = ParseSet(prefixes); err != nil {
		errs = append(errs, fmt.Errorf("trusted-proxies: %w", err))
	}
	asked := c.header != none || c.proxyProtocol
	switch {
	case !slices.Contains(headers, c.header):
		errs = append(errs, fmt.Errorf("client-header %q is unknown: it is one of %s", c.header, strings.Join(headers, ", ")))
	case c.header != none && len(s.TrustedProxies) == 0:
		errs = append(errs, fmt.Errorf("client-header is %s, but nobody is believed it: name the proxies that set it in trusted-proxies", c.header))
	case c.proxyProtocol && len(s.TrustedProxies) == 0:
		errs = append(errs, errors.New("proxy-protocol is on, but nobody is believed it: name the proxies that speak it in trusted-proxies"))
	case !asked && len(s.TrustedProxies) > 0:
		errs = append(errs, errors.New("trusted-proxies are named, but not how they say who the client is: set client-header, proxy-protocol or both"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// Client says who sent r, as an address that is Normal, and whether that client speaks TLS, to this process or to a trusted
// proxy. An error means that it is not known who the client is; it is for the log, not for strangers.
func (c *Resolver) Client(r *http.Request) (client netip.Addr, secure bool, err error) {
	secure = r.TLS != nil
	peer, trusted, err := c.peer(r)
	switch {
	case err != nil:
		return netip.Addr{}, secure, err
	case !trusted:
		return peer, secure, nil
	}
	switch c.header {
	case xForwardedFor:
		client, err = c.lastUntrusted(r.Header["X-Forwarded-For"])
	case forwarded:
		var by string
		client, by, err = c.lastUntrustedForwarded(r.Header["Forwarded"])
		return client, secureBy(by, secure), err
	case xRealIP:
		client, err = only(r.Header["X-Real-Ip"])
	default:
		if !peer.IsValid() {
			return peer, secure, errors.New("the peer is on a Unix socket, and said nothing of the client")
		}
		return peer, secure, nil // a proxy that speaks for itself
	}
	return client, secureByAll(r.Header["X-Forwarded-Proto"], secure), err
}

// peer is who the connection comes from, or who a PROXY header says. It is invalid for a trusted Unix socket.
func (c *Resolver) peer(r *http.Request) (peer netip.Addr, trusted bool, err error) {
	// This comes first: the name of a Unix socket may look like an address.
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && local.Network() == "unix" {
		if !c.unix {
			return netip.Addr{}, false, errors.New("the peer is on a Unix socket, and trusted-proxies does not name unix")
		}
		return netip.Addr{}, true, nil
	}
	p, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, false, fmt.Errorf("the peer has no address: %.60q", r.RemoteAddr)
	}
	peer = Normal(p.Addr())
	return peer, c.trusted.Contains(peer), nil
}

// lastUntrusted walks the entries of all lines from the right.
func (c *Resolver) lastUntrusted(lines []string) (client netip.Addr, err error) {
	hops := len(lines)
	for _, line := range lines {
		hops += strings.Count(line, ",")
	}
	if err := checkHops(hops); err != nil {
		return netip.Addr{}, err
	}
	for i := len(lines) - 1; i >= 0; i-- {
		rest := lines[i]
		for more := true; more; {
			var hop string
			rest, hop, more = cutLast(rest)
			if client, err = parseHop(strings.Trim(hop, " \t")); err != nil {
				return netip.Addr{}, err
			}
			if !c.trusted.Contains(client) {
				return client, nil
			}
		}
	}
	return client, nil
}

// lastUntrustedForwarded also returns the protocol by which that hop came.
func (c *Resolver) lastUntrustedForwarded(lines []string) (client netip.Addr, proto string, err error) {
	var room [maxHops]element
	elements := room[:0]
	for _, line := range lines {
		if elements, err = appendForwarded(elements, line); err != nil {
			return netip.Addr{}, "", err
		}
	}
	if err := checkHops(len(elements)); err != nil {
		return netip.Addr{}, "", err
	}
	for i := len(elements) - 1; i >= 0; i-- {
		proto = elements[i].proto
		if client, err = parseNode(elements[i].node); err != nil {
			return netip.Addr{}, proto, err
		}
		if !c.trusted.Contains(client) {
			break
		}
	}
	return client, proto, nil
}

func checkHops(n int) error {
	switch {
	case n == 0:
		return errors.New("a trusted proxy did not send the header that says who the client is")
	case n > maxHops:
		return fmt.Errorf("the header that says who the client is has more than %d entries", maxHops)
	}
	return nil
}

// only is the one entry of the one line.
func only(lines []string) (netip.Addr, error) {
	if len(lines) > 1 {
		return netip.Addr{}, errors.New("the header that says who the client is came more than once")
	}
	if err := checkHops(len(lines)); err != nil {
		return netip.Addr{}, err
	}
	return parseHop(strings.Trim(lines[0], " \t"))
}

func cutLast(s string) (before, last string, found bool) {
	if i := strings.LastIndexByte(s, ','); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return "", s, false
}

// parseHop reads an address with or without a port, of IPv6 in brackets if it has a port. There is no zone in a header: it
// means nothing on another host.
func parseHop(s string) (netip.Addr, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return addr.Unmap(), nil
	}
	return parseNode(s)
}

// parseNode is parseHop for RFC 7239, where IPv6 is always in brackets.
func parseNode(s string) (netip.Addr, error) {
	text, bracketed := strings.CutPrefix(s, "[")
	text, closed := strings.CutSuffix(text, "]")
	if addr, err := netip.ParseAddr(text); err == nil && bracketed == closed && addr.Is6() == bracketed && addr.Zone() == "" {
		return addr.Unmap(), nil
	}
	if p, err := netip.ParseAddrPort(s); err == nil && p.Addr().Zone() == "" {
		return p.Addr().Unmap(), nil
	}
	return netip.Addr{}, fmt.Errorf("%.60q, which a proxy says, is no address", s)
}

// secureByAll goes by X-Forwarded-Proto: if one of the proxies that wrote into it was not spoken to by TLS, it is not
// secure. Without it, what is known of the connection counts.
func secureByAll(lines []string, otherwise bool) bool {
	if len(lines) == 0 {
		return otherwise
	}
	for _, line := range lines {
		for more := true; more; {
			var proto string
			line, proto, more = cutLast(line)
			if !isTLS(strings.Trim(proto, " \t")) {
				return false
			}
		}
	}
	return true
}

func secureBy(proto string, otherwise bool) bool {
	if proto == "" {
		return otherwise
	}
	return isTLS(proto)
}

func isTLS(proto string) bool {
	return strings.EqualFold(proto, "https") || strings.EqualFold(proto, "wss")
}
