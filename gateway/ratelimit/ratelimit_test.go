package ratelimit_test

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/ratelimit"
	"github.com/plugmicro/micro/plugin"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}

var served = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// open chooses it by options, so that defaults count.
func open(t testing.TB, options ...string) gateway.Middleware {
	l := plugin.NewLoader(plugin.Linked)
	args := []string{"--gateway-middleware=ratelimit"}
	for _, o := range options {
		args = append(args, "--middleware-ratelimit-"+o)
	}
	require.NoError(t, l.Parse(args))
	s, err := l.Load(nil)
	require.NoError(t, err)
	host := s.Open(t.Context(), nil)
	t.Cleanup(func() { require.NoError(t, host.Close()) })
	all, err := plugin.OpenAll[gateway.Middleware](host)
	require.NoError(t, err)
	return all[0]
}

func request(client string) *http.Request {
	addr, _ := netip.ParseAddr(client)
	return gateway.With(httptest.NewRequest("GET", "/", nil), &gateway.Info{ID: "7", Client: addr})
}

func serve(m gateway.Middleware, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	m.Handler(served).ServeHTTP(w, r)
	return w
}

// passing counts how many of n requests pass.
func passing(m gateway.Middleware, n int, client string) (passed int) {
	for range n {
		if serve(m, request(client)).Code == http.StatusOK {
			passed++
		}
	}
	return passed
}

func TestExactCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, "rate=10/s", "burst=20")
		require.Equal(t, 20, passing(m, 100, "192.0.2.1"))
		require.Equal(t, 20, passing(m, 100, "192.0.2.2"), "another client has its own")
		time.Sleep(time.Second)
		require.Equal(t, 10, passing(m, 100, "192.0.2.1"))
		time.Sleep(99 * time.Millisecond)
		require.Equal(t, 0, passing(m, 100, "192.0.2.1"))
		time.Sleep(time.Millisecond)
		require.Equal(t, 1, passing(m, 100, "192.0.2.1"))
		time.Sleep(time.Hour)
		require.Equal(t, 20, passing(m, 100, "192.0.2.1"), "no more than burst is saved up")
	})
}

func TestAMinuteAtARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, "rate=600/m", "burst=1")
		passed := 0
		for range 6000 { // a request in each 10 ms
			passed += passing(m, 1, "192.0.2.1")
			time.Sleep(10 * time.Millisecond)
		}
		require.Equal(t, 600, passed)
	})
}

func TestConcurrentRequestsGetNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, "rate=100/s", "burst=50")
		var mu sync.Mutex
		var wg sync.WaitGroup
		passed := 0
		for range 20 {
			wg.Go(func() {
				n := passing(m, 50, "192.0.2.1")
				mu.Lock()
				passed += n
				mu.Unlock()
			})
		}
		wg.Wait()
		require.Equal(t, 50, passed)
	})
}

