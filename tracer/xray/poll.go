package xray

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	rulesEvery   = 300 * time.Second
	targetsEvery = 10 * time.Second
	askTimeout   = 5 * time.Second
	maxAnswer    = 4 << 20
	maxPages     = 100
)

// samplingTarget is what X-Ray grants a rule in this process.
type samplingTarget struct {
	RuleName          string
	FixedRate         *float64
	ReservoirQuota    *int64
	ReservoirQuotaTTL *float64 // seconds since 1970
	Interval          int64    // seconds, until the next report
}

// statistics is the report of a rule.
type statistics struct {
	ClientID     string
	RuleName     string
	Timestamp    int64
	RequestCount int64
	SampledCount int64
	BorrowCount  int64
}

type targetsAnswer struct {
	LastRuleModification    float64
	SamplingTargetDocuments []samplingTarget
	UnprocessedStatistics   []struct{ RuleName, ErrorCode, Message string }
}

// samplingClient asks X-Ray about sampling, through the daemon.
type samplingClient struct {
	address string
	http    *http.Client
}

func newSamplingClient(address string) *samplingClient {
	return &samplingClient{address: address, http: &http.Client{Timeout: askTimeout, Transport: &http.Transport{
		DialContext: new(net.Dialer).DialContext, MaxIdleConns: 1, IdleConnTimeout: 2 * targetsEvery,
	}}}
}

// fetchRules reads all pages.
func (c *samplingClient) fetchRules(ctx context.Context) (rules []samplingRule, err error) {
	var ask struct{ NextToken *string }
	for range maxPages {
		var page struct {
			NextToken           string
			SamplingRuleRecords []struct{ SamplingRule samplingRule }
		}
		if err := c.post(ctx, "/GetSamplingRules", ask, &page); err != nil {
			return nil, err
		}
		for _, record := range page.SamplingRuleRecords {
			rules = append(rules, record.SamplingRule)
		}
		if page.NextToken == "" {
			return rules, nil
		}
		ask.NextToken = &page.NextToken
	}
	return nil, fmt.Errorf("the sampling rules have more than %d pages", maxPages)
}

func (c *samplingClient) fetchTargets(ctx context.Context, reports []statistics) (answer targetsAnswer, err error) {
	ask := struct{ SamplingStatisticsDocuments []statistics }{reports}
	err = c.post(ctx, "/SamplingTargets", ask, &answer)
	return answer, err
}

func (c *samplingClient) post(ctx context.Context, path string, ask, answer any) error {
	body, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.address+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("POST %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("POST %s: the daemon answered %s: %.200s", path, resp.Status, text)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("POST %s: read the answer: %w", path, err)
	}
	return nil
}

// poller keeps the rules of a sampler up to date. All but newPoller is for the goroutine of run.
type poller struct {
	daemon   *samplingClient
	sampler  *sampler
	id       string // of this process, for X-Ray
	log      *slog.Logger
	modified float64 // LastRuleModification when the rules were fetched
	failing  bool
}

func newPoller(address string, s *sampler, log *slog.Logger) *poller {
	var id [12]byte
	_, _ = rand.Read(id[:]) // cannot fail
	return &poller{daemon: newSamplingClient(address), sampler: s, id: hex.EncodeToString(id[:]), log: log}
}

// run polls until ctx ends.
func (p *poller) run(ctx context.Context) {
	defer p.daemon.http.CloseIdleConnections()
	rulesAt, retry := time.Now(), targetsEvery
	targetsAt := rulesAt.Add(jitter(targetsEvery))
	for {
		if now := time.Now(); !now.Before(rulesAt) {
			wait := rulesEvery
			if !p.updateRules(ctx) {
				wait, retry = retry, min(2*retry, rulesEvery)
			} else {
				retry = targetsEvery
			}
			rulesAt = now.Add(jitter(wait))
		}
		if now := time.Now(); !now.Before(targetsAt) {
			if p.updateTargets(ctx) {
				rulesAt = now
			}
			targetsAt = now.Add(jitter(targetsEvery))
			continue
		}
		next := rulesAt
		if targetsAt.Before(next) {
			next = targetsAt
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(next)):
		}
	}
}

// jitter adds up to a fiftieth, so that processes which start together do not ask together for ever.
func jitter(d time.Duration) time.Duration { return d + mathrand.N(d/50) }

func (p *poller) updateRules(ctx context.Context) bool {
	at := time.Now()
	records, err := p.daemon.fetchRules(ctx)
	if p.failed(ctx, err) {
		return false
	}
	p.sampler.rules.Store(newRuleSet(at, records, p.sampler.rules.Load()))
	return true
}

// updateTargets reports what was counted and takes over what is granted. It tells whether the rules have changed.
func (p *poller) updateTargets(ctx context.Context) (changed bool) {
	set := p.sampler.rules.Load()
	if set == nil {
		return false
	}
	now := time.Now()
	var reports []statistics
	reported := make(map[string]counts)
	for _, r := range set.rules {
		if c, due := r.report(now); due {
			reported[r.RuleName] = c
			reports = append(reports, statistics{p.id, r.RuleName, now.Unix(), c.requests, c.sampled, c.borrowed})
		}
	}
	if reports == nil {
		return false
	}
	answer, err := p.daemon.fetchTargets(ctx, reports)
	if p.failed(ctx, err) {
		for name, c := range reported {
			set.byName(name).unreport(c)
		}
		return false
	}
	for _, t := range answer.SamplingTargetDocuments {
		if r := set.byName(t.RuleName); r != nil {
			r.grant(now, t)
		}
	}
	for _, u := range answer.UnprocessedStatistics {
		p.log.Debug("X-Ray did not take the statistics of a sampling rule", "rule", u.RuleName, "code", u.ErrorCode, "message", u.Message)
		if strings.HasPrefix(u.ErrorCode, "4") { // there is no such rule any more
			changed = true
		} else if r := set.byName(u.RuleName); r != nil {
			r.unreport(reported[u.RuleName])
		}
	}
	changed = changed || answer.LastRuleModification != p.modified
	p.modified = answer.LastRuleModification
	return changed
}

// failed logs when it begins to fail, and when that is over.
func (p *poller) failed(ctx context.Context, err error) bool {
	switch {
	case err == nil && p.failing:
		p.failing = false
		p.log.Info("the X-Ray daemon answers about sampling again")
	case err != nil && !p.failing && ctx.Err() == nil:
		p.failing = true
		p.log.Warn("no sampling rules of X-Ray: until the daemon answers, what is known of them counts for an hour, then the settings reservoir and rate",
			"daemon", p.daemon.address, "error", err)
	}
	return err != nil
}
