// Package stdout is the tracer that prints: one line of JSON for each span, as soon as it has ended.
//
//	MICRO_TRACER=stdout ./program 2>spans.json
//
// It is for a look at what happens, without anything installed. The lines are those of OpenTelemetry's stdouttrace. The
// context travels by W3C's traceparent, tracestate and baggage.
package stdout

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"time"

	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"

	"github.com/plugmicro/micro/internal/otelsdk"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/tracer"
)

// Config is what --tracer-* and MICRO_TRACER_* set.
type Config struct {
	Output string `default:"stderr" help:"where the lines go: stderr or stdout"`
	otelsdk.Sampling
}

func init() {
	plugin.Register("stdout", New, plugin.Doc("prints spans as JSON, to look at"))
}

// Validate is asked when the settings are loaded.
func (c Config) Validate() error {
	if _, err := c.file(); err != nil {
		return err
	}
	return c.Sampling.Validate()
}

func (c Config) file() (*os.File, error) {
	switch cmp.Or(c.Output, "stderr") {
	case "stderr":
		return os.Stderr, nil
	case "stdout":
		return os.Stdout, nil
	}
	return nil, fmt.Errorf("output %q: want stderr or stdout", c.Output)
}

// New opens the tracer for a service.
func New(env *plugin.Env, c Config) (tracer.Tracer, error) {
	file, err := c.file()
	if err != nil {
		return nil, err
	}
	return open(env, c, file)
}

// delay is short, because somebody is looking.
const delay = 100 * time.Millisecond

func open(env *plugin.Env, c Config, w io.Writer) (tracer.Tracer, error) {
	exporter, err := stdouttrace.New(stdouttrace.WithWriter(w))
	if err != nil {
		return nil, err
	}
	return otelsdk.New(env, otelsdk.Options{Exporter: exporter, Sampler: c.Sampler(), Batching: otelsdk.Batching{BatchDelay: delay}})
}
