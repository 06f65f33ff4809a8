// Package xray is the tracer for AWS X-Ray:
//
//	MICRO_TRACER=xray AWS_XRAY_DAEMON_ADDRESS=127.0.0.1:2000 ./program
//
// Spans of OpenTelemetry become segment documents, which go to the X-Ray daemon (or to the CloudWatch agent, or a
// collector with an awsxray receiver) over UDP: one datagram each, no answer, nothing that a request could wait for. What
// serves a request or a message, and what comes from nowhere, is a segment named after the service; the rest are
// subsegments. What a span's own name was is the annotation "operation".
//
// # What becomes of attributes
//
// HTTP, SQL, AWS, user and RPC attributes of OpenTelemetry's semantic conventions become the fields that X-Ray has for them. Of
// addresses, the query and the password are left out. Of the others, those that the setting annotations names, or whose
// key begins with "annotation.", are annotations, by which X-Ray finds traces; the rest, and the events, are metadata, which it
// shows. Exceptions of the span, or the words of its status, are the cause. Links are dropped.
//
// Segments are sent when they have ended. One that takes longer than 10 seconds, such as that of a stream, is also sent then,
// as one in progress, so that X-Ray shows it, and what was called for it, before the end.
//
// A document larger than a datagram (64 KB) is cut: long metadata first, then all metadata, stacks, annotations. It says so
// in its metadata, and is counted.
//
// # Whose trace it is
//
// X-Amzn-Trace-Id is read in all its forms, as load balancers and the SDKs of X-Ray send it, and what of it is not ours, such as
// Lineage, is passed on. Without it, W3C's traceparent is read. Only X-Amzn-Trace-Id is sent. Who may send that header may
// also say, with Sampled=1, that the trace is recorded: a gateway on the internet may want to drop it.
//
// # What is sampled
//
// Who decided first decides for the whole trace. By default the rules of X-Ray decide, which come from the daemon by TCP. Until
// they have come, and when they are older than an hour, it is so many a second, and a rate of what is more: the settings
// reservoir and rate. Rules match what is known when a span starts: server.address, http.request.method, url.path (for calls the
// path /service/method and the method POST), any attribute, and the name and the type of the service.
package xray

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/plugmicro/micro/internal/otelsdk"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/tracer"
)

// Config is what --tracer-* and MICRO_TRACER_* set.
type Config struct {
	Daemon      string   `help:"X-Ray daemon: host:port, or tcp:host:port udp:host:port; empty: AWS_XRAY_DAEMON_ADDRESS, or else 127.0.0.1:2000"`
	Name        string   `help:"of the segments, as the service map shows it; empty: AWS_XRAY_TRACING_NAME, or else the name of the service"`
	Origin      string   `help:"where it runs, as X-Ray calls it, such as AWS::ECS::Container; empty: by cloud.platform in OTEL_RESOURCE_ATTRIBUTES"`
	Sampling    string   `default:"remote" help:"who decides which traces are recorded that begin here. remote: the rules of X-Ray, asked for through the daemon; local: reservoir and rate alone"`
	Reservoir   int      `default:"1" help:"traces a second that are recorded in any case, while there are no rules"`
	Rate        float64  `default:"0.05" help:"share of the further traces that is recorded, 0 to 1, while there are no rules"`
	Annotations []string `help:"keys of attributes that X-Ray is to index; * for all"`
	otelsdk.Batching
}

func init() {
	plugin.Register("xray", New, plugin.Doc("AWS X-Ray: segments by UDP to the daemon, its header, its sampling rules"))
}

var samplings = []string{"remote", "local"}

// Validate is asked when the settings are loaded.
func (c Config) Validate() error { return errors.Join(c.check(), c.Batching.Validate()) }

// check leaves Batching to package otelsdk, which knows the defaults.
func (c Config) check() error {
	var errs []error
	if _, err := daemonAddresses(c.Daemon); err != nil {
		errs = append(errs, err)
	}
	if !slices.Contains(samplings, c.Sampling) {
		errs = append(errs, fmt.Errorf("sampling %q is unknown: it is one of %q", c.Sampling, samplings))
	}
	if c.Reservoir < 0 {
		errs = append(errs, fmt.Errorf("reservoir %d: want 0 or more", c.Reservoir))
	}
	if !(c.Rate >= 0 && c.Rate <= 1) {
		errs = append(errs, fmt.Errorf("rate %v: want 0 to 1", c.Rate))
	}
	return errors.Join(errs...)
}

// Tracer sends spans to X-Ray.
type Tracer struct {
	*otelsdk.Tracer
	sender *sender
	stop   context.CancelFunc
	poll   sync.WaitGroup
}

var (
	_ tracer.Responder = (*Tracer)(nil)
	_ tracer.Dropper   = (*Tracer)(nil)
)

// New opens the tracer. A daemon that is not there is no error: it may come later.
func New(env *plugin.Env, c Config) (tracer.Tracer, error) { return Open(env, c) }

// Open is New for programs that want a *Tracer. An empty Sampling is remote, and zero fields of Batching get their
// defaults; a Rate and a Reservoir of 0 are just that.
func Open(env *plugin.Env, c Config) (*Tracer, error) {
	c.Sampling = cmp.Or(c.Sampling, "remote")
	if err := c.check(); err != nil {
		return nil, err
	}
	daemon, err := daemonAddresses(c.Daemon)
	if err != nil {
		return nil, err
	}
	res, err := otelsdk.Resource(env)
	if err != nil {
		return nil, err
	}
	of := fieldsOf(res.Attributes())
	c.Name = cmp.Or(c.Name, os.Getenv("AWS_XRAY_TRACING_NAME"), of.text("service.name"))
	c.Origin = cmp.Or(c.Origin, origins[of.text("cloud.platform")])
	s := newSampler(c, request{service: cleanName(c.Name), kind: c.Origin, resource: of.text("cloud.resource_id")})
	t := &Tracer{sender: newSender(daemon.udp, c)}
	t.Tracer, err = otelsdk.New(env, otelsdk.Options{Exporter: t.sender, Sampler: s, IDs: ids{}, Batching: c.Batching, Around: reportProgress})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	t.stop = stop
	if c.Sampling == "remote" {
		p := newPoller(daemon.tcp, s, env.Logger())
		t.poll.Go(func() { p.run(ctx) })
	}
	return t, nil
}

// Stats count documents since the start.
type Stats struct {
	Sent      uint64 // that the network took: UDP does not tell whether they arrived
	Lost      uint64 // dropped because too many waited, or known not to have arrived
	Shortened uint64 // sent, but not whole
}

// Stats are what became of the spans that ended.
func (t *Tracer) Stats() Stats {
	return Stats{Sent: t.sender.sent.Load(), Lost: uint64(t.Dropped()), Shortened: t.sender.shortened.Load()}
}

// Close sends what waits, within the close-timeout, and ends.
func (t *Tracer) Close() error {
	t.stop()
	t.poll.Wait()
	return t.Tracer.Close()
}
