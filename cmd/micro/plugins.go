package main

// Every plugin of this repository; a test checks that none is missing. Those of package defaults are listed too, so that
// this file is the whole list.
import (
	_ "github.com/plugmicro/micro/broker/direct"
	_ "github.com/plugmicro/micro/broker/kafka"
	_ "github.com/plugmicro/micro/broker/memory"
	_ "github.com/plugmicro/micro/broker/rabbitmq"
	_ "github.com/plugmicro/micro/defaults"
	_ "github.com/plugmicro/micro/registry/consul"
	_ "github.com/plugmicro/micro/registry/local"
	_ "github.com/plugmicro/micro/registry/mdns"
	_ "github.com/plugmicro/micro/registry/memory"
	_ "github.com/plugmicro/micro/transport/memory"
	_ "github.com/plugmicro/micro/transport/rabbitmq"
	_ "github.com/plugmicro/micro/transport/tcp"
)
