package plugin

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// unchosen has eight fields of the usual kinds.
type unchosen struct {
	Address  []string      `default:"127.0.0.1:8500" help:"agents to talk to, tried in order"`
	Token    Secret        `help:"ACL token"`
	Timeout  time.Duration `default:"5s" help:"limit for one request"`
	Prefix   string        `default:"micro/" help:"where the keys begin"`
	MaxSize  Size          `default:"4MiB" help:"largest value"`
	Attempts int           `default:"3" help:"tries in all"`
	Compress bool          `help:"compress values"`
	Labels   map[string]string
}

// registerUnchosen links so many plugins, in four kinds, which is what a program with everything linked looks like.
func registerUnchosen(c *Catalog, plugins int) {
	NewKindIn[alpha](c, "alpha")
	NewKindIn[beta](c, "beta")
	NewKindIn[gamma](c, "gamma")
	NewKindIn[store](c, "store").SetDefault("chosen")
	RegisterIn(c, "chosen", func(*Env, unchosen) (store, error) { return fixed("x"), nil })
	for i := range plugins {
		switch name := names[i]; i % 4 {
		case 0:
			RegisterIn(c, name, func(*Env, unchosen) (alpha, error) { return nil, nil })
		case 1:
			RegisterIn(c, name, func(*Env, unchosen) (beta, error) { return nil, nil })
		case 2:
			RegisterIn(c, name, func(*Env, unchosen) (gamma, error) { return nil, nil })
		case 3:
			RegisterIn(c, name, func(*Env, unchosen) (store, error) { return nil, nil })
		}
	}
}

// registerMany has all of them in a kind with Many, where no option is shared: the worst case.
func registerMany(c *Catalog, plugins int) {
	NewKindIn[filter](c, "filter", Many())
	for i := range plugins {
		RegisterIn(c, names[i], func(*Env, unchosen) (filter, error) { return nil, nil })
	}
}

func parse(l *Loader) { _ = l.Parse(nil) }

func addFlags(l *Loader) { l.AddFlags(pflag.NewFlagSet("", pflag.ContinueOnError)) }

// start is what a program does before it opens anything: registering, flags, environment, choosing.
func start(plugins int, register func(*Catalog, int), flags func(*Loader)) {
	c := NewCatalog()
	register(c, plugins)
	l := NewLoader(c)
	flags(l)
	if _, err := l.Load([]string{"HOME=/root"}); err != nil {
		panic(err)
	}
}

var starts = []struct {
	name     string
	register func(*Catalog, int)
	flags    func(*Loader)
}{
	{"four kinds, Parse", registerUnchosen, parse},
	{"four kinds, AddFlags", registerUnchosen, addFlags},
	{"a kind with Many, Parse", registerMany, parse},
	{"a kind with Many, AddFlags", registerMany, addFlags},
}

var names = func() []string {
	names := make([]string, 100)
	for i := range names {
		names[i] = fmt.Sprintf("plugin%d", i)
	}
	return names
}()

func BenchmarkStart(b *testing.B) {
	for _, s := range starts {
		for _, n := range []int{0, 100} {
			b.Run(fmt.Sprintf("%s/%d", s.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					start(n, s.register, s.flags)
				}
			})
		}
	}
}

// The promise is 1 MB for 100 linked plugins that are not chosen, in everything that is ever allocated for them.
func TestUnchosenPluginsCostLittleMemory(t *testing.T) {
	for _, s := range starts {
		t.Run(s.name, func(t *testing.T) {
			added := allocated(func() { start(100, s.register, s.flags) }) - allocated(func() { start(0, s.register, s.flags) })
			t.Logf("100 plugins allocate %d KiB", added>>10)
			require.Less(t, added, int64(1e6))
		})
	}
}

// allocated counts the bytes that f allocates, at best: other goroutines may add to a single count.
func allocated(f func()) int64 {
	least := int64(1 << 62)
	for range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, int64(after.TotalAlloc-before.TotalAlloc))
	}
	return least
}
