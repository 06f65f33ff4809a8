package plugin

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNearest(t *testing.T) {
	names := []string{"tcp", "memory", "registry-address", "ip"}
	for name, want := range map[string]string{
		"tpc": "tcp", "memroy": "memory", "mem": "", "registry-adres": "registry-address", "registry": "", "id": "ip", "x": "", "": "",
		"registry-elsewhere": "", "registry-xddress": "registry-address",
	} {
		require.Equal(t, want, nearest(name, names), name)
	}
}

func TestProblemIsOneLineAndKeepsItsCause(t *testing.T) {
	cause := errors.New("a\r\nb\n\nsecret c")
	p := newProblem(errors.Join(cause), []string{"secret", "c"})
	require.EqualError(t, p, "a; b; *** c")
	require.ErrorIs(t, p, cause)
	require.Equal(t, []error{cause}, flatten(errors.Join(cause)))
}
