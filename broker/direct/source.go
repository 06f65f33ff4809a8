package direct

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/metadata"
	"github.com/plugmicro/micro/status"
)

// source is one publisher, as far as its deliveries to one subscription go. It outlives the loss of a connection for a
// while, so that what a publisher sends again, because it had no ack for it, is not handled twice, and out of order.
type source struct {
	ready     chan struct{} // holds a token when there may be something to answer
	receiving sync.Mutex    // held by the stream whose deliveries are taken

	mu     sync.Mutex
	stream *mux.Call       // that is open; nil: none
	end    func()          // ends that stream
	known  map[uint64]bool // deliveries by sequence; true: acked
	done   []uint64        // to be acked
	acked  []uint64        // the last ones, as many as a publisher sends again at most
	linger *time.Timer
}

func (src *source) wake() {
	select {
	case src.ready <- struct{}{}:
	default:
	}
}

// serve takes deliveries until the stream or the subscription ends.
func (s *subscription) serve(c *mux.Call) {
	ctx, cancel := context.WithCancel(c)
	defer cancel()
	src, err := s.attach(c, cancel)
	if err != nil {
		c.Fail(err)
		return
	}
	defer s.streams.Done()
	defer s.detach(src, c)
	answered := make(chan bool, 1)
	go func() { answered <- s.answer(ctx, src, c) }()
	err = s.receive(ctx, c, src)
	if s.serving.Err() == nil {
		cancel()
	}
	complete := <-answered
	if errors.Is(err, errBad) {
		s.broker.log.Warn("publisher broke the protocol", "peer", c.Peer(), "topic", s.topic, "error", err)
		c.Fail(status.Errorf(status.InvalidArgument, "%w", err))
		return
	}
	if !complete { // the publisher tries again, and does not give to others what is being handled
		c.Fail(status.Errorf(status.Unavailable, "the stream broke: %w", err))
		return
	}
	c.Reply(nil)
}

// noSubscription is what a publisher is told that comes too late.
const noSubscription = "there is no such subscription, or not any more"

// attach finds or makes the source of a stream, which end is to end. It ends an older stream of the same source, whose
// publisher has lost it.
func (s *subscription) attach(c *mux.Call, end func()) (*source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil, status.Errorf(status.NotFound, noSubscription)
	}
	name := metadata.Get(c, sourceKey)
	src := s.sources[name]
	if src == nil {
		if len(s.sources) >= maxStreams {
			return nil, status.Errorf(status.ResourceExhausted, "the subscription has %d publishers, which is the limit", maxStreams)
		}
		src = &source{ready: make(chan struct{}, 1), known: map[uint64]bool{}}
		s.sources[name] = src
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	if src.stream != nil {
		src.end()
	}
	src.stream, src.end = c, end
	if src.linger != nil {
		src.linger.Stop()
		src.linger = nil
	}
	s.streams.Add(1)
	src.wake()
	return src, nil
}

// detach lets a source be forgotten, later if it may come back.
func (s *subscription) detach(src *source, c *mux.Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src.mu.Lock()
	defer src.mu.Unlock()
	if src.stream != c {
		return
	}
	src.stream = nil
	name := metadata.Get(c, sourceKey)
	if s.over || len(src.known) == 0 {
		delete(s.sources, name)
		return
	}
	src.linger = time.AfterFunc(s.broker.config.Timeout, func() { s.drop(name, src) })
}

func (s *subscription) drop(name string, src *source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src.mu.Lock()
	defer src.mu.Unlock()
	if src.stream == nil && s.sources[name] == src {
		delete(s.sources, name)
	}
}

func (s *subscription) dropSources() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.sources {
		src.mu.Lock()
		if src.linger != nil {
			src.linger.Stop()
		}
		src.mu.Unlock()
	}
	clear(s.sources)
}

var errBad = errors.New("bad delivery")

// receive puts deliveries into the queue, and waits while that is full: then the publisher's credit ends. A stream waits
// for the older one, because a delivery that this has begun with and gives up is not here.
func (s *subscription) receive(ctx context.Context, c *mux.Call, src *source) error {
	src.receiving.Lock()
	defer src.receiving.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.serving, cancel)()
	for {
		b, err := c.Stream.Recv(ctx)
		if err != nil {
			return err
		}
		err = parseDeliveries(b.B, func(seq uint64, message []byte) error { return s.take(ctx, src, seq, message) })
		b.Release()
		if errors.Is(err, errMalformed) {
			return fmt.Errorf("%w: %w", errBad, err)
		}
		if err != nil {
			return err
		}
	}
}

