package openapi_test

import (
	"errors"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/directory"
	"github.com/plugmicro/micro/gateway/openapi"
	"github.com/plugmicro/micro/gateway/rpc"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	memreg "github.com/plugmicro/micro/registry/memory"
	"github.com/plugmicro/micro/transport/tcp"
)

// TestPathsLeadBack holds that package rpc, asked for a path of the document, calls the endpoint that it was made of.
func TestPathsLeadBack(t *testing.T) {
	tr, err := tcp.New(&plugin.Env{}, tcp.Config{})
	require.NoError(t, err)
	reg := memreg.NewStore().Open()
	endpoints := []string{"Greeter.Hello", "Greeter.Call", "Foo.Call", "Foo.Bar", "Say.SayHello", "Say.HTTPGet", "Say.Get2", "lower.case", "Three.Part.Name",
		"V1.Rpc", "Foo.bar", "Foo.Bar-Baz", "-.-", "Foo.a_b", "Foo.", ".Bar", "nodot", "a b.c", "Foo.{x}", "Healthz.Call", "..", "A..B", "Ä.Ö", "Foo.~x"}
	services := []string{"greeter", "foo", "Foo", "v1", "v1.foo", "v2.foo.bar", "a.b", "my-greeter", "go.micro.srv.greeter", "healthz", "readyz", "openapi.json",
		"a..b", "a/b", "ä", ".", "-", "v1.rpc", "a b"}
	for _, name := range services {
		s := &registry.Service{Name: name, Nodes: []*registry.Node{{ID: name, Address: "127.0.0.1:1"}}}
		for _, e := range endpoints {
			s.Endpoints = append(s.Endpoints, &registry.Endpoint{Name: e})
		}
		require.NoError(t, reg.Register(s))
	}
	log := slog.New(slog.DiscardHandler)
	dir := directory.Follow(reg, log)
	defer dir.Close()
	c := client.New(reg, tr, client.Options{Logger: log})
	defer c.Close()
	h := rpc.New(c, dir, rpc.Options{Logger: log})
	require.Eventually(t, dir.Ready, 10*time.Second, time.Millisecond)

	paths := 0
	for _, service := range services {
		for _, endpoint := range endpoints {
			path := openapi.Path(service, endpoint)
			if path == "" {
				continue
			}
			paths++
			require.Equal(t, path, (&url.URL{Path: path}).EscapedPath(), "it needs no escapes")
			r := httptest.NewRequest("POST", path, nil)
			_, err := gateway.Prepare(r)
			require.NoError(t, err)
			require.Equal(t, path, r.URL.Path)
			info := new(gateway.Info)
			var called [2]string
			info.Guard(func(service, endpoint string) error {
				called = [2]string{service, endpoint}
				return errors.New("enough")
			})
			h.ServeHTTP(httptest.NewRecorder(), gateway.With(r, info))
			require.Equal(t, [2]string{service, endpoint}, called, path)
		}
	}
	require.Greater(t, paths, 200)
	for path, of := range map[string][2]string{
		"/foo": {"foo", "Foo.Call"}, "/foo/bar": {"foo", "Foo.Bar"}, "/greeter/say/say-hello": {"greeter", "Say.SayHello"},
		"/a/b/foo/bar": {"a.b", "Foo.Bar"}, "/v1/foo/bar": {"v1.foo", "Foo.Bar"}, "/v1/V1.Rpc": {"v1", "V1.Rpc"}, "": {"a b", "Foo.Bar"},
	} {
		require.Equal(t, path, openapi.Path(of[0], of[1]))
	}
}
