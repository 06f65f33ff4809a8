package xray

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/tracer"
)

// pipes are connections inside of a bubble, whose clock stands still while there is something to read.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.once.Do(func() { close(p.done) }); return nil }
func (*pipes) Addr() net.Addr { return &net.TCPAddr{} }

// polled is a sampler that is kept up to date from the API, with a clock and a chance of its own.
type polled struct {
	*sampler
	api *api
	log *bytes.Buffer
}

// inBubble calls f with rules that were fetched, if there are any.
func inBubble(t *testing.T, c Config, setup func(*api), f func(*testing.T, polled)) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{t: t}
		setup(a)
		listener := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		server := &http.Server{Handler: a}
		var running sync.WaitGroup
		running.Go(func() { _ = server.Serve(listener) })

		s := newSampler(c, request{service: "shop", kind: "AWS::ECS::Container"})
		s.random = rand.New(rand.NewPCG(1, 2)).Float64
		log := new(bytes.Buffer)
		p := newPoller("daemon:2000", s, slog.New(slog.NewTextHandler(log, nil)))
		p.daemon.http.Transport.(*http.Transport).DialContext = listener.dial
		ctx, cancel := context.WithCancel(t.Context())
		running.Go(func() { p.run(ctx) })
		synctest.Wait()
		f(t, polled{s, a, log})
		cancel()
		require.NoError(t, server.Close())
		running.Wait()
	})
}

// ask has n decisions made, and counts those that are yes.
func (p polled) ask(n int, attributes ...attribute.KeyValue) (sampled int) {
	for range n {
		if yes, _ := p.decide(attributes); yes {
			sampled++
		}
	}
	return sampled
}

// seconds has n decisions made in each of so many seconds.
func (p polled) seconds(seconds, n int) (sampled []int) {
	for range seconds {
		sampled = append(sampled, p.ask(n))
		time.Sleep(time.Second)
		synctest.Wait()
	}
	return sampled
}

func near(t *testing.T, rate float64, n, got int) {
	t.Helper()
	sigma := math.Sqrt(float64(n) * rate * (1 - rate))
	require.InDelta(t, rate*float64(n), got, 4*sigma, "of %d", n)
}

func everything(name string, reservoir int64, rate float64) samplingRule {
	return samplingRule{RuleName: name, Version: 1, Priority: 100, FixedRate: rate, ReservoirSize: reservoir, ServiceName: "*", ServiceType: "*",
		Host: "*", HTTPMethod: "*", URLPath: "*", ResourceARN: "*"}
}

func pointer[T any](v T) *T { return &v }

// grant answers all reports alike. The quota expires that long after.
func grant(quota int64, valid time.Duration, rate float64, interval int64) func([]statistics) targetsAnswer {
	return func(reports []statistics) (a targetsAnswer) {
		for _, r := range reports {
			a.SamplingTargetDocuments = append(a.SamplingTargetDocuments, samplingTarget{RuleName: r.RuleName, FixedRate: &rate, ReservoirQuota: &quota,
				ReservoirQuotaTTL: pointer(float64(time.Now().Add(valid).UnixMilli()) / 1000), Interval: interval})
		}
		return a
	}
}

var byDefault = Config{Reservoir: 1, Rate: 0.05}

// TestWithoutRulesThereIsTheFallback holds that, without settings, it is that of X-Ray: one a second, and 5 % of the others.
func TestWithoutRulesThereIsTheFallback(t *testing.T) {
	inBubble(t, chosen(t).sender.config, func(a *api) { a.broken = true }, func(t *testing.T, p polled) {
		total := 0
		for _, n := range p.seconds(100, 101) {
			require.Positive(t, n, "one a second")
			total += n
		}
		near(t, 0.05, 100*100, total-100)
		require.Equal(t, 1, strings.Count(p.log.String(), "\n"), p.log)
		require.Contains(t, p.log.String(), "403 Forbidden: ExpiredTokenException")

		p.api.set(func() { p.api.broken, p.api.pages = false, [][]samplingRule{{everything("Default", 0, 0)}} })
		time.Sleep(rulesEvery + jitterOf(rulesEvery))
		synctest.Wait()
		require.Zero(t, p.ask(1000))
		require.Equal(t, 2, strings.Count(p.log.String(), "\n"), p.log)
		require.Contains(t, p.log.String(), "answers about sampling again")
	})
}

