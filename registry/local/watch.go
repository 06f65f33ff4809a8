package local

import (
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/plugmicro/micro/registry"
)

const (
	pollNotified = 2 * time.Second        // where the system tells of changes: for what it does not tell
	pollOnly     = 200 * time.Millisecond // where it does not tell of dying processes
	settle       = 2 * time.Millisecond   // changes come in swarms
)

// notifier is a way to learn of changes.
type notifier struct {
	// start puts a token into changed, if there is room, whenever something happens in dir, until stop is called.
	start  func(dir string, changed chan<- struct{}) (stop func(), err error)
	deaths bool // it tells of processes that died, too
}

// Watch starts the loop that reads the directory, the first time.
func (r *Registry) Watch() (registry.Watcher, error) {
	r.watching.Lock()
	defer r.watching.Unlock()
	if r.isClosed() {
		return nil, registry.ErrClosed
	}
	if r.seen != nil {
		r.look() // so that the new watcher is not told what was there before
		return r.changes.Watch()
	}
	l := &watchLoop{r: r, changed: make(chan struct{}, 1), settle: settle}
	info, err := r.dir.ensure()
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	l.follow(info)
	if r.seen, err = r.dir.scan(""); err != nil {
		l.unfollow()
		return nil, fmt.Errorf("watch: %w", err)
	}
	r.loop.Go(l.run)
	return r.changes.Watch()
}

// look reads the directory and tells the watchers what is new. It returns what it knows.
func (r *Registry) look() *snapshot {
	now, err := r.dir.scan("")
	if err != nil {
		if !r.blind {
			r.log.Warn("the registry directory cannot be read, trying again", "error", err)
		}
		r.blind = true
		return r.seen
	}
	r.blind = false
	r.changes.Publish(registry.Diff(r.seen.services, now.services)...)
	r.seen = now
	return now
}

// watchLoop looks when something happened, when a TTL passes, and now and then.
type watchLoop struct {
	r       *Registry
	changed chan struct{}
	dir     fs.FileInfo // that is followed
	stop    func()      // nil: nothing tells of changes
	settle  time.Duration
}

// follow asks for notifications from the directory, again if it was made anew.
func (l *watchLoop) follow(dir fs.FileInfo) {
	if l.stop != nil && os.SameFile(l.dir, dir) {
		return
	}
	l.unfollow()
	stop, err := l.r.notifier.start(l.r.dir.path, l.changed)
	if err != nil {
		if l.dir == nil {
			l.r.log.Warn("the system does not tell of changes in the registry directory, looking often instead",
				"dir", l.r.dir.path, "error", err)
		}
		l.dir = dir
		return
	}
	l.dir, l.stop = dir, stop
	signal(l.changed) // whatever happened before
}

func (l *watchLoop) unfollow() {
	if l.stop != nil {
		l.stop()
		l.stop = nil
	}
}

func signal(changed chan<- struct{}) {
	select {
	case changed <- struct{}{}:
	default:
	}
}

func (l *watchLoop) run() {
	defer l.unfollow()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-l.r.quit:
			return
		case <-l.changed:
			pause.Reset(l.settle)
			select {
			case <-l.r.quit:
				return
			case <-pause.C:
			}
		case <-pause.C:
		}
		pause.Reset(l.look())
	}
}

// look returns when to look again. In a large directory that is later, so that looking takes only a part of one processor.
func (l *watchLoop) look() time.Duration {
	l.r.watching.Lock()
	defer l.r.watching.Unlock()
	start := time.Now()
	s := l.r.look()
	l.follow(s.dir)
	next := pollOnly
	if l.stop != nil && l.r.notifier.deaths {
		next = pollNotified
	}
	took := time.Since(start)
	l.settle = min(max(settle, 4*took), time.Second)
	next = max(next, 50*took)
	if !s.expires.IsZero() {
		next = min(next, max(time.Until(s.expires), l.settle))
	}
	return next
}

// fsNotify works on all systems, but tells only of files that come and go.
func fsNotify(dir string, changed chan<- struct{}) (func(), error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	if err := w.Add(dir); err != nil {
		_ = w.Close()
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case e, ok := <-w.Events:
				if !ok {
					return
				}
				if !e.Has(fsnotify.Chmod) { // a refresh, or the reading of a file
					signal(changed)
				}
			case _, ok := <-w.Errors: // too many events at once, for example
				if !ok {
					return
				}
				signal(changed)
			}
		}
	}()
	return func() { _ = w.Close(); <-ended }, nil
}
