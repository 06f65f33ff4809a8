package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/plugmicro/micro/gateway/httpd"
	"github.com/plugmicro/micro/gateway/router"
	"github.com/plugmicro/micro/plugin"
)

// readsGateway says whether a command line may be of a command that has the gateway's settings. For others they are those of
// another program: what is wrong with them, such as a certificate that is on another machine, is no mistake there.
func readsGateway(args []string) bool {
	return slices.ContainsFunc(args, func(word string) bool { return word == "gateway" || word == "api" || word == "config" })
}

func (a *app) gatewayCommand(flags *pluginFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "gateway",
		Aliases: []string{"api"},
		Short:   "Serve HTTP in front of the services, until SIGTERM or Ctrl-C",
		Long: `Serves HTTP and JSON in front of the services: POST or GET /SERVICE/ENDPOINT calls an endpoint, and so does /v1/rpc, where
the body names it. What it does to a request before that is a chain of plugins, chosen with --gateway-middleware in the
order in which requests pass them.

/healthz, /readyz and /openapi.json are there, too. Metrics, and a page that shows and calls the services, are on the
admin address, which only this machine reaches unless it is set. SIGTERM and Ctrl-C stop it in order: requests that
run may finish. A second signal ends it at once.`,
		Example: `  micro gateway
  curl -d '{"name":"Ada"}' localhost:8080/greeter/hello
  micro gateway --gateway-middleware=ipallow,router --middleware-ipallow-allow=10.0.0.0/8 --middleware-router-file=routes.yaml`,
		Args:              a.noSuchCommand,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.runGateway(cmd.Context()) },
	}
	for _, flag := range flags.section {
		cmd.Flags().AddFlag(flag)
	}
	flags.addGateway(cmd)
	for _, k := range plugin.Linked.Kinds() {
		if k.Name == "middleware" {
			complete(cmd, "gateway-middleware", pluginNames(k)) // of all commands that have the flag: it is the same one
		}
	}
	cmd.AddCommand(a.routesCommand())
	return cmd
}

func (a *app) runGateway(ctx context.Context) error {
	slog.SetLogLoggerLevel(slog.LevelInfo)
	log.SetFlags(log.LstdFlags) // it logs as services do
	log.SetPrefix("")
	a.loader.Strict() // with a guard's name misspelt it would serve unguarded
	settings, err := a.load()
	if err != nil {
		return err
	}
	a.host = settings.Open(context.Background(), a.log, plugin.OpenedBy(httpd.Program(readVersion().Version)))
	a.serves = true
	return httpd.Serve(ctx, a.host, a.gateway, a.log)
}

func (a *app) routesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "routes",
		Short:             "Check the routes of the middleware router, and try them",
		Args:              a.noSuchCommand,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringP("file", "f", "", "`file` with the routes; default: what middleware-router-file is set to")
	cmd.AddCommand(a.routesTestCommand(), a.routesCheckCommand())
	return cmd
}

func (a *app) routesTestCommand() *cobra.Command {
	var headers []string
	cmd := &cobra.Command{
		Use:   "test METHOD URL",
		Short: "Say which route takes a request, and why",
		Long: `Says which route takes a request, what becomes of it there, and what kept the nearest others from taking it. Nothing is
sent. It fails if no route takes it.`,
		Example: `  micro gateway routes test GET http://shop.example.com/cart/7 --file routes.yaml
  micro gateway routes test POST /orders --header 'X-Beta: 1' --config micro.yaml`,
		Args:              arguments(2, 2),
		ValidArgsFunction: completeRequest,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.testRoute(cmd, args[0], args[1], headers) },
	}
	cmd.Flags().StringArrayVarP(&headers, "header", "H", nil, "header of the request, `name: value`; may be repeated")
	return cmd
}

func (a *app) routesCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "check",
		Short:             "Say what is wrong with a file of routes",
		Example:           "  micro gateway routes check --file routes.yaml",
		Args:              a.noSuchCommand,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, from, err := a.routesFile(cmd)
			if err != nil {
				return err
			}
			warnings, err := router.Check(name)
			if err != nil {
				return ofRoutes(from, err)
			}
			for _, line := range warnings {
				a.warn("%s", line)
			}
			return a.printLine(name + ": no mistakes")
		},
	}
}

func (a *app) testRoute(cmd *cobra.Command, method, url string, headers []string) error {
	r, err := http.NewRequest(strings.ToUpper(method), url, nil)
	if err != nil {
		return usage("write micro gateway routes test GET http://HOST/PATH", "%w", err)
	}
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return usage("write --header 'name: value'", "--header %q is none", h)
		}
		r.Header.Add(name, strings.TrimSpace(value))
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
		r.Header.Del("Host")
	}
	name, from, err := a.routesFile(cmd)
	if err != nil {
		return err
	}
	explained, err := router.Explain(name, r)
	if err != nil {
		return ofRoutes(from, err)
	}
	if a.output == asJSON {
		err = a.printJSON(explained)
	} else {
		_, err = fmt.Fprint(a.out, explained)
	}
	if err == nil && !explained.Matched {
		err = fmt.Errorf("no route of %s takes it", name)
	}
	return err
}

// routesFile is the file that is meant: of --file, or of the settings, where the router need not be among the chosen
// middlewares if none are. from says where its name came from.
func (a *app) routesFile(cmd *cobra.Command) (name, from string, err error) {
	for _, flag := range []string{"file", routerFile} {
		if f := cmd.Flag(flag); f.Changed {
			return f.Value.String(), "--" + flag, nil
		}
	}
	a.loader.Set("gateway-middleware", "router")
	a.loader.Set(routerFile, unnamed)
	settings, err := a.load()
	if err != nil {
		return "", "", &failure{code: exitUsage, hint: "the file with the routes can be named with --file, whatever else is set", err: err}
	}
	for _, s := range settings.All() {
		if s.Key == routerFile && s.Value != unnamed {
			return s.Value, s.Key + " (" + s.Origin + ")", nil
		}
	}
	return "", "", usage("name it with --file", "no file with routes is named")
}

const (
	routerFile = "middleware-router-file"
	unnamed    = "\x00" // no file is called so
)

// ofRoutes is an error of the file with the routes, which is told where its name came from if it cannot be read.
func ofRoutes(from string, err error) error {
	if errors.As(err, new(*fs.PathError)) {
		err = fmt.Errorf("%s: %w", from, err)
	}
	return &failure{code: exitUsage, err: err}
}

// completeRequest offers methods.
func completeRequest(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []cobra.Completion{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}, cobra.ShellCompDirectiveNoFileComp
}
