package clientip

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/gaissmai/bart"
)

// ParsePrefix reads an entry of a list: an address, which is a prefix of its full length, or a prefix in CIDR notation. A
// prefix of IPv4 addresses mapped into IPv6 becomes one of IPv4, as the addresses do that are compared with it. What has
// bits behind its length is refused: either the address or the length is not what was meant.
func ParsePrefix(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%.60q is no address: write it like 192.0.2.7, 2001:db8::7 or, for all that begin so, 192.0.2.0/24", text)
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%.60q is no prefix: write it like 192.0.2.0/24 or 2001:db8::/32", text)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%q is neither IPv4 nor IPv6: IPv4 addresses are compared as such: write 0.0.0.0/0 for all of them", text)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits set behind its length: write %s, or %s for the one address", text, p.Masked(), p.Addr())
	}
	return p, nil
}

// Normal is the form in which addresses are compared: IPv4 as such, without a zone.
func Normal(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// Set is a set of prefixes that is fast to ask however many there are. The zero Set is empty. It may be asked
// concurrently once nothing is added any more.
type Set struct{ table bart.Lite }

// ParseSet makes a Set. Its error joins those of all entries.
func ParseSet(texts []string) (*Set, error) {
	var s Set
	var errs []error
	for _, text := range texts {
		p, err := ParsePrefix(text)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.Add(p)
	}
	return &s, errors.Join(errs...)
}

// Add adds p, as ParsePrefix returns it.
func (s *Set) Add(p netip.Prefix) { s.table.Insert(p) }

// Contains says whether a, made Normal, is in the set. An invalid address is in none.
func (s *Set) Contains(a netip.Addr) bool { return s.table.Contains(Normal(a)) }

// Len counts the prefixes, each once.
func (s *Set) Len() int { return s.table.Size() }
