// Package nearest finds the name that somebody probably meant, for errors that help:
//
//	if near := nearest.Name("helo", endpoints); near != "" { … "did you mean " + near + "?" }
package nearest

import (
	"strings"

	"github.com/agnivade/levenshtein"
)

// Both bound what a stranger can make of it.
const (
	maxLength     = 64
	maxCandidates = 1000
)

// Name returns the candidate that is fewest edits away from name, upper and lower case being the same; "" if none comes
// near: up to a third of its letters, and two in any case, which is what letters that changed places take.
func Name(name string, candidates []string) string {
	if len(name) > maxLength || len(candidates) > maxCandidates {
		return ""
	}
	best, limit := "", max(len(name)/3, min(len(name)-1, 2), 1)
	name = strings.ToLower(name)
	for _, c := range candidates {
		if d := levenshtein.ComputeDistance(name, strings.ToLower(c)); d <= limit {
			best, limit = c, d-1
		}
	}
	return best
}
