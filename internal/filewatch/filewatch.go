// Package filewatch keeps what was read from a file up to date: for plugins whose file may be changed while they run.
//
//	w, err := filewatch.Follow(c.File, env.Logger(), routes.load)
//	defer w.Close()
//
// It notices a file that is written, replaced by a rename, or that a symbolic link on the way leads elsewhere to, as
// Kubernetes does it with its volumes. One that is written in place is read when it has stopped changing: who wants no moment
// of a half-written file at all, as a writer may die on the way, writes another and renames it.
package filewatch

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	settle = 50 * time.Millisecond  // how long a file must stay the same before it is used: a writer may be at it
	empty  = 2 * time.Second        // the same for an empty one: who writes in place cuts a file to nothing first
	latest = 250 * time.Millisecond // after which it is read all the same: something else in its folder may change all the time
	poll   = 2 * time.Second        // what notifications miss, such as changes on network volumes, is found by this
	limit  = 64 << 20               // bytes of a file
)

// Watch follows one file.
type Watch struct {
	file    string
	log     *slog.Logger
	load    func([]byte) error
	last    []byte    // what load took last
	seen    []byte    // what was read last, while it is not used
	since   time.Time // when that was read first; zero if all that was read is used
	refused bool      // load has refused what was read last
	failed  string    // why it could not be read, so that it is logged once
	events  *fsnotify.Watcher
	stop    chan struct{}
	once    sync.Once
	done    sync.WaitGroup
}

// Follow reads file, calls load, and from then on calls load again for each new content, one call at a time, until Close. An
// error of reading, or of load, is returned the first time, and nothing is followed then. Later it is logged, and what
// load did before is to stay in force. An error of load must be the content's: load is not called with the same again before
// the file was another or could not be read. A nil log means slog.Default. The data is load's to keep, and not to change.
func Follow(file string, log *slog.Logger, load func(data []byte) error) (*Watch, error) {
	if log == nil {
		log = slog.Default()
	}
	w := &Watch{file: file, log: log.With("file", file), load: load, stop: make(chan struct{})}
	data, err := read(file)
	if err != nil {
		return nil, err
	}
	if err := load(data); err != nil {
		return nil, err
	}
	w.last = data
	if w.events, err = fsnotify.NewWatcher(); err == nil {
		err = w.events.Add(filepath.Dir(file)) // the directory: the file itself may be replaced
	}
	if err != nil {
		w.log.Warn("no notifications of changes: the file is read every two seconds", "error", err)
	}
	w.done.Go(w.run)
	return w, nil
}

// Close ends the following, and waits until load has returned. It may be called more than once.
func (w *Watch) Close() error {
	w.once.Do(func() { close(w.stop) })
	w.done.Wait()
	return nil
}

func (w *Watch) run() {
	var notified chan fsnotify.Event
	if w.events != nil {
		defer w.events.Close()
		notified = w.events.Events
		go func() {
			for range w.events.Errors { // what is lost is found by polling
			}
		}()
	}
	next := time.NewTimer(poll)
	defer next.Stop()
	var first time.Time // of the notifications since the file was looked at
	var settling bool   // it was found changed, and is not yet used
	for {
		select {
		case <-w.stop:
			return
		case <-notified:
			if settling {
				continue // the next look is due soon, whatever else changes in the folder
			}
			if first.IsZero() {
				first = time.Now()
			}
			next.Reset(min(settle, time.Until(first.Add(latest))))
		case <-next.C:
			wait := w.look()
			first, settling = time.Time{}, wait == settle
			next.Reset(wait)
		}
	}
}

// look calls load if there is something new that has settled. It returns when to look again.
func (w *Watch) look() time.Duration {
	data, err := read(w.file)
	switch {
	case err != nil:
		w.since, w.refused = time.Time{}, false
		if w.failed != err.Error() {
			w.failed = err.Error()
			w.warn(err)
		}
		return poll
	case bytes.Equal(data, w.last):
		w.uses(data)
		return poll
	case !w.settled(data):
		return settle
	case w.refused:
		return poll
	}
	if err := w.load(data); err != nil {
		w.refused, w.failed = true, ""
		w.warn(err)
		return poll
	}
	w.uses(data)
	w.log.Info("the changed file is in use")
	return poll
}

func (w *Watch) uses(data []byte) {
	w.last, w.seen, w.since, w.refused, w.failed = data, nil, time.Time{}, false, ""
}

// settled is whether the file has been found as it is now for long enough.
func (w *Watch) settled(data []byte) bool {
	if w.since.IsZero() || !bytes.Equal(data, w.seen) {
		w.seen, w.since, w.refused = data, time.Now(), false
		return false
	}
	if len(data) == 0 {
		return time.Since(w.since) >= empty
	}
	return time.Since(w.since) >= settle
}

func (w *Watch) warn(err error) {
	w.log.Warn("the changed file is not used: what was read before stays in force", "error", err)
}

func read(file string) ([]byte, error) {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file", file)
	case info.Size() > limit:
		return nil, fmt.Errorf("%s has %d bytes: %d is the limit", file, info.Size(), limit)
	}
	data, err := os.ReadFile(file)
	if err == nil && len(data) > limit {
		return nil, errors.New(file + " grows while it is read")
	}
	return data, err
}
