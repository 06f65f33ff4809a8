package nearest_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/nearest"
)

func TestName(t *testing.T) {
	names := []string{"Greeter.Hello", "Greeter.Goodbye", "path", "prefix"}
	for name, want := range map[string]string{
		"Greeter.Helo": "Greeter.Hello", "greeter.hello": "Greeter.Hello", "Shop.Order": "", "paht": "path", "pth": "path",
		"Path": "path", "x": "", "": "", "prefixes": "prefix",
	} {
		require.Equal(t, want, nearest.Name(name, names), name)
	}
	require.Equal(t, "ab", nearest.Name("ac", []string{"xy", "ab", "ad"}), "the first of those that are as near")
	require.Empty(t, nearest.Name(strings.Repeat("a", 100), []string{strings.Repeat("a", 100)}), "too long to be looked at")
}
