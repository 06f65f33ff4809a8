package xray

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// samplingRule is a rule as X-Ray sends it.
type samplingRule struct {
	RuleName      string
	Version       int
	Priority      int
	FixedRate     float64
	ReservoirSize int64
	ServiceName   string
	ServiceType   string
	Host          string
	HTTPMethod    string
	URLPath       string
	ResourceARN   string
	Attributes    map[string]string
}

// request is what rules are matched with; what is not known is "", and then only a pattern for everything matches.
type request struct {
	service, kind, resource string // the same for all requests of a process
	host, method, path      string
	attribute               func(key string) string
}

// matches tells whether the rule is for the request. That of the name Default is for all.
func (r *samplingRule) matches(q *request) bool {
	if r.RuleName == "Default" {
		return true
	}
	if !wildcard(r.ServiceName, q.service) || !wildcard(r.ServiceType, q.kind) || !wildcard(r.ResourceARN, q.resource) ||
		!wildcard(r.Host, q.host) || !wildcard(r.HTTPMethod, q.method) || !wildcard(r.URLPath, q.path) {
		return false
	}
	for key, pattern := range r.Attributes {
		if !wildcard(pattern, q.attribute(key)) {
			return false
		}
	}
	return true
}

// wildcard matches without regard to case: * is any text, ? any one character.
func wildcard(pattern, text string) bool {
	if pattern == "*" {
		return true
	}
	pattern, text = strings.ToLower(pattern), strings.ToLower(text)
	star, from := -1, 0 // the last *, and where what follows it was tried
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			from++
			p, t = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// rule is a rule in use: what X-Ray granted, and what became of it.
type rule struct {
	samplingRule

	mu        sync.Mutex
	rate      float64 // of what the reservoir does not take
	reservoir reservoir
	quota     int64     // a second, for this process
	expires   time.Time // of the quota
	counts    counts    // since the last report
	reportAt  time.Time // not before
}

// counts are what X-Ray wants to know of a rule.
type counts struct {
	requests, sampled int64
	borrowed          int64 // sampled without a quota; they are not among sampled, as in X-Ray's own SDKs
}

func (c *counts) add(other counts) {
	c.requests += other.requests
	c.sampled += other.sampled
	c.borrowed += other.borrowed
}

// sample decides. While there is no quota it borrows one request a second, if the rule has a reservoir at all.
func (r *rule) sample(now time.Time, random float64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts.requests++
	if now.After(r.expires) {
		if r.ReservoirSize > 0 && r.reservoir.take(now, 1) {
			r.counts.borrowed++
			return true
		}
	} else if r.reservoir.take(now, r.quota) {
		r.counts.sampled++
		return true
	}
	if random < r.rate {
		r.counts.sampled++
		return true
	}
	return false
}

// report takes what is counted, if it is time to.
func (r *rule) report(now time.Time) (c counts, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts.requests == 0 || now.Before(r.reportAt) {
		return c, false
	}
	c, r.counts = r.counts, c
	return c, true
}

// unreport puts back what could not be reported.
func (r *rule) unreport(c counts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts.add(c)
}

// grant takes over what X-Ray answered.
func (r *rule) grant(now time.Time, t samplingTarget) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.FixedRate != nil {
		r.rate = *t.FixedRate
	}
	if t.ReservoirQuota != nil {
		r.quota = *t.ReservoirQuota
	}
	if t.ReservoirQuotaTTL != nil {
		r.expires = time.UnixMilli(int64(*t.ReservoirQuotaTTL * 1000))
	}
	r.reportAt = now.Add(time.Duration(t.Interval) * time.Second)
}

// reservoir is so many requests a second.
type reservoir struct{ second, used int64 }

func (r *reservoir) take(now time.Time, limit int64) bool {
	if second := now.Unix(); second != r.second {
		r.second, r.used = second, 0
	}
	if r.used >= limit {
		return false
	}
	r.used++
	return true
}

// ruleSet are the rules of one fetch, the first that matches counts. It is not changed, but for what its rules count.
type ruleSet struct {
	rules   []*rule
	fetched time.Time
}

// newRuleSet takes over the state of rules that were there before. Rules of a version that is not known are left out.
func newRuleSet(fetched time.Time, records []samplingRule, before *ruleSet) *ruleSet {
	s := &ruleSet{fetched: fetched}
	for _, record := range records {
		if record.Version != 1 || record.RuleName == "" || s.byName(record.RuleName) != nil {
			continue
		}
		old := before.byName(record.RuleName)
		switch {
		case old == nil:
			old = &rule{samplingRule: record, rate: record.FixedRate}
		case !reflect.DeepEqual(old.samplingRule, record):
			old = old.changed(record)
		}
		s.rules = append(s.rules, old)
	}
	slices.SortStableFunc(s.rules, func(a, b *rule) int {
		return cmp.Or(isDefault(a)-isDefault(b), cmp.Compare(a.Priority, b.Priority), strings.Compare(a.RuleName, b.RuleName))
	})
	return s
}

func isDefault(r *rule) int {
	if r.RuleName == "Default" {
		return 1
	}
	return 0
}

// changed is the rule with another definition. What is counted by those who still use the old one is lost.
func (r *rule) changed(to samplingRule) *rule {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &rule{samplingRule: to, rate: to.FixedRate, reservoir: r.reservoir, quota: r.quota, expires: r.expires, counts: r.counts, reportAt: r.reportAt}
}

func (s *ruleSet) byName(name string) *rule {
	if s == nil {
		return nil
	}
	for _, r := range s.rules {
		if r.RuleName == name {
			return r
		}
	}
	return nil
}

func (s *ruleSet) find(q *request) *rule {
	for _, r := range s.rules {
		if r.matches(q) {
			return r
		}
	}
	return nil
}
