// Package tracing makes the spans of a service: of calls, streams, publishes and handlers, by the semantic conventions of
// OpenTelemetry. Package micro uses it when a tracer is chosen; a program without it puts it around what it has:
//
//	c.Use(tracing.Client(t))     // client.Client: a span for each call, and for all the life of a stream
//	s.Use(tracing.Server(t))     // server.Server: the other side of it
//	b = tracing.Broker(t, b)     // a span for each publish, and for each handling of a message
//
// HTTP is in tracing/httptrace, because a service does not link it.
//
// The context of a span travels in the metadata of calls and in the headers of messages. Spans have names, codes, addresses,
// and of what failed the text of its error, cut at 256 bytes; never bodies, values of metadata or headers.
package tracing

import (
	"errors"
	"net"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/plugmicro/micro/internal/clip"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/tracer"
)

// The names of OpenTelemetry's conventions, of the version that schema says. Their package is not linked for a dozen words.
const (
	schema = "https://opentelemetry.io/schemas/1.37.0"

	keySystem      attribute.Key = "rpc.system"
	keyService     attribute.Key = "rpc.service"
	keyMethod      attribute.Key = "rpc.method"
	keyStatus      attribute.Key = "rpc.response.status_code" // of a later version: this one has it for each system apart
	keyServer      attribute.Key = "server.address"
	keyServerPort  attribute.Key = "server.port"
	keyPeer        attribute.Key = "network.peer.address"
	keyPeerPort    attribute.Key = "network.peer.port"
	keyErrorType   attribute.Key = "error.type"
	keyMessaging   attribute.Key = "messaging.system"
	keyOperation   attribute.Key = "messaging.operation.name"
	keyOperationOf attribute.Key = "messaging.operation.type"
	keyDestination attribute.Key = "messaging.destination.name"
	keyGroup       attribute.Key = "messaging.consumer.group.name"
	keyMessage     attribute.Key = "messaging.message.id"
	keyBodySize    attribute.Key = "messaging.message.body.size"
	keyBatch       attribute.Key = "messaging.batch.message_count"
)

// scope is who makes the spans.
const scope = "github.com/plugmicro/micro/tracing"

func tracerOf(t tracer.Tracer) trace.Tracer {
	return t.Provider().Tracer(scope, trace.WithSchemaURL(schema))
}

// errNoReturn is what a span ends with whose handler panicked, or ended its goroutine.
var errNoReturn = errors.New("panic")

// maxMessage bounds the text of an error in a span, in bytes.
const maxMessage = 256

// fail says that a span ended with err.
func fail(span trace.Span, err error) {
	message := strings.ToValidUTF8(clip.Text(status.From(err).Message, maxMessage), "")
	span.SetAttributes(keyErrorType.String(errorType(err)))
	span.SetStatus(codes.Error, message)
}

func errorType(err error) string {
	code := status.CodeOf(err)
	switch {
	case errors.Is(err, errNoReturn):
		return "panic"
	case code == status.Unknown:
		return "_OTHER"
	}
	return code.String()
}

// address splits what a transport calls an address, if it is a host and a port.
func address(addr string, host, port attribute.Key) []attribute.KeyValue {
	h, p, err := net.SplitHostPort(addr)
	n, numErr := strconv.Atoi(p)
	if err != nil || numErr != nil {
		return []attribute.KeyValue{host.String(addr)}
	}
	return []attribute.KeyValue{host.String(h), port.Int(n)}
}

// lookUp finds the value of a key in any case.
func lookUp(pairs map[string]string, key string) string {
	if v, ok := pairs[key]; ok {
		return v
	}
	for k, v := range pairs {
		if strings.EqualFold(k, key) {
			return v
		}
	}
	return ""
}
