// Package page is what the gateway shows people: which services there are, where they run and whether those nodes can be
// reached, what they can be asked, a form that asks it, the events of a topic as they come, and the plugins in use.
//
//	p, err := page.New(page.Options{Directory: dir, Call: rpc, Probe: page.Dial(tr)})
//	mux.Handle("/", p)
//	server.RegisterOnShutdown(p.Close)
//
// It comes whole from the binary: nothing is loaded from elsewhere, and the browser is told to allow nothing else. It is for
// an address that only those reach who may call everything; what it shows of settings has secrets masked. Package httpd
// stands before it: it refuses what another site had a browser ask for, and names that are not this host's, and has
// browsers take each type for what it is, and show nothing in frames.
package page

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"path"
	"sync"
	"time"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
)

// Directory is what package directory has.
type Directory interface {
	Services() []*registry.Service           // sorted by name and version
	Service(name string) []*registry.Service // the versions of one
	Generation() uint64                      // changes with them
	Ready() bool                             // the registry was read
}

// Options are what the page shows. Only Directory is needed; what has no source is not offered.
type Options struct {
	Directory Directory

	// Call calls Info.Target: package rpc's handler.
	Call http.Handler

	// Broker opens the broker when somebody first listens to a topic. It stays open: it belongs to who passed this.
	Broker func() (broker.Broker, error)

	// Probe says whether a node can be reached, such as Dial does.
	Probe Probe

	Settings []plugin.Setting  // plugin.Settings.All
	Kinds    []plugin.KindInfo // plugin.Linked.Kinds

	Log *slog.Logger
}

// Page is the handler. It is safe for concurrent use.
type Page struct {
	Options
	mux       *http.ServeMux
	listeners chan struct{} // one for each open stream of events
	closed    chan struct{}
	close     func()
}

//go:embed static
var static embed.FS

// New makes the page. It opens nothing.
func New(o Options) (*Page, error) {
	if o.Directory == nil {
		return nil, errors.New("page: Options.Directory is missing")
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	p := &Page{Options: o, mux: http.NewServeMux(), listeners: make(chan struct{}, maxListeners), closed: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.closed) })
	if err := p.serveFiles(); err != nil {
		return nil, err
	}
	p.mux.HandleFunc("GET /api/about", p.about)
	p.mux.HandleFunc("GET /api/services", p.services)
	p.mux.HandleFunc("GET /api/health", p.health)
	p.mux.HandleFunc("GET /api/events", p.events)
	p.mux.HandleFunc("/call", p.call)
	p.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		gateway.Fail(w, r, gateway.NewProblem(http.StatusNotFound, "the page has nothing at %s", r.URL.Path))
	})
	return p, nil
}

// Close ends the streams that browsers follow. They come back, so it is for when nothing new is accepted.
func (p *Page) Close() { p.close() }

// policy lets the page load and connect to nothing but its own origin, run no script but its files, and be in no frame.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// ServeHTTP implements http.Handler.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache")
	p.mux.ServeHTTP(w, r)
}

// serveFiles serves what is embedded, each file with the hash of its content as its tag.
func (p *Page) serveFiles() error {
	files, err := fs.Sub(static, "static")
	if err != nil {
		return err
	}
	return fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		at := "/" + name
		if name == "index.html" {
			at = "/{$}"
		}
		p.mux.Handle("GET "+at, file(name, data))
		return nil
	})
}

var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

func file(name string, data []byte) http.Handler {
	sum := sha256.Sum256(data)
	tag := fmt.Sprintf("%q", base64.RawURLEncoding.EncodeToString(sum[:12]))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentTypes[path.Ext(name)])
		w.Header().Set("Etag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(data) // who does not read it is gone
	})
}

// about says what this page can do, and what the gateway is made of.
func (p *Page) about(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]any{
		"calls":    p.Call != nil,
		"events":   p.Broker != nil,
		"health":   p.Probe != nil,
		"settings": p.Settings,
		"kinds":    p.Kinds,
	})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // who does not read it is gone
}

// writeTimeout is for a browser that takes nothing of a stream.
const writeTimeout = 15 * time.Second

// heartbeat is how often a stream without news shows that it is alive; the page waits for three of them.
const heartbeat = 10 * time.Second
