package registry_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/registry/memory"
	"github.com/stretchr/testify/require"
)

var errDown = errors.New("backend is down")

// flaky is a memory registry whose connection can be cut, or hang.
type flaky struct {
	*memory.Registry
	mu     sync.Mutex
	down   error
	hangs  chan struct{}
	blind  bool // cannot be watched
	called int
}

func (f *flaky) set(down error) { f.mu.Lock(); defer f.mu.Unlock(); f.down = down }

func (f *flaky) calls() int { f.mu.Lock(); defer f.mu.Unlock(); return f.called }

func (f *flaky) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	f.mu.Lock()
	f.called++
	down, hangs := f.down, f.hangs
	f.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
	if down != nil {
		return down
	}
	return f.Registry.Register(s, opts...)
}

func (f *flaky) Watch() (registry.Watcher, error) {
	if f.blind {
		return nil, errors.New("no watching here")
	}
	return f.Registry.Watch()
}

type bench struct {
	store *memory.Store
	other *memory.Registry // another process's view
	reg   *flaky
	logs  *bytes.Buffer
	log   *slog.Logger
}

// inBubble runs test with a clock of its own, at which nothing takes time but waiting.
func inBubble(t *testing.T, test func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{store: memory.NewStore(), logs: new(bytes.Buffer)}
		b.log = slog.New(slog.NewTextHandler(b.logs, nil))
		b.other = b.store.Open()
		b.reg = &flaky{Registry: b.store.Open()}
		test(t, b)
	})
}

func (b *bench) keep(t *testing.T, ttl, interval time.Duration) *registry.Keeper {
	t.Helper()
	k, err := registry.Keep(b.reg, full(), ttl, interval, b.log)
	require.NoError(t, err)
	return k
}

func (b *bench) there() bool {
	_, err := b.other.GetService("greeter")
	return err == nil
}

// lines synchronizes with the goroutines that log, then counts.
func (b *bench) lines(part string) int {
	synctest.Wait()
	return strings.Count(b.logs.String(), part)
}

func TestKeepRegistersUntilStop(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		s := full()
		k, err := registry.Keep(b.reg, s, 30*time.Second, 10*time.Second, b.log)
		require.NoError(t, err)
		s.Nodes[0].Address = "changed by the caller"
		for range 100 {
			require.True(t, b.there())
			require.True(t, k.Registered())
			require.NoError(t, k.Err())
			time.Sleep(7 * time.Second)
		}
		got, err := b.other.GetService("greeter")
		require.NoError(t, err)
		require.Equal(t, []*registry.Service{full()}, got)
		require.InDelta(t, 1+700/9.5, b.reg.calls(), 5, "once each interval, a little early")

		require.NoError(t, k.Stop(t.Context()))
		require.False(t, b.there())
		require.False(t, k.Registered())
		require.NoError(t, k.Stop(t.Context()), "again")
		calls := b.reg.calls()
		time.Sleep(time.Minute)
		require.Equal(t, calls, b.reg.calls())
		require.Empty(t, b.logs.String())
	})
}

func TestKeepReportsTheFirstRegistration(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.reg.set(errDown)
		_, err := registry.Keep(b.reg, full(), time.Minute, time.Second, b.log)
		require.ErrorIs(t, err, errDown)
		require.ErrorContains(t, err, "register greeter")
		_, err = registry.Keep(b.reg, service("1"), time.Minute, time.Second, b.log)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = registry.Keep(b.reg, full(), time.Second, time.Second, b.log)
		require.ErrorContains(t, err, "the interval of 1s must be shorter than the TTL of 1s")
		time.Sleep(time.Hour)
		require.Equal(t, 1, b.reg.calls(), "nothing is kept")
		require.Empty(t, b.logs.String())
	})
}

func TestKeepSurvivesAnOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		k := b.keep(t, 30*time.Second, 10*time.Second)
		b.reg.set(errDown)
		time.Sleep(11 * time.Second)
		require.ErrorIs(t, k.Err(), errDown)
		require.True(t, k.Registered(), "the TTL has not passed")
		time.Sleep(20 * time.Second)
		require.False(t, k.Registered())
		require.False(t, b.there())

		calls := b.reg.calls()
		time.Sleep(time.Hour)
		require.InDelta(t, 360, b.reg.calls()-calls, 120, "tries about once each interval, for ever")
		require.Equal(t, 1, b.lines("level=WARN"), b.logs)

		b.reg.set(nil)
		time.Sleep(16 * time.Second)
		require.True(t, k.Registered())
		require.NoError(t, k.Err())
		require.True(t, b.there())
		require.Equal(t, 1, b.lines("registered again"))
		require.Equal(t, 2, b.lines("level="), b.logs)
		require.NoError(t, k.Stop(t.Context()))
	})
}

func TestKeepComesBackAtOnceAfterALoss(t *testing.T) {
	losses := map[string]func(b *bench) error{
		"wiped":                   func(b *bench) error { b.store.Wipe(); return nil },
		"deregistered by another": func(b *bench) error { return b.other.Deregister(full()) },
	}
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bench) {
				k := b.keep(t, 0, time.Hour)
				require.NoError(t, lose(b))
				synctest.Wait() // no time passes
				require.True(t, b.there())
				require.True(t, k.Registered())
				require.Equal(t, 1, b.lines("registered again"))
				require.NoError(t, k.Stop(t.Context()))
				require.False(t, b.there())
			})
		})
	}
}

func TestKeepDoesNotFightForEver(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		k := b.keep(t, 0, time.Minute)
		w, err := b.other.Watch()
		require.NoError(t, err)
		go func() { // somebody deletes it whenever it appears
			for {
				if _, err := w.Next(); err != nil {
					return
				}
				_ = b.other.Deregister(full())
			}
		}()
		b.store.Wipe()
		time.Sleep(time.Hour)
		require.Less(t, b.reg.calls(), 150, "about once a minute")
		w.Stop()
		time.Sleep(2 * time.Minute)
		require.True(t, k.Registered())
		require.True(t, b.there())
		require.NoError(t, k.Stop(t.Context()))
	})
}

func TestKeepWithoutWatchingComesBackAtTheNextInterval(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.reg.blind = true
		k := b.keep(t, time.Minute, 0) // a third of the TTL
		b.store.Wipe()
		time.Sleep(21 * time.Second)
		require.True(t, b.there())
		require.NoError(t, k.Stop(t.Context()))
	})
}

func TestKeepEndsWithTheRegistry(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		k := b.keep(t, 0, 0)
		require.NoError(t, b.reg.Close())
		time.Sleep(11 * time.Second)
		require.False(t, k.Registered())
		require.ErrorIs(t, k.Err(), registry.ErrClosed)
		calls := b.reg.calls()
		time.Sleep(time.Hour)
		require.Equal(t, calls, b.reg.calls())
		require.NoError(t, k.Stop(t.Context()))
	})
}

func TestStopIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		k := b.keep(t, 0, 10*time.Second)
		hangs := make(chan struct{})
		b.reg.mu.Lock()
		b.reg.hangs = hangs
		b.reg.mu.Unlock()
		time.Sleep(15 * time.Second) // a refresh hangs now

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		require.ErrorIs(t, k.Stop(ctx), context.DeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.False(t, k.Registered())

		close(hangs)
		require.NoError(t, k.Stop(t.Context()))
		require.False(t, b.there(), "deregistered after the register that hung")
	})
}
