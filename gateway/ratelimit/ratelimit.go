// Package ratelimit bounds how many requests each client may send:
//
//	micro gateway --gateway-middleware=ratelimit --middleware-ratelimit-rate=100/s
//
// Each has a bucket of burst tokens, into which come rate tokens again; a request takes one, however long it lasts. Who
// finds none is answered with 429 and Retry-After. All answers have RateLimit and RateLimit-Policy, as
// draft-ietf-httpapi-ratelimit-headers has them: "t" is the time until the bucket is full, or after a 429 until it has a token.
//
// Whose bucket it is says by:
//
//	client        the address, of IPv6 its first 64 bits, which is what one customer has at least
//	user          who basicauth or jwt found out it is: choose those before this
//	header:NAME   what a header says. Something before the gateway must check it: who can invent values has a bucket for each
//	all           there is one for the whole gateway
//
// Who has no user, or not just one such header, is limited by address. Who has no address, since trusted proxies say
// something malformed, is refused.
//
// The buckets are in memory, each gateway has its own, and those not used for the longest time are forgotten when there
// are too many: they would be full by then, mostly.
package ratelimit

import (
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/time/rate"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/clientip"
	"github.com/plugmicro/micro/internal/loglimit"
	"github.com/plugmicro/micro/plugin"
)

func init() {
	plugin.Register("ratelimit", New, plugin.Doc("bounds how many requests each client may send"))
}

// Config is what --middleware-ratelimit-* sets.
type Config struct {
	Rate    Rate   `default:"100/s" help:"requests in a time, like 100/s, 1000/m, 5000/h or 10/30s"`
	Burst   int    `help:"requests at once; default: the number in rate"`
	By      string `default:"client" help:"who has a limit of its own: client (address, of IPv6 the first 64 bits), user (of basicauth or jwt), header:NAME, or all for one in common"`
	Clients int    `default:"100000" help:"how many are remembered; each takes about 200 bytes"`
}

// Rate is written "100/s": so many in that time.
type Rate struct {
	N   int
	Per time.Duration
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Rate) UnmarshalText(text []byte) error {
	number, per, _ := strings.Cut(string(text), "/")
	if per != "" && (per[0] < '0' || per[0] > '9') {
		per = "1" + per
	}
	n, err := strconv.Atoi(number)
	d, err2 := time.ParseDuration(per)
	if err != nil || err2 != nil || n < 1 || d < time.Second || d%time.Second != 0 {
		return errors.New("not a rate: write it like 100/s, 1000/m or 10/30s, in whole seconds")
	}
	*r = Rate{n, d}
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func (r Rate) String() string {
	for unit, d := range map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour} {
		if r.Per == d {
			return fmt.Sprintf("%d/%s", r.N, unit)
		}
	}
	return fmt.Sprintf("%d/%.0fs", r.N, r.Per.Seconds())
}

func (r Rate) perSecond() float64 { return float64(r.N) / r.Per.Seconds() }

const headerPrefix = "header:"

// Validate is asked when the settings are loaded.
func (c Config) Validate() error {
	var errs []error
	if c.Rate.N < 1 || c.Rate.Per < time.Second {
		errs = append(errs, errors.New("rate is missing: write it like 100/s"))
	}
	if c.Burst < 0 {
		errs = append(errs, fmt.Errorf("burst %d is less than one request", c.Burst))
	}
	if c.Clients < 1 {
		errs = append(errs, fmt.Errorf("clients %d: at least one must be remembered", c.Clients))
	}
	switch header, isHeader := strings.CutPrefix(c.By, headerPrefix); {
	case isHeader && !httpguts.ValidHeaderFieldName(header):
		errs = append(errs, fmt.Errorf("by %q: that is no name of a header", c.By))
	case !isHeader && c.By != "client" && c.By != "user" && c.By != "all":
		errs = append(errs, fmt.Errorf("by %q is unknown: it is client, user, header:NAME or all", c.By))
	}
	return errors.Join(errs...)
}

// key is whose bucket it is: an address, or the hash of a name, which may be as long as strangers like.
type key [16]byte

// Middleware is the plugin. It is safe for concurrent use.
type Middleware struct {
	config Config
	header string // of which the name is taken, canonical; "": none
	policy []string
	log    *slog.Logger
	seed   maphash.Seed

	mu      sync.Mutex
	buckets *simplelru.LRU[key, *rate.Limiter]

	requests                   *prometheus.CounterVec
	allowed, limited, nobodies prometheus.Counter
	forgotten                  prometheus.Counter
	remembered                 prometheus.GaugeFunc
	logged                     loglimit.Limit
}

var (
	_ gateway.Middleware   = (*Middleware)(nil)
	_ prometheus.Collector = (*Middleware)(nil)
)

