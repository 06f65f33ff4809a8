package loglimit

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		var l Limit
		for range 1000 {
			l.Warn(log, "refused", "peer", "x")
		}
		require.Equal(t, 1, strings.Count(out.String(), "refused"))
		require.NotContains(t, out.String(), "times")
		time.Sleep(period)
		l.Warn(log, "refused", "peer", "y")
		require.Equal(t, 2, strings.Count(out.String(), "refused"))
		require.Contains(t, out.String(), "peer=y times=1000")
	})
}
