package openapi

import (
	"fmt"
	"testing"
	"time"

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
			work := func(n int) (least time.Duration) {
				s := &registry.Service{Name: "a", Version: "1"}
				for i := range n {
					s.Endpoints = append(s.Endpoints, endpoint(i))
				}
				for range 3 {
					began := time.Now()
					d := newDocument()
					d.service([]*registry.Service{s})
					d.rpc()
					if took := time.Since(began); least == 0 || took < least {
						least = took
					}
				}
				return least
			}
			few, many := work(500), work(8_000)
			t.Log(few, many)
			require.Less(t, many, 100*few) // 16 times as many must not take 256 times as long
		})
	}
}