// New makes the middleware.
func New(env *plugin.Env, c Config) (gateway.Middleware, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Burst == 0 {
		c.Burst = c.Rate.N
	}
	m := &Middleware{config: c, log: env.Logger(), seed: maphash.MakeSeed()}
	m.policy = []string{fmt.Sprintf(`"default";q=%d;w=%.0f`, c.Rate.N, c.Rate.Per.Seconds())}
	if header, ok := strings.CutPrefix(c.By, headerPrefix); ok {
		m.header = http.CanonicalHeaderKey(header)
	}
	var err error
	if m.buckets, err = simplelru.NewLRU[key, *rate.Limiter](c.Clients, nil); err != nil {
		return nil, err
	}
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "micro_gateway_ratelimit_requests_total",
		Help: "Requests: allowed, limited (429), or refused since it is not known whose they are.",
	}, []string{"did"})
	m.allowed, m.limited, m.nobodies = m.requests.WithLabelValues("allowed"), m.requests.WithLabelValues("limited"), m.requests.WithLabelValues("refused")
	m.forgotten = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "micro_gateway_ratelimit_forgotten_total",
		Help: "Clients that were forgotten since there were too many.",
	})
	m.remembered = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "micro_gateway_ratelimit_clients",
		Help: "Clients that are remembered.",
	}, m.len)
	return m, nil
}

// Handler implements gateway.Middleware.
func (m *Middleware) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k, ok := m.keyOf(r)
		if !ok {
			m.nobodies.Inc()
			gateway.Fail(w, r, gateway.NewProblem(http.StatusForbidden, "it is not known from where the request comes"))
			return
		}
		now := time.Now()
		bucket := m.bucket(k)
		allowed := bucket.AllowN(now, 1)
		tokens := max(bucket.TokensAt(now), 0)
		wait := m.untilThere(float64(m.config.Burst) - tokens)
		if !allowed {
			wait = max(m.untilThere(1-tokens), 1)
		}
		h := w.Header()
		h["Ratelimit-Policy"] = m.policy
		h["Ratelimit"] = []string{state(int(tokens), wait)}
		if allowed {
			m.allowed.Inc()
			next.ServeHTTP(w, r)
			return
		}
		m.limited.Inc()
		m.logged.Warn(m.log, "request refused: too many", "client", gateway.Of(r).Client, "request_id", gateway.Of(r).ID)
		h.Set("Retry-After", strconv.Itoa(wait))
		gateway.Fail(w, r, gateway.NewProblem(http.StatusTooManyRequests, "too many requests: the next may come in %d s", wait))
	})
}

// untilThere is in how many seconds, rounded up, that many tokens have come.
func (m *Middleware) untilThere(tokens float64) int {
	return int(math.Ceil(tokens / m.config.Rate.perSecond()))
}

func state(tokens, wait int) string {
	var room [64]byte
	b := append(room[:0], `"default";r=`...)
	b = strconv.AppendInt(b, int64(tokens), 10)
	b = append(b, ";t="...)
	return string(strconv.AppendInt(b, int64(wait), 10))
}

// keyOf says whose request it is; false if nobody can tell.
func (m *Middleware) keyOf(r *http.Request) (key, bool) {
	info := gateway.Of(r)
	name := ""
	switch {
	case m.config.By == "all":
		return key{}, true
	case m.config.By == "user":
		name = info.Metadata()["user"]
	case m.header != "" && len(r.Header[m.header]) == 1:
		name = r.Header[m.header][0]
	}
	if name != "" {
		return m.keyOfName(name), true
	}
	return keyOfClient(info.Client)
}

// keyOfName is like no key of an address: those of IPv4 begin with zeros, and all end so or in the last four bytes.
func (m *Middleware) keyOfName(name string) (k key) {
	k[0], k[15] = 0xff, 0xff
	sum := maphash.String(m.seed, name)
	for i := range 8 {
		k[1+i] = byte(sum >> (8 * i))
	}
	return k
}

func keyOfClient(a netip.Addr) (key, bool) {
	a = clientip.Normal(a)
	if !a.IsValid() {
		return key{}, false
	}
	k := key(a.As16())
	if a.Is6() {
		clear(k[8:])
	}
	return k, true
}

// bucket finds or makes it.
func (m *Middleware) bucket(k key) *rate.Limiter {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, ok := m.buckets.Get(k); ok {
		return b
	}
	b := rate.NewLimiter(rate.Limit(m.config.Rate.perSecond()), m.config.Burst)
	if m.buckets.Add(k, b) {
		m.forgotten.Inc()
	}
	return b
}

func (m *Middleware) len() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return float64(m.buckets.Len())
}

// Describe implements prometheus.Collector.
func (m *Middleware) Describe(c chan<- *prometheus.Desc) {
	m.requests.Describe(c)
	m.forgotten.Describe(c)
	m.remembered.Describe(c)
}

// Collect implements prometheus.Collector.
func (m *Middleware) Collect(c chan<- prometheus.Metric) {
	m.requests.Collect(c)
	m.forgotten.Collect(c)
	m.remembered.Collect(c)
}
