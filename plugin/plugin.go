// Package plugin is the kernel: kinds of plugins, the plugins of each kind, their typed settings, and opening them.
//
// A plugin is a package with a settings struct, a factory and one line that registers them:
//
//	package consul // registry/consul
//
//	type Config struct {
//		Address []string      `default:"127.0.0.1:8500" help:"agents to talk to, tried in order"`
//		Token   plugin.Secret `help:"ACL token"`
//		Timeout time.Duration `default:"5s" help:"limit for one request"`
//	}
//
//	func init() { plugin.Register("consul", New, plugin.Doc("HashiCorp Consul")) }
//
//	func New(env *plugin.Env, c Config) (registry.Registry, error) { … }
//
// The contract declares the kind, and with it --registry, MICRO_REGISTRY and --registry-address:
//
//	var Plugins = plugin.NewKind[Registry]("registry", plugin.KindDoc("finds services"))
//
// A program loads the settings, all mistakes in them at once, and opens what was chosen:
//
//	loader := plugin.NewLoader(plugin.Linked)
//	if err := loader.Parse(os.Args[1:]); err != nil { … } // --help
//	settings, err := loader.Load(os.Environ())
//	host := settings.Open(ctx, slog.Default())
//	defer host.Close()
//	reg, err := plugin.Open[registry.Registry](host)
//
// # Settings structs
//
// Every exported field is an option, named after it in kebab-case (TLSMutual: tls-mutual), with the tags
//
//	default:"5s"        the value when nobody sets one, written as in the environment
//	help:"one line"     for --help, listings and generated pages
//	name:"other-name"   instead of the field's name
//
// Its type is string, bool, an int, uint or float, [time.Duration], [Size], [Secret], an [encoding.TextUnmarshaler], a
// slice of one of these but Secret, or map[string]string. A struct ([TLS] is one) contributes its fields under its own
// name as prefix, an embedded struct without one. A struct with a method Validate() error is asked once its fields
// are set.
//
// The source reads in this order: catalog.go (kinds, Register), options.go (fields to options), loader.go and load.go
// (where values come from, which one wins), open.go (opening and closing).
package plugin
