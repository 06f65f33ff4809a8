package status_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFrom(t *testing.T) {
	notFound := status.Errorf(status.NotFound, "no user %d", 7)
	for name, c := range map[string]struct {
		err     error
		code    status.Code
		message string
	}{
		"nil":            {nil, status.OK, ""},
		"typed":          {notFound, status.NotFound, "no user 7"},
		"typed, wrapped": {fmt.Errorf("load cart: %w", notFound), status.NotFound, "load cart: NotFound: no user 7"},
		"deadline":       {fmt.Errorf("query: %w", context.DeadlineExceeded), status.DeadlineExceeded, "query: context deadline exceeded"},
		"cancelled":      {context.Canceled, status.Canceled, "context canceled"},
		"plain":          {errors.New("disk full"), status.Unknown, "disk full"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.code, status.CodeOf(c.err))
			require.Equal(t, &status.Error{Code: c.code, Message: c.message}, status.From(c.err))
		})
	}
}

func TestErrorsOfEndedContexts(t *testing.T) {
	late := fmt.Errorf("call: %w", status.Errorf(status.DeadlineExceeded, "no answer in time"))
	require.ErrorIs(t, late, context.DeadlineExceeded)
	require.NotErrorIs(t, late, context.Canceled)
	require.ErrorIs(t, status.Errorf(status.Canceled, "given up"), context.Canceled)
	require.NotErrorIs(t, status.Errorf(status.Unknown, "x"), context.DeadlineExceeded)
}

func TestErrorSaysItsCode(t *testing.T) {
	require.EqualError(t, status.Errorf(status.Unavailable, "no node"), "Unavailable: no node")
	require.EqualError(t, &status.Error{Code: 99, Message: "?"}, "Code(99): ?")
	for code := status.OK; code <= status.Unauthenticated; code++ {
		require.NotContains(t, code.String(), "Code(", "every code has a name")
	}
}
