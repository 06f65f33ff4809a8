package httpd

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/directory"
	"github.com/plugmicro/micro/gateway/openapi"
	"github.com/plugmicro/micro/gateway/page"
	"github.com/plugmicro/micro/gateway/rpc"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/tracer"
	"github.com/plugmicro/micro/tracing"
	"github.com/plugmicro/micro/transport"
)

// backend is what is behind the middlewares: the services that there are, and the way to them.
type backend struct {
	registry  registry.Registry
	directory *directory.Directory
	client    *client.Client
	document  document
	calls     *rpc.Handler
	page      *page.Page
	tracer    tracer.Tracer // nil: nothing is traced
}

func newBackend(host *plugin.Host, s Settings, log *slog.Logger) (*backend, error) {
	reg, err := plugin.Open[registry.Registry](host)
	if err != nil {
		return nil, err
	}
	tr, err := plugin.Open[transport.Transport](host)
	if err != nil {
		return nil, err
	}
	t, traced, err := plugin.OpenOptional[tracer.Tracer](host)
	if err != nil {
		return nil, err
	}
	b := &backend{registry: reg, directory: directory.Follow(reg, log), client: client.New(reg, tr, client.Options{Timeout: s.CallTimeout, Logger: log})}
	if traced {
		b.tracer = t
		b.client.Use(tracing.Client(t))
	}
	b.document.directory = b.directory
	b.calls = rpc.New(b.client, b.directory, rpc.Options{
		Services: s.Services, ForwardHeaders: s.ForwardHeaders, Origins: s.Origins, MaxBody: int64(s.MaxBody), Timeout: s.CallTimeout,
		MaxTimeout: s.MaxCallTimeout, WriteTimeout: s.SilentTimeout, Heartbeat: s.Heartbeat, Logger: log,
	})
	b.document.calls = b.calls
	b.page, err = page.New(page.Options{
		Directory: b.directory,
		Call:      b.calls,
		Broker:    sync.OnceValues(func() (broker.Broker, error) { return plugin.Open[broker.Broker](host) }),
		Probe:     page.Dial(tr),
		Settings:  host.Settings().All(),
		Kinds:     plugin.Linked.Kinds(),
		Log:       log,
	})
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Close ends the ways to the services.
func (b *backend) Close() error { return errors.Join(b.client.Close(), b.directory.Close()) }

// ready says why services cannot be found yet.
func (b *backend) ready() error {
	if !b.directory.Ready() {
		return errors.New("the registry could not be read yet")
	}
	return nil
}

// tracerName is as --tracer has it.
func (b *backend) tracerName() string {
	if b.tracer == nil {
		return "none"
	}
	return b.tracer.String()
}

// ServeHTTP is the end of the chain. What is here of the gateway itself is behind the middlewares, so that they decide who
// may see it.
func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/openapi.json" {
		gateway.Of(r).Route = "openapi"
		b.document.ServeHTTP(w, r)
		return
	}
	b.calls.ServeHTTP(w, r)
}

// document is the description of all endpoints that the public reaches, made anew when they have changed.
type document struct {
	directory *directory.Directory
	calls     *rpc.Handler // knows which services the public reaches

	mu         sync.Mutex
	generation uint64
	text       []byte
}

// ServeHTTP implements http.Handler.
func (d *document) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		gateway.Fail(w, r, gateway.NewProblem(http.StatusMethodNotAllowed, "this path is asked with GET"))
		return
	}
	text, err := d.get()
	if err != nil {
		gateway.Fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-cache")
	_, _ = w.Write(text)
}

func (d *document) get() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	generation := d.directory.Generation()
	if d.text != nil && d.generation == generation {
		return d.text, nil
	}
	public := slices.DeleteFunc(slices.Clone(d.directory.Services()), func(s *registry.Service) bool { return !d.calls.IsPublic(s.Name) })
	text, err := openapi.Document(public)
	if err != nil {
		return nil, err
	}
	d.text, d.generation = text, generation
	return text, nil
}
