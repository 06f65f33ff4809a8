package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"mime"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/codec"
)

func (a *app) subscribeCommand() *cobra.Command {
	s := &subscriber{app: a, done: make(chan error, 1)}
	cmd := &cobra.Command{
		Use:   "subscribe TOPIC",
		Short: "Print the messages of a topic",
		Long: `Prints the messages of a topic, a line for each, from now on until Ctrl-C or for -n of them. A line is the body; with
--output json it also has the ID, the key and the header.

It sees every message, beside whoever else is subscribed. With --group it is a member of that group and takes messages away
from the others.`,
		Example: `  micro subscribe greetings
  micro subscribe greetings -n 1 --output json`,
		Args:              arguments(1, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if s.count < 0 {
				return usage("", "--count %d: want 1 or more, or 0 for no end", s.count)
			}
			return s.run(cmd.Context(), args[0])
		},
	}
	cmd.Flags().StringVarP(&s.group, "group", "g", "", "`name` of a group to share the messages with")
	cmd.Flags().IntVarP(&s.count, "count", "n", 0, "end after so many messages; 0: never")
	return cmd
}

// subscriber is one use of the command. Its handler runs for one message at a time.
type subscriber struct {
	*app
	group   string
	count   int
	printed int
	done    chan error
}

func (s *subscriber) run(ctx context.Context, topic string) error {
	b, err := open[broker.Broker](s.app)
	if err != nil {
		return err
	}
	var opts []broker.SubscribeOption
	if s.group != "" {
		opts = append(opts, broker.Group(s.group))
	}
	sub, err := b.Subscribe(ctx, topic, s.handle, opts...)
	if err != nil {
		return brokerError(err)
	}
	s.log.Info("subscribed", "topic", topic, "broker", b.String())
	select {
	case err = <-s.done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return errors.Join(err, sub.Close())
}

var errEnough = errors.New("enough messages were printed")

func (s *subscriber) handle(_ context.Context, m *broker.Message) error {
	if s.count > 0 && s.printed == s.count {
		return errEnough
	}
	err := s.print(m)
	if err == nil {
		s.printed++
	}
	if err != nil || s.printed == s.count {
		slog.SetLogLoggerLevel(slog.LevelError) // that the next one goes back is no news
		select {
		case s.done <- err:
		default: // it has ended before
		}
	}
	return err
}

func (s *subscriber) print(m *broker.Message) error {
	if s.output == asJSON {
		return s.printJSON(describeMessage(m))
	}
	var body bytes.Buffer
	if json.Compact(&body, m.Body) != nil {
		return s.printLine(string(m.Body))
	}
	return s.printLine(body.String())
}

// message is a broker.Message as JSON.
type message struct {
	ID         string            `json:"id"`
	Key        string            `json:"key,omitempty"`
	Header     map[string]string `json:"header,omitempty"`
	Body       any               `json:"body,omitempty"`       // JSON, or a string if it is other text
	BodyBase64 []byte            `json:"bodyBase64,omitempty"` // if it is no text
}

func describeMessage(m *broker.Message) message {
	d := message{ID: m.ID, Key: m.Key, Header: m.Header}
	switch {
	case isJSON(m):
		d.Body = json.RawMessage(m.Body)
	case utf8.Valid(m.Body):
		d.Body = string(m.Body)
	default:
		d.BodyBase64 = m.Body
	}
	return d
}

// isJSON goes by the content type, and by the body where that says nothing.
func isJSON(m *broker.Message) bool {
	t, _, _ := mime.ParseMediaType(m.Header[contentType])
	return (t == "" || t == codec.JSON) && json.Valid(m.Body)
}

// brokerError tells what the user got wrong from what went wrong.
func brokerError(err error) error {
	if errors.Is(err, broker.ErrInvalid) || errors.Is(err, broker.ErrUnsupported) {
		return &failure{code: exitUsage, err: err}
	}
	return err
}
