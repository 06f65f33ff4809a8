// Package clip keeps texts that others made up short, in answers, logs, spans and headers, without cutting through a
// character:
//
//	log.Warn("no such route", "path", clip.Text(r.URL.Path, 200))
package clip

import "unicode/utf8"

// mark stands for what was cut off.
const mark = "…"

// Text returns text if it has at most n bytes, or else as much of it as fits into n bytes with "…" after it.
// What is valid UTF-8 stays so. Where not even the mark fits in, it is Prefix.
func Text(text string, n int) string {
	if len(text) <= n || n < len(mark) {
		return Prefix(text, n)
	}
	return Prefix(text, n-len(mark)) + mark
}

// Prefix is Text for what has no room for a mark, such as names: as many whole characters as n bytes hold.
func Prefix(text string, n int) string {
	n = max(n, 0)
	if len(text) <= n {
		return text
	}
	for end := n; end > n-utf8.UTFMax && end >= 0; end-- {
		if utf8.RuneStart(text[end]) {
			return text[:end]
		}
	}
	return text[:n] // which is not UTF-8
}
