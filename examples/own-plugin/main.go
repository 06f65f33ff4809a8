// Own-plugin calls the greeter, by a registry that is a plugin of this example:
//
//	go run ./examples/greeter --address=127.0.0.1:4100 &
//	go run ./examples/own-plugin --registry=static --registry-nodes greeter=127.0.0.1:4100
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/plugmicro/micro"
	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/examples/greeter/api"
)

func main() {
	svc := micro.New("own-plugin")
	err := svc.Do(func(ctx context.Context) error {
		rsp, err := client.Call[api.HelloResponse](ctx, svc.Client(), "greeter", "Greeter.Hello", &api.HelloRequest{Name: "Ada"})
		if err != nil {
			return err
		}
		fmt.Println(rsp.Message)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
}
