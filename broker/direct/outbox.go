package direct

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/plugmicro/micro/broker"
)

// outbox holds what one group, or one subscriber without a group, has not acked yet, and spreads it over the members.
// A message waits in it, is assigned to a member, is sent, is acked. When a member is lost, what it did not ack is
// assigned to the others, in the order in which it was published.
type outbox struct {
	topic, group string // the group is "" for a subscriber without one
	grace        time.Duration
	log          *slog.Logger
	ended        func(*outbox) // called once the outbox is closed, without mu

	// Room for messages and for bytes. Both limits hold until the ack.
	room      *semaphore.Weighted
	roomBytes *semaphore.Weighted
	maxBytes  int64

	mu      sync.Mutex
	closed  bool
	sealed  bool     // nothing more is published
	last    uint64   // sequence of the newest message
	unacked int      // messages
	free    []*entry // without a key and not assigned, in order
	orphans []*entry // with a key and not assigned, because there is nobody, in order
	keys    map[string]*pin
	members []*member
	turn    int         // of the members, where several are equally idle
	alone   *time.Timer // fires when there was nobody for grace; nil: there is somebody, or nothing to wait for
	flushes []*flush
}

// entry is one message for one outbox. It is not changed but for where it is.
type entry struct {
	seq  uint64
	key  string
	data []byte // encoded, shared by all outboxes
	sent time.Time
}

// pin keeps a key with the member that has messages of it, so that they stay in order when members come and go.
type pin struct {
	member *member // nil: they are orphans
	n      int     // messages not acked
}

// flush waits for the messages up to a sequence.
type flush struct {
	upTo uint64
	left int
	done chan struct{}
}

// errGone is what put answers when the group has ended, so that nobody is there to miss the message.
var errGone = errors.New("the group is gone")

func newOutbox(topic, group string, c Config, log *slog.Logger, ended func(*outbox)) *outbox {
	return &outbox{
		topic: topic, group: group, grace: c.Grace, log: log.With("topic", topic, "group", group), ended: ended,
		room:      semaphore.NewWeighted(int64(c.Buffer)),
		roomBytes: semaphore.NewWeighted(int64(c.BufferSize)),
		maxBytes:  int64(c.BufferSize),
		keys:      map[string]*pin{},
	}
}

// tryPut is put that does not wait.
func (b *outbox) tryPut(key string, data []byte) (bool, error) {
	if !b.room.TryAcquire(1) {
		return false, nil
	}
	if !b.roomBytes.TryAcquire(b.weight(data)) {
		b.room.Release(1)
		return false, nil
	}
	return true, b.add(key, data)
}

// put adds a message, and waits while there is no room. Errors are errGone, broker.ErrClosed and ctx's.
func (b *outbox) put(ctx context.Context, key string, data []byte) error {
	if err := b.room.Acquire(ctx, 1); err != nil {
		return err
	}
	if err := b.roomBytes.Acquire(ctx, b.weight(data)); err != nil {
		b.room.Release(1)
		return err
	}
	return b.add(key, data)
}

// weight is what data takes of roomBytes; a message larger than that has the outbox to itself.
func (b *outbox) weight(data []byte) int64 { return min(int64(len(data)), b.maxBytes) }

func (b *outbox) leaveRoom(data []byte) {
	b.roomBytes.Release(b.weight(data))
	b.room.Release(1)
}

func (b *outbox) add(key string, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.sealed {
		b.leaveRoom(data)
		if b.sealed {
			return broker.ErrClosed
		}
		return errGone
	}
	b.last++
	b.unacked++
	if key != "" {
		p := b.keys[key]
		if p == nil {
			p = &pin{}
			b.keys[key] = p
		}
		p.n++
	}
	b.place(&entry{seq: b.last, key: key, data: data})
	b.watchOver()
	return nil
}

// seal lets nothing more be put.
func (b *outbox) seal() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sealed = true
}

// wait waits until all that was put before is acked or dropped.
func (b *outbox) wait(ctx context.Context) error {
	b.mu.Lock()
	if b.unacked == 0 {
		b.mu.Unlock()
		return nil
	}
	f := &flush{upTo: b.last, left: b.unacked, done: make(chan struct{})}
	b.flushes = append(b.flushes, f)
	b.mu.Unlock()
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waiting is how many messages are not acked.
func (b *outbox) waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unacked
}

