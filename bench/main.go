// Command bench measures what the project promises about speed, side by side with bare TCP and with gRPC, on this
// machine. It is a module of its own, so that gRPC does not become a dependency of those who use micro.
//
//	cd bench && go run .
//
// What is compared, and how, is in docs/benchmarks.md.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"time"
)

// settings are the flags.
type settings struct {
	only     []string
	rounds   int
	duration time.Duration
	calls    int
	json     string
	profiles string
}

// sections are the parts of a run, in order.
var sections = []struct {
	name    string
	measure func(*settings, *report) error
}{
	{"many", measureMany},
	{"one", measureOne},
	{"large", measureLarge},
	{"memory", measureMemory},
	{"kernel", measureKernel},
	{"start", measureStart},
	{"gateway", measureGateway},
	{"servers", measureServers},
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		log.Fatal(err)
	}
}

func run(args []string) error {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return play(args[0], args[1:])
	}
	s, err := parse(args)
	if err != nil {
		return err
	}
	if s.profiles != "" {
		if err := os.MkdirAll(s.profiles, 0o755); err != nil {
			return err
		}
	}
	r := newReport(os.Stdout)
	for _, section := range sections {
		if len(s.only) > 0 && !slices.Contains(s.only, section.name) {
			continue
		}
		if err := section.measure(s, r); err != nil {
			return fmt.Errorf("%s: %w", section.name, err)
		}
	}
	r.printChecks()
	if s.json == "" {
		return nil
	}
	return r.write(s.json)
}

// play is what the processes do that this program starts.
func play(role string, args []string) error {
	switch {
	case role == "server" && len(args) == 2 && contenderNamed(args[0]) != nil:
		return serverRole(contenderNamed(args[0]), args[1])
	case role == "client" && len(args) == 3 && contenderNamed(args[0]) != nil:
		return clientRole(contenderNamed(args[0]), args[1], args[2])
	case role == "service" && len(args) == 1:
		return serviceRole(args[0])
	case role == "kernel" && len(args) == 1:
		return kernelRole(args[0])
	case role == "http-client" && len(args) == 2:
		return httpClientRole(args[0], args[1])
	case role == "canned" && len(args) == 0:
		return cannedRole()
	case role == "greeter" && len(args) == 0:
		return greeterRole()
	case role == "gateway":
		return profiled(func() error { return gatewayRole(args) })
	case role == "reverseproxy" && len(args) == 3:
		return profiled(func() error { return reverseProxyRole(args[0], args[1], args[2]) })
	}
	return fmt.Errorf("unexpected argument %q: run it with flags only, -h lists them", role)
}

func parse(args []string) (*settings, error) {
	var names []string
	for _, section := range sections {
		names = append(names, section.name)
	}
	s := new(settings)
	var only string
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&only, "only", "", "sections to measure, of "+strings.Join(names, ","))
	fs.IntVar(&s.rounds, "rounds", 5, "how often each contender has its turn; medians are reported")
	fs.DurationVar(&s.duration, "time", time.Second, "how long a turn is")
	fs.IntVar(&s.calls, "calls", 5_000_000, "calls over which memory must be flat; a fifth of them come first")
	fs.StringVar(&s.json, "json", "", "file to write all measurements to")
	fs.StringVar(&s.profiles, "profile", "", "directory for CPU profiles of all processes")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if only != "" {
		s.only = strings.Split(only, ",")
	}
	for _, name := range s.only {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("-only: no section %q: there are %s", name, strings.Join(names, ", "))
		}
	}
	if fs.NArg() > 0 || s.rounds < 1 || s.duration <= 0 || s.calls < maxCallers {
		return nil, fmt.Errorf("want -rounds of at least 1, -time of more than 0, -calls of at least %d, and no other arguments", maxCallers)
	}
	return s, nil
}
