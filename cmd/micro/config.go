package main

import (
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func (a *app) configCommand(flags *pluginFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the effective settings and where each came from",
		Long: `Prints what a service or a gateway that is started here, with the same flags, environment and file, is set to, and
where each value came from. Secrets print as ***.`,
		Example: `  micro config
  micro config --config micro.yaml --registry memory --output json`,
		Args:              a.noSuchCommand,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			settings, err := a.load()
			if err != nil {
				return err
			}
			if a.output == asJSON {
				return a.printJSON(settings.All())
			}
			t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "SETTING\tFROM\tVALUE")
			for _, s := range settings.All() {
				row(t, 0, s.Key, s.Origin, s.Value)
			}
			return t.Flush()
		},
	}
	for _, flag := range slices.Concat(flags.service, flags.section) {
		cmd.Flags().AddFlag(flag)
	}
	flags.addGateway(cmd)
	return cmd
}
