package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// Three contracts whose plugins need each other.
type (
	alpha interface{ Alpha() }
	beta  interface{ Beta() }
	gamma interface{ Gamma() }
)

// part is an instance of any of them, which writes down when it is closed.
type part struct {
	name string
	log  *[]string
	ctx  context.Context
	err  error
}

func (*part) Alpha() {}
func (*part) Beta()  {}
func (*part) Gamma() {}

func (p *part) Close() error {
	*p.log = append(*p.log, fmt.Sprintf("close %s, context ended: %t", p.name, p.ctx.Err() != nil))
	return p.err
}

type none = struct{}

// greek is a catalog of the three kinds, without plugins.
func greek() *Catalog {
	c := NewCatalog()
	NewKindIn[alpha](c, "alpha").SetDefault("a")
	NewKindIn[beta](c, "beta").SetDefault("b")
	NewKindIn[gamma](c, "gamma").SetDefault("c")
	return c
}

func host(t *testing.T, c *Catalog, configure ...func(*Loader)) *Host {
	t.Helper()
	l := NewLoader(c)
	for _, f := range configure {
		f(l)
	}
	s, err := l.Load(nil)
	require.NoError(t, err)
	h := s.Open(t.Context(), nil)
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func TestOpensInOrderOfNeedAndClosesInReverse(t *testing.T) {
	var log []string
	c := greek()
	RegisterIn(c, "a", func(env *Env, _ none) (alpha, error) {
		_, err := Use[beta](env)
		log = append(log, "open a")
		return &part{"a", &log, env.Context(), errors.New("stuck")}, err
	})
	RegisterIn(c, "b", func(env *Env, _ none) (beta, error) {
		_, err := Use[gamma](env)
		log = append(log, "open b")
		return &part{"b", &log, env.Context(), nil}, err
	})
	RegisterIn(c, "c", func(env *Env, _ none) (gamma, error) {
		log = append(log, "open c")
		return &part{"c", &log, env.Context(), errors.New("full\ndisk")}, nil
	})
	h := host(t, c)
	require.Empty(t, log, "nothing is opened before it is asked for")
	a, err := Open[alpha](h)
	require.NoError(t, err)
	again, err := Open[alpha](h)
	require.NoError(t, err)
	require.Same(t, a, again)
	_, err = Open[gamma](h)
	require.NoError(t, err)

	const closeError = "close alpha/a: stuck\nclose gamma/c: full; disk"
	require.EqualError(t, h.Close(), closeError)
	require.EqualError(t, h.Close(), closeError, "and does not close twice")
	require.Equal(t, []string{"open c", "open b", "open a",
		"close a, context ended: false", "close b, context ended: false", "close c, context ended: false"}, log)
	require.Error(t, a.(*part).ctx.Err(), "the context ends after Close")
	_, err = Open[alpha](h)
	require.ErrorIs(t, err, ErrClosed)
}

func TestCycles(t *testing.T) {
	c := greek()
	RegisterIn(c, "a", func(env *Env, _ none) (alpha, error) { _, err := Use[beta](env); return nil, err })
	RegisterIn(c, "b", func(env *Env, _ none) (beta, error) { _, err := Use[gamma](env); return nil, err })
	RegisterIn(c, "c", func(env *Env, _ none) (gamma, error) { _, err := Use[beta](env); return nil, err })
	_, err := Open[alpha](host(t, c))
	require.EqualError(t, err, "alpha/a: beta/b: gamma/c: plugins need each other: gamma → beta → gamma: choose another for one of them"+
		" (gamma from default) (beta from default) (alpha from default)")

	self := greek()
	RegisterIn(self, "a", func(env *Env, _ none) (alpha, error) { _, err := Use[alpha](env); return nil, err })
	RegisterIn(self, "b", func(*Env, none) (beta, error) { return nil, nil })
	RegisterIn(self, "c", func(*Env, none) (gamma, error) { return nil, nil })
	_, err = Open[alpha](host(t, self))
	require.ErrorContains(t, err, "alpha → alpha")
}

// Two goroutines enter a cycle from different sides: neither may wait for the other for ever.
func TestCycleEnteredFromTwoSides(t *testing.T) {
	var both sync.WaitGroup
	both.Add(2)
	c := greek()
	RegisterIn(c, "a", func(env *Env, _ none) (alpha, error) {
		both.Done()
		both.Wait()
		_, err := Use[beta](env)
		return nil, err
	})
	RegisterIn(c, "b", func(env *Env, _ none) (beta, error) {
		both.Done()
		both.Wait()
		_, err := Use[alpha](env)
		return nil, err
	})
	RegisterIn(c, "c", func(*Env, none) (gamma, error) { return nil, nil })
	h := host(t, c)
	errs := make(chan error, 2)
	go func() { _, err := Open[alpha](h); errs <- err }()
	go func() { _, err := Open[beta](h); errs <- err }()
	for range 2 {
		require.ErrorContains(t, <-errs, "plugins need each other")
	}
}

// A plugin that is ready may ask for one that needs it.
func TestUseAfterOpenIsNoCycle(t *testing.T) {
	var log []string
	var later *Env
	c := greek()
	RegisterIn(c, "a", func(env *Env, _ none) (alpha, error) {
		later = env
		return &part{"a", &log, env.Context(), nil}, nil
	})
	RegisterIn(c, "b", func(env *Env, _ none) (beta, error) {
		_, err := Use[alpha](env)
		return &part{"b", &log, env.Context(), nil}, err
	})
	RegisterIn(c, "c", func(*Env, none) (gamma, error) { return nil, nil })
	h := host(t, c)
	_, err := Open[alpha](h)
	require.NoError(t, err)
	_, err = Use[beta](later)
	require.NoError(t, err)
}

func TestOpensOnce(t *testing.T) {
	var opened atomic.Int32
	release := make(chan none)
	c := testCatalog()
	RegisterIn(c, "slow", func(*Env, none) (store, error) {
		opened.Add(1)
		<-release
		return fixed("slow"), nil
	})
	h := host(t, c, func(l *Loader) { l.Set("store", "slow") })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := Open[store](h)
			if err != nil || s.Get() != "slow" {
				t.Errorf("got %v, %v", s, err)
			}
		})
	}
	close(release)
	wg.Wait()
	require.EqualValues(t, 1, opened.Load())
}

