package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/metadata"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
)

// call is one use of the command.
type call struct {
	*app
	timeout  duration
	bounded  bool // --timeout was given
	metadata []string
	address  string
	stream   bool

	service, endpoint string
	values            iter.Seq2[json.RawMessage, error]
	form              string            // registry.MetadataStream of the endpoint; "" is a call
	described         []*registry.Value // the requests, of all versions that have the endpoint
	options           []client.CallOption
}

func (a *app) callCommand() *cobra.Command {
	c := &call{app: a}
	cmd := &cobra.Command{
		Use:   "call SERVICE ENDPOINT [JSON]",
		Short: "Call an endpoint, print its answer",
		Long: `Calls an endpoint of a service and prints its answer as JSON in one line. The request is JSON, "-" to read it from
stdin, or nothing for {}.

Streams print one line for each response, as it comes. Where requests are streamed, too, they are JSON values one after the
other; they are read from stdin if there is no argument. The registry knows what streams; with --address, say --stream.

A field that the endpoint does not have, as far as the registry knows, is sent, and warned of.`,
		Example: `  micro call greeter Greeter.Hello '{"name":"Ada"}'
  micro call greeter Greeter.Hello --timeout 2s --metadata tenant=acme <request.json -
  micro call greeter Greeter.Hello '{"name":"Ada"}' --address 127.0.0.1:4100`,
		Args:              arguments(2, 3),
		ValidArgsFunction: a.completeServices(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.bounded = cmd.Flags().Changed("timeout")
			return c.run(cmd.Context(), args)
		},
	}
	flags := cmd.Flags()
	c.timeout = duration(10 * time.Second)
	flags.Var(&c.timeout, "timeout", "limit for a call; a stream has none unless this is given")
	flags.StringArrayVarP(&c.metadata, "metadata", "m", nil, "`key=value` to send with the request; may be repeated")
	flags.StringVar(&c.address, "address", "", "`address` of the node to call, without asking the registry")
	flags.BoolVar(&c.stream, "stream", false, "the endpoint is a stream: needed with --address only")
	return cmd
}

func (c *call) run(ctx context.Context, args []string) error {
	c.service, c.endpoint = args[0], args[1]
	if c.timeout <= 0 {
		return usage("", "--timeout %s: want more than 0", &c.timeout)
	}
	pairs, err := parsePairs("--metadata", c.metadata)
	if err != nil {
		return err
	}
	for k, v := range pairs {
		ctx = metadata.With(ctx, k, v)
	}
	if err := check(args[2:]); err != nil {
		return err
	}
	c.options = []client.CallOption{client.ContentType(codec.JSON)}
	reg, err := c.find()
	if err != nil {
		return err
	}
	if len(args) == 2 && (c.form == "client" || c.form == "both") {
		args = append(args, "-")
	}
	c.values = c.warnOfFields(c.app.values(args[2:]))
	tr, err := open[transport.Transport](c.app)
	if err != nil {
		return err
	}
	cl := client.New(reg, tr, client.Options{Timeout: time.Duration(c.timeout), Logger: c.log})
	defer cl.Close()
	if c.form == "" {
		return c.call(ctx, cl)
	}
	return c.openStream(ctx, cl)
}

// parsePairs reads what was given as k=v.
func parsePairs(flag string, list []string) (map[string]string, error) {
	pairs := make(map[string]string)
	for _, text := range list {
		k, v, ok := strings.Cut(text, "=")
		if !ok || k == "" {
			return nil, usage("write "+flag+" key=value", "%s %q is no pair", flag, text)
		}
		pairs[k] = v
	}
	return pairs, nil
}

