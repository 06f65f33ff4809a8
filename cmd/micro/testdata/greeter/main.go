// Greeter is the service that the tests of the toolkit call.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/plugmicro/micro"
	"github.com/plugmicro/micro/metadata"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/status"
)

type Greeter struct{}

type HelloRequest struct {
	Name string   `json:"name"`
	Tags []string `json:"tags"`
}

type HelloResponse struct {
	Message string `json:"message"`
}

type Empty struct{}

func (Greeter) Hello(_ context.Context, req *HelloRequest) (*HelloResponse, error) {
	if req.Name == "" {
		return nil, status.Errorf(status.InvalidArgument, "name is empty")
	}
	return &HelloResponse{"Hello, " + req.Name}, nil
}

// Tenant answers with the metadata that came.
func (Greeter) Tenant(ctx context.Context, _ *Empty) (*HelloResponse, error) {
	return &HelloResponse{metadata.Get(ctx, "tenant")}, nil
}

// Fail answers with an error that would draw on a terminal.
func (Greeter) Fail(context.Context, *Empty) (*Empty, error) {
	return nil, status.Errorf(status.NotFound, "nobody \x1b[31mhere")
}

// Wait tells on stdout when it begins and when its caller has given up.
func (Greeter) Wait(ctx context.Context, _ *Empty) (*Empty, error) {
	fmt.Println("waiting")
	<-ctx.Done()
	fmt.Println("given up")
	return nil, ctx.Err()
}

type Numbers struct{}

type Number struct {
	Value int `json:"value"`
}

// Count counts to a number, and without end to a negative one.
func (Numbers) Count(_ context.Context, to *Number, out *server.Sender[Number]) error {
	for i := 1; i <= to.Value || to.Value < 0; i++ {
		if err := out.Send(&Number{i}); err != nil {
			return err
		}
	}
	return nil
}

func (Numbers) Sum(_ context.Context, in *server.Receiver[Number]) (*Number, error) {
	sum := 0
	for n, err := range in.All() {
		if err != nil {
			return nil, err
		}
		sum += n.Value
	}
	return &Number{sum}, nil
}

// Double ends with an error at the first number below zero.
func (Numbers) Double(_ context.Context, both *server.Stream[Number, Number]) error {
	for n, err := range both.All() {
		if err != nil {
			return err
		}
		if n.Value < 0 {
			return errors.New("below zero")
		}
		if err := both.Send(&Number{2 * n.Value}); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	svc := micro.New("greeter", micro.WithVersion("1.0.0"))
	svc.Handle(Greeter{}, server.Idempotent("Greeter.Hello"))
	svc.Handle(Numbers{})
	if err := svc.Run(); err != nil {
		log.Fatal(err)
	}
}
