package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"strings"
	"time"
)

const quoteHint = `write JSON in single quotes: '{"name":"Ada"}'`

// values reads one JSON value after the other: from what stands on the command line, from stdin if that is "-", or {}
// if it is nothing. The last pair has the error if there is one.
func (a *app) values(args []string) iter.Seq2[json.RawMessage, error] {
	switch {
	case len(args) == 0:
		return readValues(strings.NewReader("{}"), "")
	case args[0] == "-":
		return readValues(a.in, "stdin")
	}
	return readValues(strings.NewReader(args[0]), "the argument")
}

// check finds a mistake on the command line before anything is opened.
func check(args []string) error {
	if len(args) == 0 || args[0] == "-" {
		return nil
	}
	for _, err := range readValues(strings.NewReader(args[0]), "the argument") {
		if err != nil {
			return err
		}
	}
	return nil
}

func readValues(r io.Reader, source string) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		dec := json.NewDecoder(r)
		for n := 1; ; n++ {
			var v json.RawMessage
			err := dec.Decode(&v)
			switch {
			case errors.Is(err, io.EOF) && n > 1:
				return
			case errors.Is(err, io.EOF):
				err = usage(quoteHint, "%s holds no JSON", source)
			case errors.Is(err, io.ErrUnexpectedEOF):
				err = usage(quoteHint, "%s is not JSON: it ends in the middle of value %d", source, n)
			case isSyntax(err):
				err = usage(quoteHint, "%s is not JSON: value %d: %w", source, n, err)
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

func isSyntax(err error) bool {
	var syntax *json.SyntaxError
	return errors.As(err, &syntax)
}

// duration is a flag that says in the words of package plugin what is none.
type duration time.Duration

// Set implements pflag.Value.
func (d *duration) Set(s string) error {
	parsed, err := time.ParseDuration(s)
	if err != nil {
		return errors.New("it is not a duration: write it like 300ms, 5s or 1h30m")
	}
	*d = duration(parsed)
	return nil
}

// String implements pflag.Value.
func (d *duration) String() string { return time.Duration(*d).String() }

// Type implements pflag.Value.
func (*duration) Type() string { return "duration" }

// one is the only value of a sequence.
func one(values iter.Seq2[json.RawMessage, error]) (json.RawMessage, error) {
	var found json.RawMessage
	for v, err := range values {
		if err != nil {
			return nil, err
		}
		if found != nil {
			return nil, usage("", "one request is wanted, here are more")
		}
		found = v
	}
	return found, nil
}

// printAnswer prints JSON in one line, whatever spaces the sender had in it.
func (a *app) printAnswer(answer json.RawMessage) error {
	var line bytes.Buffer
	if err := json.Compact(&line, answer); err != nil {
		return err
	}
	line.WriteByte('\n')
	_, err := a.out.Write(line.Bytes())
	return err
}
