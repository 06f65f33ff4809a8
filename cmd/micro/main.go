// Micro is the toolkit: it finds, calls and watches services, publishes and subscribes, and shows plugins and settings.
//
//	micro services
//	micro call greeter Greeter.Hello '{"name":"Ada"}'
//
// It links every plugin of this repository, and takes the settings that a service takes: the same flags, environment and
// file. docs/cli.md describes the commands and the exit codes.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		s := <-signals
		signal.Stop(signals) // a second one ends the process at once
		cancel(interrupted{s})
	}()
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, environ: os.Environ()}
	os.Exit(a.run(ctx, os.Args[1:]))
}

// interrupted is why the context of a command ended.
type interrupted struct{ signal os.Signal }

func (i interrupted) Error() string { return fmt.Sprintf("got signal %s", i.signal) }

// code is what shells give for a process that the signal ended.
func (i interrupted) code() int {
	if s, ok := i.signal.(syscall.Signal); ok {
		return 128 + int(s)
	}
	return exitFailed
}
