package main

// echoFunc makes one call that echoes a body, and returns when the answer is here and has the right size.
type echoFunc func() error

// contender is one way of making calls. Each runs in two processes of its own.
type contender struct {
	name string
	// serve answers at a free port of the loopback interface until the process ends.
	serve func() (addr string, err error)
	// dial makes one connection, and returns what makes its callers. Each caller is used by one goroutine.
	dial func(addr string) (caller func(size int) echoFunc, err error)
}

// maxCallers is how many callers one connection can have.
const maxCallers = 64

// The contenders, by the names in the table.
const (
	pingPong    = "bare ping-pong"
	bare        = "bare framed"
	bareYield   = "bare framed, yielding"
	microFunc   = "micro, bytes"
	microHandle = "micro, bytes, Handle"
	microProto  = "micro, protobuf"
	grpcProto   = "grpc, protobuf"
	grpcRaw     = "grpc, bytes"
)

var contenders = []contender{
	{pingPong, servePingPong, dialPingPong},
	{bare, serveBare(false), dialBare(false)},
	{bareYield, serveBare(true), dialBare(true)},
	{microFunc, serveMicro, dialMicroBytes("Fast.Bytes")},
	{microHandle, serveMicro, dialMicroBytes("Echo.Bytes")},
	{microProto, serveMicro, dialMicroProto},
	{grpcProto, serveGRPC(), dialGRPCProto},
	{grpcRaw, serveGRPC(rawServerCodec), dialGRPCRaw},
}

func contenderNamed(name string) *contender {
	for i := range contenders {
		if contenders[i].name == name {
			return &contenders[i]
		}
	}
	return nil
}
