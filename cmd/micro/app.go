package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/plugmicro/micro"
	"github.com/plugmicro/micro/gateway/httpd"
	"github.com/plugmicro/micro/plugin"
)

// app is what the commands share: where they read and write, the settings, and the plugins that they open.
type app struct {
	in       io.Reader
	out, err io.Writer
	environ  []string

	output  outputFormat
	verbose bool
	log     *slog.Logger
	loader  *plugin.Loader
	gateway httpd.Settings // filled by load, where readsGateway
	serves  bool           // a signal ends it in order
	host    *plugin.Host   // opened by the first command that needs a plugin
}

// service is the settings of a service. The toolkit is none, but reads the same file and environment, and shows what a
// service would make of them.
type service micro.Settings

// run executes one command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	slog.SetLogLoggerLevel(slog.LevelWarn)
	log.SetOutput(a.err)
	log.SetFlags(0) // warnings look like those of the toolkit itself
	log.SetPrefix("micro: ")
	a.log = slog.Default()
	a.loader = plugin.NewLoader(plugin.Linked)
	a.loader.Section("", &service{})
	if readsGateway(args) {
		a.loader.Section(httpd.Section, &a.gateway)
	}
	a.loader.IgnoreForeign()
	root := a.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if a.host != nil {
		err = errors.Join(err, a.host.Close()) // flushes, too
	}
	return a.report(ctx, err)
}

// load reads the settings.
func (a *app) load() (*plugin.Settings, error) {
	settings, err := a.loader.Load(a.environ)
	if err != nil {
		return nil, &failure{code: exitUsage, err: err}
	}
	for _, w := range settings.Warnings() {
		a.warn("%s", w)
	}
	return settings, nil
}

// open opens the chosen plugin of kind T. It lives as long as the process.
func open[T any](a *app) (T, error) {
	var none T
	if a.host == nil {
		settings, err := a.load()
		if err != nil {
			return none, err
		}
		a.host = settings.Open(context.Background(), a.log) // an interrupted command still closes it in order
	}
	return plugin.Open[T](a.host)
}

// outputFormat is --output.
type outputFormat string

const (
	asText outputFormat = "text"
	asJSON outputFormat = "json"
)

// Set implements pflag.Value.
func (f *outputFormat) Set(s string) error {
	if *f = outputFormat(s); *f != asText && *f != asJSON {
		return errors.New("want text or json")
	}
	return nil
}

// String implements pflag.Value.
func (f *outputFormat) String() string { return string(*f) }

// Type implements pflag.Value.
func (*outputFormat) Type() string { return "format" }

// printJSON prints v in one line.
func (a *app) printJSON(v any) error {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := a.out.Write(line.Bytes())
	return err
}

// printLine prints text from anywhere in one line.
func (a *app) printLine(s string) error {
	_, err := fmt.Fprintln(a.out, oneLine(s))
	return err
}
