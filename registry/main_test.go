package registry_test

import (
	"testing"

	"github.com/plugmicro/micro/registry"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service returns one with a node for each ID.
func service(version string, ids ...string) *registry.Service {
	s := &registry.Service{Name: "greeter", Version: version}
	for _, id := range ids {
		s.Nodes = append(s.Nodes, &registry.Node{ID: id, Address: "192.0.2.1:80"})
	}
	return s
}

func full() *registry.Service {
	value := func() *registry.Value {
		return &registry.Value{Name: "in", Type: "HelloRequest", Values: []*registry.Value{{Name: "name", Type: "string"}}}
	}
	return &registry.Service{
		Name: "greeter", Version: "1", Metadata: map[string]string{"a": "1"},
		Endpoints: []*registry.Endpoint{{
			Name: "Greeter.Hello", Request: value(), Response: value(), Metadata: map[string]string{"idempotent": "true"},
		}},
		Nodes: []*registry.Node{{ID: "n1", Address: "[2001:db8::1]:80", Metadata: map[string]string{"zone": "ä"}}},
	}
}
