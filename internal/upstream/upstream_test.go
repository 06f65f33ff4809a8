package upstream_test

import (
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// closeCounter knows that it was closed.
type closeCounter struct {
	io.ReadCloser
	n atomic.Int32
}

func (c *closeCounter) Close() error {
	c.n.Add(1)
	return c.ReadCloser.Close()
}

func (c *closeCounter) wait(t testing.TB) {
	require.Eventually(t, func() bool { return c.n.Load() > 0 }, 5*time.Second, time.Millisecond, "the body was not closed")
}
