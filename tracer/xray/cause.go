package xray

import (
	"cmp"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/plugmicro/micro/internal/clip"
)

const (
	maxExceptions = 10
	maxFrames     = 50
)

// cause says why it failed.
type cause struct {
	Exceptions []exception `json:"exceptions,omitempty"`
}

type exception struct {
	ID        string  `json:"id"`
	Type      string  `json:"type,omitempty"`
	Message   string  `json:"message,omitempty"`
	Stack     []frame `json:"stack,omitempty"`
	Truncated int     `json:"truncated,omitempty"` // how many frames are left out
}

type frame struct {
	Path  string `json:"path,omitempty"`
	Line  int    `json:"line,omitempty"`
	Label string `json:"label,omitempty"`
}

// causeOf is made of the exceptions that the span recorded, or of the words of its status.
func causeOf(f fields, span sdktrace.ReadOnlySpan) *cause {
	var c cause
	for _, e := range span.Events() {
		if e.Name != "exception" || len(c.Exceptions) == maxExceptions {
			continue
		}
		said := fieldsOf(e.Attributes)
		x := exception{ID: randomID(), Type: said.short("exception.type"), Message: said.short("exception.message")}
		x.Type = strings.TrimLeft(x.Type, "*")
		x.Stack, x.Truncated = parseStack(said.text("exception.stacktrace"))
		c.Exceptions = append(c.Exceptions, x)
	}
	if s := span.Status(); c.Exceptions == nil && s.Code == codes.Error && s.Description != "" {
		kind := cmp.Or(f.short("error.type", "rpc.response.status_code"), "error")
		c.Exceptions = []exception{{ID: randomID(), Type: kind, Message: clip.Prefix(s.Description, maxText)}}
	}
	if c.Exceptions == nil {
		return nil
	}
	return &c
}

// parseStack reads what runtime.Stack writes: lines with a function and its arguments, each followed by one with a tab,
// the file and the line.
func parseStack(text string) (frames []frame, truncated int) {
	var function string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		place, ok := strings.CutPrefix(line, "\t")
		if !ok {
			function = line
			continue
		}
		if len(frames) == maxFrames {
			truncated++
			continue
		}
		place, _, _ = strings.Cut(place, " +0x")
		path, number, _ := cutLast(place, ":")
		at, _ := strconv.Atoi(number)
		frames = append(frames, shortFrame(function, path, at))
	}
	return frames, truncated
}

// shortFrame leaves of the path what the import path says too, and of the function its name without the package, as
// X-Ray's SDK does.
func shortFrame(function, path string, line int) frame {
	function = strings.TrimPrefix(function, "created by ")
	function, _, _ = strings.Cut(function, " in goroutine ")
	if strings.HasSuffix(function, ")") { // its arguments, not a receiver
		function, _, _ = cutLast(function, "(")
	}
	_, name, _ := cutLast(function, "/")
	_, name, _ = strings.Cut(name, ".")
	return frame{Path: clip.Prefix(lastParts(path, strings.Count(function, "/")+2), maxText), Line: line, Label: clip.Prefix(name, maxText)}
}

// lastParts are the last n of a path, or all of it if there are not as many.
func lastParts(path string, n int) string {
	rest := path
	for range n {
		before, _, found := cutLast(rest, "/")
		if !found {
			return path
		}
		rest = before
	}
	return path[len(rest)+1:]
}

// cutLast cuts at the last separator; without one, all is after it.
func cutLast(text, sep string) (before, after string, found bool) {
	i := strings.LastIndex(text, sep)
	if i < 0 {
		return "", text, false
	}
	return text[:i], text[i+len(sep):], true
}
