package main

import (
	_ "github.com/plugmicro/micro/examples/gateway/teapot"
	_ "github.com/plugmicro/micro/gateway/ipallow"
	_ "github.com/plugmicro/micro/gateway/router"
)