// chosen is the plugin as a user gets it who sets nothing of the sampling but that it asks nobody.
func chosen(t *testing.T) *Tracer {
	l := plugin.NewLoader(plugin.Linked)
	require.NoError(t, l.Parse([]string{"--tracer=xray", "--tracer-sampling=local"}))
	settings, err := l.Load(nil)
	require.NoError(t, err)
	host := settings.Open(t.Context(), nil)
	t.Cleanup(func() { require.NoError(t, host.Close()) })
	opened, err := plugin.Open[tracer.Tracer](host)
	require.NoError(t, err)
	return opened.(*Tracer)
}

func jitterOf(d time.Duration) time.Duration { return d / 50 }

func TestRulesAreFetchedPageByPageAndAgain(t *testing.T) {
	first, second := everything("first", 0, 1), everything("second", 0, 0)
	first.URLPath = "/one"
	inBubble(t, byDefault, func(a *api) { a.pages = [][]samplingRule{{first}, {}, {second}} }, func(t *testing.T, p polled) {
		one, two := attribute.String("url.path", "/one"), attribute.String("url.path", "/two")
		require.Equal(t, 10, p.ask(10, one))
		require.Zero(t, p.ask(10, two))
		require.Equal(t, 3, p.api.fetches)

		p.api.set(func() { p.api.pages = [][]samplingRule{{everything("Default", 0, 1)}} })
		time.Sleep(rulesEvery - time.Second)
		synctest.Wait()
		require.Zero(t, p.ask(10, two))
		time.Sleep(time.Second + jitterOf(rulesEvery))
		synctest.Wait()
		require.Equal(t, 10, p.ask(10, two))
	})
}

func TestRulesThatChangedAreFetchedAtOnce(t *testing.T) {
	inBubble(t, byDefault, func(a *api) { a.pages, a.modified = [][]samplingRule{{everything("Default", 0, 0)}}, 1.5e9 }, func(t *testing.T, p polled) {
		p.seconds(60, 1)
		require.Equal(t, 2, p.api.fetches, "at the first word of when they changed, whether before or after, and not again")
		p.api.set(func() { p.api.pages, p.api.modified = [][]samplingRule{{everything("Default", 0, 1)}}, 1.5e9+1 })
		p.seconds(11, 1)
		require.Equal(t, 3, p.api.fetches)
		require.Equal(t, 10, p.ask(10))
	})
}

func TestBorrowThenQuotaThenBorrow(t *testing.T) {
	setup := func(a *api) {
		a.pages = [][]samplingRule{{everything("Default", 50, 0)}}
		a.targets = grant(3, 15*time.Second, 0, 3600)
	}
	inBubble(t, byDefault, setup, func(t *testing.T, p polled) {
		before := p.seconds(11, 10)
		require.Equal(t, []int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, before[:10], "one a second is borrowed")
		require.Len(t, p.api.reports, 1)
		r := p.api.reports[0]
		require.Equal(t, statistics{r.ClientID, "Default", r.Timestamp, r.RequestCount, 0, r.BorrowCount}, r)
		require.InDelta(t, 105, r.RequestCount, 5)
		require.Equal(t, r.RequestCount, r.BorrowCount*10)

		granted := p.seconds(12, 10)
		require.Equal(t, []int{3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3}, granted)
		time.Sleep(5 * time.Second)
		require.Equal(t, []int{1, 1, 1}, p.seconds(3, 10), "the quota has expired")
	})
}

func TestRatesWithinStatistics(t *testing.T) {
	setup := func(a *api) {
		a.pages = [][]samplingRule{{everything("Default", 0, 0.3)}}
		a.targets = grant(2, time.Hour, 0.1, 10)
	}
	inBubble(t, byDefault, setup, func(t *testing.T, p polled) {
		near(t, 0.3, 10000, p.ask(10000))
		time.Sleep(targetsEvery + jitterOf(targetsEvery))
		synctest.Wait()
		total := 0
		for _, n := range p.seconds(100, 102) {
			total += n
		}
		near(t, 0.1, 100*100, total-2*100)
		time.Sleep(targetsEvery + jitterOf(targetsEvery))
		synctest.Wait()
		sum := counts{}
		for _, r := range p.api.reports {
			sum.add(counts{r.RequestCount, r.SampledCount, r.BorrowCount})
		}
		require.EqualValues(t, 10000+100*102, sum.requests)
		require.Zero(t, sum.borrowed, "there is no reservoir")
		near(t, 0.3, 10000, int(sum.sampled)-total)
	})
}

func TestReportsWaitForTheInterval(t *testing.T) {
	setup := func(a *api) {
		a.pages = [][]samplingRule{{everything("Default", 0, 0)}}
		a.targets = grant(0, time.Hour, 0, 30)
	}
	inBubble(t, byDefault, setup, func(t *testing.T, p polled) {
		p.seconds(125, 1)
		require.Len(t, p.api.reports, 4) // after 10, 40, 70 and 100 seconds, and the jitter
	})
}