func (s *subscription) take(ctx context.Context, src *source, seq uint64, message []byte) error {
	m, err := parseMessage(message)
	if err != nil {
		return err
	}
	if err := broker.CheckPublish(anySize{s.broker}, s.topic, m); err != nil {
		return fmt.Errorf("%w: %w", errBad, err)
	}
	if src.unanswered() > maxUnanswered(s.broker.config) {
		return fmt.Errorf("%w: the publisher does not read the acks", errBad)
	}
	if !src.begin(seq) {
		return nil
	}
	if err := s.queue.Put(ctx, m, func(acked bool) { src.settle(seq, acked) }); err != nil {
		src.settle(seq, false)
		return err
	}
	return nil
}

// anySize is the broker without its limit for bodies: that of the publisher counts, within the one of the connection.
type anySize struct{ *Broker }

func (a anySize) Capabilities() broker.Capabilities {
	can := a.Broker.Capabilities()
	can.MaxBody = int(a.Broker.config.MaxMessage) + overhead
	return can
}

// maxUnanswered bounds the acks that wait for a publisher to read them: one that is honest has fewer messages without one.
func maxUnanswered(c Config) int { return 4*c.Buffer + maxAcks }

func (src *source) unanswered() int {
	src.mu.Lock()
	defer src.mu.Unlock()
	return len(src.done)
}

// begin reports false for a delivery that is here already, or was; then its ack got lost, and is sent again.
func (src *source) begin(seq uint64) bool {
	src.mu.Lock()
	defer src.mu.Unlock()
	acked, known := src.known[seq]
	if !known {
		src.known[seq] = false
	}
	if acked {
		src.done = append(src.done, seq)
		src.wake()
	}
	return !known
}

func (src *source) settle(seq uint64, acked bool) {
	src.mu.Lock()
	defer src.mu.Unlock()
	if !acked {
		delete(src.known, seq)
		return
	}
	src.known[seq] = true
	src.done = append(src.done, seq)
	src.wake()
}

// takeDone appends what is to be acked, a frame's worth at most, and forgets some of what was acked long ago. It reports
// false when a newer stream took over: an ack on the older one would be lost, and never come again.
func (src *source) takeDone(c *mux.Call, acks []uint64, remember int) ([]uint64, bool) {
	src.mu.Lock()
	defer src.mu.Unlock()
	if src.stream != c {
		src.wake() // it is the newer one's token
		return acks, false
	}
	n := min(len(src.done), maxAcks)
	acks = append(acks, src.done[:n]...)
	src.done = append(src.done[:0], src.done[n:]...)
	src.acked = append(src.acked, acks...)
	if len(src.acked) > 2*remember {
		old := len(src.acked) - remember
		for _, seq := range src.acked[:old] {
			delete(src.known, seq)
		}
		src.acked = append(src.acked[:0], src.acked[old:]...)
	}
	return acks, true
}

// answer acks, and says that the subscription is leaving, until it is over. It reports whether all is acked then.
func (s *subscription) answer(ctx context.Context, src *source, c *mux.Call) (complete bool) {
	var acks []uint64
	var frame []byte
	told := false
	for {
		over, leaving := s.state()
		var current bool
		if acks, current = src.takeDone(c, acks[:0], s.broker.config.Buffer); !current {
			return false
		}
		if len(acks) > 0 {
			frame = appendAcks(frame[:0], acks)
			if c.Stream.Send(ctx, bytesCodec, frame) != nil {
				return false
			}
			continue
		}
		if over {
			return true
		}
		if leaving && !told {
			if c.Stream.Send(ctx, bytesCodec, []byte{answerLeaving}) != nil {
				return false
			}
			told = true
			continue
		}
		select {
		case <-src.ready:
		case <-s.serving.Done():
		case <-ctx.Done():
			return false
		}
	}
}

func (s *subscription) state() (over, leaving bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over, s.leaving
}
