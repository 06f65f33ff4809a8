package rpc_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway/httpd"
	"github.com/plugmicro/micro/gateway/rpc"
	"github.com/plugmicro/micro/plugin"
)

// TestDefaultsAreTheGateways: who serves calls without the gateway gets what its settings declare.
func TestDefaultsAreTheGateways(t *testing.T) {
	declared := func(setting string) string {
		field, ok := reflect.TypeFor[httpd.Settings]().FieldByName(setting)
		require.True(t, ok, setting)
		return field.Tag.Get("default")
	}
	o := rpc.Options{}.WithDefaults()
	require.Equal(t, declared("Services"), strings.Join(o.Services, ","))
	require.Equal(t, declared("ForwardHeaders"), strings.Join(o.ForwardHeaders, ","))
	require.Equal(t, declared("MaxBody"), plugin.Size(o.MaxBody).String())
	for setting, value := range map[string]time.Duration{
		"CallTimeout": o.Timeout, "MaxCallTimeout": o.MaxTimeout, "SilentTimeout": o.WriteTimeout, "Heartbeat": o.Heartbeat,
	} {
		want, err := time.ParseDuration(declared(setting))
		require.NoError(t, err)
		require.Equal(t, want, value, setting)
	}
}
