package mdns

import (
	"errors"
	"math/rand/v2"
	"time"
)

const (
	repeat      = time.Second            // between announcements of the same
	quiet       = 200 * time.Millisecond // at least, between packets about the same node
	askAgain    = 250 * time.Millisecond // after the first query; three times longer each time
	askAtLeast  = time.Minute
	maxTTL      = 75 * time.Minute // longer ones are not believed
	maxUnpacked = 1 << 20          // bytes of TXT records that are decoded of one packet
)

// run does what is to be done at some time, and waits for the next.
func (r *Registry) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-r.quit:
			return
		case <-r.wake:
		case <-timer.C:
		}
		if r.net.update() {
			r.introduce()
		}
		timer.Reset(time.Until(r.tick(time.Now())))
	}
}

// introduce is for networks that were not there before.
func (r *Registry) introduce() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked, r.ask = 0, time.Now()
	for _, e := range r.table.entries {
		if e.own && e.alive() {
			e.repeats = 1
			r.announce(e, 0)
		}
	}
}

// announce is called with the lock held.
func (r *Registry) announce(e *entry, after time.Duration) {
	at := time.Now().Add(after)
	if next := e.sent.Add(quiet); next.After(at) {
		at = next
	}
	if due, ok := r.due[e.label]; !ok || at.Before(due) {
		r.due[e.label] = at
	}
}

// tick returns when the next one is due.
func (r *Registry) tick(now time.Time) time.Time {
	r.mu.Lock()
	next := now.Add(networkEvery)
	soon := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	labels := r.age(now, soon)
	answers := r.announcements(now, soon)
	var known []answer
	all := !now.Before(r.ask)
	if all {
		known = r.known(now)
		pause := min(askAgain<<min(2*r.asked, 16), askAtLeast)
		r.asked++
		r.ask = now.Add(pause + rand.N(pause/10+1))
	}
	soon(r.ask)
	closed := r.closed
	r.mu.Unlock()
	if closed {
		return next
	}
	err := r.send(answers)
	if all || len(labels) > 0 {
		err = errors.Join(err, r.query(all, known, labels))
	}
	if err != nil {
		r.log.Debug("multicast failed, it will be repeated", "error", err)
	}
	return next
}

// age removes what has expired, and returns what should be asked for because it is about to.
func (r *Registry) age(now time.Time, soon func(time.Time)) (labels []string) {
	for label, e := range r.table.entries {
		if e.expired(now) {
			r.changes.Publish(r.table.expire(e)...)
			delete(r.due, label)
			continue
		}
		if !e.expires.IsZero() && e.alive() && !e.own && e.asked <= 3 && !now.Before(e.refreshAt()) {
			e.asked++
			labels = append(labels, label)
		}
		if !e.expires.IsZero() {
			soon(e.refreshAt())
		}
	}
	return labels
}

func (r *Registry) announcements(now time.Time, soon func(time.Time)) (list []answer) {
	for label, at := range r.due {
		e := r.table.entries[label]
		if !e.alive() || !e.own {
			delete(r.due, label)
			continue
		}
		if now.Before(at) {
			soon(at)
			continue
		}
		delete(r.due, label)
		e.sent = now
		list = append(list, answer{e, r.lifetime(e, now)})
		if e.repeats > 0 {
			e.repeats--
			r.due[label] = now.Add(repeat)
			soon(r.due[label])
		}
	}
	return list
}

// lifetime is how long others may believe in an own node.
func (r *Registry) lifetime(e *entry, now time.Time) time.Duration {
	if e.expires.IsZero() {
		return r.ttl
	}
	return max(e.expires.Sub(now), time.Millisecond)
}

// known is what needs no answer, as far as it fits into a packet.
func (r *Registry) known(now time.Time) (list []answer) {
	const each = 60 // bytes, about
	for _, e := range r.table.entries {
		if left := e.expires.Sub(now); !e.own && e.alive() && left > e.ttl/2 && len(list) < goodSize/each {
			list = append(list, answer{e, left})
		}
	}
	return list
}

// send puts the nodes into packets.
func (r *Registry) send(list []answer) error {
	var errs []error
	for len(list) > 0 {
		n, size := 1, list[0].size
		for n < len(list) && size+list[n].size <= goodSize {
			size += list[n].size
			n++
		}
		packet, err := r.names.response(list[:n])
		if err == nil {
			err = r.net.send(packet)
		}
		errs = append(errs, err)
		list = list[n:]
	}
	return errors.Join(errs...)
}

func (r *Registry) query(all bool, known []answer, labels []string) error {
	const each = 100 // bytes at most, about
	for {
		n := min(len(labels), goodSize/each)
		packet, err := r.names.query(all, known, labels[:n])
		if err == nil {
			err = r.net.send(packet)
		}
		labels, all, known = labels[n:], false, nil
		if err != nil || len(labels) == 0 {
			return err
		}
	}
}

// receive takes a packet from the network.
func (r *Registry) receive(packet []byte) {
	m, err := r.names.parse(packet)
	if err != nil {
		return // not for us, or from somebody who cannot do better
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	unpacked := 0
	for _, h := range m.texts {
		if unpacked < maxUnpacked {
			unpacked += r.hear(h)
		}
	}
	if m.all {
		r.answerAll(m.known)
	}
	for _, label := range m.labels {
		if e := r.table.entries[label]; e.alive() && e.own {
			r.announce(e, 0)
		}
	}
	signal(r.wake)
}

func (r *Registry) answerAll(known map[string]bool) {
	for label, e := range r.table.entries {
		if e.own && e.alive() && !known[label] {
			r.announce(e, 20*time.Millisecond+rand.N(60*time.Millisecond)) // others answer, too
		}
	}
}

// hear is called with the lock held. It returns how many bytes it has unpacked.
func (r *Registry) hear(h heard) int {
	h.ttl = min(h.ttl, maxTTL)
	e := r.table.entries[h.label]
	if e != nil && e.text.raw == join(h.text) {
		r.hearAgain(e, h.ttl)
		return 0
	}
	service, stamp, size, err := decode(h.text)
	if err != nil || label(service.Name, service.Nodes[0].ID) != h.label {
		return maxText // what is wrong has no credit
	}
	if e != nil && stamp <= e.stamp {
		if e.own && e.alive() {
			r.announce(e, quiet) // somebody has old news
		}
		return size
	}
	now := time.Now()
	fresh := &entry{label: h.label, service: service, stamp: stamp, text: text{join(h.text), size}, ttl: h.ttl, expires: now.Add(h.ttl)}
	if e == nil && !r.table.room(fresh.text) {
		if !r.full {
			r.full = true
			r.log.Warn("too many nodes on this network, the rest is ignored", "nodes", len(r.table.entries), "bytes", r.table.bytes)
		}
		return size
	}
	fresh.size = len(fresh.text.raw) + 300 // about: for a goodbye
	if h.ttl == 0 {
		r.changes.Publish(r.table.bury(fresh, r.ttl)...)
		return size
	}
	r.changes.Publish(r.table.put(fresh)...)
	return size
}

// hearAgain is about a registration that is known already.
func (r *Registry) hearAgain(e *entry, ttl time.Duration) {
	switch {
	case !e.alive(): // it was said before the goodbye
	case ttl == 0:
		r.changes.Publish(r.table.bury(e, r.ttl)...)
	case !e.own:
		e.ttl, e.expires, e.asked = ttl, time.Now().Add(ttl), 0
	}
}
