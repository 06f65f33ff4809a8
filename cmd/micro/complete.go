package main

import (
	"github.com/spf13/cobra"

	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
)

// complete tells shells what can be written after a flag.
func complete(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err) // there is no such flag
	}
}

func pluginNames(k plugin.KindInfo) cobra.CompletionFunc {
	var names []cobra.Completion
	for _, p := range k.Plugins {
		names = append(names, cobra.CompletionWithDesc(p.Name, p.Doc))
	}
	return cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)
}

// completeServices completes a service first, then one of its endpoints if the command takes that.
func (a *app) completeServices(andEndpoint bool) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var names []cobra.Completion
		reg, err := open[registry.Registry](a)
		switch {
		case err != nil:
		case len(args) == 0:
			names, err = serviceNames(reg)
		case len(args) == 1 && andEndpoint:
			names, err = endpointCompletions(reg, args[0])
		}
		if err != nil {
			cobra.CompErrorln(err.Error())
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func endpointCompletions(reg registry.Registry, service string) ([]cobra.Completion, error) {
	versions, err := reg.GetService(service)
	if err != nil {
		return nil, err
	}
	return endpointNames(versions), nil
}
