package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/codec"
)

// contentType is the header that says how a body is encoded.
const contentType = "Content-Type"

func (a *app) publishCommand() *cobra.Command {
	var key string
	var header []string
	cmd := &cobra.Command{
		Use:   "publish TOPIC [JSON]",
		Short: "Publish messages to a topic",
		Long: `Publishes JSON to a topic; nothing means {}. With "-" it is read from stdin, where each JSON value is a message.
It returns when the broker has everything; what nobody has subscribed to is gone, unless the broker keeps it. With
--output json it prints each message with its ID.`,
		Example: `  micro publish greetings '{"name":"Ada"}' --key ada
  micro publish greetings - <events.jsonl`,
		Args:              arguments(1, 2),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			headers, err := parsePairs("--header", header)
			if err != nil {
				return err
			}
			if headers[contentType] == "" {
				headers[contentType] = codec.JSON
			}
			if err := check(args[1:]); err != nil {
				return err
			}
			b, err := open[broker.Broker](a)
			if err != nil {
				return err
			}
			for body, err := range a.values(args[1:]) {
				if err != nil {
					return err
				}
				m := &broker.Message{ID: broker.NewID(), Key: key, Header: headers, Body: body}
				if err := b.Publish(cmd.Context(), args[0], m); err != nil {
					return brokerError(err)
				}
				if err := a.printPublished(args[0], m); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&key, "key", "k", "", "`key` of the messages: those of one key are handled in order")
	cmd.Flags().StringArrayVar(&header, "header", nil, "`key=value` to send with the messages; may be repeated")
	return cmd
}

func (a *app) printPublished(topic string, m *broker.Message) error {
	if a.output != asJSON {
		return nil
	}
	return a.printJSON(struct {
		Topic string          `json:"topic"`
		ID    string          `json:"id"`
		Key   string          `json:"key,omitempty"`
		Body  json.RawMessage `json:"body"`
	}{topic, m.ID, m.Key, m.Body})
}
