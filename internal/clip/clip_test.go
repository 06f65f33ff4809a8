package clip_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/clip"
)

func TestText(t *testing.T) {
	for _, c := range []struct {
		text         string
		n            int
		want, prefix string
	}{
		{"", 0, "", ""},
		{"", -1, "", ""},
		{"hello", 5, "hello", "hello"},
		{"hello!", 5, "he…", "hello"},
		{"hello", 3, "…", "hel"},
		{"hello", 2, "he", "he"},
		{"hello", 0, "", ""},
		{"hello", -7, "", ""},
		{"grüße", 7, "grüße", "grüße"},
		{"grüße", 6, "gr…", "grüß"},
		{"grüße", 3, "…", "gr"},
		{"日本語", 8, "日…", "日本"},
		{"日本語", 2, "", ""},
		{"😀😀", 7, "😀…", "😀"},
		{"😀😀", 6, "…", "😀"},
		{"x…y", 4, "x…", "x…"},
		{"\x80\x80\x80\x80\x80\x80\x80\x80", 7, "\x80\x80\x80\x80…", "\x80\x80\x80\x80\x80\x80\x80"},
		{"a\x80\x80\x80\x80", 3, "…", ""}, // as if they were of one character
	} {
		require.Equal(t, c.want, clip.Text(c.text, c.n), "%q to %d bytes", c.text, c.n)
		require.Equal(t, c.prefix, clip.Prefix(c.text, c.n), "%q to %d bytes", c.text, c.n)
	}
}

func TestNothingIsCopiedThatFits(t *testing.T) {
	text := strings.Repeat("ü", 100)
	require.Zero(t, testing.AllocsPerRun(10, func() { clip.Text(text, len(text)) }))
}

func FuzzText(f *testing.F) {
	f.Add("grüße", 3)
	f.Add("日本語😀", 8)
	f.Add("\xff\x80\x80\x80\x80", 4)
	f.Fuzz(func(t *testing.T, text string, n int) {
		short, prefix := clip.Text(text, n), clip.Prefix(text, n)
		for _, s := range []string{short, prefix} {
			require.LessOrEqual(t, len(s), max(n, 0))
			require.True(t, utf8.ValidString(s) || !utf8.ValidString(text))
		}
		require.True(t, strings.HasPrefix(text, prefix))
		require.True(t, len(text) <= n || len(prefix) > n-utf8.UTFMax, "no more is cut off than must be")
		if len(text) <= n {
			require.Equal(t, text, short)
			return
		}
		before, marked := strings.CutSuffix(short, "…")
		require.True(t, marked || n < len("…"))
		require.True(t, strings.HasPrefix(text, before))
	})
}
