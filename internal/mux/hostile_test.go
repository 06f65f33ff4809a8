package mux_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/internal/wire"
	"github.com/plugmicro/micro/status"
)

// TestRefusalsAreShort asks for something with a very long name: the answer waits until it is read, and must not be as long.
func TestRefusalsAreShort(t *testing.T) {
	r, _, _ := rawClient(t, handler{}, mux.Options{})
	r.sendCall(wire.Call{ID: 1, Service: []byte("s"), Endpoint: []byte(strings.Repeat("\x00", 60<<10))}, "")
	require.Less(t, len(r.recvError().Message), 600)
}

// TestMetadataCounts has calls without bodies, but with metadata, wait for their handlers.
func TestMetadataCounts(t *testing.T) {
	goOn := make(chan struct{})
	defer close(goOn)
	wait := func(c *mux.Call) { <-goOn; c.Reply(nil) }
	r, _, _ := rawClient(t, handler{"wait": wait}, mux.Options{MaxBytes: 100 << 10})
	md := wire.AppendMetadata(nil, map[string]string{"k": strings.Repeat("v", 30<<10)})
	for id := range uint64(4) {
		r.sendCall(wire.Call{ID: id + 1, Service: []byte("s"), Endpoint: []byte("wait"), Metadata: md}, "")
	}
	f := r.recvError()
	require.EqualValues(t, 4, f.ID)
	require.EqualValues(t, status.ResourceExhausted, f.Code)
	require.True(t, f.NotRun)
}
