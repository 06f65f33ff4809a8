package registry_test

import (
	"strings"
	"testing"

	"github.com/plugmicro/micro/registry"
	"github.com/stretchr/testify/require"
)

// changes are all the ways in which a service can differ from full().
var changes = map[string]func(*registry.Service){
	"name":              func(s *registry.Service) { s.Name = "other" },
	"version":           func(s *registry.Service) { s.Version = "2" },
	"metadata":          func(s *registry.Service) { s.Metadata["a"] = "2" },
	"endpoint":          func(s *registry.Service) { s.Endpoints[0].Name = "other" },
	"endpoints":         func(s *registry.Service) { s.Endpoints = nil },
	"endpoint metadata": func(s *registry.Service) { s.Endpoints[0].Metadata["idempotent"] = "false" },
	"request":           func(s *registry.Service) { s.Endpoints[0].Request.Values[0].Type = "int64" },
	"response":          func(s *registry.Service) { s.Endpoints[0].Response.Name = "other" },
	"no response":       func(s *registry.Service) { s.Endpoints[0].Response = nil },
	"node":              func(s *registry.Service) { s.Nodes[0].ID = "n2" },
	"nodes":             func(s *registry.Service) { s.Nodes = append(s.Nodes, &registry.Node{ID: "n2"}) },
	"address":           func(s *registry.Service) { s.Nodes[0].Address = "192.0.2.1:80" },
	"node metadata":     func(s *registry.Service) { s.Nodes[0].Metadata["zone"] = "b" },
}

func TestCloneAndEqual(t *testing.T) {
	require.True(t, full().Equal(full()))
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			s := full()
			c := s.Clone()
			change(c)
			require.Equal(t, full(), s, "the copy shares something")
			require.False(t, s.Equal(c))
			require.False(t, c.Equal(s))
		})
	}
	var none *registry.Service
	require.Nil(t, none.Clone())
	require.True(t, none.Equal(nil))
	require.False(t, none.Equal(full()))
	empty := &registry.Service{Metadata: map[string]string{}, Endpoints: []*registry.Endpoint{}}
	require.True(t, empty.Equal(&registry.Service{}))
}

func TestValidate(t *testing.T) {
	require.NoError(t, registry.Validate(full()))
	require.NoError(t, registry.Validate(service("", "a", "b")))
	require.NoError(t, registry.Validate(&registry.Service{
		Name: strings.Repeat("x", registry.MaxName), Nodes: []*registry.Node{{ID: "日本/../語 .", Address: "anything"}},
	}))

	cyclic := &registry.Value{Name: "v", Type: "v"}
	cyclic.Values = []*registry.Value{cyclic, cyclic}
	for name, test := range map[string]struct {
		change func(*registry.Service)
		says   string
	}{
		"no name":         {func(s *registry.Service) { s.Name = " " }, "the service name is empty"},
		"long name":       {func(s *registry.Service) { s.Name = strings.Repeat("x", 256) }, "256 bytes, the limit is 255"},
		"control":         {func(s *registry.Service) { s.Name = "a\x00b" }, "control character"},
		"not UTF-8":       {func(s *registry.Service) { s.Name = "a\xffb" }, "UTF-8"},
		"version":         {func(s *registry.Service) { s.Version = "1\n" }, "control character"},
		"no nodes":        {func(s *registry.Service) { s.Nodes = nil }, "no nodes"},
		"nil node":        {func(s *registry.Service) { s.Nodes = append(s.Nodes, nil) }, "a node is nil"},
		"no ID":           {func(s *registry.Service) { s.Nodes[0].ID = "" }, "a node ID is empty"},
		"no address":      {func(s *registry.Service) { s.Nodes[0].Address = "" }, "the address of node n1 is empty"},
		"same ID":         {func(s *registry.Service) { s.Nodes = append(s.Nodes, s.Nodes[0]) }, "n1 is there twice"},
		"bad metadata":    {func(s *registry.Service) { s.Metadata["x"] = "\xff" }, "metadata of the service"},
		"large metadata":  {func(s *registry.Service) { s.Metadata["x"] = strings.Repeat("x", registry.MaxSize) }, "larger"},
		"nil endpoint":    {func(s *registry.Service) { s.Endpoints = append(s.Endpoints, nil) }, "an endpoint is nil"},
		"unnamed":         {func(s *registry.Service) { s.Endpoints[0].Name = "" }, "an endpoint name is empty"},
		"nil field":       {func(s *registry.Service) { s.Endpoints[0].Request.Values[0] = nil }, "a field of value in is nil"},
		"endless value":   {func(s *registry.Service) { s.Endpoints[0].Request = cyclic }, "more than 32 levels"},
		"many bad things": {func(s *registry.Service) { *s = registry.Service{} }, "the service name is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			s := full()
			test.change(s)
			err := registry.Validate(s)
			require.ErrorIs(t, err, registry.ErrInvalid)
			require.ErrorContains(t, err, test.says)
		})
	}
	require.ErrorIs(t, registry.Validate(nil), registry.ErrInvalid)
}

func TestDiff(t *testing.T) {
	one := func(action string, s *registry.Service) *registry.Result {
		return &registry.Result{Action: action, Service: s}
	}
	moved := service("1", "a", "b")
	moved.Nodes[1].Address = "192.0.2.9:80"
	onlyB := service("1", "b")
	onlyB.Nodes[0].Address = "192.0.2.9:80"
	described := service("1", "a")
	described.Metadata = map[string]string{"k": "v"}
	for name, test := range map[string]struct {
		old, new []*registry.Service
		want     []*registry.Result
	}{
		"nothing":   {nil, nil, nil},
		"unchanged": {[]*registry.Service{full()}, []*registry.Service{full()}, nil},
		"split":     {[]*registry.Service{service("1", "a", "b")}, []*registry.Service{service("1", "b"), service("1", "a")}, nil},
		"create": {nil, []*registry.Service{service("1", "a", "b")},
			[]*registry.Result{one("create", service("1", "a")), one("create", service("1", "b"))}},
		"update": {[]*registry.Service{service("1", "a", "b")}, []*registry.Service{moved},
			[]*registry.Result{one("update", onlyB)}},
		"metadata of the service": {[]*registry.Service{service("1", "a")}, []*registry.Service{described},
			[]*registry.Result{one("update", described)}},
		"delete": {[]*registry.Service{service("1", "a", "b")}, []*registry.Service{service("1", "b")},
			[]*registry.Result{one("delete", service("1", "a"))}},
		"another version": {[]*registry.Service{service("1", "a")}, []*registry.Service{service("2", "a")},
			[]*registry.Result{one("delete", service("1", "a")), one("create", service("2", "a"))}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, registry.Diff(test.old, test.new)) })
	}
}

func TestMerge(t *testing.T) {
	first := service("1", "a")
	first.Metadata = map[string]string{"from": "a"}
	merged := registry.Merge([]*registry.Service{service("2", "x"), service("1", "c", "b"), first})

	want := service("1", "a", "b", "c")
	want.Metadata = first.Metadata
	require.Equal(t, []*registry.Service{want, service("2", "x")}, merged)

	merged[0].Nodes[0].Address = "changed"
	merged[0].Metadata["from"] = "changed"
	require.Equal(t, "a", first.Metadata["from"])
	require.Equal(t, "192.0.2.1:80", first.Nodes[0].Address)
}
