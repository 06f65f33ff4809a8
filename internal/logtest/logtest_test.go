package logtest_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/internal/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestReadWhileWritten(t *testing.T) {
	var b logtest.Buffer
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 100 {
				fmt.Fprintln(&b, "line")
			}
		})
	}
	for lines := 0; lines < 400; {
		now := strings.Count(b.String(), "line\n")
		require.GreaterOrEqual(t, now, lines)
		lines = now
	}
	writers.Wait()
	b.Reset()
	require.Empty(t, b.String())
}
