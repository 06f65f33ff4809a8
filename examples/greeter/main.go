// Greeter is the smallest service: one endpoint, and one topic that it listens to.
//
//	go run ./examples/greeter
//	go run ./cmd/micro call greeter Greeter.Hello '{"name":"Ada"}'
//	go run ./cmd/micro publish greetings '{"name":"Ada"}'
package main

import (
	"context"
	"log"
	"log/slog"

	"github.com/plugmicro/micro"
	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/examples/greeter/api"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/status"
)

// Greeter has the endpoints of the service: its methods that take a context.
type Greeter struct{}

// Hello greets by name.
func (Greeter) Hello(ctx context.Context, req *api.HelloRequest) (*api.HelloResponse, error) {
	if req.Name == "" {
		return nil, status.Errorf(status.InvalidArgument, "name is empty: whom to greet?")
	}
	return &api.HelloResponse{Message: "Hello, " + req.Name}, nil
}

// onGreeting handles one event; an error would have it tried again.
func onGreeting(ctx context.Context, event *api.Greeting) error {
	slog.Info("greeting", "name", event.Name)
	return nil
}

func main() {
	svc := micro.New("greeter", micro.WithVersion("1.0.0"))
	svc.Handle(Greeter{}, server.Idempotent("Greeter.Hello")) // may be retried: greeting twice does no harm
	svc.Subscribe(api.Greetings, onGreeting, broker.Group("greeter"))
	if err := svc.Run(); err != nil {
		log.Fatal(err)
	}
}
