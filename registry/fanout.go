package registry

import (
	"errors"
	"sync"
)

// maxPending bounds the memory of a watcher that nobody reads while nodes come and go under ever new IDs.
const maxPending = 1 << 16

var errLagging = errors.New("watcher is too far behind, changes were lost: watch again")

// Fanout hands changes to any number of watchers, as Watcher promises it. It is what an implementation of Registry serves
// Watch with:
//
//	func (r *Registry) Watch() (registry.Watcher, error) { return r.changes.Watch() }
//
// The zero value is ready. All methods are safe for concurrent use, and none of them blocks.
type Fanout struct {
	mu       sync.Mutex
	closed   bool
	watchers map[*watcher]struct{}
}

// Publish tells all watchers. A result with several nodes becomes several with one each; one without nodes says nothing.
// The results are copied. Whoever calls Publish concurrently has no say in the order.
func (f *Fanout) Publish(results ...*Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || len(f.watchers) == 0 {
		return
	}
	for _, r := range results {
		for _, s := range nodesOf([]*Service{r.Service.Clone()}) {
			for w := range f.watchers {
				w.add(r.Action, s)
			}
		}
	}
}

// Watch starts a watcher of everything that is published from now on; ErrClosed after Close.
func (f *Fanout) Watch() (Watcher, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, ErrClosed
	}
	w := &watcher{fanout: f, pending: make(map[key]*change), ready: make(chan struct{}, 1), done: make(chan struct{})}
	if f.watchers == nil {
		f.watchers = make(map[*watcher]struct{})
	}
	f.watchers[w] = struct{}{}
	return w, nil
}

// Close ends all watchers with ErrClosed. It may be called more than once.
func (f *Fanout) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for w := range f.watchers {
		w.end(ErrClosed)
	}
	f.watchers = nil
}

func (f *Fanout) forget(w *watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watchers, w)
}

// change is what a reader has not seen yet of one node.
type change struct {
	known   bool // the reader may know the node: the first unread change was no Create
	action  string
	service *Service // shared by all watchers, so never changed
}

// result folds what happened since the reader last looked. Created and deleted again stays a Delete: the reader may have
// found the node in between, by getting.
func (c *change) result() *Result {
	action := c.action
	if action != Delete {
		action = Create
		if c.known {
			action = Update
		}
	}
	return &Result{Action: action, Service: c.service.Clone()}
}

type watcher struct {
	fanout *Fanout
	ready  chan struct{} // holds a token while something may be pending
	done   chan struct{} // closed when err is set

	mu      sync.Mutex
	err     error
	order   []key // by first unread change
	pending map[key]*change
}

var _ Watcher = (*watcher)(nil)

func (w *watcher) add(action string, single *Service) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	k := keyOf(single)
	c := w.pending[k]
	if c == nil {
		if len(w.pending) == maxPending {
			w.endLocked(errLagging)
			return
		}
		c = &change{known: action != Create}
		w.pending[k] = c
		w.order = append(w.order, k)
	}
	c.action, c.service = action, single
	w.wake()
}

func (w *watcher) wake() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

func (w *watcher) Next() (*Result, error) {
	for {
		if r, err := w.take(); r != nil || err != nil {
			return r, err
		}
		select {
		case <-w.ready:
		case <-w.done:
		}
	}
}

// take returns nil, nil when there is nothing to read.
func (w *watcher) take() (*Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	if len(w.order) == 0 {
		return nil, nil
	}
	k := w.order[0]
	c := w.pending[k]
	w.order = w.order[1:]
	delete(w.pending, k)
	if len(w.order) > 0 {
		w.wake() // another Next may be waiting
	}
	return c.result(), nil
}

func (w *watcher) Stop() {
	w.fanout.forget(w)
	w.end(ErrWatcherStopped)
}

func (w *watcher) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endLocked(err)
}

func (w *watcher) endLocked(err error) {
	if w.err != nil {
		return
	}
	w.err, w.order, w.pending = err, nil, nil
	close(w.done)
}
