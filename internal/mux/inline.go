package mux

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Switching goroutines is cheap, but waking one often makes the runtime wake a thread, which takes longer than many
// calls do. So the goroutine that reads a server's connection answers a call itself if the call is the only one and its
// endpoint has been fast. A call that takes long after all holds up what comes behind it until the watch, which looks
// every watchEvery while there are such calls, has seen it twice: then another goroutine goes on with the reading.

const (
	fast       = 100 * time.Microsecond // mean of the calls of an endpoint that the reader answers
	paceCalls  = 64                     // over about so many
	unproved   = time.Millisecond       // mean of an endpoint that was not called yet
	watchEvery = 10 * time.Millisecond
)

// Pace is how long calls of an endpoint take. Targets that embed one may be answered by the reader. It is a mean, so
// that an endpoint that is slow now and then is kept from the reader for as much longer as it was slower.
type Pace struct{ mean atomic.Int64 } // nanoseconds; 0: not known

type paced interface{ pace() *Pace }

func (p *Pace) pace() *Pace { return p }

func (p *Pace) fast() bool {
	mean := p.mean.Load()
	return mean > 0 && mean < int64(fast)
}

// took takes in one call. Of two at the same moment one may be lost.
func (p *Pace) took(d time.Duration) {
	mean := p.mean.Load()
	if mean == 0 {
		mean = int64(unproved)
	}
	p.mean.Store(max(1, mean+(int64(d)-mean)/paceCalls))
}

// inline is what a Server knows of the call that its reader answers.
type inline struct {
	mu      sync.Mutex
	call    *Call // nil: there is none, or it takes too long
	seen    *Call // what call was when the watch looked last
	watched bool  // the watch is set
	watch   *time.Timer
}

// errRelieved tells the reader that another goroutine reads now.
var errRelieved = errors.New("relieved")

func (s *Server) startInline() {
	s.inline.watch = time.AfterFunc(math.MaxInt64, s.relieve)
	s.inline.watch.Stop()
}

// answer is for the reader: it runs c. After errRelieved the reader must not touch the connection any more.
func (s *Server) answer(c *Call) error {
	in := &s.inline
	in.mu.Lock()
	in.call = c
	if !in.watched {
		in.watched = true
		in.watch.Reset(watchEvery)
	}
	in.mu.Unlock()
	returned := false
	defer func() {
		if !returned && s.stillReads(c) { // the handler ended its goroutine
			go s.read()
		}
	}()
	c.serve()
	returned = true
	if !s.stillReads(c) {
		return errRelieved
	}
	return nil
}

// stillReads says, when c is over, whether nobody else has become the reader.
func (s *Server) stillReads(c *Call) bool {
	s.inline.mu.Lock()
	defer s.inline.mu.Unlock()
	reads := s.inline.call == c
	if reads {
		s.inline.call = nil
	}
	return reads
}

// relieve is what the watch does.
func (s *Server) relieve() {
	in := &s.inline
	in.mu.Lock()
	defer in.mu.Unlock()
	if c := in.call; c != nil && c == in.seen {
		in.call = nil
		c.pace.took(unproved * paceCalls) // it may never return, and tell itself
		go s.read()
	}
	in.seen = in.call
	in.watched = in.call != nil
	if in.watched {
		in.watch.Reset(watchEvery)
	}
}
