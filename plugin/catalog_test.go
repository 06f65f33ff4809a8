package plugin

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is a contract for tests; its plugins are memory and disk.
type store interface{ Get() string }

type fixed string

func (f fixed) Get() string { return string(f) }

type memoryConfig struct {
	Size  Size `default:"4MiB" help:"limit"`
	Cache bool `help:"keep what was read"`
}

type diskConfig struct {
	Path    []string          `default:"/var/store" help:"folders"`
	Token   Secret            `help:"opens the store"`
	Timeout time.Duration     `default:"5s"`
	Labels  map[string]string `help:"free text"`
	Cache   bool
	TLS     TLS
}

// filter is a contract of which several are in use.
type filter func(string) string

type ipConfig struct {
	Allow []string `help:"networks"`
}

func testCatalog() *Catalog {
	c := NewCatalog()
	NewKindIn[store](c, "store", KindDoc("keeps things"), Known("memory", "disk", "cloud")).SetDefault("memory")
	RegisterIn(c, "memory", func(*Env, memoryConfig) (store, error) { return fixed("memory"), nil }, Doc("in this process"))
	RegisterIn(c, "disk", func(_ *Env, c diskConfig) (store, error) {
		return fixed(fmt.Sprintf("disk %v %s %v %v %s", c.Path, c.Timeout, c.Labels, c.Cache, c.Token.Reveal())), nil
	})
	NewKindIn[filter](c, "filter", Many(), ChosenBy("gate-filter"))
	RegisterIn(c, "ip", func(_ *Env, c ipConfig) (filter, error) {
		return func(s string) string { return s + "+ip" + strings.Join(c.Allow, "|") }, nil
	})
	RegisterIn(c, "log", func(*Env, struct{}) (filter, error) {
		return func(s string) string { return s + "+log" }, nil
	})
	return c
}

