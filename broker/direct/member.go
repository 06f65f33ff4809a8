package direct

import (
	"crypto/rand"
	"hash/fnv"
	"slices"
	"time"
)

// How many messages without a key a member has at once, so that one that joins finds some to do: at least as many as
// its handlers can work on, and more while it acks them quickly.
const (
	minWindow = 16
	maxWindow = 1024
	quick     = 100 * time.Millisecond
	slow      = time.Second
)

// member is one subscription that an outbox sends to.
type member struct {
	id, addr string
	box      *outbox
	smallest int           // of the window
	ready    chan struct{} // holds a token when there may be something to take

	// Under box.mu.
	isUp    bool
	isNew   bool // its first connection is being made: keys may be its own already, so that not all go to the first who is up
	leaving bool
	lane    []*entry // to be sent, in order
	sent    map[uint64]*entry
	window  int
	token   string // renewed when its messages were taken back
}

func (m *member) init(box *outbox, concurrency int) {
	m.box = box
	m.isNew = true
	m.smallest = max(2*concurrency, minWindow)
	m.window = m.smallest
	m.ready = make(chan struct{}, 1)
	m.sent = map[uint64]*entry{}
	m.renew()
}

// renew says that what m has been sent is with others now.
func (m *member) renew() { m.token = rand.Text() }

func (m *member) load() int { return len(m.lane) + len(m.sent) }

// takes says whether m is to be given a message without a key.
func (m *member) takes() bool { return m.isUp && !m.leaving && m.load() < m.window }

func (m *member) push(e *entry) {
	m.lane = append(m.lane, e)
	m.wake()
}

func (m *member) wake() {
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

// all returns what m did not ack, in order.
func (m *member) all() []*entry {
	all := make([]*entry, 0, m.load())
	for _, e := range m.sent {
		all = append(all, e)
	}
	all = append(all, m.lane...)
	slices.SortFunc(all, inOrder)
	return all
}

// weigh is the rendezvous hash.
func weigh(id, key string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	h.Write([]byte{0})
	h.Write([]byte(key))
	x := h.Sum64() // whose high bits hardly depend on the end of what was written
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}
