package metadata_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/metadata"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOutgoing(t *testing.T) {
	require.Nil(t, metadata.Outgoing(t.Context()))
	one := metadata.With(t.Context(), "Tenant", "acme")
	two := metadata.With(one, "trace", "1")
	three := metadata.With(two, "TRACE", "2")

	require.Equal(t, map[string]string{"tenant": "acme"}, metadata.Outgoing(one), "derived contexts leave it as it is")
	require.Equal(t, map[string]string{"tenant": "acme", "trace": "1"}, metadata.Outgoing(two))
	require.Equal(t, map[string]string{"tenant": "acme", "trace": "2"}, metadata.Outgoing(three))
}

func TestOutgoingAtOnce(t *testing.T) {
	ctx := metadata.WithAll(t.Context(), map[string]string{"tenant": "acme", "user": "ada"})
	require.Equal(t, map[string]string{"tenant": "acme", "user": "ada"}, metadata.Outgoing(ctx))
	more := metadata.WithAll(ctx, map[string]string{"user": "bob"})
	require.Equal(t, map[string]string{"tenant": "acme", "user": "bob"}, metadata.Outgoing(more))
	require.Equal(t, "ada", metadata.Outgoing(ctx)["user"], "derived contexts leave it as it is")
}

func TestIncoming(t *testing.T) {
	require.Empty(t, metadata.Get(t.Context(), "tenant"))
	received := map[string]string{"tenant": "acme"}
	ctx := context.WithValue(t.Context(), metadata.Incoming{}, received)
	require.Equal(t, "acme", metadata.Get(ctx, "Tenant"))
	require.Equal(t, received, metadata.All(ctx))
	require.Nil(t, metadata.Outgoing(ctx), "what was received is not passed on by itself")
}