func TestStaleRulesAreNotUsed(t *testing.T) {
	inBubble(t, byDefault, func(a *api) { a.pages = [][]samplingRule{{everything("Default", 0, 1)}} }, func(t *testing.T, p polled) {
		time.Sleep(time.Second)
		p.api.set(func() { p.api.broken = true })
		time.Sleep(staleAfter - 2*time.Second)
		require.Equal(t, 100, p.ask(100), "the last good ones")
		time.Sleep(2 * time.Second)
		require.Less(t, p.ask(100), 20)
		p.api.set(func() { p.api.broken = false })
		time.Sleep(rulesEvery + jitterOf(rulesEvery))
		synctest.Wait()
		require.Equal(t, 100, p.ask(100))
	})
}

func TestStatisticsAreNotLost(t *testing.T) {
	for name, fail := range map[string]func(*api){
		"the daemon fails": func(a *api) { a.broken = true },
		"X-Ray fails": func(a *api) {
			a.targets = func(reports []statistics) (answer targetsAnswer) {
				a.reports = nil
				answer.UnprocessedStatistics = append(answer.UnprocessedStatistics, struct{ RuleName, ErrorCode, Message string }{"Default", "500", "try again"})
				return answer
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, byDefault, func(a *api) { a.pages = [][]samplingRule{{everything("Default", 1, 1)}} }, func(t *testing.T, p polled) {
				p.api.set(func() { fail(p.api) })
				p.seconds(25, 2)
				p.api.set(func() { p.api.broken, p.api.targets = false, nil })
				p.seconds(11, 2)
				require.Len(t, p.api.reports, 1)
				r := p.api.reports[0]
				require.GreaterOrEqual(t, r.RequestCount, int64(50))
				require.Equal(t, r.RequestCount, r.SampledCount+r.BorrowCount)
			})
		})
	}
}

func TestARuleThatIsGoneIsFetchedAnew(t *testing.T) {
	inBubble(t, byDefault, func(a *api) { a.pages = [][]samplingRule{{everything("old", 0, 0)}} }, func(t *testing.T, p polled) {
		p.api.set(func() {
			p.api.pages = [][]samplingRule{{everything("new", 0, 1)}}
			p.api.targets = func(reports []statistics) (answer targetsAnswer) {
				if reports[0].RuleName == "old" {
					answer.UnprocessedStatistics = append(answer.UnprocessedStatistics, struct{ RuleName, ErrorCode, Message string }{"old", "404", "no such rule"})
				}
				return answer
			}
		})
		p.seconds(11, 1)
		require.Equal(t, 10, p.ask(10))
	})
}

func TestAnswersThatAreNone(t *testing.T) {
	for name, answer := range map[string]string{"not JSON": "<html>", "another type": `{"SamplingRuleRecords": {}}`, "endless": `{"NextToken": "again"}`, "cut": `{"SamplingRuleRecords": [`} {
		t.Run(name, func(t *testing.T) {
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(answer)) })}
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			go func() { _ = server.Serve(listener) }()
			defer server.Close()
			c := newSamplingClient(listener.Addr().String())
			defer c.http.CloseIdleConnections()
			_, err = c.fetchRules(t.Context())
			require.Error(t, err)
		})
	}
}

