package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	keepInterval = 10 * time.Second       // without a TTL and an interval
	retryMin     = 200 * time.Millisecond // first pause after a failure
)

// Keeper keeps a service registered, whatever happens to the backend. All methods are safe for concurrent use.
type Keeper struct {
	reg           Registry
	service       *Service
	ttl, interval time.Duration
	log           *slog.Logger
	follower      *Follower

	lost chan struct{} // holds a token when a watcher saw the registration deleted
	quit chan struct{} // closed by Stop
	done chan struct{} // closed when refresh has ended
	gone chan struct{} // closed when it is deregistered

	stopping sync.Once
	stopErr  error // valid once gone is closed

	mu   sync.Mutex
	last time.Time // of the last registration that succeeded
	err  error     // why it is not registered, or may soon not be
}

var errLost = errors.New("the registration was deleted")

// Keep registers s and keeps it registered until Stop: it registers again every interval, so that ttl does not pass, and at
// once when a watcher tells that the registration is gone; when that fails, it is tried with growing pauses, for ever.
// Only the first registration is the caller's: its error is returned, and nothing is kept then.
//
// A ttl of 0 means that the registration does not end by itself; an interval of 0 means a third of ttl, or 10 s without
// one. Changes of health are logged, once each; a nil log means slog.Default. s is copied.
func Keep(reg Registry, s *Service, ttl, interval time.Duration, log *slog.Logger) (*Keeper, error) {
	if err := Validate(s); err != nil {
		return nil, err
	}
	if interval <= 0 {
		interval = keepInterval
		if ttl > 0 {
			interval = ttl / 3
		}
	}
	if ttl > 0 && interval >= ttl {
		return nil, fmt.Errorf("register %s: the interval of %v must be shorter than the TTL of %v", s.Name, interval, ttl)
	}
	if log == nil {
		log = slog.Default()
	}
	k := &Keeper{
		reg: reg, service: s.Clone(), ttl: ttl, interval: interval,
		log:  log.With("registry", reg.String(), "registration", s.Name),
		lost: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}), gone: make(chan struct{}),
	}
	k.follower = Follow(reg, log, k.notice, nil)
	<-k.follower.Begun()
	if err := k.register(); err != nil {
		k.follower.Stop()
		return nil, fmt.Errorf("register %s: %w", s.Name, err)
	}
	go func() { defer close(k.done); k.refresh() }()
	return k, nil
}

// Registered says whether the registration is there, as far as is known: one that cannot be refreshed is there until its
// TTL passes. After Stop it is false.
func (k *Keeper) Registered() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped() || errors.Is(k.err, errLost) || errors.Is(k.err, ErrClosed) {
		return false
	}
	return k.err == nil || k.ttl > 0 && time.Since(k.last) < k.ttl
}

// Err is nil while all is well, else what the last attempt to register answered, or why there will be one.
func (k *Keeper) Err() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// Stop ends the keeping and deregisters. ctx bounds only the wait: a registry that hangs is left to it, and when it
// comes back the service is deregistered still. Calling Stop again waits for the same end.
func (k *Keeper) Stop(ctx context.Context) error {
	k.stopping.Do(func() {
		close(k.quit)
		go k.deregister()
	})
	select {
	case <-k.gone:
		return k.stopErr
	case <-ctx.Done():
		return fmt.Errorf("deregister %s: %w", k.service.Name, context.Cause(ctx))
	}
}

func (k *Keeper) deregister() {
	defer close(k.gone)
	<-k.done // a Register under way would come after the Deregister
	k.follower.Stop()
	if err := k.reg.Deregister(k.service.Clone()); err != nil && !errors.Is(err, ErrClosed) {
		k.stopErr = fmt.Errorf("deregister %s: %w", k.service.Name, err)
	}
}

// refresh registers again and again: after the interval, after a pause when that failed, at once when the registration was
// lost; but not at once again and again, if somebody keeps deleting it.
func (k *Keeper) refresh() {
	pauses := k.backOff()
	timer := time.NewTimer(k.nextInterval())
	defer timer.Stop()
	losses, waiting := 0, false // waiting: timer is set to make good a loss or a failure
	for {
		select {
		case <-k.quit:
			return
		case <-k.lost:
			if waiting {
				continue
			}
			pause := time.Duration(0)
			if losses++; losses > 1 {
				pause = pauses.NextBackOff()
			}
			waiting = true
			timer.Reset(pause)
			continue
		case <-timer.C:
		}
		switch err := k.register(); {
		case errors.Is(err, ErrClosed):
			return
		case err != nil:
			waiting = true
			timer.Reset(pauses.NextBackOff())
		default:
			if !waiting {
				losses = 0
				pauses.Reset()
			}
			waiting = false
			timer.Reset(k.nextInterval())
		}
	}
}

func (k *Keeper) backOff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = min(retryMin, k.interval)
	b.MaxInterval = k.interval
	b.Multiplier = 2
	b.Reset()
	return b
}

// nextInterval is up to a tenth shorter, so that processes that were started together do not refresh together.
func (k *Keeper) nextInterval() time.Duration {
	return k.interval - rand.N(k.interval/10+1)
}

func (k *Keeper) register() error {
	err := k.reg.Register(k.service.Clone(), TTL(k.ttl))
	if err != nil {
		k.fail(err)
		return err
	}
	k.mu.Lock()
	was := k.err
	k.err, k.last = nil, time.Now()
	k.mu.Unlock()
	if was != nil {
		k.log.Info("registered again")
	}
	return nil
}

// fail notes why there is no registration, or none that is refreshed, and logs it if all was well before.
func (k *Keeper) fail(err error) {
	k.mu.Lock()
	was, first := k.err, k.last.IsZero()
	k.err = err
	k.mu.Unlock()
	if was == nil && !first && !k.stopped() {
		k.log.Warn("not registered, trying again until it is", "error", err)
	}
}

func (k *Keeper) stopped() bool {
	select {
	case <-k.quit:
		return true
	default:
		return false
	}
}

// startWatching is best effort: without a watcher a loss is made good at the next refresh.
// notice looks for the deletion of an own node.
func (k *Keeper) notice(r *Result) {
	if r.Action != Delete || !k.isOwn(r.Service) {
		return
	}
	k.fail(errLost)
	select {
	case k.lost <- struct{}{}:
	default:
	}
}

func (k *Keeper) isOwn(s *Service) bool {
	return s.Name == k.service.Name && s.Version == k.service.Version &&
		slices.ContainsFunc(s.Nodes, func(n *Node) bool {
			return slices.ContainsFunc(k.service.Nodes, func(own *Node) bool { return own.ID == n.ID })
		})
}
