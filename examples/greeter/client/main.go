// Client calls the greeter and publishes an event, from another process.
//
//	go run ./examples/greeter/client
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
	svc := micro.New("greeter-client")
	err := svc.Do(func(ctx context.Context) error {
		rsp, err := client.Call[api.HelloResponse](ctx, svc.Client(), "greeter", "Greeter.Hello", &api.HelloRequest{Name: "Ada"})
		if err != nil {
			return err
		}
		fmt.Println(rsp.Message)
		return svc.Publish(ctx, api.Greetings, &api.Greeting{Name: "Ada"})
	})
	if err != nil {
		log.Fatal(err)
	}
}
