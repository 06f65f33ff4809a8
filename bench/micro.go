package main

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/transport/tcp"
)

const service = "bench"

// Echo is handled by reflection, as the methods of a service are.
type Echo struct{}

// Bytes answers its request.
func (Echo) Bytes(_ context.Context, req *[]byte) (*[]byte, error) { return req, nil }

// Proto answers its request.
func (Echo) Proto(_ context.Context, req *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error) {
	return req, nil
}

func serveMicro() (string, error) {
	tr, err := tcp.New(&plugin.Env{}, tcp.Config{})
	if err != nil {
		return "", err
	}
	s := server.New(service, server.Options{})
	err = errors.Join(s.Handle(Echo{}),
		server.Func(s, "Fast.Bytes", Echo{}.Bytes),
		server.Func(s, "Fast.Proto", Echo{}.Proto))
	if err != nil {
		return "", err
	}
	l, err := tr.Listen(context.Background(), loopback)
	if err != nil {
		return "", err
	}
	go s.Serve(l)
	return l.Addr(), nil
}

// dialMicro finds the server as a service does: by name, in a registry.
func dialMicro(addr string) (*client.Client, error) {
	tr, err := tcp.New(&plugin.Env{}, tcp.Config{})
	if err != nil {
		return nil, err
	}
	reg := memory.NewStore().Open()
	node := &registry.Node{ID: "bench-1", Address: addr}
	if err := reg.Register(&registry.Service{Name: service, Nodes: []*registry.Node{node}}); err != nil {
		return nil, err
	}
	return client.New(reg, tr, client.Options{}), nil
}

func dialMicroBytes(endpoint string) func(string) (func(int) echoFunc, error) {
	return func(addr string) (func(int) echoFunc, error) {
		c, err := dialMicro(addr)
		return func(size int) echoFunc {
			req := make([]byte, size)
			return func() error {
				rsp, err := client.Call[[]byte](context.Background(), c, service, endpoint, &req)
				if err != nil {
					return err
				}
				return checkSize(len(*rsp), size)
			}
		}, err
	}
}

func dialMicroProto(addr string) (func(int) echoFunc, error) {
	c, err := dialMicro(addr)
	return func(size int) echoFunc {
		req := wrapperspb.Bytes(make([]byte, size))
		return func() error {
			rsp, err := client.Call[wrapperspb.BytesValue](context.Background(), c, service, "Fast.Proto", req)
			if err != nil {
				return err
			}
			return checkSize(len(rsp.Value), size)
		}
	}, err
}

func checkSize(got, want int) error {
	if got != want {
		return fmt.Errorf("an answer of %d bytes, want %d", got, want)
	}
	return nil
}