// TestRetryAfter is kept: who comes back then finds a token, and whoever comes earlier does not.
func TestRetryAfter(t *testing.T) {
	for _, rate := range []string{"1/s", "3/s", "7/m", "1000/h", "1/30s", "100/s"} {
		synctest.Test(t, func(t *testing.T) {
			m := open(t, "rate="+rate, "burst=1")
			require.Equal(t, 1, passing(m, 2, "192.0.2.1"))
			for range 20 {
				w := serve(m, request("192.0.2.1"))
				require.Equal(t, http.StatusTooManyRequests, w.Code)
				seconds, err := strconv.Atoi(w.Header().Get("Retry-After"))
				require.NoError(t, err)
				require.Positive(t, seconds)
				time.Sleep(time.Duration(seconds) * time.Second)
				require.Equal(t, 1, passing(m, 2, "192.0.2.1"), rate)
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, "rate=60/m", "burst=3")
		w := serve(m, request("192.0.2.1"))
		require.Equal(t, `"default";q=60;w=60`, w.Header().Get("RateLimit-Policy"))
		require.Equal(t, `"default";r=2;t=1`, w.Header().Get("RateLimit"))
		require.Equal(t, 2, passing(m, 2, "192.0.2.1"))
		w = serve(m, request("192.0.2.1"))
		require.Equal(t, http.StatusTooManyRequests, w.Code)
		require.Equal(t, `"default";r=0;t=1`, w.Header().Get("RateLimit"))
		require.Equal(t, "1", w.Header().Get("Retry-After"))
		require.JSONEq(t, `{"title":"Too Many Requests","status":429,"code":"ResourceExhausted","detail":"too many requests: the next may come in 1 s","request_id":"7"}`, w.Body.String())
		time.Sleep(1500 * time.Millisecond)
		require.Equal(t, `"default";r=0;t=3`, serve(m, request("192.0.2.1")).Header().Get("RateLimit"))
	})
}

// TestWhoIsWho: each pair is sent, the first request taking the only token.
func TestWhoIsWho(t *testing.T) {
	user := func(client, name string) *http.Request {
		r := request(client)
		gateway.Of(r).SetMetadata("user", name)
		return r
	}
	keyed := func(client string, values ...string) *http.Request {
		r := request(client)
		r.Header["X-Api-Key"] = values
		return r
	}
	for name, c := range map[string]struct {
		by            string
		first, second *http.Request
		same          bool
	}{
		"IPv4":                            {"client", request("192.0.2.1"), request("192.0.2.1"), true},
		"IPv4, others":                    {"client", request("192.0.2.1"), request("192.0.2.2"), false},
		"IPv4 in IPv6":                    {"client", request("192.0.2.1"), request("::ffff:192.0.2.1"), true},
		"IPv6, a /64":                     {"client", request("2001:db8::1"), request("2001:db8::ffff:1:2:3"), true},
		"IPv6, another /64":               {"client", request("2001:db8:0:1::1"), request("2001:db8:0:2::1"), false},
		"IPv6 with zones":                 {"client", request("fe80::1%a"), request("fe80::2%b"), true},
		"the user counts by name":         {"user", user("192.0.2.1", "ada"), user("192.0.2.2", "ada"), true},
		"users at one address":            {"user", user("192.0.2.1", "ada"), user("192.0.2.1", "bob"), false},
		"no user":                         {"user", request("192.0.2.1"), request("192.0.2.1"), true},
		"no user, others":                 {"user", request("192.0.2.1"), request("192.0.2.2"), false},
		"a user is no address":            {"user", user("192.0.2.1", "192.0.2.1"), request("192.0.2.1"), false},
		"a user without an address":       {"user", user("", "ada"), user("", "ada"), true},
		"the header":                      {"header:x-api-key", keyed("192.0.2.1", "k"), keyed("192.0.2.2", "k"), true},
		"headers":                         {"header:X-API-Key", keyed("192.0.2.1", "k"), keyed("192.0.2.1", "l"), false},
		"without it":                      {"header:X-Api-Key", request("192.0.2.1"), request("192.0.2.1"), true},
		"twice is not it":                 {"header:X-Api-Key", keyed("192.0.2.1", "k", "a"), keyed("192.0.2.1", "k", "b"), true},
		"the header is not asked for":     {"client", keyed("192.0.2.1", "k"), keyed("192.0.2.1", "l"), true},
		"all":                             {"all", request("192.0.2.1"), request("2001:db8::1"), true},
		"all, even of an unknown address": {"all", request("192.0.2.1"), request("nobody"), true},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, "rate=1/h", "burst=1", "by="+c.by)
			require.Equal(t, http.StatusOK, serve(m, c.first).Code)
			want := http.StatusOK
			if c.same {
				want = http.StatusTooManyRequests
			}
			require.Equal(t, want, serve(m, c.second).Code)
		})
	}
}

