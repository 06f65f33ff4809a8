package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/plugmicro/micro/internal/nearest"
)

// The exit codes; a signal ends with 128 and its number, as shells have it.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitAnswer   = 3
	exitNoAnswer = 4
)

const exitCodes = `Exit codes:
  0    all went well
  1    it failed
  2    wrong command line or settings
  3    the service answered with an error
  4    no answer: no such service or endpoint, no node of it reached, or none that answered in time
  130  ended by Ctrl-C; 143 by SIGTERM; the gateway, which they stop in order, gives 0
`

// failure is an error that knows the exit code, and perhaps what to do.
type failure struct {
	code int
	hint string
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func usage(hint, format string, args ...any) error {
	return &failure{exitUsage, hint, fmt.Errorf(format, args...)}
}

func noAnswer(hint, format string, args ...any) error {
	return &failure{exitNoAnswer, hint, fmt.Errorf(format, args...)}
}

// report tells the user about err and returns the exit code.
func (a *app) report(ctx context.Context, err error) int {
	var i interrupted
	if !a.serves && errors.As(context.Cause(ctx), &i) {
		return i.code() // who pressed Ctrl-C knows why it ended
	}
	if err == nil {
		return exitOK
	}
	for text := range strings.Lines(err.Error()) {
		a.warn("%s", text)
	}
	var f *failure
	if !errors.As(err, &f) {
		return exitFailed
	}
	if f.hint != "" {
		fmt.Fprintln(a.err, "hint: "+oneLine(f.hint))
	}
	return f.code
}

// warn tells the user what is no error.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintln(a.err, "micro: "+oneLine(fmt.Sprintf(format, args...)))
}

// oneLine makes text from anywhere safe for a terminal and for readers of lines.
func oneLine(s string) string {
	s = strings.TrimRight(s, "\r\n")
	if printable(s) {
		return s
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// nearestTo returns what was probably meant by name; "" if nothing comes near.
func nearestTo(name string, candidates []string) string {
	return cmp.Or(nearest.Name(name, candidates), containing(name, candidates))
}

// containing returns the only candidate that has name in it: Hello is Greeter.Hello.
func containing(name string, candidates []string) string {
	found := slices.DeleteFunc(slices.Clone(candidates), func(c string) bool {
		return !strings.Contains(strings.ToLower(c), strings.ToLower(name))
	})
	if len(found) != 1 || len(name) < 3 {
		return ""
	}
	return found[0]
}