func TestRegisterPanics(t *testing.T) {
	type number interface{ Number() int }
	newStore := func(*Env, struct{}) (store, error) { return nil, nil }
	tests := map[string]struct {
		do   func(*Catalog)
		want []string
	}{
		"duplicate":       {func(c *Catalog) { RegisterIn(c, "memory", newStore) }, []string{"catalog_test.go", `Register("memory")`, "already registered at"}},
		"empty name":      {func(c *Catalog) { RegisterIn(c, "", newStore) }, []string{"a name is"}},
		"malformed name":  {func(c *Catalog) { RegisterIn(c, "My_Store", newStore) }, []string{"a name is"}},
		"trailing dash":   {func(c *Catalog) { RegisterIn(c, "my-", newStore) }, []string{"a name is"}},
		"nil factory":     {func(c *Catalog) { RegisterIn[store, struct{}](c, "x", nil) }, []string{"factory is nil"}},
		"concrete result": {func(c *Catalog) { RegisterIn(c, "x", func(*Env, struct{}) (fixed, error) { return "", nil }) }, []string{"plugin.fixed is not a kind", "have the factory return plugin.store"}},
		"no kind":         {func(c *Catalog) { RegisterIn(c, "x", func(*Env, struct{}) (number, error) { return nil, nil }) }, []string{"number is not a kind", "NewKind"}},
		"settings no struct": {func(c *Catalog) { RegisterIn(c, "x", func(*Env, int) (store, error) { return nil, nil }) },
			[]string{"settings are a struct"}},
		"bad default": {func(c *Catalog) {
			RegisterIn(c, "x", func(*Env, struct {
				Timeout time.Duration `default:"5 sec"`
			}) (store, error) {
				return nil, nil
			})
		}, []string{"field Timeout", "default", "5 sec", "not a duration"}},
		"bad type": {func(c *Catalog) {
			RegisterIn(c, "x", func(*Env, struct{ Inner struct{ Done chan int } }) (store, error) { return nil, nil })
		}, []string{"field Inner", "field Done", "chan int is not supported"}},
		"list of secrets": {func(c *Catalog) {
			RegisterIn(c, "x", func(*Env, struct{ Tokens []Secret }) (store, error) { return nil, nil })
		}, []string{"field Tokens", "not supported"}},
		"pointer": {func(c *Catalog) {
			RegisterIn(c, "x", func(*Env, struct{ TLS *TLS }) (store, error) { return nil, nil })
		}, []string{"field TLS", "not supported"}},
		"bad option name": {func(c *Catalog) {
			RegisterIn(c, "x", func(*Env, struct {
				A string `name:"A_b"`
			}) (store, error) {
				return nil, nil
			})
		}, []string{"field A", "malformed"}},
		"option twice": {func(c *Catalog) {
			RegisterIn(c, "x", func(*Env, struct {
				TLSCa string
				TLS   TLS
			}) (store, error) {
				return nil, nil
			})
		}, []string{`two fields give option "tls-ca"`}},
		"option is the file of a secret": {func(c *Catalog) {
			RegisterIn(c, "x", func(*Env, struct {
				Token     Secret
				TokenFile string
			}) (store, error) {
				return nil, nil
			})
		}, []string{`two fields give option "token-file"`}},
		"reserved option": {func(c *Catalog) {
			RegisterIn(c, "x", func(*Env, struct{ Plugin string }) (store, error) { return nil, nil })
		}, []string{`"plugin"`}},
		"none of an optional kind": {func(c *Catalog) {
			NewKindIn[number](c, "number", Optional())
			RegisterIn(c, "none", func(*Env, struct{}) (number, error) { return nil, nil })
		}, []string{"none is what chooses no number"}},
		"duplicate kind":     {func(c *Catalog) { NewKindIn[number](c, "store") }, []string{`kind "store" at`, "already declared at"}},
		"type twice":         {func(c *Catalog) { NewKindIn[store](c, "shop") }, []string{`plugin.store already is kind "store", declared at`}},
		"malformed kind":     {func(c *Catalog) { NewKindIn[number](c, "Number") }, []string{"a name is"}},
		"malformed choosing": {func(c *Catalog) { NewKindIn[number](c, "number", ChosenBy("--n")) }, []string{"a name is"}},
		"register late":      {func(c *Catalog) { c.freeze(); RegisterIn(c, "x", newStore) }, []string{"has started", "init"}},
		"kind late":          {func(c *Catalog) { c.freeze(); NewKindIn[number](c, "number") }, []string{"has started"}},
		"default late": {func(c *Catalog) {
			k := NewKindIn[number](c, "number")
			_, _ = NewLoader(c).Load(nil)
			k.SetDefault("one")
		}, []string{"SetDefault", "has started", "catalog_test.go"}},
		"provide no kind": {func(c *Catalog) { Provide[number](NewLoader(c), nil) }, []string{"Provide at", "catalog_test.go", "not a kind"}},
		"provide nil":     {func(c *Catalog) { Provide[store](NewLoader(c), nil) }, []string{"Provide at", "catalog_test.go", "the store is nil"}},
		"section malformed": {func(c *Catalog) { NewLoader(c).Section("--gate", &TLS{}) },
			[]string{`Section("--gate")`, "a prefix is"}},
		"section no pointer": {func(c *Catalog) { NewLoader(c).Section("", TLS{}) },
			[]string{"must point to a struct"}},
		"section bad field": {func(c *Catalog) { NewLoader(c).Section("", &struct{ F func() }{}) },
			[]string{"field F", "not supported"}},
		"section late": {func(c *Catalog) { l := NewLoader(c); _, _ = l.Load(nil); l.Section("", &TLS{}) },
			[]string{"comes before"}},
		"section clashes with a kind": {func(c *Catalog) {
			l := NewLoader(c)
			l.Section("", &struct{ Store string }{})
			_, _ = l.Load(nil)
		}, []string{`two settings are called "store"`, "one of the program", "the choice of store"}},
		"options clash": {func(c *Catalog) {
			newFilter := func(*Env, struct{ LogLevel string }) (filter, error) { return nil, nil }
			newOther := func(*Env, struct{ Level string }) (filter, error) { return nil, nil }
			RegisterIn(c, "a", newFilter)
			RegisterIn(c, "a-log", newOther)
			_, _ = NewLoader(c).Load(nil)
		}, []string{`"filter-a-log-level"`, "filter/a,", "filter/a-log"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			defer func() {
				text, ok := recover().(string)
				require.True(t, ok, "no panic with a line of text")
				for _, want := range tt.want {
					require.Contains(t, text, want)
				}
				require.NotContains(t, text, "\n")
				require.True(t, strings.HasPrefix(text, "plugin: "), text)
			}()
			tt.do(testCatalog())
		})
	}
}