// onlyAt says whether the group has members, all of them at that address.
func (b *outbox) onlyAt(addr string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	elsewhere := func(m *member) bool { return m.addr != addr }
	return len(b.members) > 0 && !slices.ContainsFunc(b.members, elsewhere)
}

// join adds a member, which is given nothing until it is up. False if the outbox is closed.
func (b *outbox) join(m *member) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.members = append(b.members, m)
	b.watchOver()
	return true
}

// up says that m is connected. If it was before, what it did not ack is sent again, first of all.
func (b *outbox) up(m *member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.isUp, m.isNew, m.leaving = true, false, false
	m.lane = m.all()
	clear(m.sent)
	orphans := b.orphans
	b.orphans = nil
	for _, e := range orphans {
		b.place(e)
	}
	b.fill(m)
	m.wake()
	b.watchOver()
}

// down says that m cannot be reached. Others get its messages.
func (b *outbox) down(m *member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.isUp, m.isNew = false, false
	b.takeBack(m)
	b.watchOver()
}

// leave says that m takes no more messages, but may still ack those that it has.
func (b *outbox) leave(m *member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.leaving = true
	lane := m.lane
	m.lane = nil
	for _, e := range lane {
		if e.key != "" {
			m.lane = append(m.lane, e) // behind those of its key that were sent
			continue
		}
		b.place(e)
	}
	slices.SortFunc(b.free, inOrder)
	b.watchOver()
}

// remove ends the membership of m; left says that it took its leave.
func (b *outbox) remove(m *member, left bool) {
	b.mu.Lock()
	i := slices.Index(b.members, m)
	if i < 0 {
		b.mu.Unlock()
		return
	}
	b.members = slices.Delete(b.members, i, i+1)
	left = left || m.leaving
	m.isUp, m.isNew = false, false
	b.takeBack(m)
	b.watchOver()
	over := len(b.members) == 0 && (b.group == "" || left && b.unacked == 0)
	lost := 0
	if over {
		lost = b.close()
	}
	b.mu.Unlock()
	if over {
		if lost > 0 && !left {
			b.log.Error("messages dropped: their only subscriber is gone", "messages", lost)
		}
		b.ended(b)
	}
}

// expire drops everything when there was nobody for the time of grace.
func (b *outbox) expire() {
	b.mu.Lock()
	if b.alone == nil || b.closed {
		b.mu.Unlock()
		return
	}
	b.alone = nil
	dropped, over := b.unacked, len(b.members) == 0
	if over {
		b.close()
	} else {
		b.dropAll()
	}
	b.mu.Unlock()
	if dropped > 0 {
		b.log.Error("messages dropped: their group has had no member that could be reached", "messages", dropped, "for", b.grace)
	}
	if over {
		b.ended(b)
	}
}

// end closes the outbox from outside, and returns how many messages were not acked.
func (b *outbox) end() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.close()
}

// acked settles messages that m has handled.
func (b *outbox) acked(m *member, seqs []uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var sent time.Time
	full := len(m.sent)*2 >= m.window
	for _, seq := range seqs {
		if e := m.sent[seq]; e != nil {
			sent = e.sent
			delete(m.sent, seq)
			b.settle(e)
		}
	}
	if sent.IsZero() {
		return
	}
	switch took := time.Since(sent); {
	case took < quick && full:
		m.window = min(2*m.window, max(maxWindow, m.smallest))
	case took > slow:
		m.window = max(m.window/2, m.smallest)
	}
	b.fill(m)
}

// drop gives up one message that m was to be sent.
func (b *outbox) drop(m *member, e *entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.sent[e.seq] == e {
		delete(m.sent, e.seq)
		b.settle(e)
	}
}

// maxBatch is how many bytes of messages go into one frame; a larger message goes alone.
const maxBatch = 16 << 10

