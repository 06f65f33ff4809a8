package plugin

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// ErrClosed answers every Open and Use after Host.Close.
var ErrClosed = errors.New("the plugins are closed")

// problem is an error of one line that shows no secret. errors.Is and errors.As see the one it was made of.
type problem struct {
	text string
	err  error
}

func (p *problem) Error() string { return p.text }
func (p *problem) Unwrap() error { return p.err }

func newProblem(err error, secrets []string) *problem {
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	return &problem{maskSecrets(text, secrets), err}
}

// problems is everything that is wrong with the settings.
type problems []error

// add takes one more. Each says what is wrong, where the value came from, and what to do.
func (p *problems) add(format string, args ...any) {
	*p = append(*p, newProblem(fmt.Errorf(format, args...), nil))
}

// nearest finds the name that was probably meant; "" if none comes near.
func nearest(name string, candidates []string) string {
	if len(name) > 64 {
		return ""
	}
	best, least := "", 0
	for _, c := range candidates {
		if d := levenshtein.ComputeDistance(name, c); d <= tolerance(name, c) && (best == "" || d < least) {
			best, least = c, d
		}
	}
	return best
}

// slip finds the name that two wrong letters are away from, at most; "" if there is none. It is for whole keys, which are
// long: what nearest takes for near may be another word there.
func slip(name string, candidates []string) string {
	for _, c := range candidates {
		if d := len(name) - len(c); -2 <= d && d <= 2 && len(name) > 5 && levenshtein.ComputeDistance(name, c) <= 2 {
			return c
		}
	}
	return ""
}

// tolerance is how many edits are near: two, which is what letters that changed places take, but one for names of two
// letters, and every third letter for long ones. The words that both names begin with do not count.
func tolerance(name, candidate string) int {
	for {
		word, rest, ok := strings.Cut(name, "-")
		same, ok2 := strings.CutPrefix(candidate, word+"-")
		if !ok || !ok2 {
			return max(len(name)/3, min(len(name)-1, 2), 1)
		}
		name, candidate = rest, same
	}
}

// didYouMean words the nearest name as advice, or gives the other advice.
func didYouMean(name string, candidates []string, otherwise string) string {
	if near := nearest(name, candidates); near != "" {
		return fmt.Sprintf("did you mean %s?", near)
	}
	return otherwise
}

// flatten takes apart what errors.Join put together.
func flatten(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return slices.Clone(joined.Unwrap())
	}
	return []error{err}
}
