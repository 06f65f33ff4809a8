// Subscriber prints every greeting, beside whatever else handles them: it is in no group.
//
//	go run ./examples/greeter/subscriber
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/plugmicro/micro"
	"github.com/plugmicro/micro/examples/greeter/api"
)

func main() {
	svc := micro.New("greeter-subscriber")
	svc.Subscribe(api.Greetings, func(ctx context.Context, event *api.Greeting) error {
		fmt.Println("Greetings to", event.Name)
		return nil
	})
	if err := svc.Run(); err != nil {
		log.Fatal(err)
	}
}
