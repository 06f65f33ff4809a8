package rpc

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway"
)

func TestPathRules(t *testing.T) {
	for path, want := range map[string]string{ // by the rules | by the exact name
		"/foo":                   "foo Foo.Call",
		"/foo/":                  "foo Foo.Call",
		"/foo/bar":               "foo Foo.Bar|foo bar",
		"/foo/bar/":              "foo Foo.Bar|foo bar",
		"/greeter/say/hello":     "greeter Say.Hello|greeter.say hello",
		"/foo/bar/baz-xyz":       "foo Bar.BazXyz|foo.bar baz-xyz",
		"/foo/bar/baz/cat":       "foo.bar Baz.Cat|foo.bar.baz cat",
		"/a/b/c/d/e":             "a.b.c D.E|a.b.c.d e",
		"/v1/foo/bar":            "v1.foo Foo.Bar|v1.foo bar",
		"/v12/foo/bar":           "v12.foo Foo.Bar|v12.foo bar",
		"/v1/foo/bar/baz":        "v1.foo Bar.Baz|v1.foo.bar baz",
		"/v1/foo":                "v1 V1.Foo|v1 foo",
		"/v/foo/bar":             "v Foo.Bar|v.foo bar",
		"/v1a/foo/bar":           "v1a Foo.Bar|v1a.foo bar",
		"/greeter/sayHello":      "greeter Greeter.SayHello|greeter sayHello",
		"/my-greeter/hello":      "my-greeter MyGreeter.Hello|my-greeter hello",
		"/greeter/say--hello-":   "greeter Greeter.SayHello|greeter say--hello-",
		"/greeter/Greeter.Hello": "greeter Greeter.Hello",
		"/foo/bar/Baz.Cat":       "foo.bar Baz.Cat",
		"/v1/foo/Foo.Bar":        "v1.foo Foo.Bar",
		"/shop.cart":             "shop.cart Shop.cart.Call",
		"/":                      "",
		"":                       "",
		"/Greeter/Hello":         "Greeter Greeter.Hello|Greeter Hello",
	} {
		require.Equal(t, want, text(TargetsOf(path)), path)
	}
	require.Len(t, TargetsOf("/"+strings.Repeat("a/", 1000)), 2)
}

func text(targets []gateway.Target) string {
	var all []string
	for _, to := range targets {
		all = append(all, to.Service+" "+to.Endpoint)
	}
	return strings.Join(all, "|")
}

// FuzzPath holds that a path names an endpoint in one way, with a slash at its end or without, and never panics.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/", "/foo", "/foo/bar", "/v1/foo/bar", "/a/b.c", "/a/-", "/-/-", "//", "/ä/ß-x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		targets := TargetsOf(path)
		if strings.Contains(path, "//") || !strings.HasPrefix(path, "/") {
			return // Prepare leaves none
		}
		if !strings.HasSuffix(path, "/") {
			require.Equal(t, targets, TargetsOf(path+"/"))
		}
		require.LessOrEqual(t, len(targets), 2)
		for _, to := range targets {
			require.NotEmpty(t, to.Service)
			require.NotEmpty(t, to.Endpoint)
		}
		if len(targets) == 2 {
			require.Contains(t, targets[0].Endpoint, ".", "the rules lead to Type.Method")
		}
	})
}
