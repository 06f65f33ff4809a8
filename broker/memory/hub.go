package memory

import (
	"slices"
	"sync"

	"github.com/plugmicro/micro/broker"
)

// hub has the topics that several brokers share. A topic exists while it has subscribers.
type hub struct {
	mu     sync.RWMutex
	topics map[string][]*group
}

// group is one queue and those who work it off: competing members, or a single subscriber without a name.
type group struct {
	name    string
	queue   *broker.Queue
	members map[*subscription]struct{}
}

func newHub() *hub { return &hub{topics: map[string][]*group{}} }

// queues returns the queue of each group of a topic.
func (h *hub) queues(topic string) []*broker.Queue {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var queues []*broker.Queue
	for _, g := range h.topics[topic] {
		queues = append(queues, g.queue)
	}
	return queues
}

// join makes s a member of a group, whose bounds are those of its first member.
func (h *hub) join(s *subscription, name string) *group {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.find(s.topic, name)
	if g == nil {
		c := s.broker.config
		g = &group{name: name, queue: broker.NewQueue(c.Buffer, int(c.BufferSize)), members: map[*subscription]struct{}{}}
		h.topics[s.topic] = append(h.topics[s.topic], g)
	}
	g.members[s] = struct{}{}
	return g
}

func (h *hub) find(topic, name string) *group {
	if name == "" {
		return nil
	}
	for _, g := range h.topics[topic] {
		if g.name == name {
			return g
		}
	}
	return nil
}

// resign takes s out of its group if that has other members, and reports whether it is out.
func (h *hub) resign(s *subscription) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, in := s.group.members[s]; in && len(s.group.members) == 1 {
		return false
	}
	delete(s.group.members, s)
	return true
}

// leave takes s out of its group, and ends the group if that was the last. It returns how many messages were left.
func (h *hub) leave(s *subscription) int {
	if h.resign(s) {
		return 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(s.group.members, s)
	if len(s.group.members) > 0 { // somebody joined in between
		return 0
	}
	h.remove(s.topic, s.group)
	return s.group.queue.Close()
}

func (h *hub) remove(topic string, g *group) {
	h.topics[topic] = slices.DeleteFunc(h.topics[topic], func(o *group) bool { return o == g })
	if len(h.topics[topic]) == 0 {
		delete(h.topics, topic)
	}
}
