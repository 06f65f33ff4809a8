// Streams shows the three sorts of streams. Without arguments it is the service; "streams client" calls it:
//
//	go run ./examples/streams &
//	go run ./examples/streams client
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/plugmicro/micro"
	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/server"
)

// Number is one item of a stream.
type Number struct {
	Value int `json:"value"`
}

// Numbers has one endpoint for each sort of stream.
type Numbers struct{}

// Count answers with the numbers from 1 up to the one that is asked for.
func (Numbers) Count(ctx context.Context, upTo *Number, out *server.Sender[Number]) error {
	for i := range upTo.Value {
		if err := out.Send(&Number{i + 1}); err != nil {
			return err
		}
	}
	return nil
}

// Sum adds up what it is sent.
func (Numbers) Sum(ctx context.Context, in *server.Receiver[Number]) (*Number, error) {
	sum := 0
	for n, err := range in.All() {
		if err != nil {
			return nil, err
		}
		sum += n.Value
	}
	return &Number{sum}, nil
}

// Square answers each number with its square, while the caller goes on sending.
func (Numbers) Square(ctx context.Context, both *server.Stream[Number, Number]) error {
	for n, err := range both.All() {
		if err != nil {
			return err
		}
		if err := both.Send(&Number{n.Value * n.Value}); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "client" {
		runClient(os.Args[2:])
		return
	}
	svc := micro.New("numbers")
	svc.Handle(Numbers{})
	if err := svc.Run(); err != nil {
		log.Fatal(err)
	}
}

func runClient(flags []string) {
	svc := micro.New("numbers-client", micro.WithArgs(flags...))
	err := svc.Do(func(ctx context.Context) error {
		for _, f := range []func(context.Context, *client.Client) error{count, sum, square} {
			if err := f(ctx, svc.Client()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
}

func count(ctx context.Context, c *client.Client) error {
	stream, err := client.Open[Number, Number](ctx, c, "numbers", "Numbers.Count")
	if err != nil {
		return err
	}
	defer stream.Close()
	if err := stream.Send(&Number{3}); err != nil {
		return err
	}
	return printAll("count", stream)
}

func sum(ctx context.Context, c *client.Client) error {
	stream, err := client.Open[Number, Number](ctx, c, "numbers", "Numbers.Sum")
	if err != nil {
		return err
	}
	defer stream.Close()
	for i := range 4 {
		if err := stream.Send(&Number{i + 1}); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return printAll("sum", stream)
}

func square(ctx context.Context, c *client.Client) error {
	stream, err := client.Open[Number, Number](ctx, c, "numbers", "Numbers.Square")
	if err != nil {
		return err
	}
	defer stream.Close()
	for i := range 3 {
		if err := stream.Send(&Number{i + 1}); err != nil {
			return err
		}
		n, err := stream.Recv()
		if err != nil {
			return err
		}
		fmt.Println("square", n.Value)
	}
	return stream.CloseSend()
}

func printAll(what string, stream *client.Stream[Number, Number]) error {
	for n, err := range stream.All() {
		if err != nil {
			return err
		}
		fmt.Println(what, n.Value)
	}
	return nil
}
