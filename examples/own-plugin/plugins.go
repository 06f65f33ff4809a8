package main

import _ "github.com/plugmicro/micro/examples/own-plugin/static"