func TestFactoriesThatFail(t *testing.T) {
	cause := errors.New("refused\nby hunter22")
	for name, tt := range map[string]struct {
		open func(*Env, struct{ Token Secret }) (store, error)
		want string
	}{
		"error":   {func(*Env, struct{ Token Secret }) (store, error) { return nil, cause }, "refused; by ***"},
		"panic":   {func(*Env, struct{ Token Secret }) (store, error) { panic("oops hunter22") }, "panic: oops ***"},
		"nothing": {func(*Env, struct{ Token Secret }) (store, error) { return nil, nil }, "the factory returned nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			var opened int
			c := testCatalog()
			RegisterIn(c, "bad", func(env *Env, c struct{ Token Secret }) (store, error) { opened++; return tt.open(env, c) })
			h := host(t, c, func(l *Loader) {
				l.Set("store", "bad")
				require.NoError(t, l.Parse([]string{"--store-token=hunter22"}))
			})
			_, err := Open[store](h)
			require.EqualError(t, err, "store/bad: "+tt.want+" (store from code, store-token from flag --store-token)")
			require.Equal(t, name == "error", errors.Is(err, cause))
			_, again := Open[store](h)
			require.Equal(t, err, again)
			require.Equal(t, 1, opened)
			require.NoError(t, h.Close())
		})
	}
}

// A factory that ends its goroutine (a test's FailNow does) leaves nobody waiting.
func TestFactoryThatNeverReturns(t *testing.T) {
	c := testCatalog()
	RegisterIn(c, "gone", func(*Env, none) (store, error) { runtime.Goexit(); return nil, nil })
	h := host(t, c, func(l *Loader) { l.Set("store", "gone") })
	done := make(chan none)
	go func() {
		defer close(done)
		_, _ = Open[store](h)
	}()
	<-done
	_, err := Open[store](h)
	require.ErrorContains(t, err, "store/gone: the factory did not return")
}

