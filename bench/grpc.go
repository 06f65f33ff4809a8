package main

import (
	"context"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// What follows is what protoc-gen-go-grpc generates for a service with one method, and the same for bodies without
// protobuf. Client and server have gRPC's own defaults.

type echoServer interface {
	Proto(context.Context, *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error)
	Bytes(context.Context, *[]byte) (*[]byte, error)
}

var echoDesc = grpc.ServiceDesc{
	ServiceName: "bench.Echo",
	HandlerType: (*echoServer)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "Proto", Handler: handleProto},
		{MethodName: "Bytes", Handler: handleBytes},
	},
}

const (
	grpcProtoMethod = "/bench.Echo/Proto"
	grpcBytesMethod = "/bench.Echo/Bytes"
)

func handleProto(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
	in := new(wrapperspb.BytesValue)
	if err := dec(in); err != nil {
		return nil, err
	}
	if interceptor == nil {
		return srv.(echoServer).Proto(ctx, in)
	}
	info := &grpc.UnaryServerInfo{Server: srv, FullMethod: grpcProtoMethod}
	return interceptor(ctx, in, info, func(ctx context.Context, req any) (any, error) {
		return srv.(echoServer).Proto(ctx, req.(*wrapperspb.BytesValue))
	})
}

func handleBytes(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
	in := new([]byte)
	if err := dec(in); err != nil {
		return nil, err
	}
	if interceptor == nil {
		return srv.(echoServer).Bytes(ctx, in)
	}
	info := &grpc.UnaryServerInfo{Server: srv, FullMethod: grpcBytesMethod}
	return interceptor(ctx, in, info, func(ctx context.Context, req any) (any, error) {
		return srv.(echoServer).Bytes(ctx, req.(*[]byte))
	})
}

// rawCodec passes []byte on as it is, as micro's does.
type rawCodec struct{}

var _ encoding.CodecV2 = rawCodec{}

var rawServerCodec = grpc.ForceServerCodecV2(rawCodec{})

func (rawCodec) Name() string { return "raw" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("%T is not *[]byte", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*b)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("%T is not *[]byte", v)
	}
	*b = data.Materialize()
	return nil
}

func serveGRPC(opts ...grpc.ServerOption) func() (string, error) {
	return func() (string, error) {
		l, err := net.Listen("tcp", loopback)
		if err != nil {
			return "", err
		}
		s := grpc.NewServer(opts...)
		s.RegisterService(&echoDesc, Echo{})
		go func() { log.Print(s.Serve(l)) }()
		return l.Addr().String(), nil
	}
}

func dialGRPC(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func dialGRPCProto(addr string) (func(int) echoFunc, error) {
	c, err := dialGRPC(addr)
	return func(size int) echoFunc {
		req := wrapperspb.Bytes(make([]byte, size))
		return func() error {
			rsp := new(wrapperspb.BytesValue)
			if err := c.Invoke(context.Background(), grpcProtoMethod, req, rsp, grpc.StaticMethod()); err != nil {
				return err
			}
			return checkSize(len(rsp.Value), size)
		}
	}, err
}

func dialGRPCRaw(addr string) (func(int) echoFunc, error) {
	c, err := dialGRPC(addr)
	return func(size int) echoFunc {
		req := make([]byte, size)
		return func() error {
			rsp := new([]byte)
			err := c.Invoke(context.Background(), grpcBytesMethod, &req, rsp, grpc.StaticMethod(), grpc.ForceCodecV2(rawCodec{}))
			if err != nil {
				return err
			}
			return checkSize(len(*rsp), size)
		}
	}, err
}
