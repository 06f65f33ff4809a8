package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/plugmicro/micro/plugin"
)

func (a *app) pluginsCommand(flags *pluginFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugins",
		Short: "List plugins, or show the options of one",
		Long: `Lists the plugins that this program links, by kind, and says which one is used when none is chosen, and which one the
settings choose now.`,
		Example: `  micro plugins
  micro plugins show registry/local`,
		Args:              a.noSuchCommand,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return a.listPlugins() },
	}
	flags.addGateway(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:     "show KIND/NAME",
		Short:   "Show the options of a plugin",
		Long:    "Shows the options of a plugin: types, defaults, and the flags, environment variables and keys of the file that set them.",
		Example: "  micro plugins show registry/local",
		Args:    arguments(1, 1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []cobra.Completion
			eachPlugin(func(k plugin.KindInfo, p plugin.PluginInfo) {
				names = append(names, cobra.CompletionWithDesc(k.Name+"/"+p.Name, p.Doc))
			})
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.showPlugin(args[0]) },
	})
	return cmd
}

func eachPlugin(f func(plugin.KindInfo, plugin.PluginInfo)) {
	for _, k := range plugin.Linked.Kinds() {
		for _, p := range k.Plugins {
			f(k, p)
		}
	}
}

// listPlugins lists them even if the settings are wrong, because then the list is wanted most.
func (a *app) listPlugins() error {
	settings, wrong := a.load()
	chosen := func(kind string) []string {
		if wrong != nil {
			return nil
		}
		return settings.Chosen(kind)
	}
	if err := a.printPlugins(chosen); err != nil {
		return err
	}
	return wrong
}

func (a *app) printPlugins(chosen func(kind string) []string) error {
	if a.output == asJSON {
		type kind struct {
			plugin.KindInfo
			Chosen []string `json:"chosen"`
		}
		kinds := []kind{}
		for _, k := range plugin.Linked.Kinds() {
			kinds = append(kinds, kind{k, chosen(k.Name)})
		}
		return a.printJSON(kinds)
	}
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PLUGIN\tUSED\tABOUT")
	eachPlugin(func(k plugin.KindInfo, p plugin.PluginInfo) {
		var used []string
		if slices.Contains(chosen(k.Name), p.Name) {
			used = append(used, "chosen")
		}
		if slices.Contains(strings.Split(k.Default, ","), p.Name) {
			used = append(used, "default")
		}
		row(t, 0, k.Name+"/"+p.Name, cmp.Or(strings.Join(used, ", "), "-"), p.Doc)
	})
	return t.Flush()
}

func (a *app) showPlugin(name string) error {
	var names []string
	var kind plugin.KindInfo
	var found *plugin.PluginInfo
	eachPlugin(func(k plugin.KindInfo, p plugin.PluginInfo) {
		names = append(names, k.Name+"/"+p.Name)
		if names[len(names)-1] == name {
			kind, found = k, &p
		}
	})
	switch near := nearestPlugin(name, names); {
	case found == nil && near != "":
		return usage("did you mean "+near+"?", "no plugin %q is linked", name)
	case found == nil:
		return usage("micro plugins lists them, as KIND/NAME", "no plugin %q is linked", name)
	case a.output == asJSON:
		return a.printJSON(found)
	}
	return writePlugin(a.out, kind, *found)
}

// nearestPlugin compares kind and name each by itself: registry/consul is not nearly registry/local.
func nearestPlugin(name string, all []string) string {
	kind, plugin, ok := strings.Cut(name, "/")
	if !ok {
		return containing(name, all)
	}
	for _, c := range all {
		k, p, _ := strings.Cut(c, "/")
		if nearestTo(kind, []string{k}) != "" && nearestTo(plugin, []string{p}) != "" {
			return c
		}
	}
	return ""
}

func writePlugin(w io.Writer, k plugin.KindInfo, p plugin.PluginInfo) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s/%s: %s\n\n", k.Name, p.Name, oneLine(p.Doc))
	row(t, 0, "package", p.Package)
	row(t, 0, "choose it", k.Flag+" "+p.Name, k.Env+"="+p.Name)
	for _, o := range p.Options {
		fmt.Fprintln(t)
		fmt.Fprintln(t, o.Name+": "+oneLine(o.Help))
		row(t, 2, "type", o.Type)
		if o.Default != "" {
			row(t, 2, "default", o.Default)
		}
		row(t, 2, "flag", o.Flag)
		row(t, 2, "environment", o.Env)
		if o.Secret {
			row(t, 2, "from a file", o.Flag+"-file", o.Env+"_FILE")
		}
	}
	if len(p.Options) == 0 {
		fmt.Fprintln(t, "\nIt has no options.")
	}
	return t.Flush()
}
