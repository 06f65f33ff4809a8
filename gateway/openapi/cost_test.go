package openapi

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/registry"
)

// TestCostIsLinear holds that nobody can register what takes the square of its size to describe: all who ask wait meanwhile.
func TestCostIsLinear(t *testing.T) {
	message := func(typ, field, of string, values ...*registry.Value) *registry.Value {
		return &registry.Value{Type: typ, Values: []*registry.Value{{Name: field, Type: of, Values: values}}}
	}
	f := func(i int) string { return fmt.Sprintf("f%d", i) }
	for name, endpoint := range map[string]func(i int) *registry.Endpoint{
		"one name, other fields": func(i int) *registry.Endpoint {
			return &registry.Endpoint{Name: "A." + f(i), Request: message("T", f(i), "string")}
		},
		"one name, fields of other types": func(i int) *registry.Endpoint {
			return &registry.Endpoint{Name: "A." + f(i), Request: message("T", "f", f(i))}
		},
		"one name and fields, other messages": func(i int) *registry.Endpoint {
			return &registry.Endpoint{Name: "A." + f(i), Request: message("T", "f", "U", &registry.Value{Name: f(i), Type: "string"})}
		},
		"one endpoint, other messages": func(i int) *registry.Endpoint {
			return &registry.Endpoint{Name: "A.B", Request: message("T", f(i), "string"), Response: message(f(i), "f", "string")}
		},
		"one endpoint, other types": func(i int) *registry.Endpoint {
			return &registry.Endpoint{Name: "A.B", Request: &registry.Value{Type: f(i)}, Response: message("T", "f", f(i))}
		},
		"names that were made unique": func(i int) *registry.Endpoint {
			return &registry.Endpoint{Name: "A." + f(i), Request: message("T", f(i), "string"), Response: message(fmt.Sprintf("T_%d", i), "f", "string")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			work := func(n int) (c cost) {
				s := &registry.Service{Name: "a", Version: "1"}
				for i := range n {
					s.Endpoints = append(s.Endpoints, endpoint(i))
				}
				c.compared = compared(s)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				d := newDocument()
				d.service([]*registry.Service{s})
				d.rpc()
				runtime.ReadMemStats(&after)
				c.allocated = after.TotalAlloc - before.TotalAlloc
				c.tried = tried(d.ids) + tried(d.keys)
				return c
			}
			const few, many = 500, 8_000
			small, large := work(few), work(many)
			t.Log(small, large)
			require.LessOrEqual(t, large.compared, 2*16*many, "each message with some others")
			require.LessOrEqual(t, large.tried, 10*many, "each name a few times")
			require.Less(t, large.allocated, 40*small.allocated, "16 times as many must not take 256 times as much")
		})
	}
}

// cost is what a description takes, counted in what does not depend on the machine.
type cost struct {
	compared  int    // pairs of messages
	tried     int    // names
	allocated uint64 // bytes
}

// compared is how many pairs of messages were looked at, at most, to find those of s that are the same.
func compared(s *registry.Service) (pairs int) {
	t := &types{byShape: make(map[string][]*message)}
	merge(t, "a", []*registry.Service{s})
	for _, m := range t.all {
		pairs += len(t.byShape[m.shape()])
	}
	return pairs
}

// tried is how many names were tried: each was counted.
func tried(n names) (all int) {
	for _, times := range n {
		all += times
	}
	return all
}