func TestDuplicateNamesBothCallSites(t *testing.T) {
	c := testCatalog()
	defer func() { require.Equal(t, 2, strings.Count(recover().(string), "catalog_test.go:")) }()
	RegisterIn(c, "memory", func(*Env, struct{}) (store, error) { return nil, nil })
}

func TestFirstLoaderFreezes(t *testing.T) {
	for name, freeze := range map[string]func(*Loader){
		"Load":  func(l *Loader) { _, _ = l.Load(nil) },
		"Parse": func(l *Loader) { _ = l.Parse(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			c := testCatalog()
			freeze(NewLoader(c))
			require.Panics(t, func() { RegisterIn(c, "x", func(*Env, struct{}) (store, error) { return nil, nil }) })
		})
	}
}

func TestKinds(t *testing.T) {
	kinds := testCatalog().Kinds()
	require.Len(t, kinds, 2)
	require.Equal(t, KindInfo{Name: "filter", Many: true, Flag: "--gate-filter", Env: "MICRO_GATE_FILTER", Plugins: kinds[0].Plugins}, kinds[0])
	require.Equal(t, KindInfo{Name: "store", Doc: "keeps things", Default: "memory", Flag: "--store", Env: "MICRO_STORE", Plugins: kinds[1].Plugins}, kinds[1])

	ip := kinds[0].Plugins[0]
	require.Equal(t, OptionInfo{Name: "allow", Type: "[]string", Help: "networks", Flag: "--filter-ip-allow", Env: "MICRO_FILTER_IP_ALLOW"}, ip.Options[0])

	disk, memory := kinds[1].Plugins[0], kinds[1].Plugins[1]
	require.Equal(t, "in this process", memory.Doc)
	require.Equal(t, "github.com/plugmicro/micro/plugin", memory.Package)
	require.Equal(t, OptionInfo{Name: "size", Type: "size", Default: "4MiB", Help: "limit", Flag: "--store-size", Env: "MICRO_STORE_SIZE"}, memory.Options[0])
	var lines []string
	for _, o := range disk.Options {
		lines = append(lines, o.Name+" "+o.Type+" "+o.Default+" "+o.Env)
	}
	require.Equal(t, []string{
		"path []string /var/store MICRO_STORE_PATH",
		"token secret  MICRO_STORE_TOKEN",
		"timeout duration 5s MICRO_STORE_TIMEOUT",
		"labels map  MICRO_STORE_LABELS",
		"cache bool  MICRO_STORE_CACHE",
		"tls-enable bool  MICRO_STORE_TLS_ENABLE",
		"tls-ca string  MICRO_STORE_TLS_CA",
		"tls-cert string  MICRO_STORE_TLS_CERT",
		"tls-key string  MICRO_STORE_TLS_KEY",
		"tls-server-name string  MICRO_STORE_TLS_SERVER_NAME",
		"tls-insecure bool  MICRO_STORE_TLS_INSECURE",
	}, lines)
	require.True(t, disk.Options[1].Secret)
}

func TestSitePackage(t *testing.T) {
	require.Equal(t, "github.com/plugmicro/micro/plugin", func() site { return caller() }().pkg())
}
