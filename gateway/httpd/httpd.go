// Package httpd is the gateway as a process: listeners, TLS, limits, what is logged and counted, and stopping in order. The
// command micro gateway runs it. A program of one's own, which links plugins of one's own, is
//
//	func main() {
//		if err := httpd.Run(); err != nil {
//			log.Fatal(err)
//		}
//	}
//
// beside a plugins.go with blank imports, such as _ "github.com/plugmicro/micro/gateway/ipallow". It takes the flags,
// environment and file that micro gateway takes.
//
// There are two addresses. The one for everybody passes requests through the middlewares to the services; only /healthz and
// /readyz are answered before. As long as nobody sets it, and the registry is of this machine only, so is the address, and it
// is asked by address, as localhost or as *.localhost: a page of the web, in a browser on this machine, could have a name
// of its own lead to it. The one for those who run the gateway has /metrics, /healthz, /readyz, /openapi.json, and the
// page for people at /; by default only this machine reaches it, and never through a proxy.
package httpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/clientip"
	"github.com/plugmicro/micro/internal/loglimit"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
)

// Gateway is one that runs.
type Gateway struct {
	settings Settings
	log      *slog.Logger
	who      *clientip.Resolver
	metrics  *metrics
	backend  *backend
	chain    http.Handler // the middlewares, and at its end the services

	listener, adminListener, redirectListener net.Listener
	public, admin, redirect                   *http.Server // the last two may be nil

	unset     bool // nobody has set an address, and it is one of this machine only
	stopping  atomic.Bool
	cut       context.CancelCauseFunc // ends the contexts of all requests
	hijackers tracker
	failed    chan error
	unknown   loglimit.Limit // clients
}

// patience is how long clients wait in the backlog at first, rather than being told that nothing is known of any service.
const patience = 2 * time.Second

// Start opens the middlewares that are chosen, and what leads to the services, listens and serves. ctx bounds the starting
// only. After an error nothing is left running but what host opened, which is host's to close. A nil log means slog.Default.
func Start(ctx context.Context, host *plugin.Host, s Settings, log *slog.Logger) (*Gateway, error) {
	if log == nil {
		log = slog.Default()
	}
	who, err := newResolver(s, log)
	if err != nil {
		return nil, err
	}
	middlewares, err := plugin.OpenAll[gateway.Middleware](host)
	if err != nil {
		return nil, err
	}
	if err := checkOrder(middlewares, host.Settings()); err != nil {
		return nil, err
	}
	b, err := newBackend(host, s, log)
	if err != nil {
		return nil, err
	}
	g := &Gateway{settings: s, log: log, who: who, metrics: newMetrics(), backend: b, failed: make(chan error, 1)}
	g.chain = chainOf(middlewares, b)
	if err := g.register(middlewares); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	config, manager, err := g.open(registry.OneMachine(b.registry))
	if err != nil {
		g.closeListeners()
		return nil, errors.Join(err, b.Close())
	}
	if config != nil && manager == nil {
		g.metrics.watchCertificate(config)
	}
	g.metrics.watchTracer(b.tracer)
	patient, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_ = b.directory.Await(patient) // the gateway says itself that it is not ready
	g.serve(config, manager)
	log.Info("the gateway serves", "address", g.Addr(), "admin", g.AdminAddr(), "tls", config != nil, "registry", b.registry.String(),
		"middleware", strings.Join(namesOf(middlewares, host.Settings()), ","), "tracer", b.tracerName())
	g.warnOfAdmin()
	return g, nil
}

// Addr is where the gateway listens.
func (g *Gateway) Addr() string { return g.listener.Addr().String() }

// AdminAddr is where it tells about itself; "" if it does not.
func (g *Gateway) AdminAddr() string {
	if g.admin == nil {
		return ""
	}
	return g.adminListener.Addr().String()
}

// Failed gets why serving ended although nobody stopped it.
func (g *Gateway) Failed() <-chan error { return g.failed }

// Ready says why requests should not be sent here; nil if they should.
func (g *Gateway) Ready() error {
	if g.stopping.Load() {
		return errors.New("the gateway is stopping")
	}
	return g.backend.ready()
}

