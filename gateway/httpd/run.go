package httpd

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	_ "github.com/plugmicro/micro/defaults"
	"github.com/plugmicro/micro/plugin"
)

// Section is the prefix of the settings: --gateway-address.
const Section = "gateway"

// Option says in code how Run runs. What the file, the environment and the flags say goes before it.
type Option func(*program)

type program struct {
	loader  *plugin.Loader
	args    []string
	environ []string
	log     *slog.Logger
}

// WithSetting sets what a flag of that name would: WithSetting("gateway-middleware", "teapot").
func WithSetting(key, value string) Option { return func(p *program) { p.loader.Set(key, value) } }

// WithArgs replaces the flags of the process, os.Args[1:].
func WithArgs(args ...string) Option { return func(p *program) { p.args = args } }

// WithEnviron replaces the environment of the process, as os.Environ gives it.
func WithEnviron(environ ...string) Option { return func(p *program) { p.environ = environ } }

// WithLogger replaces slog.Default.
func WithLogger(l *slog.Logger) Option { return func(p *program) { p.log = l } }

// Run is a gateway from its start to its end: it reads the settings, serves until SIGTERM or SIGINT, and stops in order. A
// second signal ends the process at once. After --help it returns nil.
func Run(opts ...Option) error {
	p := &program{loader: plugin.NewLoader(plugin.Linked), args: os.Args[1:], environ: os.Environ(), log: slog.Default()}
	for _, opt := range opts {
		opt(p)
	}
	var s Settings
	p.loader.Section(Section, &s)
	p.loader.IgnoreForeign() // the file may be one that services read, too
	p.loader.Strict()        // with a guard's name misspelt it would serve unguarded
	if err := p.loader.Parse(p.args); errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	settings, err := p.loader.Load(p.environ)
	if err != nil {
		return err
	}
	for _, w := range settings.Warnings() {
		p.log.Warn(w)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop)
	host := settings.Open(context.Background(), p.log, plugin.OpenedBy(Program("")))
	return errors.Join(Serve(ctx, host, s, p.log), host.Close())
}

// Program is what plugins are told that they belong to.
func Program(version string) plugin.Program {
	return plugin.Program{Name: "gateway", Version: version, ID: "gateway-" + strings.ToLower(rand.Text()[:10])}
}

// Serve starts a gateway and stops it when ctx ends, or when serving failed.
func Serve(ctx context.Context, host *plugin.Host, s Settings, log *slog.Logger) error {
	g, err := Start(ctx, host, s, log)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case err = <-g.Failed():
	}
	return errors.Join(err, g.Stop(context.WithoutCancel(ctx)))
}
