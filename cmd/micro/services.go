package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/plugmicro/micro/registry"
)

// internalPrefix begins the names of services that plugins make for themselves.
const internalPrefix = "_"

func (a *app) servicesCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "services [SERVICE]",
		Short: "List services, describe one, or watch them come and go",
		Long: `Lists the names of all services, or describes one: its versions, nodes and endpoints, with the fields of requests and
responses as JSON has them.

With --watch it prints a line for each node that is there, and then for each change, until Ctrl-C.`,
		Example: `  micro services
  micro services greeter
  micro services --watch`,
		Args:              arguments(0, 1),
		ValidArgsFunction: a.completeServices(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			reg, err := open[registry.Registry](a)
			if err != nil {
				return err
			}
			name := strings.Join(args, "")
			switch {
			case watch:
				return a.watchServices(cmd.Context(), reg, name)
			case name == "":
				return a.listServices(reg)
			}
			return a.showService(reg, name)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "print what is there, then what changes")
	return cmd
}

func (a *app) listServices(reg registry.Registry) error {
	names, err := serviceNames(reg)
	if err != nil {
		return err
	}
	if a.output == asJSON {
		list := make([]registry.Service, len(names))
		for i, name := range names {
			list[i].Name = name
		}
		return a.printJSON(list)
	}
	if len(names) == 0 {
		a.warn("no service is registered in registry %s", reg)
	}
	for _, name := range names {
		if err := a.printLine(name); err != nil {
			return err
		}
	}
	return nil
}

// serviceNames are sorted, without the internal ones.
func serviceNames(reg registry.Registry) ([]string, error) {
	list, err := reg.ListServices()
	if err != nil {
		return nil, fmt.Errorf("list the services of registry %s: %w", reg, err)
	}
	names := make([]string, 0, len(list))
	for _, s := range list {
		if !strings.HasPrefix(s.Name, internalPrefix) {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// find is GetService with an error that helps.
func find(reg registry.Registry, name string) ([]*registry.Service, error) {
	versions, err := reg.GetService(name)
	if err == nil && len(versions) > 0 {
		return versions, nil
	}
	if err != nil && !errors.Is(err, registry.ErrNotFound) {
		return nil, fmt.Errorf("find service %q in registry %s: %w", name, reg, err)
	}
	names, err := serviceNames(reg)
	hint := "micro services lists those that are there"
	switch near := nearestTo(name, names); {
	case err == nil && len(names) == 0:
		hint = "no service is registered there: start one, or choose its registry with --registry and its options"
	case near != "":
		hint = "did you mean " + near + "?"
	}
	return nil, noAnswer(hint, "no service %q in registry %s", name, reg)
}

func endpointNames(versions []*registry.Service) []string {
	var names []string
	for _, v := range versions {
		for _, e := range v.Endpoints {
			names = append(names, e.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (a *app) showService(reg registry.Registry, name string) error {
	versions, err := find(reg, name)
	if err != nil {
		return err
	}
	if a.output == asJSON {
		return a.printJSON(versions)
	}
	for i, v := range versions {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		if err := writeService(a.out, v); err != nil {
			return err
		}
	}
	return nil
}

// writeService describes one version.
func writeService(w io.Writer, s *registry.Service) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, oneLine(strings.TrimSpace(s.Name+" "+s.Version+" "+pairs(s.Metadata))))
	fmt.Fprintln(t, "  nodes")
	for _, n := range s.Nodes {
		row(t, 4, n.ID, n.Address, pairs(n.Metadata))
	}
	if len(s.Endpoints) > 0 {
		fmt.Fprintln(t, "  endpoints")
	}
	for _, e := range s.Endpoints {
		fmt.Fprintln(t, "    "+oneLine(e.Name+form(e)))
		writeValue(t, 6, "request", e.Request)
		writeValue(t, 6, "response", e.Response)
	}
	return t.Flush()
}

// form says in words how an endpoint is called.
func form(e *registry.Endpoint) string {
	var words string
	switch e.Metadata[registry.MetadataStream] {
	case "server":
		words = ", streams responses"
	case "client":
		words = ", streams requests"
	case "both":
		words = ", streams both ways"
	}
	if e.Metadata[registry.MetadataIdempotent] == "true" {
		words += ", idempotent"
	}
	return words
}

// writeValue describes a message and its fields below it.
func writeValue(w io.Writer, indent int, name string, v *registry.Value) {
	if v == nil {
		return
	}
	row(w, indent, name, v.Type)
	for _, field := range v.Values {
		writeValue(w, indent+2, field.Name, field)
	}
}

// row writes cells, those at the end that are empty left out.
func row(w io.Writer, indent int, cells ...string) {
	for len(cells) > 0 && cells[len(cells)-1] == "" {
		cells = cells[:len(cells)-1]
	}
	for i, c := range cells {
		cells[i] = oneLine(c)
	}
	fmt.Fprintln(w, strings.Repeat(" ", indent)+strings.Join(cells, "\t"))
}

// pairs is "k=v k2=v2", sorted.
func pairs(m map[string]string) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, k+"="+m[k])
	}
	return strings.Join(list, " ")
}
