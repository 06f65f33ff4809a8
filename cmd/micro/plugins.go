package main

// Every plugin of this repository; a test checks that none is missing. Those of package defaults are listed too, so that
// this file is the whole list.
import (
	_ "github.com/plugmicro/micro/broker/direct"
	_ "github.com/plugmicro/micro/broker/kafka"
	_ "github.com/plugmicro/micro/broker/memory"
	_ "github.com/plugmicro/micro/broker/rabbitmq"
	_ "github.com/plugmicro/micro/defaults"
	_ "github.com/plugmicro/micro/gateway/basicauth"
	_ "github.com/plugmicro/micro/gateway/cors"
	_ "github.com/plugmicro/micro/gateway/gzip"
	_ "github.com/plugmicro/micro/gateway/headers"
	_ "github.com/plugmicro/micro/gateway/ipallow"
	_ "github.com/plugmicro/micro/gateway/jwt"
	_ "github.com/plugmicro/micro/gateway/ratelimit"
	_ "github.com/plugmicro/micro/gateway/recover"
	_ "github.com/plugmicro/micro/gateway/router"
	_ "github.com/plugmicro/micro/registry/consul"
	_ "github.com/plugmicro/micro/registry/local"
	_ "github.com/plugmicro/micro/registry/mdns"
	_ "github.com/plugmicro/micro/registry/memory"
	_ "github.com/plugmicro/micro/tracer/otlp"
	_ "github.com/plugmicro/micro/tracer/stdout"
	_ "github.com/plugmicro/micro/tracer/xray"
	_ "github.com/plugmicro/micro/transport/memory"
	_ "github.com/plugmicro/micro/transport/rabbitmq"
	_ "github.com/plugmicro/micro/transport/tcp"
)