// take appends what is to be sent to m next to batch; nothing if there is nothing.
func (b *outbox) take(m *member, batch []*entry) []*entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !m.isUp || m.leaving || len(m.lane) == 0 {
		return batch
	}
	now := time.Now()
	size := 0
	for len(m.lane) > 0 {
		e := m.lane[0]
		if size += len(e.data); len(batch) > 0 && size > maxBatch {
			break
		}
		m.lane[0] = nil
		m.lane = m.lane[1:]
		e.sent = now
		m.sent[e.seq] = e
		batch = append(batch, e)
	}
	return batch
}

// The rest is called with mu held.

// place gives e to a member, or lets it wait.
func (b *outbox) place(e *entry) {
	if e.key == "" {
		if m := b.idlest(); m != nil {
			m.push(e)
		} else {
			b.free = append(b.free, e)
		}
		return
	}
	p := b.keys[e.key]
	if p.member == nil {
		p.member = b.memberOf(e.key)
	}
	if p.member == nil {
		b.orphans = append(b.orphans, e)
		return
	}
	p.member.push(e)
}

// idlest is the member that has the least to do, if there is one that takes more.
func (b *outbox) idlest() *member {
	var best *member
	b.turn++
	for i := range b.members {
		m := b.members[(b.turn+i)%len(b.members)]
		if m.takes() && (best == nil || m.load() < best.load()) {
			best = m
		}
	}
	return best
}

// memberOf is the member for a key: the same for all publishers that know the same members, and few keys move when
// members come and go.
func (b *outbox) memberOf(key string) *member {
	var best *member
	var most uint64
	for _, m := range b.members {
		if !m.isUp && !m.isNew || m.leaving {
			continue
		}
		if w := weigh(m.id, key); best == nil || w > most {
			best, most = m, w
		}
	}
	return best
}

// fill assigns what waits to m, as much as it takes.
func (b *outbox) fill(m *member) {
	for len(b.free) > 0 && m.takes() {
		e := b.free[0]
		b.free[0] = nil
		b.free = b.free[1:]
		m.push(e)
	}
}

// takeBack assigns all that m did not ack to others.
func (b *outbox) takeBack(m *member) {
	entries := m.all()
	m.lane = nil
	clear(m.sent)
	m.window = m.smallest
	m.renew()
	for _, e := range entries {
		if p := b.keys[e.key]; p != nil && p.member == m {
			p.member = nil
		}
	}
	for _, e := range entries {
		b.place(e)
	}
	slices.SortFunc(b.free, inOrder)
	slices.SortFunc(b.orphans, inOrder)
	if len(entries) > 0 {
		b.log.Info("messages of a member are handed to others", "member", m.id, "address", m.addr, "messages", len(entries))
	}
}

func inOrder(a, b *entry) int { return cmp.Compare(a.seq, b.seq) }

// settle ends a message.
func (b *outbox) settle(e *entry) {
	b.unacked--
	b.leaveRoom(e.data)
	if p := b.keys[e.key]; p != nil {
		if p.n--; p.n == 0 {
			delete(b.keys, e.key)
		}
	}
	if len(b.flushes) == 0 {
		return
	}
	b.flushes = slices.DeleteFunc(b.flushes, func(f *flush) bool {
		if e.seq <= f.upTo {
			f.left--
		}
		if f.left == 0 {
			close(f.done)
		}
		return f.left == 0
	})
}

func (b *outbox) dropAll() {
	all := slices.Concat(b.free, b.orphans)
	b.free, b.orphans = nil, nil
	for _, m := range b.members {
		all = append(all, m.all()...)
		m.lane = nil
		clear(m.sent)
	}
	for _, e := range all {
		b.settle(e)
	}
}

// close drops everything, and lets those who wait for room see that the group is gone.
func (b *outbox) close() int {
	if b.closed {
		return 0
	}
	b.closed = true
	if b.alone != nil {
		b.alone.Stop()
		b.alone = nil
	}
	dropped := b.unacked
	b.dropAll()
	return dropped
}

// watchOver starts the time of grace when there is nobody, and ends it when there is somebody.
func (b *outbox) watchOver() {
	someone := slices.ContainsFunc(b.members, func(m *member) bool { return m.isUp })
	switch {
	case someone && b.alone != nil:
		b.alone.Stop()
		b.alone = nil
	case !someone && b.alone == nil && !b.closed:
		b.alone = time.AfterFunc(b.grace, b.expire)
	}
}
