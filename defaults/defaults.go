// Package defaults links the plugins that need nothing installed, and names those that are used when none is chosen.
// Package micro imports it; a program that is to link nothing but its own plugins imports the contracts instead.
package defaults

import (
	"github.com/plugmicro/micro/broker"
	_ "github.com/plugmicro/micro/broker/direct"
	_ "github.com/plugmicro/micro/broker/memory"
	"github.com/plugmicro/micro/registry"
	_ "github.com/plugmicro/micro/registry/local"
	_ "github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/transport"
	_ "github.com/plugmicro/micro/transport/memory"
	_ "github.com/plugmicro/micro/transport/tcp"
)

func init() {
	registry.Plugins.SetDefault("local")
	broker.Plugins.SetDefault("direct")
	transport.Plugins.SetDefault("tcp")
}