func TestRulesMatch(t *testing.T) {
	set := func(change func(*samplingRule)) samplingRule {
		r := everything("r", 0, 1)
		change(&r)
		return r
	}
	http := []attribute.KeyValue{attribute.String("server.address", "api.Example.com"), attribute.String("http.request.method", "GET"),
		attribute.String("url.path", "/v1/orders/7"), attribute.Int("tenant", 7)}
	rpc := []attribute.KeyValue{attribute.String("rpc.service", "greeter"), attribute.String("rpc.method", "Greeter.Hello")}
	s := newSampler(byDefault, request{service: "shop", kind: "AWS::ECS::Container", resource: "arn:aws:ecs:x"})
	for name, c := range map[string]struct {
		rule       samplingRule
		attributes []attribute.KeyValue
		want       bool
	}{
		"everything":                 {set(func(*samplingRule) {}), nil, true},
		"path":                       {set(func(r *samplingRule) { r.URLPath = "/v1/*/?" }), http, true},
		"another path":               {set(func(r *samplingRule) { r.URLPath = "/v2/*" }), http, false},
		"no path is not any path":    {set(func(r *samplingRule) { r.URLPath = "/v1/*" }), nil, false},
		"host without case":          {set(func(r *samplingRule) { r.Host = "*.example.COM" }), http, true},
		"another host":               {set(func(r *samplingRule) { r.Host = "example.com" }), http, false},
		"method":                     {set(func(r *samplingRule) { r.HTTPMethod = "get" }), http, true},
		"another method":             {set(func(r *samplingRule) { r.HTTPMethod = "POST" }), http, false},
		"service":                    {set(func(r *samplingRule) { r.ServiceName = "sh?p" }), http, true},
		"another service":            {set(func(r *samplingRule) { r.ServiceName = "till" }), http, false},
		"type":                       {set(func(r *samplingRule) { r.ServiceType = "AWS::ECS::*" }), http, true},
		"another type":               {set(func(r *samplingRule) { r.ServiceType = "AWS::EC2::Instance" }), http, false},
		"resource":                   {set(func(r *samplingRule) { r.ResourceARN = "arn:aws:ecs:*" }), http, true},
		"another resource":           {set(func(r *samplingRule) { r.ResourceARN = "arn:aws:ec2:*" }), http, false},
		"attribute":                  {set(func(r *samplingRule) { r.Attributes = map[string]string{"tenant": "7"} }), http, true},
		"another attribute":          {set(func(r *samplingRule) { r.Attributes = map[string]string{"tenant": "7", "user": "a*"} }), http, false},
		"a call's endpoint":          {set(func(r *samplingRule) { r.URLPath, r.HTTPMethod = "/greeter/Greeter.*", "POST" }), rpc, true},
		"a call by its method alone": {set(func(r *samplingRule) { r.URLPath = "/Greeter.Hello" }), rpc[1:], true},
		"another endpoint":           {set(func(r *samplingRule) { r.URLPath = "/greeter/Other.*" }), rpc, false},
		"Default is for all":         {set(func(r *samplingRule) { r.RuleName, r.URLPath = "Default", "/nothing" }), http, true},
	} {
		t.Run(name, func(t *testing.T) {
			q := s.request(c.attributes)
			require.Equal(t, c.want, c.rule.matches(&q))
		})
	}
}

func TestWildcards(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"**", "", true}, {"?", "", false}, {"?", "a", true}, {"a*", "a", true}, {"*a", "ba", true},
		{"*a*b*", "xaxbx", true}, {"*a*b", "xaxbx", false}, {"a?c", "abc", true}, {"a?c", "ac", false}, {"*ab", "aab", true}, {"A*", "abc", true}, {"a", "b", false},
		{"*" + strings.Repeat("a*", 30) + "b", strings.Repeat("a", 1000), false},
	} {
		require.Equal(t, c.want, wildcard(c.pattern, c.text), "%q %q", c.pattern, c.text)
	}
}

func TestOrderOfRules(t *testing.T) {
	low, high, other := everything("low", 0, 1), everything("high", 0, 1), everything("abc", 0, 1)
	low.Priority, high.Priority, other.Priority = 9, 1, 9
	unknown := everything("unknown", 0, 1)
	unknown.Version = 2
	def := everything("Default", 0, 1)
	def.Priority = 0
	set := newRuleSet(time.Now(), []samplingRule{def, low, high, other, unknown, high}, nil)
	var names []string
	for _, r := range set.rules {
		names = append(names, r.RuleName)
	}
	require.Equal(t, []string{"high", "abc", "low", "Default"}, names)
}

func TestNewRulesKeepWhatWasCounted(t *testing.T) {
	now := time.Now()
	before := newRuleSet(now, []samplingRule{everything("a", 1, 1), everything("b", 1, 1)}, nil)
	before.byName("a").sample(now, 0)
	before.byName("b").sample(now, 0)
	before.byName("a").grant(now, samplingTarget{FixedRate: pointer(0.5)})
	after := newRuleSet(now, []samplingRule{everything("a", 1, 1), everything("b", 2, 0.1)}, before)
	require.Same(t, before.byName("a"), after.byName("a"))
	require.Equal(t, 0.5, after.byName("a").rate)
	require.NotSame(t, before.byName("b"), after.byName("b"))
	require.Equal(t, 0.1, after.byName("b").rate)
	require.EqualValues(t, 1, after.byName("b").counts.requests)
}

// TestTheRuleIsNamed is so that X-Ray shows it.
func TestTheRuleIsNamed(t *testing.T) {
	s := newSampler(Config{}, request{})
	s.rules.Store(newRuleSet(time.Now(), []samplingRule{everything("all", 0, 1)}, nil))
	require.Equal(t, []attribute.KeyValue{ruleKey.String("all")}, s.ShouldSample(sdktrace.SamplingParameters{ParentContext: t.Context()}).Attributes)
}
