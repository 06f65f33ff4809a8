// Gateway is a gateway of one's own: what micro gateway does, with a middleware of one's own, beside those of Micro that
// plugins.go links.
//
//	go run ./examples/greeter &
//	go run ./examples/gateway --gateway-middleware=teapot --middleware-teapot-paths=/coffee &
//	curl -i localhost:8080/coffee
package main

import (
	"log"

	"github.com/plugmicro/micro/gateway/httpd"
)

func main() {
	if err := httpd.Run(); err != nil {
		log.Fatal(err)
	}
}
