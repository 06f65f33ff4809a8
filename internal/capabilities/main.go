// Command capabilities writes docs/capabilities.md from what the conformance suites found, for make capabilities:
//
//	go run ./internal/capabilities .results docs/capabilities.md
//	go run ./internal/capabilities -check .results docs/capabilities.md
//
// A plugin without results, because its server is not there, keeps what the page says of it; with MICRO_REQUIRE_SERVERS=1
// that is an error. A plugin that is gone for good is taken out of the page by hand, before.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/plugmicro/micro/internal/suite"
)

func main() {
	check := flag.Bool("check", false, "write nothing, fail if the page is not what it would be")
	flag.Usage = func() { fmt.Fprintln(flag.CommandLine.Output(), "usage: capabilities [-check] RESULTS PAGE") }
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Arg(1), *check, os.Getenv("MICRO_REQUIRE_SERVERS") == "1"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run brings the page up to date, or checks that it is.
func run(results, file string, check, needAll bool) error {
	found, err := suite.Load(results)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	old := parse(string(text))
	page, err := pageOf(found)
	if err != nil {
		return err
	}
	if needAll {
		if missing := old.without(page); len(missing) > 0 {
			return fmt.Errorf("%s: no results of %s, though every server is required: did the suites run with %s=%s?",
				file, strings.Join(missing, ", "), suite.Env, results)
		}
	}
	if check {
		page.forgiveVersions(old)
	}
	page.keep(old)
	updated := page.String()
	switch {
	case updated == string(text):
		return nil
	case check:
		return fmt.Errorf("%s is stale, the suites found something else:\n%sRun `make capabilities` and commit the page",
			file, difference(string(text), updated))
	}
	return os.WriteFile(file, []byte(updated), 0o644)
}

// difference shows the lines that are not in both.
func difference(old, updated string) string {
	var b strings.Builder
	show := func(sign, a, other string) {
		there := map[string]bool{}
		for line := range strings.Lines(other) {
			there[line] = true
		}
		for line := range strings.Lines(a) {
			if !there[line] {
				b.WriteString(sign + " " + line)
			}
		}
	}
	show("-", old, updated)
	show("+", updated, old)
	return b.String()
}