func TestCloseWaitsForWhatIsBeingOpened(t *testing.T) {
	var log []string
	started := make(chan none)
	c := greek()
	RegisterIn(c, "a", func(env *Env, _ none) (alpha, error) {
		close(started)
		<-env.Context().Done() // Close ends it
		return &part{"a", &log, env.Context(), nil}, nil
	})
	RegisterIn(c, "b", func(*Env, none) (beta, error) { return nil, nil })
	RegisterIn(c, "c", func(*Env, none) (gamma, error) { return nil, nil })
	h := host(t, c)
	result := make(chan error, 1)
	go func() { _, err := Open[alpha](h); result <- err }()
	<-started
	require.NoError(t, h.Close())
	require.NoError(t, <-result)
	require.Equal(t, []string{"close a, context ended: true"}, log)
}

type panicsOnClose struct{ fixed }

func (panicsOnClose) Close() error { panic("oops") }

func TestCloseThatPanics(t *testing.T) {
	c := testCatalog()
	RegisterIn(c, "bad", func(*Env, none) (store, error) { return panicsOnClose{}, nil })
	h := host(t, c, func(l *Loader) { l.Set("store", "bad") })
	_, err := Open[store](h)
	require.NoError(t, err)
	require.EqualError(t, h.Close(), "close store/bad: panic: oops")
}

func TestProvidedIsNotClosed(t *testing.T) {
	var log []string
	c := greek()
	RegisterIn(c, "a", func(env *Env, _ none) (alpha, error) {
		b, err := Use[beta](env)
		require.Equal(t, "mine", b.(*part).name)
		return &part{"a", &log, env.Context(), nil}, err
	})
	RegisterIn(c, "c", func(*Env, none) (gamma, error) { return nil, nil })
	h := host(t, c, func(l *Loader) { Provide[beta](l, &part{"mine", &log, t.Context(), nil}) })
	_, err := Open[alpha](h)
	require.NoError(t, err)
	require.NoError(t, h.Close())
	require.Equal(t, []string{"close a, context ended: false"}, log)
}

func TestEnv(t *testing.T) {
	zero := &Env{}
	require.Equal(t, context.Background(), zero.Context())
	require.Equal(t, slog.Default(), zero.Logger())
	require.Empty(t, zero.Name())
	_, err := Use[store](zero)
	require.ErrorContains(t, err, "no siblings")

	var out strings.Builder
	c := testCatalog()
	RegisterIn(c, "named", func(env *Env, _ none) (store, error) {
		env.Logger().Info("opened", "name", env.Name())
		return fixed(env.Name()), nil
	})
	l := NewLoader(c)
	l.Set("store", "named")
	s, err := l.Load(nil)
	require.NoError(t, err)
	h := s.Open(t.Context(), slog.New(slog.NewTextHandler(&out, nil)))
	defer h.Close()
	require.Equal(t, t.Context(), h.Env().Context())
	require.NotNil(t, h.Env().Logger())
	got, err := Use[store](h.Env())
	require.NoError(t, err)
	require.Equal(t, "named", got.Get())
	require.Contains(t, out.String(), "msg=opened plugin=store/named name=named")
}

func TestOpenErrors(t *testing.T) {
	c := testCatalog()
	NewKindIn[alpha](c, "alpha")
	RegisterIn(c, "a", func(*Env, none) (alpha, error) { return &part{}, nil })
	RegisterIn(c, "bad", func(env *Env, _ none) (filter, error) { _, err := Use[alpha](env); return nil, err })
	h := host(t, c, func(l *Loader) { l.Set("gate-filter", "log,bad") })

	_, err := Open[alpha](h)
	require.EqualError(t, err, "no alpha is chosen: choose one with --alpha or MICRO_ALPHA; linked are a")
	_, err = Open[beta](h)
	require.ErrorContains(t, err, "beta is not a kind")
	_, err = OpenAll[beta](h)
	require.ErrorContains(t, err, "beta is not a kind")
	_, err = Open[filter](h)
	require.ErrorContains(t, err, "use OpenAll")
	_, err = OpenAll[filter](h)
	require.ErrorContains(t, err, "filter/bad: no alpha is chosen")
	stores, err := OpenAll[store](h)
	require.NoError(t, err)
	require.Len(t, stores, 1)
}