// open opens the listeners, so that what is wrong with them is told before anything is served.
func (g *Gateway) open(oneMachine bool) (config *tls.Config, manager *autocert.Manager, err error) {
	config, manager, err = g.settings.tlsConfig()
	if err != nil {
		return nil, nil, err
	}
	var address string
	address, g.unset = g.settings.publicAddress(oneMachine)
	if g.listener, err = listen("address", address); err != nil {
		return nil, nil, err
	}
	if a := g.settings.AdminAddress; a != off && a != "" {
		if g.adminListener, err = listen("admin-address", a); err != nil {
			return nil, nil, err
		}
	}
	if a := g.settings.RedirectAddress; a != "" {
		if g.redirectListener, err = listen("redirect-address", a); err != nil {
			return nil, nil, err
		}
	}
	return config, manager, nil
}

// serve makes the servers of the listeners and starts them.
func (g *Gateway) serve(config *tls.Config, manager *autocert.Manager) {
	base, cut := context.WithCancelCause(context.Background())
	g.cut = cut
	g.public = g.server(base, g)
	g.public.TLSConfig = config
	g.public.Protocols.SetUnencryptedHTTP2(g.settings.H2C)
	limited := newLimiter(g.listener, g.settings.MaxConnections, g.metrics, g.log, func(full bool) { g.public.SetKeepAlivesEnabled(!full) })
	l := g.who.Listener(limited)
	if config != nil {
		go g.end("address", g.public, func() error { return g.public.ServeTLS(l, "", "") })
	} else {
		go g.end("address", g.public, func() error { return g.public.Serve(l) })
	}
	if g.adminListener != nil {
		g.admin = g.server(base, g.adminHandler())
		g.admin.WriteTimeout = 0 // profiles and events take as long as they take
		go g.end("admin-address", g.admin, func() error { return g.admin.Serve(g.adminListener) })
	}
	if g.redirectListener != nil {
		_, port, _ := net.SplitHostPort(g.listener.Addr().String())
		g.redirect = g.server(base, redirect(port, manager))
		go g.end("redirect-address", g.redirect, func() error { return g.redirect.Serve(g.redirectListener) })
	}
	if manager != nil {
		go fetch(manager, g.settings.ACME.Hosts, g.log)
	}
}

func (g *Gateway) server(base context.Context, h http.Handler) *http.Server {
	s := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: g.settings.HeaderTimeout,
		ReadTimeout:       g.settings.SilentTimeout, // the first one: body gives others
		WriteTimeout:      g.settings.SilentTimeout, // the first one: exchange gives others
		IdleTimeout:       g.settings.IdleTimeout,
		MaxHeaderBytes:    int(g.settings.MaxHeader),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 250, SendPingTimeout: g.settings.SilentTimeout},
		ErrorLog:          log.New(&errorLog{log: g.log}, "", 0),
		Protocols:         new(http.Protocols),

		DisableGeneralOptionsHandler: true, // OPTIONS * goes the way of all requests
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	return s
}

// end tells why a server ended.
func (g *Gateway) end(option string, s *http.Server, serve func() error) {
	if err := serve(); !errors.Is(err, http.ErrServerClosed) {
		select {
		case g.failed <- fmt.Errorf("%s: %w", option, err):
		default:
		}
		s.Close()
	}
}

// errorLog takes what net/http logs of connections: mostly what strangers did.
type errorLog struct {
	log   *slog.Logger
	limit loglimit.Limit
}

func (e *errorLog) Write(p []byte) (int, error) {
	e.limit.Warn(e.log, "connection failed", "error", strings.TrimSpace(string(p)))
	return len(p), nil
}

// closeListeners is for a start that failed.
func (g *Gateway) closeListeners() {
	for _, l := range []net.Listener{g.listener, g.adminListener, g.redirectListener} {
		if l != nil {
			l.Close()
		}
	}
}

func newResolver(s Settings, log *slog.Logger) (*clientip.Resolver, error) {
	who, err := clientip.New(s.Settings)
	if err == nil {
		who.Log = log
	}
	return who, err
}

// warnOfAdmin tells of an admin address that others reach.
func (g *Gateway) warnOfAdmin() {
	if g.admin == nil {
		return
	}
	addr, ok := g.adminListener.Addr().(*net.TCPAddr)
	if ok && !addr.IP.IsLoopback() {
		g.log.Warn("others than this machine reach the admin address, and who reaches it can call every service", "address", addr.String())
	}
}