// find asks the registry what the endpoint looks like. With an address there is no registry to be asked.
func (c *call) find() (registry.Registry, error) {
	if c.stream {
		c.form = "both" // as far as a caller can tell
	}
	if c.address != "" {
		c.options = append(c.options, client.Address(c.address))
		return nil, nil
	}
	reg, err := open[registry.Registry](c.app)
	if err != nil {
		return nil, err
	}
	versions, err := find(reg, c.service)
	if err != nil {
		return nil, err
	}
	all := endpointNames(versions)
	if len(all) == 0 {
		return reg, nil // it does not tell: let the service answer
	}
	var having []string // the versions that have it
	for _, v := range versions {
		for _, e := range v.Endpoints {
			if e.Name == c.endpoint {
				having = append(having, v.Version)
				c.form = e.Metadata[registry.MetadataStream]
				c.described = append(c.described, e.Request)
			}
		}
	}
	if len(having) == 0 {
		hint := "it has " + strings.Join(all, ", ")
		if near := nearestTo(c.endpoint, all); near != "" {
			hint = "did you mean " + near + "? " + hint
		}
		return nil, noAnswer(hint, "service %q has no endpoint %q", c.service, c.endpoint)
	}
	if len(having) < len(versions) {
		c.options = append(c.options, client.Where(func(n *client.Node) bool { return slices.Contains(having, n.Version) }))
	}
	return reg, nil
}

// call makes a call that is no stream.
func (c *call) call(ctx context.Context, cl *client.Client) error {
	request, err := one(c.values)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.timeout))
	defer cancel()
	answer, err := client.Call[json.RawMessage](ctx, cl, c.service, c.endpoint, &request, c.options...)
	if err != nil {
		return c.explain(err)
	}
	return c.printAnswer(*answer)
}

// openStream sends what is there to send, and prints what comes.
func (c *call) openStream(ctx context.Context, cl *client.Client) error {
	if c.form == "server" {
		request, err := one(c.values)
		if err != nil {
			return err
		}
		c.values = func(yield func(json.RawMessage, error) bool) { yield(request, nil) }
	}
	if c.bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.timeout))
		defer cancel()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := client.Open[json.RawMessage, json.RawMessage](ctx, cl, c.service, c.endpoint, c.options...)
	if err != nil {
		return c.explain(err)
	}
	defer stream.Close()
	go c.send(stream, cancel)
	for answer, err := range stream.All() {
		var wrong *failure
		if err != nil && errors.As(context.Cause(ctx), &wrong) {
			return wrong
		}
		if err != nil {
			return c.explain(err)
		}
		if err := c.printAnswer(*answer); err != nil {
			return err
		}
	}
	return nil
}

// send sends all requests. It may be left behind waiting for stdin when the stream has ended. Why a stream does not take
// any more is told to the receiving side; that a request is no JSON ends it.
func (c *call) send(stream *client.Stream[json.RawMessage, json.RawMessage], cancel context.CancelCauseFunc) {
	for request, err := range c.values {
		if err != nil {
			cancel(err)
			return
		}
		if stream.Send(&request) != nil {
			return
		}
	}
	_ = stream.CloseSend() // Recv tells
}

// explain makes of the error of a call what the user sees.
func (c *call) explain(err error) error {
	e := status.From(err)
	f := &failure{code: exitAnswer, err: e}
	if !strings.Contains(e.Message, c.service+" "+c.endpoint) { // it is the service's own
		f.err = fmt.Errorf("%s %s: %w", c.service, c.endpoint, e)
	}
	switch e.Code {
	case status.Unavailable, status.DeadlineExceeded, status.Unimplemented:
		f.code = exitNoAnswer
	}
	switch {
	case e.Code == status.Unimplemented && !c.stream && strings.Contains(e.Message, "stream"):
		f.hint = "add --stream"
	case e.Code == status.DeadlineExceeded && (c.form == "" || c.bounded):
		f.hint = fmt.Sprintf("--timeout is %s", &c.timeout)
	case e.Code == status.InvalidArgument && c.address == "":
		f.hint = fmt.Sprintf("micro services %s shows what a request looks like", c.service)
	}
	return f
}