func TestOptionalKind(t *testing.T) {
	optional := func() *Catalog {
		c := NewCatalog()
		NewKindIn[store](c, "store", Optional(), Known("cloud"))
		RegisterIn(c, "memory", func(_ *Env, m memoryConfig) (store, error) {
			if m.Size == 1 {
				return nil, errors.New("too small")
			}
			return fixed("memory"), nil
		})
		return c
	}
	const file = "store: {plugin: memory, size: 7}"
	for name, tt := range map[string]struct {
		in     input
		want   string // "": nothing is chosen
		shown  string
		origin string
	}{
		"nothing said":              {input{}, "", "none", "default"},
		"chosen":                    {input{args: []string{"--store=memory"}}, "memory", "memory", "flag --store"},
		"a file's, with its option": {input{file: file}, "memory", "memory", "micro.yaml:1"},
		"switched off by flag":      {input{file: file, args: []string{"--store=none"}}, "", "none", "flag --store"},
		"switched off by variable":  {input{file: file, env: []string{"MICRO_STORE=none"}}, "", "none", "environment MICRO_STORE"},
		"switched off in the file":  {input{file: "store: {plugin: none, size: 7}"}, "", "none", "micro.yaml:1"},
		"switched on again":         {input{file: "store: none", args: []string{"--store=memory"}}, "memory", "memory", "flag --store"},
		"passed in":                 {input{code: func(l *Loader) { Provide[store](l, fixed("mine")) }}, "mine", "(passed in)", "code"},
		"passed in, switched off": {input{code: func(l *Loader) { Provide[store](l, fixed("mine")) }, args: []string{"--store", "none"}},
			"", "none", "flag --store"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := loadFrom(t, optional(), tt.in)
			require.NoError(t, err)
			shown := setting(t, s, "store")
			require.Equal(t, []string{tt.shown, tt.origin, "none"}, []string{shown.Value, shown.Origin, shown.Default})
			h := s.Open(t.Context(), nil)
			defer h.Close()
			got, ok, err := OpenOptional[store](h)
			require.NoError(t, err)
			require.Equal(t, tt.want != "", ok)
			if ok {
				require.Equal(t, tt.want, got.Get())
			}
			_, err = Open[store](h)
			require.Equal(t, ok, err == nil, "Open insists")
		})
	}
	for name, tt := range map[string]struct {
		in   input
		want string
	}{
		"an option alone": {input{args: []string{"--store-size=7"}}, "store-size (flag --store-size) is an option of memory, but no store is chosen"},
		"an unknown one":  {input{args: []string{"--store=none", "--store-sise=7"}}, "unknown flag --store-sise"},
		"none and others": {input{args: []string{"--store=none,memory"}}, "one is chosen, not none,memory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadFrom(t, optional(), tt.in)
			require.ErrorContains(t, err, tt.want)
		})
	}

	_, ok, err := OpenOptional[store](host(t, optional(), func(l *Loader) { l.Set("store", "memory"); l.Set("store-size", "1") }))
	require.ErrorContains(t, err, "too small")
	require.False(t, ok)
	_, _, err = OpenOptional[beta](host(t, optional()))
	require.ErrorContains(t, err, "beta is not a kind")
}

func TestPluginsKnowTheirProgram(t *testing.T) {
	var got Program
	c := NewCatalog()
	NewKindIn[alpha](c, "alpha").SetDefault("a")
	RegisterIn(c, "a", func(env *Env, _ none) (alpha, error) {
		got = env.Program()
		return &part{}, nil
	})
	s, err := NewLoader(c).Load(nil)
	require.NoError(t, err)
	shop := Program{Name: "shop", Version: "1.2.0", ID: "shop-7"}
	h := s.Open(t.Context(), nil, OpenedBy(shop))
	require.Same(t, s, h.Settings())
	_, err = Open[alpha](h)
	require.NoError(t, err)
	require.Equal(t, shop, got)
	require.Zero(t, new(Env).Program(), "a test that calls a factory itself")
}
