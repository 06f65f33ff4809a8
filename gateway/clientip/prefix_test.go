package clientip_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway/clientip"
)

func TestParsePrefix(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7":            "192.0.2.7/32",
		"192.0.2.0/24":         "192.0.2.0/24",
		"0.0.0.0/0":            "0.0.0.0/0",
		"2001:db8::7":          "2001:db8::7/128",
		"2001:DB8::/32":        "2001:db8::/32",
		"::/0":                 "::/0",
		"::ffff:10.0.0.0/104":  "10.0.0.0/8",
		"::ffff:0:0/96":        "0.0.0.0/0",
		"::ffff:192.0.2.7":     "192.0.2.7/32",
		"::ffff:192.0.2.7/128": "192.0.2.7/32",
	} {
		p, err := clientip.ParsePrefix(text)
		require.NoError(t, err, text)
		require.Equal(t, want, p.String(), text)
	}
	for text, want := range map[string]string{
		"":                    "is no address",
		" 192.0.2.7":          "is no address",
		"192.0.2":             "is no address",
		"192.0.2.07":          "is no address",
		"0xc0000207":          "is no address",
		"localhost":           "is no address",
		"fe80::1%eth0":        "is no address",
		"192.0.2.7:80":        "is no address",
		"fe80::%eth0/64":      "is no prefix",
		"192.0.2.0/33":        "is no prefix",
		"192.0.2.0/024":       "is no prefix",
		"192.0.2.0/-1":        "is no prefix",
		"192.0.2.0/":          "is no prefix",
		"192.0.2.0/255.0.0.0": "is no prefix",
		"192.0.2.7/24":        "write 192.0.2.0/24, or 192.0.2.7",
		"2001:db8::7/32":      "write 2001:db8::/32, or 2001:db8::7",
		"::ffff:10.0.0.1/104": "write 10.0.0.0/8, or 10.0.0.1",
		"::ffff:0:0/95":       "neither IPv4 nor IPv6",
	} {
		_, err := clientip.ParsePrefix(text)
		require.ErrorContains(t, err, want, text)
	}
}

func TestSet(t *testing.T) {
	s, err := clientip.ParseSet([]string{"10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::ffff:172.16.0.0/108", "10.0.0.0/8"})
	require.NoError(t, err)
	require.Equal(t, 4, s.Len())
	for addr, want := range map[string]bool{
		"10.0.0.0": true, "10.255.255.255": true, "11.0.0.0": false, "9.255.255.255": false,
		"192.0.2.7": true, "192.0.2.8": false, "172.31.0.1": true, "172.32.0.1": false,
		"2001:db8::1": true, "2001:db9::1": false, "::ffff:10.0.0.1": true, "::a00:1": false, "fe80::1%eth0": false,
	} {
		require.Equal(t, want, s.Contains(clientip.Normal(netip.MustParseAddr(addr))), addr)
	}
	require.False(t, s.Contains(netip.Addr{}))
	_, err = clientip.ParseSet([]string{"a", "10.0.0.0/8", "b"})
	require.ErrorContains(t, err, `"a"`)
	require.ErrorContains(t, err, `"b"`)
	require.False(t, new(clientip.Set).Contains(netip.MustParseAddr("10.0.0.1")))

	all, err := clientip.ParseSet([]string{"::/0"})
	require.NoError(t, err)
	require.False(t, all.Contains(clientip.Normal(netip.MustParseAddr("::ffff:10.0.0.1"))), "all of IPv6 is none of IPv4")
}

// TestSetAgreesWithALinearSearch over prefixes that overlap.
func TestSetAgreesWithALinearSearch(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var s clientip.Set
		var list []netip.Prefix
		for range 100 {
			a := randomAddr(rnd)
			p, err := a.Prefix(rnd.IntN(a.BitLen() + 1))
			require.NoError(t, err)
			s.Add(p)
			list = append(list, p)
		}
		for range 500 {
			a := randomAddr(rnd)
			want := false
			for _, p := range list {
				want = want || p.Contains(a)
			}
			require.Equal(t, want, s.Contains(a), "%s in %s", a, list)
		}
	}
}

// randomAddr is of few, so that they meet.
func randomAddr(rnd *rand.Rand) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], rnd.Uint64()&0x0300_0003_0000_0003)
	binary.BigEndian.PutUint64(b[8:], rnd.Uint64()&0x0300_0003_0000_0003)
	if rnd.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.AddrFrom16(b)
}

func TestMemoryOfASet(t *testing.T) {
	texts := manyPrefixes(100_000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	s, err := clientip.ParseSet(texts)
	took := time.Since(start)
	require.NoError(t, err)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d prefixes: %v to load, %d KiB", s.Len(), took, (after.HeapAlloc-before.HeapAlloc)>>10)
	require.Less(t, after.HeapAlloc-before.HeapAlloc, uint64(64<<20))
	runtime.KeepAlive(texts)
}

// manyPrefixes are of both kinds, most of them of the lengths that lists in use have.
func manyPrefixes(n int) []string {
	rnd := rand.New(rand.NewPCG(1, 2))
	texts := make([]string, n)
	for i := range texts {
		if i%2 == 0 {
			a := netip.AddrFrom4([4]byte{byte(rnd.IntN(223) + 1), byte(rnd.Int()), byte(rnd.Int()), byte(rnd.Int())})
			texts[i] = prefixOf(a, 16+rnd.IntN(17))
		} else {
			var b [16]byte
			binary.BigEndian.PutUint64(b[:], 0x2000_0000_0000_0000|rnd.Uint64()>>3)
			texts[i] = prefixOf(netip.AddrFrom16(b), 29+rnd.IntN(36))
		}
	}
	return texts
}

func prefixOf(a netip.Addr, bits int) string {
	p, err := a.Prefix(bits)
	if err != nil {
		panic(err)
	}
	return p.String()
}

// BenchmarkContains asks for addresses all over the set: memory is read that was not read just before.
func BenchmarkContains(b *testing.B) {
	for _, n := range []int{1, 100, 100_000} {
		texts := manyPrefixes(n)
		s, err := clientip.ParseSet(texts)
		require.NoError(b, err)
		var addrs []netip.Addr
		for _, text := range texts {
			addrs = append(addrs, netip.MustParsePrefix(text).Addr())
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			i := 0
			for b.Loop() {
				if !s.Contains(addrs[i%n]) {
					b.Fatal(addrs[i%n])
				}
				i += 7919
			}
		})
	}
}
