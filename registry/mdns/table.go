package mdns

import (
	"time"

	"github.com/plugmicro/micro/registry"
)

// limits bound what is remembered of others, who may be anybody.
type limits struct {
	entries int
	bytes   int // of encoded services, as they were before compression
}

var defaultLimits = limits{entries: 10_000, bytes: 64 << 20}

// entry is what is known of one instance. service, stamp and text belong together and are never changed.
type entry struct {
	label   string
	service *registry.Service // nil: it is gone, but old news of it may still be under way
	stamp   int64             // of two registrations of a node the one with the larger stamp is the later
	text    text
	size    int // of a packet with its records

	own     bool
	repeats int           // announcements that are to follow
	sent    time.Time     // when it was announced last
	expires time.Time     // zero: never, which only own ones do
	ttl     time.Duration // of others: as announced
	asked   int           // of others: how often it was asked for as its end came near
}

func (e *entry) alive() bool { return e != nil && e.service != nil }

func (e *entry) expired(now time.Time) bool { return !e.expires.IsZero() && !now.Before(e.expires) }

// refreshAt is when to ask whether it is still there: at 80, 85, 90 and 95 per cent of its life.
func (e *entry) refreshAt() time.Time {
	if e.own || !e.alive() || e.asked > 3 {
		return e.expires
	}
	return e.expires.Add(-e.ttl * time.Duration(20-5*e.asked) / 100)
}

// table is not safe for concurrent use. Its methods return what changed.
type table struct {
	limits  limits
	entries map[string]*entry
	bytes   int
}

func services(e *entry) []*registry.Service {
	if !e.alive() {
		return nil
	}
	return []*registry.Service{e.service}
}

func (t *table) put(e *entry) []*registry.Result {
	old := t.entries[e.label]
	t.drop(e.label)
	t.entries[e.label] = e
	t.bytes += e.text.bytes
	return registry.Diff(services(old), services(e))
}

func (t *table) drop(label string) {
	if old := t.entries[label]; old != nil {
		t.bytes -= old.text.bytes
		delete(t.entries, label)
	}
}

// bury remembers for a while that e is gone.
func (t *table) bury(e *entry, ttl time.Duration) []*registry.Result {
	return t.put(&entry{label: e.label, stamp: e.stamp, text: text{raw: e.text.raw}, expires: time.Now().Add(ttl)})
}

func (t *table) expire(e *entry) []*registry.Result {
	t.drop(e.label)
	return registry.Diff(services(e), nil)
}

// room says whether there is some for an instance that is not known yet.
func (t *table) room(x text) bool {
	return len(t.entries) < t.limits.entries && t.bytes+x.bytes <= t.limits.bytes
}