// TestAnUnknownClientIsRefused, or it would have no limit, or share one with all who are unknown.
func TestAnUnknownClientIsRefused(t *testing.T) {
	for _, by := range []string{"client", "user", "header:X-Api-Key"} {
		m := open(t, "by="+by)
		require.Equal(t, http.StatusForbidden, serve(m, request("nobody")).Code, by)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := open(t, "rate=1/h", "burst=1", "clients=100", "by=header:X-Api-Key")
	r := request("192.0.2.1")
	for i := range 10_000 {
		r.Header.Set("X-Api-Key", strconv.Itoa(i))
		require.Equal(t, http.StatusOK, serve(m, r).Code)
	}
	require.NoError(t, testutil.CollectAndCompare(m.(prometheus.Collector), strings.NewReader(`
# HELP micro_gateway_ratelimit_clients Clients that are remembered.
# TYPE micro_gateway_ratelimit_clients gauge
micro_gateway_ratelimit_clients 100
# HELP micro_gateway_ratelimit_forgotten_total Clients that were forgotten since there were too many.
# TYPE micro_gateway_ratelimit_forgotten_total counter
micro_gateway_ratelimit_forgotten_total 9900
# HELP micro_gateway_ratelimit_requests_total Requests: allowed, limited (429), or refused since it is not known whose they are.
# TYPE micro_gateway_ratelimit_requests_total counter
micro_gateway_ratelimit_requests_total{did="allowed"} 10000
micro_gateway_ratelimit_requests_total{did="limited"} 0
micro_gateway_ratelimit_requests_total{did="refused"} 0
`)))
	for i := 9_900; i < 10_000; i++ {
		r.Header.Set("X-Api-Key", strconv.Itoa(i))
		require.Equal(t, http.StatusTooManyRequests, serve(m, r).Code, "the last are remembered")
	}
}

// TestMemoryOfAClient is what the help of clients says. What a client sends as its name is not kept.
func TestMemoryOfAClient(t *testing.T) {
	const n = 100_000
	m := open(t, "by=header:X-Api-Key")
	h := m.Handler(served)
	r := request("192.0.2.1")
	w := httptest.NewRecorder()
	long := strings.Repeat("x", 1000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range n {
		r.Header.Set("X-Api-Key", long+strconv.Itoa(i))
		h.ServeHTTP(w, r)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := int64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%d bytes for each client", each)
	require.Less(t, each, int64(400))
	runtime.KeepAlive(m)
}

func TestStrangersDoNotFillTheLog(t *testing.T) {
	var log bytes.Buffer
	l := plugin.NewLoader(plugin.Linked)
	require.NoError(t, l.Parse([]string{"--gateway-middleware=ratelimit", "--middleware-ratelimit-rate=1/h"}))
	s, err := l.Load(nil)
	require.NoError(t, err)
	host := s.Open(t.Context(), slog.New(slog.NewTextHandler(&log, nil)))
	defer func() { require.NoError(t, host.Close()) }()
	all, err := plugin.OpenAll[gateway.Middleware](host)
	require.NoError(t, err)
	require.Equal(t, 1, passing(all[0], 1000, "192.0.2.1"))
	require.Equal(t, 1, strings.Count(log.String(), "\n"))
	require.Contains(t, log.String(), "client=192.0.2.1 request_id=7")
}

func TestSettings(t *testing.T) {
	for options, want := range map[string]string{
		"rate=100":      "not a rate",
		"rate=0/s":      "not a rate",
		"rate=-1/s":     "not a rate",
		"rate=1/x":      "not a rate",
		"rate=1/500ms":  "not a rate",
		"rate=1/1500ms": "not a rate",
		"rate=1.5/s":    "not a rate",
		"burst=-1":      "burst -1",
		"clients=0":     "at least one",
		"by=ip":         `by "ip" is unknown: it is client, user`,
		"by=header:":    "no name of a header",
		"by=header:a b": "no name of a header",
	} {
		l := plugin.NewLoader(plugin.Linked)
		require.NoError(t, l.Parse([]string{"--gateway-middleware=ratelimit", "--middleware-ratelimit-" + options}))
		_, err := l.Load(nil)
		require.ErrorContains(t, err, want, options)
	}
	for text, want := range map[string]string{"100/s": "100/s", "1000/m": "1000/m", "5/h": "5/h", "10/30s": "10/30s", "10/60s": "10/m", "10/2h": "10/7200s"} {
		var r ratelimit.Rate
		require.NoError(t, r.UnmarshalText([]byte(text)))
		require.Equal(t, want, r.String())
	}
	_, err := ratelimit.New(new(plugin.Env), ratelimit.Config{})
	require.ErrorContains(t, err, "rate is missing")
}

func BenchmarkRequest(b *testing.B) {
	for _, c := range []struct {
		name    string
		clients int
	}{{"one client", 1}, {"50,000 clients", 50_000}, {"more than are remembered", 1_000_000}} {
		b.Run(c.name, func(b *testing.B) {
			m := open(b, "rate=1000000/s")
			h := m.Handler(served)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				info := new(gateway.Info)
				r := gateway.With(httptest.NewRequest("GET", "/", nil), info)
				w := httptest.NewRecorder()
				for pb.Next() {
					n := rand.IntN(c.clients)
					info.Client = netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
					h.ServeHTTP(w, r)
				}
			})
		})
	}
}
