package plugin_test

import (
	"context"
	"fmt"
	"time"

	"github.com/plugmicro/micro/plugin"
)

// Clock is a contract, and Clocks declares its kind: the start of package clock.
type Clock interface{ Now() time.Time }

var Clocks = plugin.NewKind[Clock]("clock", plugin.KindDoc("tells the time"))

// Config, New and the Register below are a whole plugin: package clock/fixed.
type Config struct {
	Time   time.Time     `default:"2006-01-02T15:04:05Z" help:"what it always says"`
	Offset time.Duration `help:"added to it"`
}

func New(_ *plugin.Env, c Config) (Clock, error) { return fixed(c.Time.Add(c.Offset)), nil }

type fixed time.Time

func (f fixed) Now() time.Time { return time.Time(f) }

func init() {
	plugin.Register("fixed", New, plugin.Doc("a clock that stands still"))
	Clocks.SetDefault("fixed")
}

// A program loads its settings and opens what was chosen.
func Example() {
	var settings struct {
		Greeting string `default:"It is" help:"how to say it"`
	}
	loader := plugin.NewLoader(plugin.Linked)
	loader.Section("", &settings)
	if err := loader.Parse([]string{"--clock-offset=1h"}); err != nil { // os.Args[1:]
		return // --help
	}
	loaded, err := loader.Load([]string{"MICRO_GREETING=Now it is"}) // os.Environ()
	if err != nil {
		fmt.Println(err)
		return
	}
	host := loaded.Open(context.Background(), nil)
	defer host.Close()
	clock, err := plugin.Open[Clock](host)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(settings.Greeting, clock.Now().Format(time.TimeOnly))
	for _, s := range loaded.All() {
		fmt.Printf("%s=%s (%s)\n", s.Key, s.Value, s.Origin)
	}
	// Output:
	// Now it is 16:04:05
	// config= (default)
	// greeting=Now it is (environment MICRO_GREETING)
	// clock=fixed (default)
	// clock-time=2006-01-02T15:04:05Z (default)
	// clock-offset=1h (flag --clock-offset)
}

// All mistakes are told at once, each with where it was made and what to do.
func ExampleLoader_Load() {
	loader := plugin.NewLoader(plugin.Linked)
	if err := loader.Parse([]string{"--clock-ofset=1h"}); err != nil {
		return
	}
	_, err := loader.Load([]string{"MICRO_CLOCK_OFFSET=soon"})
	fmt.Println(err)
	// Output:
	// unknown flag --clock-ofset: did you mean --clock-offset?
	// clock-offset: "soon" is not a duration: write it like 300ms, 5s or 1h30m (environment MICRO_CLOCK_OFFSET)
}

// Listings, completion and generated pages are made of this.
func ExampleCatalog_Kinds() {
	for _, kind := range plugin.Linked.Kinds() {
		if kind.Name != "clock" {
			continue
		}
		fmt.Println(kind.Flag, kind.Env, "-", kind.Doc)
		for _, p := range kind.Plugins {
			fmt.Println(p.Name, "-", p.Doc)
			for _, o := range p.Options {
				fmt.Println(" ", o.Flag, o.Type, o.Default)
			}
		}
	}
	// Output:
	// --clock MICRO_CLOCK - tells the time
	// fixed - a clock that stands still
	//   --clock-time time 2006-01-02T15:04:05Z
	//   --clock-offset duration
}
