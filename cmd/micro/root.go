package main

import (
	"fmt"
	"io"
	"log"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/plugmicro/micro/plugin"
)

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "micro",
		Short:         "Find, call and watch services, serve them over HTTP, publish and subscribe, see plugins and settings",
		Version:       readVersion().String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          a.noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRun: func(*cobra.Command, []string) {
			if a.verbose {
				slog.SetLogLoggerLevel(slog.LevelInfo)
				log.SetFlags(log.LstdFlags)
				log.SetPrefix("")
			}
		},
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetIn(a.in)
	root.SetVersionTemplate("micro {{.Version}}\n")
	flags := a.pluginFlags()
	a.addFlags(root, flags)
	root.AddCommand(a.servicesCommand(), a.callCommand(), a.publishCommand(), a.subscribeCommand(),
		a.gatewayCommand(flags), a.pluginsCommand(flags), a.configCommand(flags), a.versionCommand(), a.docsCommand())
	root.SetGlobalNormalizationFunc(flags.all.GetNormalizeFunc())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(helpHint(cmd), "%w", plugin.FlagError(cmd.Flags(), err))
	})
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { flags.help(cmd, cmd.OutOrStdout()) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { return flags.help(cmd, cmd.OutOrStderr()) })
	return root
}

func helpHint(cmd *cobra.Command) string { return cmd.CommandPath() + " --help" }

// noSuchCommand answers what is no command, for commands that only have other commands below them or take no arguments.
func (a *app) noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !cmd.HasAvailableSubCommands() {
		return usage(helpHint(cmd), "%s takes no arguments, not %q", cmd.CommandPath(), args[0])
	}
	hint := helpHint(cmd)
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + cmd.CommandPath() + " " + strings.Join(near, " or ") + "?"
	}
	return usage(hint, "%s has no command %q", cmd.CommandPath(), args[0])
}

// arguments wants at least so many arguments as UseLine has in capitals without brackets, and at most all.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && len(args) <= most {
			return nil
		}
		count := fmt.Sprint(least, " to ", most)
		if least == most {
			count = fmt.Sprint(least)
		}
		return usage("write "+useLine(cmd), "%s takes %s arguments, not %d", cmd.CommandPath(), count, len(args))
	}
}

func useLine(cmd *cobra.Command) string { return strings.TrimSuffix(cmd.UseLine(), " [flags]") }

// pluginFlags are the flags of package plugin, sorted by who wants to see them.
type pluginFlags struct {
	all     *pflag.FlagSet
	config  *pflag.Flag
	choices []*pflag.Flag // --registry
	options []*pflag.Flag // --registry-dir
	service []*pflag.Flag // --name: what is set for services
	section []*pflag.Flag // --gateway-address: what is set for the gateway
	gateway []*pflag.Flag // the choices and options that are for the gateway alone
}

// isOfGateway says whether a flag is of no use to other commands.
func isOfGateway(flag *pflag.Flag) bool {
	return strings.HasPrefix(flag.Name, "gateway-") || strings.HasPrefix(flag.Name, "middleware-")
}

func (a *app) pluginFlags() *pluginFlags {
	f := &pluginFlags{all: pflag.NewFlagSet("", pflag.ContinueOnError)}
	a.loader.AddFlags(f.all)
	isChoice, isOption := make(map[string]bool), make(map[string]bool)
	for _, k := range plugin.Linked.Kinds() {
		isChoice[k.Flag] = true
		for _, p := range k.Plugins {
			for _, o := range p.Options {
				isOption[o.Flag] = true
				isOption[o.Flag+"-file"] = o.Secret
			}
		}
	}
	f.all.VisitAll(func(flag *pflag.Flag) {
		name := "--" + flag.Name
		switch {
		case flag.Name == "config":
			f.config = flag
		case isChoice[name]:
			f.choices = append(f.choices, flag)
		case isOption[name]:
			f.options = append(f.options, flag)
		case isOfGateway(flag):
			f.section = append(f.section, flag)
		default:
			f.service = append(f.service, flag)
		}
		if isOfGateway(flag) && (isChoice[name] || isOption[name]) {
			f.gateway = append(f.gateway, flag)
		}
	})
	return f
}

// addFlags adds the flags of all commands.
func (a *app) addFlags(root *cobra.Command, f *pluginFlags) {
	flags := root.PersistentFlags()
	a.output = asText
	flags.VarP(&a.output, "output", "o", "how to print: text or json")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "log to stderr what is going on, not only warnings")
	flags.AddFlag(f.config)
	for _, flag := range slices.Concat(f.choices, f.options) {
		if !isOfGateway(flag) {
			flags.AddFlag(flag)
		}
	}
	complete(root, "output", cobra.FixedCompletions([]cobra.Completion{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	for _, k := range plugin.Linked.Kinds() {
		if name := strings.TrimPrefix(k.Flag, "--"); flags.Lookup(name) != nil {
			complete(root, name, pluginNames(k))
		}
	}
}

// addGateway adds the flags of the gateway's plugins to a command that has a use for them.
func (f *pluginFlags) addGateway(cmd *cobra.Command) {
	for _, flag := range f.gateway {
		cmd.PersistentFlags().AddFlag(flag)
	}
}

// help prints what a command does and takes: its own flags first, and of the plugins' only those that choose.
func (f *pluginFlags) help(cmd *cobra.Command, w io.Writer) error {
	var b strings.Builder
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	fmt.Fprintf(&b, "%s\n\nUsage:\n  %s\n", strings.TrimSpace(text), cmd.UseLine())
	if cmd.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	}
	writeCommands(&b, cmd)
	own, common, choices := f.sorted(cmd)
	writeFlags(&b, "Flags", own)
	writeFlags(&b, "Flags of all commands", common)
	if choices.HasFlags() {
		writeFlags(&b, "Plugins", choices)
		fmt.Fprintf(&b, "\n%s plugins show KIND/NAME has the flags for the options of a plugin.\n", cmd.Root().Name())
	}
	if !cmd.HasParent() {
		b.WriteString("\n" + exitCodes)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeCommands(b *strings.Builder, cmd *cobra.Command) {
	if !cmd.HasAvailableSubCommands() {
		return
	}
	b.WriteString("\nCommands:\n")
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() || c.Name() == "help" {
			fmt.Fprintf(b, "  %-*s  %s\n", c.NamePadding(), c.Name(), c.Short)
		}
	}
}

// sorted parts the flags of cmd.
func (f *pluginFlags) sorted(cmd *cobra.Command) (own, common, choices *pflag.FlagSet) {
	own, common, choices = flagSet(), flagSet(), flagSet()
	isChoice, isOption := flagSet(f.choices...), flagSet(f.options...)
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		switch {
		case flag.Hidden || isOption.Lookup(flag.Name) == flag:
		case isChoice.Lookup(flag.Name) == flag:
			choices.AddFlag(flag)
		case cmd.Root().PersistentFlags().Lookup(flag.Name) == flag || flag.Name == "help":
			common.AddFlag(flag)
		default:
			own.AddFlag(flag)
		}
	})
	return own, common, choices
}

func flagSet(flags ...*pflag.Flag) *pflag.FlagSet {
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, flag := range flags {
		set.AddFlag(flag)
	}
	return set
}

func writeFlags(b *strings.Builder, title string, flags *pflag.FlagSet) {
	if flags.HasFlags() {
		fmt.Fprintf(b, "\n%s:\n%s", title, flags.FlagUsages())
	}
}
